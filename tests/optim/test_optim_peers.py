"""24 steps on the fixed problem beside public implementations, with the options that make theirs the rule run here.

`docs/optimizers.md` lists where they differ with other options. A peer that is not installed is skipped;
``pip install '.[peers]'`` brings them all.
"""

import contextlib
import functools
import importlib
import importlib.machinery
import io
import sys
import types
from pathlib import Path

import numpy as np
import problem
import pytest
import torch
from parity import LR, WD, as_parameters, error, only

from tuneopt.optim import MARS, SOAP, AdamMini, AdamW, Cautious, Kron, Lion, Muon, NAdamW, Sophia
from tuneopt.optim.probes import gaussian

ADAM = {"betas": (0.9, 0.98), "eps": 1e-10, "weight_decay": WD}
SAME = 1e-5


def peer(name):
    """A peer's module, or a skip that says what brings it; timm's optimizers need no torchvision."""
    top = name.split(".")[0]
    if importlib.util.find_spec(top) is None:
        pytest.skip(f"{top} is not installed: pip install '.[peers]'")
    if top == "timm":
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError):
            root = Path(importlib.machinery.PathFinder.find_spec("timm", sys.path).origin).parent
            for part, folder in (("timm", root), ("timm.optim", root / "optim")):
                package = types.ModuleType(part)
                package.__spec__ = importlib.machinery.ModuleSpec(part, None, is_package=True)
                package.__path__ = [str(folder)]
                sys.modules[part] = package
    return importlib.import_module(name)


def groups(parameters):
    """Theirs with our rule of decay: matrices and the head decay, the rest does not."""
    decayed = [p for name, p in parameters.items() if problem.decays(name)]
    rest = [p for name, p in parameters.items() if not problem.decays(name)]
    return [{"params": decayed}] + [{"params": rest, "weight_decay": 0.0}] * bool(rest)


def run(parameters, optimizer, gradients, before=lambda step: None, after=lambda step: None):
    for step, tree in enumerate(gradients):
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * problem.schedule(step)
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(tree[name], dtype=parameter.dtype)
        before(step + 1)
        optimizer.step()
        after(step + 1)
    return {name: parameter.detach().double().numpy() for name, parameter in parameters.items()}


def distance(ours, theirs, gradients=None, names=lambda name: True):
    """Build both on the same start, run both, and return the worst relative distance of what they moved."""
    gradients = problem.gradients() if gradients is None else gradients
    mine, other = only(names, as_parameters()), only(names, as_parameters())
    gradients = [only(names, tree) for tree in gradients]
    return error(run(mine, ours(mine), gradients), run(other, theirs(other), gradients))


def scaled(factor, first=1.0):
    """The problem's gradients times a factor, and the first ones times another."""
    steps = problem.gradients()
    return [
        {name: g * factor * (first if step == 0 else 1) for name, g in tree.items()} for step, tree in enumerate(steps)
    ]


def test_timm_adamw():
    cls = peer("timm.optim.adamw").AdamWLegacy
    assert distance(lambda p: AdamW(p, LR, **ADAM, max_grad_norm=0.0), lambda p: cls(groups(p), lr=LR, **ADAM)) <= SAME


@pytest.mark.parametrize(("decay", "bound"), [(1e9, (0, SAME)), (0.004, (0.1, 1)), (0.0, (0.1, 1))])
def test_torch_nadam_has_a_constant_beta_only_with_a_huge_momentum_decay(decay, bound):
    found = distance(
        lambda p: NAdamW(p, LR, **ADAM, max_grad_norm=0.0),
        lambda p: torch.optim.NAdam(groups(p), lr=LR, **ADAM, momentum_decay=decay, decoupled_weight_decay=True),
    )
    assert bound[0] <= found <= bound[1]


def test_timm_nadamw_is_the_other_bias_correction():
    cls = peer("timm.optim.nadamw").NAdamW
    for convention, low, high in (("same", 0, SAME), ("next", 0.01, 1)):
        found = distance(
            lambda p, c=convention: NAdamW(p, LR, **ADAM, max_grad_norm=0.0, bias_correction=c),
            lambda p: cls(groups(p), lr=LR, **ADAM),
        )
        assert low <= found <= high


