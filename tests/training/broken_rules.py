"""Optimizers broken on purpose, about ten for each: what the update check of a trial must catch by itself.

A breakage patches the optimizer's modules as a mistake in them would have changed them, or builds it wrongly.
`BROKEN` lists them all; ``changes`` are hyperparameters of the trial under which the mistake matters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from tuneopt.optim import (
    adam_mini,
    adamw,
    ademamix,
    adopt,
    bucket,
    cautious,
    dion,
    kl_factors,
    kron,
    lion,
    mars,
    muon,
    nadamw,
    prodigy,
    routing,
    schedule_free,
    scion,
    sf_muon,
    shampoo,
    soap,
    sophia,
    switches,
)
from tuneopt.optim.base import Optimizer
from tuneopt.optim.routing import DEFAULT_RULES, MAIN, RouteRule
from tuneopt.training import building, loop

Given = dict[str, Any]
Patch = Callable[[Any], None]
"""What does the breaking, through pytest's monkeypatch."""


@dataclass(frozen=True)
class Broken:
    optimizer: str
    name: str
    patch: Patch
    changes: Given = field(default_factory=dict)


def altered(module: Any, function: str, **changes: Callable[[Given], Any]) -> Patch:
    """Call an update function with other keyword arguments."""

    def patch(monkeypatch: Any) -> None:
        genuine = getattr(module, function)

        def wrong(*args: Any, **given: Any) -> Any:
            return genuine(*args, **{**given, **{key: change(given) for key, change in changes.items()}})

        monkeypatch.setattr(module, function, wrong)

    return patch


def returning(module: Any, function: str, change: Callable[[Any], Any]) -> Patch:
    """Change what a function returns."""

    def patch(monkeypatch: Any) -> None:
        genuine = getattr(module, function)
        monkeypatch.setattr(module, function, lambda *args, **given: change(genuine(*args, **given)))

    return patch


def instead(module: Any, function: str, wrong: Any) -> Patch:
    """Put something else in the place of a function."""
    return lambda monkeypatch: monkeypatch.setattr(module, function, wrong)


def created(**changes: Callable[[Given], Any]) -> Patch:
    """Build the optimizer with other hyperparameters than the trial names."""

    def patch(monkeypatch: Any) -> None:
        genuine = building.create

        def create(name: str, model: Any, **given: Any) -> Any:
            return genuine(name, model, **{**given, **{key: change(given) for key, change in changes.items()}})

        monkeypatch.setattr(building, "create", create)

    return patch


def routed(pattern: str, rule: str, decay: bool) -> Patch:
    """Put another routing rule in front of the default ones."""
    rules = (RouteRule(pattern, rule, decay, "wrong"), *DEFAULT_RULES)
    return created(rules=lambda given: rules)


def decaying_everywhere(monkeypatch: Any) -> None:
    genuine = building.create

    def create(name: str, model: Any, **given: Any) -> Any:
        optimizer = genuine(name, model, **given)
        for group in optimizer.param_groups:
            group["weight_decay"] = given["weight_decay"]
        return optimizer

    monkeypatch.setattr(building, "create", create)


