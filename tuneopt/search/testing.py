"""A conformance suite for search spaces: inherit it, say which space, and pytest runs every check on it.

    class TestMySpace(SearchSpaceConformance):
        space = "./my_space.py"
        optimizer = "./my_optimizer.py:Mine"

``space`` is a name or a file, as ``tuneopt space`` takes it. The suite asks for what a sweep, its ledger and its report
rely on. The check that the optimizer takes every value imports torch; nothing else does.
"""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from tuneopt.search.axis import MAX_EXTENSIONS, is_number
from tuneopt.search.space import Config, LadderSpace, SearchSpace, load_space
from tuneopt.search.sweep import Sweep
from tuneopt.spec import SCALES, CorpusId, Regime, TrialSpec, Value, canonical

__all__ = ["SearchSpaceConformance", "ids"]

CORPUS = CorpusId("conformance", "0" * 16, 512)

ALONE = """
import json, sys
from tuneopt.search.testing import ids
from tuneopt.search.space import load_space
found = ids(load_space(sys.argv[1]))
print(json.dumps({"ids": found, "heavy": sorted({"torch", "ray", "numpy", "pyarrow"} & set(sys.modules))}))
"""


def ids(space: SearchSpace) -> dict[str, list[str]]:
    """By ladder, the id of a sweep of ``space`` in the first regime of the ladder, and of its start."""
    sweeps = {ladder: Sweep(space.on(ladder), _regimes(ladder)[0]) for ladder in space.ladders}
    return {ladder: [sweep.id, sweep.trial_id(sweep.space.start)] for ladder, sweep in sweeps.items()}


def _regimes(ladder: str) -> list[Regime]:
    return [Regime(scale, 1.0, CORPUS) for scale in SCALES.values() if scale.ladder == ladder]