@pytest.mark.parametrize(("inside", "low", "high"), [(0.0, 0, SAME), (1e-15, SAME, 1e-2)])
def test_pytorch_optimizer_mars_but_for_what_it_adds_under_the_root(inside, low, high, monkeypatch):
    """It adds 1e-15 to the second moment, whatever eps is, which shows in the smallest entries.

    It also clips each tensor to norm 1, for good: small gradients stay below, and our own clip is off.
    """
    cls = peer("pytorch_optimizer").MARS
    plain = functools.partial(cls.apply_ams_bound_foreach, exp_avg_sq_eps=inside)
    monkeypatch.setattr(cls, "apply_ams_bound_foreach", staticmethod(plain))
    found = distance(
        lambda p: MARS(p, LR, **ADAM, gamma=0.025, max_grad_norm=0.0),
        lambda p: cls(groups(p), lr=LR, **ADAM, gamma=0.025, optimize_1d=True),
        scaled(0.3),
    )
    assert low <= found <= high


def test_timm_mars_but_for_its_first_step():
    """Its first corrected gradient is the gradient itself; a first gradient of zero hides that."""
    cls = peer("timm.optim.mars").Mars
    ours = lambda p: MARS(p, LR, **ADAM, gamma=0.025, max_grad_norm=0.0)  # noqa: E731
    theirs = lambda p: cls(groups(p), lr=LR, **ADAM, gamma=0.025, optimize_1d=True)  # noqa: E731
    assert distance(ours, theirs, scaled(0.05, first=0.0)) <= SAME
    assert distance(ours, theirs, scaled(0.05)) > 1e-3


def test_timm_cautious_adamw():
    cls = peer("timm.optim.adamw").AdamWLegacy
    assert (
        distance(
            lambda p: Cautious(p, LR, **ADAM, max_grad_norm=0.0),
            lambda p: cls(groups(p), lr=LR, **ADAM, caution=True, foreach=False),
        )
        <= SAME
    )


@pytest.mark.parametrize("name", ["lion_pytorch", "timm.optim.lion", "pytorch_optimizer"])
def test_lion(name):
    cls, rule = peer(name).Lion, {"betas": (0.9, 0.95), "weight_decay": WD}
    assert distance(lambda p: Lion(p, LR, **rule, max_grad_norm=0.0), lambda p: cls(groups(p), lr=LR, **rule)) <= SAME


def test_official_adam_mini_but_for_norms():
    """It takes one scalar per norm; and it decays the embedding, which is therefore compared without decay."""
    cls = peer("adam_mini").Adam_mini

    def theirs(parameters, decay):
        with contextlib.redirect_stdout(io.StringIO()):
            return cls(
                parameters.items(),
                lr=LR,
                betas=(0.9, 0.98),
                eps=1e-10,
                weight_decay=decay,
                dim=16,
                n_heads=2,
                verbose=False,
            )

    def ours(parameters, decay):
        return AdamMini(parameters, LR, (0.9, 0.98), 1e-10, decay, heads=2, max_grad_norm=0.0)

    no_norms = lambda name: "norm" not in name  # noqa: E731
    assert distance(lambda p: ours(p, 0.0), lambda p: theirs(p, 0.0), names=no_norms) <= SAME
    decayed = lambda name: no_norms(name) and problem.decays(name)  # noqa: E731
    assert distance(lambda p: ours(p, WD), lambda p: theirs(p, WD), names=decayed) <= SAME
    assert distance(lambda p: ours(p, 0.0), lambda p: theirs(p, 0.0)) > 0.1


