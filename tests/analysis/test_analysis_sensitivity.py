import pytest
from analysis_samples import published

from tuneopt.analysis import read_runs
from tuneopt.analysis.sensitivity import sensitivities, star
from tuneopt.spec import InputError

INCUMBENT = {"learning_rate": 0.004, "warmup": 500, "nesterov": True}


def test_a_star_by_coordinate_the_most_sensitive_first() -> None:
    changes = [
        ("warmup", 1000, 3.005),
        ("warmup", 250, 3.02),
        ("learning_rate", 0.008, 3.3),
        ("learning_rate", 0.002, 2.999),
        ("learning_rate", 0.016, None),
        ("nesterov", False, None),
    ]
    rate, warmup, nesterov = sensitivities(INCUMBENT, 3.0, changes)
    assert rate.coordinate == "learning_rate" and rate.incumbent == 0.004
    assert rate.values == (0.002, 0.004, 0.008) and rate.losses == (2.999, 3.0, 3.3)
    assert rate.diverged == (0.016,) and rate.near_optimal == (0.002, 0.004)
    assert rate.spread == pytest.approx(0.301) and rate.regret == pytest.approx(0.3)
    assert warmup.near_optimal == (500, 1000) and warmup.values == (250, 500, 1000)
    assert nesterov.spread == 0 and nesterov.diverged == (False,) and nesterov.near_optimal == (True,)
    (strict,) = sensitivities(INCUMBENT, 3.0, [("warmup", 1000, 3.005)], threshold=0.001)
    assert strict.near_optimal == (500,)


def test_the_star_is_found_among_the_runs_of_a_regime() -> None:
    def row(loss: float | None, seed: int = 0, ratio: int = 1, **config: object) -> dict[str, object]:
        base = {"optimizer": "adamw", "scale": "nano-65k", "ratio": ratio, "seed": seed, "loss": loss}
        return {**base, "config": {**INCUMBENT, **config}}

    runs = read_runs(
        [
            row(3.0),
            row(3.1, learning_rate=0.008),
            row(None, learning_rate=0.016),
            row(3.2, warmup=0),
            row(2.0, warmup=0, learning_rate=0.008),
            row(2.5, seed=1, warmup=0),
            row(2.5, ratio=2, warmup=0),
            row(2.5, extra=1),
        ]
    )
    assert star(runs, runs[0]) == (("learning_rate", 0.008, 3.1), ("learning_rate", 0.016, None), ("warmup", 0, 3.2))


def test_the_published_stars() -> None:
    stars = published("stars.json")
    for item in stars:
        losses = {(name, value): loss if loss is None or loss < 6 else None for name, value, loss in item["changes"]}
        changes = [(name, value, loss) for (name, value), loss in losses.items() if name in item["incumbent"]]
        found = sensitivities(item["incumbent"], item["incumbent_loss"], changes)
        assert {entry.coordinate for entry in found} == {name for name, _, _ in changes}
        assert [entry.spread for entry in found] == sorted((entry.spread for entry in found), reverse=True)
        assert all(entry.near_optimal and entry.spread >= entry.regret >= 0 for entry in found)


def test_unknown_values_are_refused_before_they_come_here() -> None:
    with pytest.raises(InputError, match="finite"):
        read_runs([{"optimizer": "a", "scale": "130m", "ratio": 1, "loss": 3.0, "config": {"lr": float("nan")}}])
