"""Sampled searches as values: identity, lattice, budget, and what their names may be."""

import pytest

from tuneopt.scale_files import find_scale
from tuneopt.search.plan import Outcome
from tuneopt.search.sampled import SampledSearch, check_names
from tuneopt.search.sampled_plan import distributions, make_sampler, to_point, to_values
from tuneopt.search.space import load_space
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, InputError, Regime

REGIME = Regime(find_scale("nano-65k"), 0.1, CorpusId("made-up", "00ff", 1024))


def search(name: str = "tpe", optimizer: str = "adamw", **changes) -> SampledSearch:
    return SampledSearch(Sweep(load_space(optimizer).on("nano"), REGIME), name, **changes)


def test_the_id_tells_searches_and_schedulers_apart_and_nothing_else() -> None:
    ids = {search(name, scheduler=how).id for name in ("tpe", "random", "gp") for how in ("none", "asha")}
    assert len(ids) == 6 and search().sweep.id not in ids
    assert search().id == search().id


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tpee", "none", None), "did you mean 'tpe'"),
        (("tpe", "hyperband", None), "known: none, asha"),
        (("coordinate", "asha", None), "takes no scheduler"),
        (("coordinate", "none", 5), "takes no --trials"),
    ],
)
def test_a_wrong_name_or_combination_is_one_sentence(arguments: tuple, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_names(*arguments)
    check_names("coordinate", "none", None)
    check_names("gp", "asha", 5)


def test_coordinate_descent_and_a_pinned_space_cannot_be_sampled() -> None:
    with pytest.raises(InputError, match="does not sample"):
        search("coordinate")
    space = load_space("adamw").on("nano")
    pinned = load_space("adamw").on("nano", {axis.name: axis.start for axis in space.axes})
    with pytest.raises(InputError, match="nothing to sample"):
        SampledSearch(Sweep(pinned, REGIME), "tpe")


def test_the_default_budget_is_what_coordinate_descent_expects() -> None:
    found = search()
    expected = found.sweep.state({}).progress.remaining
    assert found.expected + found.sweep.replicates - 1 == expected
    tiny = Sweep(load_space("adamw").on("nano", {a.name: a.start for a in found.sweep.space.axes[1:]}), REGIME)
    sampled = SampledSearch(tiny, "random")
    assert sampled.expected == sampled.size == len(sampled.axes[0].values)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "soap", "scion"])
def test_every_value_of_the_lattice_survives_the_way_to_the_sampler_and_back(optimizer: str) -> None:
    found = search(optimizer=optimizer)
    assert distributions(found).keys() == {axis.name for axis in found.axes}
    start = found.sweep.space.start
    for axis in found.axes:
        for value in axis.values:
            spec = found.sweep.spec(found.sweep.space.change(start, axis.name, value))
            back = to_values(found, to_point(found, spec))
            assert found.config(back) == spec.hyperparameters and back[axis.name] == value
            assert found.on_lattice(spec)
            assert all(distributions(found)[name]._contains(
                distributions(found)[name].to_internal_repr(point)) for name, point in to_point(found, spec).items()
            )  # fmt: skip


def test_neighbours_on_a_grid_are_neighbours_to_the_sampler() -> None:
    found = search()
    rate = next(axis for axis in found.axes if axis.name == "learning_rate")
    places = [
        to_point(found, found.sweep.spec(found.sweep.space.change(found.sweep.space.start, rate.name, value)))[
            rate.name
        ]
        for value in sorted(rate.values)
    ]
    assert places == list(range(len(rate.values)))


def test_the_centre_is_the_best_finished_trial_of_the_sweeps_own_seed() -> None:
    found = search()
    space = found.sweep.space
    now = space.value(space.start, "weight_decay")
    decay = next(value for value in space.by_name["weight_decay"].values if value != now)
    other = space.change(space.start, "weight_decay", decay)
    specs = [found.sweep.spec(config, seed) for config in (space.start, other) for seed in (0, 1)]
    trials = {spec.id: spec for spec in specs}
    losses = {specs[0].id: 4.1, specs[2].id: 4.0, specs[1].id: 3.0}
    outcomes = {trial: Outcome("completed", loss, loss) for trial, loss in losses.items()}
    assert found.best(trials, outcomes) == other
    centre = found.centred(trials, outcomes)
    assert centre.space.start == other and centre.regime == found.sweep.regime
    assert Sweep.from_dict({k: v for k, v in found.to_dict(centre).items() if k in found.sweep.to_dict()}) == centre
    assert found.centred({}, {}) is found.sweep
    outcomes[found.sweep.trial_id(other, 0)] = Outcome("diverged")
    assert found.best(trials, outcomes) == space.start, "what diverged cannot be the centre"


def test_an_unknown_sampler_is_not_made() -> None:
    assert {type(make_sampler(name, 0)).__name__ for name in ("tpe", "random", "gp")} == {
        "TPESampler", "RandomSampler", "GPSampler",
    }  # fmt: skip