@pytest.mark.parametrize(("beta1", "low", "high"), [(0.0, 0, SAME), (0.9, 0.05, 10)])
def test_pytorch_optimizer_sophia_is_the_same_rule_without_momentum(beta1, low, high):
    """gamma is folded into its rate, bound and epsilon: p = gamma, lr / gamma, eps / gamma, wd gamma.

    It takes an estimate before the step that ours takes after the step before. Its momentum is not bias-corrected.
    """
    cls, gamma = peer("pytorch_optimizer").SophiaH, 0.05
    mine, other = as_parameters(), as_parameters()
    rng = np.random.default_rng(5)
    estimates = [
        {name: 10 * rng.standard_normal(shape) for name, shape in problem.SHAPES.items()} for _ in range(problem.STEPS)
    ]
    optimizer = Sophia(mine, LR, (beta1, 0.9), 1e-8, WD, gamma=gamma, max_grad_norm=0.0)

    def after(step):
        optimizer.update_hessian({p: torch.tensor(estimates[step - 1][name]) for name, p in mine.items()})

    moved = run(mine, optimizer, problem.gradients(), after=after)
    theirs = cls(groups(other), lr=LR / gamma, betas=(beta1, 0.9), p=gamma, eps=1e-8 / gamma, weight_decay=WD * gamma)
    order = [name for group in theirs.param_groups for p in group["params"] for name, q in other.items() if q is p]

    def before(step):
        tree = estimates[step - 2] if step > 1 else {name: 0 * value for name, value in estimates[0].items()}
        parcel = [torch.tensor(tree[name], dtype=torch.float32) for name in order]
        theirs.step = lambda: cls.step(theirs, hessian=parcel)

    for group in theirs.param_groups:
        group["initial_lr"] = group["lr"]
    assert low <= error(moved, run(other, theirs, problem.gradients(), before)) <= high


square = lambda name: "q_proj.weight" in name or "k_proj.weight" in name  # noqa: E731


def test_pytorch_optimizer_soap_between_refreshes():
    """Square matrices, no decay (theirs comes after the step), bias correction by updates, and no refresh in 24 steps.

    Its refresh sees the newest factors one step later than the study's code, which ours follows.
    """
    cls = peer("pytorch_optimizer").SOAP
    rule = {"betas": (0.9, 0.98), "eps": 1e-10, "weight_decay": 0.0, "shampoo_beta": 0.9}
    every = {"precondition_frequency": 100}

    def ours(convention):
        return lambda p: SOAP(p, LR, **rule, **every, max_grad_norm=0.0, bias_correction=convention)

    theirs = lambda p: cls(list(p.values()), lr=LR, **rule, **every)  # noqa: E731
    assert distance(ours("updates"), theirs, names=square) <= 1e-4
    assert distance(ours("steps"), theirs, names=square) > 0.03


@pytest.mark.parametrize(("name", "bound"), [("pytorch_optimizer", 1e-3), ("kron_torch", 2e-3)])
def test_psgd_kron_with_the_same_probes(name, bound, monkeypatch):
    """Triangular factors of whole matrices, a fit at every step, probes handed over.

    What is left is the damping: pytorch_optimizer has none, and kron-torch leaves it in the update.
    """
    cls = peer(name).Kron
    hidden = [key for key in problem.SHAPES if problem.hidden(key)]
    calls = []

    def probe(like, **_):
        step, index = divmod(len(calls), len(hidden))
        calls.append(hidden[index])
        shape = problem.SHAPES[hidden[index]]
        flipped = shape[0] > shape[1]
        stored = torch.empty(shape[::-1] if flipped else shape)
        drawn = gaussian(stored, 0, step + 1, hidden[index], 0)
        return drawn.mT.contiguous() if flipped else drawn

    monkeypatch.setattr(torch, "randn_like", probe)
    chance, average = "preconditioner_update_probability", "b1"
    if name == "pytorch_optimizer":
        chance, average = "pre_conditioner_update_probability", "momentum"

    def theirs(parameters):
        return cls(list(parameters.values()), lr=LR, weight_decay=WD, **{chance: 1.0, average: 0.9})

    def ours(parameters):
        return Kron(parameters, LR, 0.9, WD, preconditioner_lr=0.1, normalize_grads=False, max_grad_norm=0.0)

    # kron-torch compiles its formulas, which takes most of a minute and changes nothing here.
    with contextlib.redirect_stdout(io.StringIO()), torch.compiler.set_stance("force_eager"):
        found = distance(ours, theirs, names=problem.hidden)
    assert len(calls) == problem.STEPS * len(hidden)
    assert found <= bound


def test_torch_muon_in_bf16_differs_by_rounding_alone():
    """Its momentum is an average and ours a sum, which orthogonalization cannot tell apart."""

    def ours(precision):
        return lambda p: Muon(p, LR, weight_decay=WD, momentum=0.9, muon_epsilon=1e-10, ns_precision=precision)

    theirs = lambda p: torch.optim.Muon(list(p.values()), lr=LR, weight_decay=WD, momentum=0.9)  # noqa: E731
    assert distance(ours("bf16"), theirs, names=problem.hidden) <= 0.05