def clipping_each_alone(monkeypatch: Any) -> None:
    """Every tensor by its own norm, and not the joint one."""
    genuine = Optimizer.step

    def step(self: Any, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.div_((parameter.grad.norm() / group["max_grad_norm"]).clamp(min=1.0))
        return genuine(self, closure)

    # Not on the base: torch keeps what it finds there in each class for ever.
    monkeypatch.setattr(adamw.AdamW, "step", step)


def schedule_off_by_one(monkeypatch: Any) -> None:
    genuine = loop.LearningRateSchedule.__call__
    monkeypatch.setattr(loop.LearningRateSchedule, "__call__", lambda self, step: genuine(self, step + 1))


def coupled_decay(monkeypatch: Any) -> None:
    genuine = adamw.adamw_update

    def wrong(parameters: Any, gradients: Any, *state: Any, weight_decay: float, **given: Any) -> None:
        gradients = [g + weight_decay * p for g, p in zip(gradients, parameters, strict=True)]
        genuine(parameters, gradients, *state, weight_decay=0.0, **given)

    monkeypatch.setattr(adamw, "adamw_update", wrong)


def epsilon_inside_the_root(p: Any, g: Any, m: Any, v: Any, **given: Any) -> None:
    """AdamW with sqrt(v_hat + eps^2)."""
    beta1, beta2, step = given["beta1"], given["beta2"], given["step"]
    for parameter, gradient, first, second in zip(p, g, m, v, strict=True):
        gradient = gradient if given["divisor"] is None else gradient / given["divisor"]
        first.lerp_(gradient, 1 - beta1)
        second.lerp_(gradient.square(), 1 - beta2)
        ratio = first / (1 - beta1**step) / (second / (1 - beta2**step) + given["eps"] ** 2).sqrt()
        parameter.sub_(given["lr"] * (ratio + given["weight_decay"] * parameter))


def rescaled_by(share: float) -> Patch:
    """Cautious with another share of kept entries than the mask has."""

    def patch(monkeypatch: Any) -> None:
        genuine = cautious.cautious_update

        def wrong(g: Any, m: Any, v: Any, kept: Any, **given: Any) -> Any:
            return genuine(g, m, v, [torch.full_like(k, share) for k in kept], **given)

        monkeypatch.setattr(cautious, "cautious_update", wrong)

    return patch


def mask_turned_round(monkeypatch: Any) -> None:
    genuine = cautious.agreeing
    monkeypatch.setattr(cautious, "agreeing", lambda m, g: genuine(m, [-x for x in g]))


def scaled_by(rule: Any, factor: Callable[[float, float], float]) -> Patch:
    """Muon's or Scion's shape factor from (out, in)."""

    def constants(self: Any, shapes: Any, like: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scale": torch.tensor([[[factor(out, fan)]] for out, fan in shapes], dtype=like.dtype)}

    return instead(rule, "constants", constants)


def without_nesterov(g: Any, buffer: Any, scale: Any, *, momentum: float, eps: float, **words: Any) -> Any:
    buffer.mul_(momentum).add_(g)
    return muon.newton_schulz(buffer, eps, words["steps"], words["precision"], words["coefficients"]) * scale


def muon_clipped(monkeypatch: Any) -> None:
    genuine = muon.muon_update

    def wrong(g: Any, *rest: Any, **given: Any) -> Any:
        return genuine(g / (g.norm() / 0.01).clamp(min=1), *rest, **given)

    monkeypatch.setattr(muon, "muon_update", wrong)


def normalised(x: Any, *rest: Any) -> Any:
    """A matrix over its norm, in the place of Newton-Schulz."""
    return x / x.norm(dim=(1, 2), keepdim=True)


LEFT_BASIS, RIGHT_BASIS, FIRST, SECOND = 3, 4, 5, 6
"""Positions of SOAP's state among the tensors of `soap_update`."""


def soap_after(spoil: Callable[..., Any]) -> Patch:
    """Spoil SOAP's state (gradients, left, right, bases, moments) before each step."""

    def patch(monkeypatch: Any) -> None:
        genuine = soap.soap_update

        def wrong(*tensors: Any, **given: Any) -> Any:
            spoil(*tensors)
            return genuine(*tensors, **given)

        monkeypatch.setattr(soap, "soap_update", wrong)

    return patch


def to_identity(basis: torch.Tensor) -> torch.Tensor:
    return basis.copy_(torch.eye(basis.shape[-1]).expand_as(basis))


def random_basis(basis: torch.Tensor) -> torch.Tensor:
    return torch.linalg.qr(torch.randn_like(basis)).Q


def moment_not_carried_over(monkeypatch: Any) -> None:
    """SOAP's first moment stays as it was in the old basis when the basis changes."""
    genuine = soap.soap_update

    def wrong(*t: Any, **given: Any) -> Any:
        old = t[LEFT_BASIS].clone(), t[RIGHT_BASIS].clone()
        direction = genuine(*t, **given)
        if given["step"] > 1 and given["step"] % given["frequency"] == 0:
            t[FIRST].copy_(old[0].mT @ t[LEFT_BASIS] @ t[FIRST] @ t[RIGHT_BASIS].mT @ old[1])
        return direction

    monkeypatch.setattr(soap, "soap_update", wrong)


def kl_with(change: Callable[..., Any]) -> Patch:
    """Factors by KL that go on with other tensors (gradients, factors, bases, eigenvalues) than they should."""

    def patch(monkeypatch: Any) -> None:
        genuine = soap.update_factors

        def wrong(*tensors: Any, **given: Any) -> None:
            genuine(*change(*tensors), **given)

        monkeypatch.setattr(soap, "update_factors", wrong)

    return patch


def kl_values(change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Patch:
    """Eigenvalues that are made of those of before and after a step."""

    def patch(monkeypatch: Any) -> None:
        genuine = soap.update_factors

        def wrong(*tensors: Any, **given: Any) -> None:
            before = [values.clone() for values in tensors[-2:]]
            genuine(*tensors, **given)
            for values, old in zip(tensors[-2:], before, strict=True):
                values.copy_(change(old, values))

        monkeypatch.setattr(soap, "update_factors", wrong)

    return patch


def values_not_sorted(monkeypatch: Any) -> None:
    """Eigenvalues stay where they were when the columns of their basis are sorted."""
    genuine = soap.refresh_basis
    monkeypatch.setattr(soap, "refresh_basis", lambda factor, basis, v, dim, values: genuine(factor, basis, v, dim))


def begin_at_one(gradients: Any, left_values: Any, right_values: Any) -> None:
    for values in (left_values, right_values):
        values.add_(values.amax(dim=1, keepdim=True) == 0)


def root(basis: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The inverse root of a factor, but for its size."""
    return basis * (values.mean(dim=1, keepdim=True) / values).sqrt().unsqueeze(1) @ basis.mT


def kl_factors_of(whitened: Callable[..., Any]) -> Patch:
    """Right eigenvalues, and factors of gradients that are whitened otherwise: (G, Q_L, Q_R, l, k) gives (A, B) with
    A A^T for the left side and B^T B for the right one."""

    def wrong(g: Any, left: Any, right: Any, *rest: Any, shampoo_beta: float, eps: float) -> None:
        (a, b), size, before = whitened(g, *rest), rest[2].mean(dim=1)[:, None, None], (left.clone(), right.clone())
        kl_factors.update_factors(g, left, right, *rest, shampoo_beta=shampoo_beta, eps=eps)
        for factor, old, new, count in zip((left, right), before, (a @ a.mT, b.mT @ b), g.shape[:0:-1], strict=True):
            factor.copy_(shampoo_beta * old + (1 - shampoo_beta) / count * new / size)

    return instead(soap, "update_factors", wrong)


def shampoo_by_parts(
    share: Callable[[float], float] = lambda beta2: 1 - beta2,
    keep: Callable[[float], float] = lambda beta2: beta2,
    sides: int = 2,
    filtered: bool = True,
    size: str = "adam",
) -> Patch:
    """Shampoo's update with one part left out or changed: averages of factors, roots, momentum, or size."""

    def wrong(g: Any, left: Any, right: Any, p: Any, q: Any, m: Any, v: Any, **given: Any) -> Any:
        step, beta1, beta2 = given["step"], given["beta1"], given["beta2"]
        for factor, root, product in ((left, p, g @ g.mT), (right, q, g.mT @ g)):
            factor.mul_(keep(beta2)).add_(product, alpha=share(beta2))
            if shampoo.refreshes(step, given["frequency"]):
                root.copy_(shampoo.inverse_root(factor, given["shampoo_epsilon"], given["exponent"]))
        m.lerp_(g, 1 - beta1)
        v.lerp_(g.square(), 1 - beta2)
        adam = m / (1 - beta1**step) / ((v / (1 - beta2**step)).sqrt() + given["eps"])
        u = p @ (m if filtered else g)
        u = u @ q if sides == 2 else u
        return shampoo.grafted(u, {"adam": adam, "signs": adam.sign(), "gradient": g}[size])

    return instead(shampoo, "shampoo_update", wrong)


def kron_not_preconditioned(monkeypatch: Any) -> None:
    """Good factors, and the momentum as it is."""
    genuine = kron.kron_update

    def wrong(g: Any, probe: Any, blocks: Any, **given: Any) -> Any:
        genuine(g, probe, blocks, **given)
        for tile, (momentum, _, _) in zip(kron.tiles(tuple(g.shape[1:]), given["block_size"]), blocks, strict=True):
            kron.paste(g, tile, momentum)
        return kron.clip_rms(g, 1 - given["beta1"] ** given["step"])

    monkeypatch.setattr(kron, "kron_update", wrong)


def unswitched(targets: Any, direction: Any, state: Any, settings: Any, step: int) -> None:
    """Matrices move as if no switch were on."""
    switches.apply(targets, list(direction.unbind(0)), settings)


def hyperball(project: bool = True, measured: bool = True, size: float = 1.0, decay: float = 0.0) -> Patch:
    """The rule with one part left out or changed."""

    def wrong(targets: Any, direction: Any, radius: Any, lr: float, step: int) -> None:
        for target, update, own in zip(targets, direction, radius, strict=True):
            if step == 1:
                own.copy_(size * target.norm())
            length = lr * own / update.norm() if measured else lr
            target.sub_(length * update + lr * decay * target)
            if project:
                target.mul_(own / target.norm())

    return instead(switches, "on_hyperball", wrong)


def rows(
    beta: Callable[[float], float] = lambda b: b, side: int = 2, restored: bool = True, squared: bool = True
) -> Patch:
    """The second moment of rows with one part left out or changed."""

    def wrong(update: Any, moment: Any, given: float) -> Any:
        b, size = beta(given), update.norm(dim=(1, 2), keepdim=True)
        seen = (update.square() if squared else update.abs()).mean(dim=side, keepdim=True)
        seen = seen if side == 2 else seen.mean(dim=2, keepdim=True)
        moment.mul_(b).add_((1 - b) * seen)
        even = update / (moment.sqrt() if squared else moment)
        return even / even.norm(dim=(1, 2), keepdim=True) * size if restored else even

    return instead(muon, "normalized_rows", wrong)


def matched(factor: Callable[[float, float], float]) -> Patch:
    """Moonlight's shape factor from (out, in)."""

    def constants(self: Any, shapes: Any, like: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"match_rms": torch.tensor([[[factor(out, fan)]] for out, fan in shapes], dtype=like.dtype)}

    return instead(muon.MuonRule, "constants", constants)


def adopt_by_parts(late: bool = True, clipped: bool = True, grows: bool = True) -> Any:
    """ADOPT's update with one part left out."""

    def wrong(g: Any, m: Any, v: Any, *, step: int, beta1: float, beta2: float, eps: float) -> Any:
        limit = (step - 1 if grows else 1) ** 0.25 if clipped else float("inf")
        for gradient, moment, square in zip(g, m, v, strict=True):
            before = square.clone()
            square.copy_(beta2 * square + (1 - beta2) * gradient.square() if step > 1 else gradient.square())
            if step > 1:
                root = (before if late else square).sqrt().clamp(min=eps)
                moment.lerp_((gradient / root).clamp(-limit, limit), 1 - beta1)
        return [moment.clone() for moment in m]

    return wrong


def distance_of(wrong: Callable[[Any, Any, Any], Any]) -> Patch:
    """Prodigy's next distance from the one before, r and the norm of s."""
    return instead(prodigy, "next_distance", wrong)


def prodigy_of_first_tensor(monkeypatch: Any) -> None:
    """The distance of one parameter in the place of all."""
    genuine = prodigy.Prodigy._estimates
    monkeypatch.setattr(prodigy.Prodigy, "joint_sums", lambda self: genuine(self)[0][:2].clone())


def prodigy_from_the_step_before(monkeypatch: Any) -> None:
    """Distances are taken from where a parameter was, and not from where it began."""
    genuine = prodigy.prodigy_update

    def wrong(parameters: Any, gradients: Any, m: Any, v: Any, s: Any, initial: Any, **given: Any) -> Any:
        before = [parameter.clone() for parameter in parameters]
        found = genuine(parameters, gradients, m, v, s, initial, **given)
        torch._foreach_copy_(initial, before)
        return found

    monkeypatch.setattr(prodigy, "prodigy_update", wrong)


def share_by(wrong: Callable[[Any, float], Any], module: Any = schedule_free) -> Patch:
    """Schedule-Free's share of a step in the average, from the sum of squared rates so far and the rate."""

    def share(weight_sum: Any, lr: float) -> Any:
        found = wrong(weight_sum, lr).squeeze(0)
        weight_sum.add_(lr * lr)
        return found

    return instead(module, "share_of_step", share)


def taken_in(change: Callable[..., Any], **changes: Callable[[Given], Any]) -> Patch:
    """SF-Muon's weights, fast weights and update changed before it takes a step, or its words."""

    def patch(monkeypatch: Any) -> None:
        genuine = sf_muon.take_in

        def wrong(weights: Any, fast: Any, update: Any, **given: Any) -> None:
            change(weights[0], fast[0], update[0])
            genuine(weights, fast, update, **{**given, **{key: change(given) for key, change in changes.items()}})

        monkeypatch.setattr(sf_muon, "take_in", wrong)

    return patch


def nothing(*tensors: Any) -> None:
    pass


def decaying(share: Callable[[float], float]) -> Patch:
    """Decay times another function of the rate's share of its peak."""
    return instead(
        switches, "decay_of_step", lambda group: group["weight_decay"] * share(group["lr"] / group["peak_lr"])
    )


def sophia_unclipped(gradients: Any, m: Any, h: Any, *, step: int, beta1: float, gamma: float, eps: float) -> Any:
    for gradient, moment in zip(gradients, m, strict=True):
        moment.lerp_(gradient, 1 - beta1)
    return [x / (1 - beta1**step) / (gamma * c).clamp(min=eps) for x, c in zip(m, h, strict=True)]


def hessian_subtracted(hessian: Any, estimates: Any, *, beta2: float) -> None:
    torch._foreach_lerp_(hessian, [-estimate for estimate in estimates], 1 - beta2)


def hessian_replaced(hessian: Any, estimates: Any, *, beta2: float) -> None:
    torch._foreach_copy_(hessian, estimates)


def dion_by_parts(power: float = 1.0, largest: bool = True, feedback: str = "chosen", gathers: bool = True) -> Any:
    """Dion's update with one part left out or changed."""

    def wrong(g: Any, m: Any, scale: Any, *, fraction: float, momentum: float, **given: Any) -> Any:
        m.add_(g) if gathers else m.copy_(g)
        count = math.ceil(fraction * g.shape[1])
        size = m.abs().pow(power).sum(dim=2)
        index = size.topk(count, dim=1, largest=largest).indices.unsqueeze(2).expand(-1, -1, g.shape[2])
        chosen = m.gather(1, index)
        if feedback == "chosen":
            m.scatter_(1, index, momentum * chosen)
        elif feedback == "all":
            m.mul_(momentum)
        words = {"eps": given["eps"], "steps": given["steps"]}
        orthogonal = muon.newton_schulz(chosen, **words, precision=given["precision"]) * scale
        return torch.zeros_like(g).scatter_(1, index, orthogonal)

    return instead(dion, "dion_update", wrong)


def multiplied(word: str, factor: float) -> Patch:
    return created(**{word: lambda given: factor * given[word]})


LATE = {"step": lambda given: given["step"] + 1}
NO_BIAS_CORRECTION = {"step": lambda given: given["step"] + 1000}
NO_CLIP = instead(Optimizer, "clip_divisors", lambda self, batches: [None] * len(batches))
NO_DECAY = created(weight_decay=lambda given: 0.0)
SWAPPED = {"beta1": lambda given: given["beta2"], "beta2": lambda given: given["beta1"]}
EMBEDDING_DECAYS = routed(r"^embed_tokens\.weight$", "fallback", True)
EMBEDDING_IS_A_MATRIX = routed(r"^embed_tokens\.weight$", MAIN, False)
HEAD_IS_A_MATRIX = routed(r"^lm_head\.weight$", MAIN, True)
CLIPS = {"max_grad_norm": 0.05}

MISTAKES: dict[str, list[tuple[Any, ...]]] = {
    "adamw": [
        ("no bias correction", altered(adamw, "adamw_update", **NO_BIAS_CORRECTION)),
        ("bias correction off by one", altered(adamw, "adamw_update", **LATE)),
        ("betas swapped in create", created(**SWAPPED)),
        ("no decay", NO_DECAY),
        ("twice the decay", multiplied("weight_decay", 2.0)),
        ("decay everywhere", decaying_everywhere),
        ("coupled decay", coupled_decay),
        ("head does not decay", routed(r"^lm_head\.weight$", "fallback", False)),
        ("embedding decays", EMBEDDING_DECAYS),
        ("no clip", NO_CLIP, CLIPS),
        ("every tensor clipped alone", clipping_each_alone, {"max_grad_norm": 0.01}),
        ("two percent more rate", multiplied("learning_rate", 1.02)),
        ("warmup off by one", schedule_off_by_one),
        ("ascends", altered(adamw, "adamw_update", lr=lambda given: -given["lr"])),
        ("another epsilon", multiplied("epsilon", 10.0), {"epsilon": 1e-5}),
        ("epsilon inside the root", instead(adamw, "adamw_update", epsilon_inside_the_root), {"epsilon": 1e-3}),
    ],
    "nadamw": [
        (
            "no look-ahead",
            instead(nadamw, "look_ahead_weights", lambda beta1, step, kind: (1 / (1 - beta1**step), 0.0)),
        ),
        ("look-ahead corrected by the same step", created(bias_correction=lambda given: "same")),
        ("gradient with the wrong sign", returning(nadamw, "look_ahead_weights", lambda pair: (pair[0], -pair[1]))),
        ("betas swapped in create", created(**SWAPPED)),
        ("no decay", NO_DECAY),
        ("embedding decays", EMBEDDING_DECAYS),
        ("no clip", NO_CLIP, CLIPS),
        ("bias correction off by one", altered(nadamw, "adamw_update", **LATE)),
        ("half the rate", multiplied("learning_rate", 0.5)),
    ],
    "adam_mini": [
        ("no bias correction", altered(adam_mini, "adam_mini_update", **NO_BIAS_CORRECTION)),
        ("bias correction off by one", altered(adam_mini, "adam_mini_update", **LATE)),
        ("betas swapped in the rule", altered(adam_mini, "adam_mini_update", **SWAPPED)),
        ("no decay", NO_DECAY),
        ("one head for two", created(heads=lambda given: 1)),
        ("all gradients are clipped", created(clipped=lambda given: "all"), {**CLIPS, "epsilon": 1e-4}),
        ("embedding decays", routed(r"^embed_tokens\.weight$", MAIN, True)),
        ("sum for the mean", returning(adam_mini, "adam_mini_update", lambda u: [x / x[0].numel() ** 0.5 for x in u])),
    ],
    "cautious": [
        ("no rescaling", rescaled_by(1.0)),
        ("share that is always a half", rescaled_by(0.5)),
        ("no mask", instead(cautious, "agreeing", lambda m, g: ([x.abs() for x in m], [x.sign() for x in m]))),
        ("mask turned round", mask_turned_round),
        ("betas swapped in create", created(**SWAPPED)),
        ("no decay", NO_DECAY),
        ("no clip", NO_CLIP, CLIPS),
        ("embedding decays", EMBEDDING_DECAYS),
        ("bias correction off by one", altered(cautious, "cautious_update", **LATE)),
    ],
    "mars": [
        ("correction left out", altered(mars, "corrected", gamma=lambda given: 0.0)),
        ("correction with the wrong sign", altered(mars, "corrected", gamma=lambda given: -given["gamma"])),
        ("keeps the corrected gradient", instead(mars.MARS, "finish", lambda self, batches: None)),
        ("no decay", NO_DECAY),
        ("no clip", NO_CLIP, CLIPS),
        ("betas swapped in create", created(**SWAPPED)),
        ("bias correction off by one", altered(adamw, "adamw_update", **LATE)),
        ("twice gamma", created(gamma=lambda given: 0.05)),
    ],
    "lion": [
        ("betas swapped in the rule", altered(lion, "lion_update", **SWAPPED)),
        ("one beta for both", altered(lion, "lion_update", beta2=lambda given: given["beta1"])),
        ("soft sign", returning(lion, "lion_update", lambda u: [0.9 * x for x in u])),
        ("ascends", returning(lion, "lion_update", lambda u: [-x for x in u])),
        ("no decay", NO_DECAY),
        ("no clip", NO_CLIP, CLIPS),
        ("embedding decays", EMBEDDING_DECAYS),
        ("half the rate", multiplied("learning_rate", 0.5)),
    ],
    "muon": [
        ("transposed shape factor", scaled_by(muon.MuonRule, lambda out, fan: max(1.0, fan / out) ** 0.5)),
        ("no shape factor", scaled_by(muon.MuonRule, lambda out, fan: 1.0)),
        ("shape factor without its floor", scaled_by(muon.MuonRule, lambda out, fan: (out / fan) ** 0.5)),
        ("momentum not Nesterov", instead(muon, "muon_update", without_nesterov)),
        ("no momentum", altered(muon, "muon_update", momentum=lambda given: 0.0)),
        ("four steps of Newton-Schulz", altered(muon, "muon_update", steps=lambda given: 4)),
        ("other coefficients", altered(muon, "muon_update", coefficients=lambda given: "polar_express")),
        ("no orthogonalization", instead(muon, "newton_schulz", normalised)),
        ("matrices are clipped", muon_clipped),
        ("no decay", NO_DECAY),
        ("rate of the adam part ignored", created(muon_to_adam_lr=lambda given: 1.0)),
        ("betas of the adam part swapped", created(**SWAPPED)),
        ("no clip of the adam part", NO_CLIP, CLIPS),
        ("embedding is a matrix", EMBEDDING_IS_A_MATRIX),
        ("head is a matrix", HEAD_IS_A_MATRIX),
        ("down projections by the fallback", routed("down_proj", "fallback", True)),
    ],
    "scion": [
        ("momentum complemented", altered(scion, "scion_update", momentum=lambda given: 1 - given["momentum"])),
        ("transposed shape factor", scaled_by(scion.ScionRule, lambda out, fan: max(1.0, fan / out) ** 0.5)),
        ("four steps of Newton-Schulz", altered(scion, "scion_update", steps=lambda given: 4)),
        ("no orthogonalization", instead(scion, "newton_schulz", normalised)),
        ("signs of the gradient", altered(scion, "signum_update", beta1=lambda given: 0.0)),
        ("no decay", NO_DECAY),
        ("rate of the sign part ignored", created(scion_to_signum_lr=lambda given: 1.0)),
        ("no clip of the sign part", NO_CLIP, CLIPS),
        ("embedding is a matrix", EMBEDDING_IS_A_MATRIX),
    ],
    "soap": [
        ("zeroed moments", soap_after(lambda *t: (t[FIRST].zero_(), t[SECOND].zero_()))),
        (
            "bases that stay the identity",
            soap_after(lambda *t: (to_identity(t[LEFT_BASIS]), to_identity(t[RIGHT_BASIS]))),
        ),
        ("one-sided", soap_after(lambda *t: to_identity(t[RIGHT_BASIS]))),
        ("precondition skipped", returning(soap, "eigenbasis", lambda q: to_identity(q.clone()))),
        (
            "random basis at a refresh",
            returning(soap, "refresh_basis", lambda q: torch.linalg.qr(torch.randn_like(q)).Q),
        ),
        ("never refreshed", altered(soap, "soap_update", frequency=lambda given: 10**9)),
        ("refreshed too often", altered(soap, "soap_update", frequency=lambda given: 1)),
        ("first moment not carried over", moment_not_carried_over),
        (
            "shampoo_beta complemented",
            altered(soap, "soap_update", shampoo_beta=lambda given: 1 - given["shampoo_beta"]),
        ),
        ("bias correction off by one", created(bias_correction=lambda given: "updates")),
        ("ascends", returning(soap, "soap_update", lambda u: -u)),
        ("betas swapped in create", created(**SWAPPED)),
        ("no decay", NO_DECAY),
        ("no clip", NO_CLIP, CLIPS),
        ("head is a matrix", HEAD_IS_A_MATRIX),
    ],
    "kron": [
        ("factors never fitted", instead(kron, "fit_triangular", lambda *args, **given: None)),
        ("diagonal factors never fitted", instead(kron, "fit_diagonal", lambda *args, **given: None)),
        ("fits with the wrong sign", altered(kron, "fit_triangular", lr=lambda given: -given["lr"])),
        ("half the rate of the factors", multiplied("preconditioner_lr", 0.5)),
        ("gradient not preconditioned", kron_not_preconditioned),
        ("gradients not normalised", instead(kron, "normalized", lambda gradients: gradients)),
        ("no limit to the rms", instead(kron, "clip_rms", lambda update, correction: update / correction)),
        ("momentum complemented", created(beta1=lambda given: 1 - given["beta1"])),
        ("another probe", created(probe_seed=lambda given: 1)),
        ("no decay", NO_DECAY),
        ("embedding is a matrix", EMBEDDING_IS_A_MATRIX),
    ],
    "sophia": [
        ("no bias correction", altered(sophia, "sophia_update", **NO_BIAS_CORRECTION)),
        ("Hessian with the wrong sign", instead(sophia, "hessian_update", hessian_subtracted)),
        ("Hessian not averaged", instead(sophia, "hessian_update", hessian_replaced)),
        ("Hessian never taken in", instead(sophia.Sophia, "update_hessian", lambda self, diagonal: None)),
        ("estimates at other steps", created(hessian_interval=lambda given: 3)),
        ("a tenth of gamma", multiplied("gamma", 0.1)),
        ("no clip of the step", instead(sophia, "sophia_update", sophia_unclipped)),
        ("no clip of gradients", NO_CLIP, CLIPS),
        ("betas swapped in create", created(**SWAPPED)),
        ("no decay", NO_DECAY),
        ("embedding decays", EMBEDDING_DECAYS),
    ],
}


def heads(change: Callable[[Any, Any], Any]) -> Patch:
    """Projections of attention cut otherwise: ``change`` gets the route before and after, and gives another."""

    def patch(monkeypatch: Any) -> None:
        genuine = routing.by_head
        monkeypatch.setattr(routing, "by_head", lambda route, widths: change(route, genuine(route, widths)))

    return patch


SPLIT = {"split_heads": True}
OF_HEADS = [
    ("switch of heads ignored", created(split_heads=lambda given: False), SPLIT),
    *(
        (f"{kind} left whole", heads(lambda b, a, part=part: b if part in b.parameter else a), SPLIT)
        for kind, part in (("queries", "q_proj"), ("keys", "k_proj"), ("values", "v_proj"), ("outputs", "o_proj"))
    ),
    ("outputs cut by rows", heads(lambda before, after: replace(after, by_input=False)), SPLIT),
    ("queries cut by columns", heads(lambda before, after: replace(after, by_input=after.pieces > 1)), SPLIT),
    ("twice as many heads", heads(lambda b, a: replace(a, pieces=a.pieces * (2 if a.pieces > 1 else 1))), SPLIT),
    ("feed-forward cut too", heads(lambda b, a: replace(a, pieces=2) if "up_proj" in b.parameter else a), SPLIT),
    ("no shape factor of heads", scaled_by(muon.MuonRule, lambda out, fan: max(1.0, out / fan / 2) ** 0.5), SPLIT),
]
OF_MUON = [
    ("no orthogonalization", instead(muon, "newton_schulz", normalised)),
    ("momentum not Nesterov", instead(muon, "muon_update", without_nesterov)),
    ("no decay", NO_DECAY),
    ("rate of the adam part ignored", created(muon_to_adam_lr=lambda given: 3.0)),
    ("no clip of the adam part", NO_CLIP, CLIPS),
]
OF_ADAMW = [
    ("bias correction off by one", altered(adamw, "root_second_moment", **LATE)),
    ("betas swapped in create", created(**SWAPPED)),
    ("no decay", NO_DECAY),
    ("no clip", NO_CLIP, CLIPS),
    ("two percent more rate", multiplied("learning_rate", 1.02)),
]
OF_HYPERBALL = [
    ("switch ignored", instead(bucket, "apply_switched", unswitched)),
    ("not projected", hyperball(project=False)),
    ("update as long as it is", hyperball(measured=False)),
    ("half the radius", hyperball(size=0.5)),
]
FOLLOWS = {"warmup": 5, "weight_decay": 5.0}
OF_DECAY = [
    ("decay as it was", decaying(lambda share: 1.0), FOLLOWS),
    ("decay with the square of the rate", decaying(lambda share: share**2), FOLLOWS),
    ("decay against the rate", decaying(lambda share: 1 - share), FOLLOWS),
    ("ascends by decay", decaying(lambda share: -share), FOLLOWS),
]
OF_SOAP = [
    ("random basis at a refresh", returning(soap, "refresh_basis", lambda q: torch.linalg.qr(torch.randn_like(q)).Q)),
    ("never refreshed", altered(soap, "soap_update", frequency=lambda given: 10**9)),
    ("zeroed moments", soap_after(lambda *t: (t[FIRST].zero_(), t[SECOND].zero_()))),
    ("first moment not carried over", moment_not_carried_over),
    ("ascends", returning(soap.SOAPRule, "direction", lambda u: -u)),
    ("betas swapped in create", created(**SWAPPED)),
    ("no decay", NO_DECAY, {"weight_decay": 5.0}),
    ("no clip", NO_CLIP, CLIPS),
    ("head is a matrix", HEAD_IS_A_MATRIX),
]
MISTAKES |= {
    "kl_soap": [
        ("Shampoo's factors", kl_factors_of(lambda g, *rest: (g, g))),
        ("whitened by the own side", kl_factors_of(lambda g, *rest: (root(*rest[::2]) @ g, g @ root(*rest[1::2])))),
        ("one-sided", kl_factors_of(lambda g, *rest: (g @ root(*rest[1::2]), g))),
        ("eigenvalues that stay as they began", kl_values(lambda before, after: before)),
        ("eigenvalues of this step alone", kl_values(lambda before, after: (after - 0.95 * before) / 0.05)),
        ("eigenvalues not averaged over the other side", kl_values(lambda b, a: 0.95 * b + (a - 0.95 * b) * 16)),
        ("eigenvalues begin at 1", instead(kl_factors, "begin_values", begin_at_one)),
        ("eigenvalues not sorted", values_not_sorted, {"precondition_frequency": 2}),
        ("the root for the inverse", kl_with(lambda *t: (*t[:-2], t[-2].sqrt(), t[-1].sqrt()))),
        ("multiplied for divided", kl_with(lambda *t: (*t[:-2], 1 / t[-2], 1 / t[-1]))),
        *OF_SOAP,
    ],
    "soap_muon": [
        ("no orthogonalization", instead(soap, "newton_schulz", normalised)),
        ("four steps of Newton-Schulz", created(ns_steps=lambda given: 4)),
        ("other coefficients", created(ns_coefficients=lambda given: "polar_express")),
        ("blocks orthogonalized one by one", returning(soap, "soap_update", soap.newton_schulz)),
        ("spectral", created(orthogonalize=lambda given: "spectral")),
        (
            "by the short side",
            instead(
                soap.SOAPRule,
                "constants",
                lambda self, shapes, like: {"match_rms": torch.tensor([[[0.2 * min(s) ** 0.5]] for s in shapes])},
            ),
        ),
        ("not divided by the second moment", soap_after(lambda *t: t[SECOND].fill_(1.0))),
        *OF_SOAP,
    ],
    "shampoo": [
        ("one-sided", shampoo_by_parts(sides=1)),
        ("factors of this gradient alone", shampoo_by_parts(keep=lambda beta2: 0.0)),
        ("factors summed", shampoo_by_parts(keep=lambda beta2: 1.0)),
        ("the gradient in the place of its average", shampoo_by_parts(filtered=False)),
        ("the size of signs", shampoo_by_parts(size="signs")),
        ("the size of the gradient", shampoo_by_parts(size="gradient")),
        ("no size from AdamW", instead(shampoo, "grafted", lambda update, other: update)),
        ("AdamW's direction", instead(shampoo, "grafted", lambda update, other: other)),
        ("inverse square roots", altered(shampoo, "shampoo_update", exponent=lambda given: 0.5)),
        ("roots, not inverse", altered(shampoo, "shampoo_update", exponent=lambda given: -0.25)),
        ("twice the epsilon", altered(shampoo, "shampoo_update", shampoo_epsilon=lambda h: 2 * h["shampoo_epsilon"])),
        ("roots of the first step for good", instead(shampoo, "refreshes", lambda step, frequency: step == 1)),
        ("roots at every step", instead(shampoo, "refreshes", lambda step, frequency: True)),
        ("no roots before the first multiple", instead(shampoo, "refreshes", lambda step, f: step % f == 0)),
        ("bias correction off by one", altered(shampoo, "root_second_moment", **LATE)),
        ("half of every block", created(block_size=lambda given: 4)),
        ("ascends", returning(shampoo, "shampoo_update", lambda u: -u)),
        ("betas swapped in create", created(**SWAPPED)),
        ("no decay", NO_DECAY, {"weight_decay": 5.0}),
        ("no clip", NO_CLIP, CLIPS),
        ("head is a matrix", HEAD_IS_A_MATRIX),
    ],
    "muonh": [*OF_HYPERBALL, *OF_MUON],
    "normuon": [
        ("rows left alone", instead(muon, "normalized_rows", lambda update, moment, beta: update)),
        ("norm not restored", rows(restored=False)),
        ("one number for all rows", rows(side=1)),
        ("no memory of rows", rows(beta=lambda b: 0.0)),
        ("decay of rows complemented", rows(beta=lambda b: 1 - b)),
        ("mean of absolute values", rows(squared=False)),
        *OF_MUON,
    ],
    "muonc": [*OF_DECAY, *OF_MUON, *OF_HEADS],
    "moonlight": [
        ("spectral", matched(lambda out, fan: max(1.0, out / fan) ** 0.5)),
        ("by the short side", matched(lambda out, fan: 0.2 * min(out, fan) ** 0.5)),
        ("a quarter for a fifth", matched(lambda out, fan: 0.25 * max(out, fan) ** 0.5)),
        *OF_MUON,
    ],
    "adamh": [*OF_HYPERBALL, *OF_ADAMW],
    "adamc": [*OF_DECAY, *OF_ADAMW],
    "ademamix": [
        ("slow average left out", altered(ademamix, "ademamix_update", slow_weight=lambda given: 0.0)),
        ("slow average turned round", altered(ademamix, "ademamix_update", slow_weight=lambda h: -h["slow_weight"])),
        ("no warmup of the weight", altered(ademamix, "ademamix_update", slow_weight=lambda given: 4.0)),
        ("no warmup of the decay", altered(ademamix, "ademamix_update", slow_decay=lambda given: 0.99)),
        ("warmup as for half of the steps", created(steps=lambda given: given["steps"] // 2)),
        ("bias correction off by one", altered(ademamix, "ademamix_update", **LATE)),
        ("betas swapped in create", created(**SWAPPED)),
        ("no decay", NO_DECAY),
        ("no clip", NO_CLIP, CLIPS),
    ],
    "dion": [
        ("the smallest rows", dion_by_parts(largest=False)),
        ("rows by the largest entries", dion_by_parts(power=8.0)),
        ("the momentum never decays", dion_by_parts(feedback="none")),
        ("all of the momentum decays", dion_by_parts(feedback="all")),
        ("nothing is gathered", dion_by_parts(gathers=False)),
        ("half the rows", created(fraction=lambda given: given["fraction"] / 2)),
        ("no orthogonalization", instead(dion, "newton_schulz", normalised)),
        (
            "no shape factor",
            instead(
                dion.DionRule,
                "constants",
                lambda self, shapes, like: {"scale": torch.ones((len(shapes), 1, 1), dtype=like.dtype)},
            ),
        ),
        ("rate of the adam part ignored", created(dion_to_adam_lr=lambda given: 3.0)),
        ("ascends", returning(dion, "dion_update", lambda u: -u)),
        ("no decay", NO_DECAY),
        ("no clip of the adam part", NO_CLIP, CLIPS),
    ],
    "prodigy": [
        ("the distance never grows", distance_of(lambda before, numerator, norm: before)),
        ("the distance may fall", distance_of(lambda before, numerator, norm: numerator / norm.clamp_min(1e-30))),
        ("the distance turned round", distance_of(lambda d, numerator, norm: torch.maximum(d, -numerator / norm))),
        ("the distance of one tensor", prodigy_of_first_tensor),
        ("one percent more distance", distance_of(lambda d, r, norm: torch.maximum(d, 1.01 * r / (norm + 1e-30)))),
        ("from the weights of the step before", prodigy_from_the_step_before),
        ("twice the first distance", multiplied("initial_distance", 2.0)),
        ("another epsilon", altered(prodigy, "prodigy_update", eps=lambda given: 10 * given["eps"]), {"epsilon": 1e-5}),
        ("ascends", altered(prodigy, "prodigy_update", lr=lambda given: -given["lr"])),
        ("betas swapped in create", created(**SWAPPED)),
        ("no decay", NO_DECAY),
        ("embedding decays", EMBEDDING_DECAYS),
        ("no clip", NO_CLIP, CLIPS),
    ],
    "schedule_free": [
        ("the last weights are all of the average", share_by(lambda total, lr: torch.ones_like(total))),
        ("a tenth of every step", share_by(lambda total, lr: torch.full_like(total, 0.1))),
        ("nothing is averaged", share_by(lambda total, lr: torch.zeros_like(total))),
        (
            "one step more in the average",
            share_by(lambda total, lr: lr * lr / (total + 2 * lr * lr + 1e-30)),
        ),
        ("gradients at the average", altered(schedule_free, "schedule_free_update", beta1=lambda given: 1.0)),
        ("gradients at the fast weights", altered(schedule_free, "schedule_free_update", beta1=lambda given: 0.0)),
        ("no bias correction", altered(schedule_free, "schedule_free_update", **NO_BIAS_CORRECTION)),
        ("bias correction off by one", altered(schedule_free, "schedule_free_update", **LATE)),
        ("ascends", altered(schedule_free, "schedule_free_update", lr=lambda given: -given["lr"])),
        ("betas swapped in create", created(**SWAPPED)),
        ("no decay", NO_DECAY),
        ("embedding decays", EMBEDDING_DECAYS),
        ("no clip", NO_CLIP, CLIPS),
    ],
    "sf_muon": [
        ("the last weights are all of the average", share_by(lambda total, lr: torch.ones_like(total), sf_muon)),
        ("nothing is averaged", share_by(lambda total, lr: torch.zeros_like(total), sf_muon)),
        ("one step more in the average", share_by(lambda total, lr: lr * lr / (total + 2 * lr * lr + 1e-30), sf_muon)),
        ("gradients at the average", taken_in(nothing, beta1=lambda given: 1.0)),
        ("gradients at the fast weights", taken_in(nothing, beta1=lambda given: 0.0)),
        ("decay at the gradients' weights", taken_in(lambda y, z, u: u.add_(y - z, alpha=5.0)), {"weight_decay": 5.0}),
        ("fast weights that follow the others", taken_in(lambda y, z, u: z.copy_(y))),
        ("no orthogonalization", instead(muon, "newton_schulz", normalised)),
        ("no shape factor", scaled_by(muon.MuonRule, lambda out, fan: 1.0)),
        ("momentum not Nesterov", instead(muon, "muon_update", without_nesterov)),
        ("no momentum", altered(muon, "muon_update", momentum=lambda given: 0.0)),
        ("rest without bias correction", altered(schedule_free, "schedule_free_update", **NO_BIAS_CORRECTION)),
        ("rate of the adam part ignored", created(muon_to_adam_lr=lambda given: 3.0)),
        ("ascends", taken_in(lambda y, z, u: u.neg_())),
        ("no decay", NO_DECAY),
        ("no clip of the adam part", NO_CLIP, CLIPS),
        ("embedding is a matrix", EMBEDDING_IS_A_MATRIX),
    ],
    "adopt": [
        ("second moment of this step", instead(adopt, "adopt_update", adopt_by_parts(late=False))),
        ("no clip of the entries", instead(adopt, "adopt_update", adopt_by_parts(clipped=False))),
        ("clip that does not grow", instead(adopt, "adopt_update", adopt_by_parts(grows=False))),
        ("moves in the first step", altered(adopt, "adopt_update", **LATE)),
        ("betas swapped in create", created(**SWAPPED)),
        ("ascends", returning(adopt, "adopt_update", lambda u: [-x for x in u])),
        ("no decay", NO_DECAY),
        ("no clip", NO_CLIP, CLIPS),
    ],
}

BROKEN = [Broken(optimizer, *mistake) for optimizer, mistakes in MISTAKES.items() for mistake in mistakes]
