"""24 steps on the fixed problem beside public implementations, with the options that make theirs the rule run here.

`docs/optimizers.md` lists where they differ with other options. A peer that is not installed is skipped;
``pip install '.[peers]'`` brings them all.
"""

import contextlib
import functools
import importlib
import io

import numpy as np
import problem
import pytest
import torch
from parity import LR, WD, as_parameters, distance, error, groups, matrices, peer, run

from tuneopt.optim import MARS, SOAP, AdamMini, AdamW, Cautious, Kron, Lion, Muon, NAdamW, ScheduleFree, Sophia
from tuneopt.optim.adamw import MatrixAdamW
from tuneopt.optim.probes import gaussian

ADAM = {"betas": (0.9, 0.98), "eps": 1e-10, "weight_decay": WD}
SAME = 1e-5


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
    assert distance(ours("updates"), theirs, names=problem.square) <= 1e-4
    assert distance(ours("steps"), theirs, names=problem.square) > 0.03


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


@pytest.mark.parametrize("decay", [0.0, WD])
@pytest.mark.parametrize(("falls", "low", "high"), [(False, 0, SAME), (True, 0.05, 1)])
def test_official_schedule_free_while_the_rate_does_not_fall(decay, falls, low, high, monkeypatch):
    """Theirs weighs a step by the square of the largest rate so far, ours by that of its own: one rule in a warmup."""
    cls, words = peer("schedulefree").AdamWScheduleFree, {**ADAM, "weight_decay": decay}
    if not falls:
        monkeypatch.setattr(problem, "schedule", lambda step: min(1.0, (step + 1) / 4))

    def theirs(parameters):
        optimizer = cls(groups(parameters), lr=LR, **words)
        optimizer.train()
        return optimizer

    assert low <= distance(lambda p: ScheduleFree(p, LR, **words, max_grad_norm=0.0), theirs) <= high


@pytest.mark.parametrize("name", ["NorMuon", "Muon"])
@pytest.mark.parametrize("adjusted", [False, True])
def test_pytorch_optimizer_normuon_and_moonlight_with_exact_products(name, adjusted, monkeypatch):
    """Its products are in bf16; here in float64. Its momentum is an average, whose size orthogonalization drops."""
    cls = getattr(peer("pytorch_optimizer"), name)
    for home in ("base", "normuon"):
        module = importlib.import_module(f"pytorch_optimizer.optimizer.muon.{home}")
        plain = functools.partial(module.zero_power_via_newton_schulz_5, dtype=torch.float64)
        monkeypatch.setattr(module, "zero_power_via_newton_schulz_5", plain)
    rows = {"beta2": 0.95} if name == "NorMuon" else {}
    mine = {"row_normalize": 0.95 if rows else 0.0, "scale": "match_rms" if adjusted else "spectral"}

    def theirs(parameters):
        group = {"params": list(parameters.values()), "use_muon": True, "initial_lr": LR}
        return cls([group], lr=LR, momentum=0.9, weight_decay=WD, use_adjusted_lr=adjusted, **rows)

    ours = matrices(Muon, momentum=0.9, muon_epsilon=1e-10, weight_decay=WD, **mine)
    assert distance(ours, theirs, names=problem.hidden, dtype=torch.float64) <= 1e-8


def test_pytorch_optimizer_adamc_but_for_what_it_adds_under_the_root(monkeypatch):
    cls = peer("pytorch_optimizer").AdamC
    plain = functools.partial(cls.apply_ams_bound_foreach, exp_avg_sq_eps=0.0)
    monkeypatch.setattr(cls, "apply_ams_bound_foreach", staticmethod(plain))

    def theirs(parameters):
        return cls([{"params": list(parameters.values()), "normalized": True}], lr=LR, **ADAM)

    assert distance(matrices(MatrixAdamW, decay_follows_lr=True, **ADAM), theirs, names=problem.hidden) <= SAME