class SearchSpaceConformance:
    """Checks that every search space here passes; ``space`` is the one thing to fill in."""

    space: ClassVar[str] = ""
    """Name or file of the space under test."""
    optimizer: ClassVar[str] = ""
    """Name or ``PATH.py:Class`` of the optimizer that takes its values; default: the one that the space names."""
    ladders: ClassVar[tuple[str, ...]] = ("paper", "nano")
    """The ladders that the space must be declared for."""

    def load(self) -> SearchSpace:
        """The space under test."""
        if not self.space:
            raise AttributeError("set space to the name or file of your search space")
        return load_space(self.space)

    def on_ladders(self) -> Iterator[tuple[str, LadderSpace]]:
        """The space on each of its ladders."""
        space = self.load()
        return ((ladder, space.on(ladder)) for ladder in space.ladders)

    def test_every_ladder_is_declared(self) -> None:
        """A space that lacks a ladder cannot be compared there."""
        assert set(self.ladders) <= set(self.load().ladders)

    def test_it_loads_without_torch_and_ray_and_ids_are_the_same_in_another_process(self) -> None:
        """A space is a table; what it names is the same on every machine."""
        command = [sys.executable, "-c", ALONE, self.space]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["heavy"] == [], f"loading the space imports {found['heavy']}"
        assert found["ids"] == ids(self.load())

    def test_names_and_sources_are_given(self) -> None:
        """A reader of a report sees what a coordinate means, and where grids and starts come from."""
        space = self.load()
        assert space.optimizer.isidentifier() and space.source.strip() and space.grid_source.strip()
        for coordinate in space.coordinates:
            assert coordinate.name.isidentifier()
            assert coordinate.unit.strip() and coordinate.meaning.strip(), coordinate.name

    def test_grids_are_sorted_unique_and_within_bounds(self) -> None:
        """Numbers ascend; nothing is tried twice, or where it may not be."""
        for coordinate in self.load().coordinates:
            for ladder, grid in coordinate.grids.items():
                values = [canonical(value) for value in grid]
                assert len(set(values)) == len(values), f"{coordinate.name} on {ladder} has a value twice"
                numbers = [float(value) for value in values if is_number(value)]
                assert len(numbers) in (0, len(values)), f"{coordinate.name} on {ladder} mixes numbers and words"
                assert numbers == sorted(numbers), f"{coordinate.name} on {ladder} is not ascending"
                low, high = coordinate.bounds(ladder)
                assert all((low is None or low <= x) and (high is None or x <= high) for x in numbers), coordinate.name

    def test_the_start_is_within_bounds_and_runs_at_every_scale(self) -> None:
        """Its batch fits the token budget and its warmup ends before the run does: `Sweep` refuses others."""
        for ladder, space in self.on_ladders():
            for axis in space.axes:
                assert axis.read(axis.start) == axis.start in axis.values
            for regime in _regimes(ladder):
                assert Sweep(space, regime).spec(space.start).steps > 0

    def test_there_is_something_to_search(self) -> None:
        """Every ladder has a star, and no two configurations of it have one id."""
        for ladder, space in self.on_ladders():
            sweep = Sweep(space, _regimes(ladder)[0])
            star = [space.start, *(config for _, _, config in space.star(space.start))]
            assert len(star) > 1, f"nothing is varied on {ladder}"
            assert len({sweep.trial_id(config) for config in star}) == len(star)

    def test_extensions_stay_within_bounds_and_come_to_an_end(self) -> None:
        """A loss that falls for ever at an edge keeps no sweep running for ever."""
        for ladder, space in self.on_ladders():
            for axis in space.axes:
                for end in (axis.values[0], axis.values[-1]):
                    chain = [end]
                    while (following := axis.extension(chain[-1])) is not None:
                        assert following not in axis.values and following not in chain, (ladder, axis.name, following)
                        assert axis.read(following) == following
                        chain.append(following)
                        assert len(chain) <= MAX_EXTENSIONS + 1, (ladder, axis.name)

    def test_ladders_name_the_same_hyperparameters(self) -> None:
        """What is tuned on one ladder is comparable with what is tuned on the other."""
        names = {frozenset(name for name, _ in space.start) for _, space in self.on_ladders()}
        assert len(names) == 1, names

    def test_fixed_values_may_be_given_again_as_text(self) -> None:
        """A command line that spells out what is fixed anyway changes nothing."""
        space = self.load()
        for ladder, plain in self.on_ladders():
            again = space.on(ladder, {name: str(value) for name, value in plain.fixed})
            assert again == plain

    def test_published_points_are_complete(self) -> None:
        """Each is a configuration that could be run as it stands, with the loss it reached."""
        space = self.load()
        for point in space.published:
            ladder = space.on(SCALES[point.scale].ladder)
            names = {name for name, _ in ladder.start}
            # An option is a choice of the code, which published tables do not list.
            assert names - set(space.options) <= set(point.config) <= names, (point.scale, point.ratio)
            assert math.isfinite(point.loss) and point.loss > 0 and point.ratio > 0
            for axis in ladder.axes:
                axis.read(point.config[axis.name])
        places = [(point.scale, point.ratio) for point in space.published]
        assert len(set(places)) == len(places)

    def test_it_survives_json(self) -> None:
        """A ledger gives back the space that it was given."""
        json.dumps(self.load().describe(), allow_nan=False)
        for _, space in self.on_ladders():
            assert LadderSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space

    def test_the_optimizer_takes_every_value(self) -> None:
        """Each configuration of the star around the start, and the first value beyond each edge, can be built."""
        factory: Any = importlib.import_module("tuneopt.optim.factory")
        model: Any = importlib.import_module("tuneopt.optim.testing").TinyModel()
        external: Any = importlib.import_module("tuneopt.optim.external")
        declared = self.load()
        name = external.resolve(self.optimizer or declared.optimizer)
        assert name.partition("@")[0] == declared.optimizer, "the space is one for another optimizer"
        taken = {*factory.hyperparameter_names(factory.implementation(name)), *factory.LOOP}
        taken |= set(factory.implementation(name).fixed)
        for _, space in self.on_ladders():
            assert {word for word, _ in space.start} <= taken
            for config in _around(space):
                factory.create(name, model, **{word: v for word, v in config if word not in factory.LOOP})

    def test_an_override_of_each_coordinate_is_part_of_the_trial(self) -> None:
        """No coordinate is left out of what identifies a run."""
        for ladder, space in self.on_ladders():
            spec = TrialSpec("optimizer", space.start, _regimes(ladder)[0])
            for name, _, config in space.star(space.start):
                assert replace(spec, hyperparameters=config).id != spec.id, name


def _around(space: LadderSpace) -> Iterator[Config]:
    yield space.start
    for axis in space.axes:
        beyond: list[Value] = [*axis.below[:1], *axis.values, *axis.above[:1]]
        for value in beyond:
            yield space.change(space.start, axis.name, value)
