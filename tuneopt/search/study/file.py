"""Study files: YAML, read strictly; every mistake is one sentence with its line.

    name: smoke
    optimizers: [adamw, muon]            # or a mapping: muon: {space: FILE, set: {...}, grid: {...}, start: {...}}
    scales: [nano-65k, nano-147k]
    ratios: [1, 2]
    corpus: embedded
    phase_1: {regimes: {nano-65k: [1, 2]}}
    phase_2: {regimes: rest}
    phase_3: {regimes: {nano-262k: [1]}, star: true}
    limits: {max_trials: 500, max_device_hours: 20}

docs/studies.md explains every key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tuneopt.constants import NEAR_OPTIMAL, TOLERANCE
from tuneopt.search.descent import POLICIES
from tuneopt.search.queue import Limits
from tuneopt.search.space import LadderSpace, SearchSpace, load_space, space_names
from tuneopt.search.study import fields
from tuneopt.search.study.begin import regimes_of, sweep_in
from tuneopt.search.study.lines import Node, parse_yaml, read_yaml
from tuneopt.search.study.study import Devices, Place, Study
from tuneopt.spec import CorpusId, Evaluation, InputError, Scale, Value, find_scale

T = TypeVar("T")

VOCABULARY = {"nano": 1024, "paper": 32_768}
"""Entries of the tokenizer where a study declares none, by ladder."""

KEYS = (
    "name", "optimizers", "scales", "ratios", "corpus", "vocabulary", "phase_1", "phase_2", "phase_3", "seed",
    "replicates", "policy", "tolerance", "near_optimal", "precision", "compile", "evaluation", "match_budget",
    "limits", "placement",
)  # fmt: skip
"""The keys of a study file."""

PARTS = ("space", "set", "grid", "start")
"""What a study may say of an optimizer."""

NEEDED = ("name", "optimizers", "scales", "ratios", "corpus")

REST = "rest"
"""The word for every pair of the study's scales and ratios that Phase I leaves over."""


SpaceOf = Callable[[str, str | None], SearchSpace]
"""From an optimizer's name or file, and a search space's name or file if one is given, to its search space."""


def built_in(optimizer: str, space: str | None) -> SearchSpace:
    """The search space of a built-in optimizer; who knows optimizers from elsewhere reads studies with more."""
    return load_space(space or optimizer)


def read_study(path: str | Path, space_of: SpaceOf = built_in) -> Study:
    """The study that a YAML file declares; raises `InputError` as ``FILE:LINE: what is wrong``."""
    return _study(read_yaml(Path(path)), space_of)


def parse_study(text: str, path: str = "study.yaml", space_of: SpaceOf = built_in) -> Study:
    """The study that a YAML text declares; ``path`` is named in errors."""
    return _study(parse_yaml(text, path), space_of)


def _study(root: Node, space_of: SpaceOf) -> Study:
    keys = fields.mapping(root, "a study", KEYS)
    for key in NEEDED:
        if key not in keys:
            root.fail(f"a study needs the key {key!r}; studies/smoke.yaml is an example")
    scales = _scales(keys["scales"])
    ladder = next(iter(scales.values())).ladder
    ratios = [fields.ratio(entry) for entry in fields.sequence(keys["ratios"], "ratios")]
    every = [(name, value) for name in scales for value in ratios]
    phases = _phases(root, keys, scales, every)
    study = Study(
        name=fields.word(keys["name"], "name"),
        spaces=_spaces(keys["optimizers"], ladder, space_of),
        corpus=fields.word(keys["corpus"], "corpus"),
        vocabulary=_or(keys, "vocabulary", lambda node: fields.whole(node, "vocabulary", least=2), VOCABULARY[ladder]),
        phase_1=phases["phase_1"],
        phase_2=phases["phase_2"],
        phase_3=phases["phase_3"],
        star="phase_3" in keys and _star(keys["phase_3"]),
        seed=_or(keys, "seed", lambda node: fields.whole(node, "seed"), 0),
        replicates=_or(keys, "replicates", lambda node: fields.whole(node, "replicates", least=1, example="3"), 3),
        policy=_or(keys, "policy", lambda node: fields.word(node, "policy", POLICIES), "joint"),
        tolerance=_or(keys, "tolerance", lambda node: fields.number(node, "tolerance", example="0.003"), TOLERANCE),
        near_optimal=_or(
            keys, "near_optimal", lambda node: fields.number(node, "near_optimal", example="0.007"), NEAR_OPTIMAL
        ),
        precision=_or(keys, "precision", lambda node: fields.word(node, "precision", ("fp32", "bf16")), "fp32"),
        compile=_or(keys, "compile", _compile, None),
        evaluation=_or(keys, "evaluation", _evaluation, Evaluation()),
        match_budget=_or(keys, "match_budget", lambda node: fields.switch(node, "match_budget"), False),
        limits=_or(keys, "limits", _limits, Limits()),
        placement=_or(keys, "placement", lambda node: _placement(node, [*every, *phases["phase_3"]]), {}),
    )  # fmt: skip
    _check(study, keys, root)
    return study


def _or(keys: Mapping[str, Node], name: str, read: Callable[[Node], T], otherwise: T) -> T:
    return read(keys[name]) if name in keys else otherwise


def _evaluation(node: Node) -> Evaluation:
    """How often and on how much every trial is evaluated; what is left out takes its default."""
    parts = fields.mapping(node, "evaluation", tuple(Evaluation.__dataclass_fields__))
    return Evaluation(**{name: fields.whole(part, name, least=1, example="16") for name, part in parts.items()})


def _scales(node: Node) -> dict[str, Scale]:
    found: dict[str, Scale] = {}
    for entry in fields.sequence(node, "scales"):
        shape = fields.scale(entry)
        if found and shape.ladder != next(iter(found.values())).ladder:
            entry.fail(f"{shape.name} is on the ladder {shape.ladder!r}, and a study stays on one; make two studies")
        if shape.name in found:
            entry.fail(f"scale {shape.name} is listed twice; keep one")
        found[shape.name] = shape
    return found


def _spaces(node: Node, ladder: str, space_of: SpaceOf) -> dict[str, LadderSpace]:
    found: dict[str, LadderSpace] = {}
    if isinstance(node.plain, dict) and node.plain:
        entries: list[tuple[str, int, Node | None]] = [(name, node.keys[name], entry) for name, entry in node.items()]
    else:
        entries = []
        for entry in fields.sequence(node, "optimizers"):
            known = () if space_of is not built_in or _is_path(entry.plain) else space_names()
            name = fields.word(entry, "optimizer", known)
            entries.append((name, entry.line, None))
    for name, line, changes in entries:
        own = _space_named(name, changes)
        try:
            space = space_of(name, own)
            if space.optimizer in found:
                raise InputError(f"optimizer {space.optimizer} is listed twice; keep one")
            found[space.optimizer] = space.on(ladder)
        except InputError as error:
            node.fail(str(error), line)
        if changes is not None and changes.plain is not None:
            found[space.optimizer] = _changed(space, name, ladder, changes)
    return found


def _is_path(name: object) -> bool:
    return isinstance(name, str) and (name.endswith(".py") or "/" in name)


def _space_named(name: str, changes: Node | None) -> str | None:
    """The search space that an optimizer's entry names, if any."""
    if changes is None or changes.plain is None:
        return None
    parts = fields.mapping(changes, f"optimizer {name}", PARTS)
    return fields.word(parts["space"], "space") if "space" in parts else None


def _changed(space: SearchSpace, name: str, ladder: str, node: Node) -> LadderSpace:
    """The space with what the file changes; each change is tried alone too, so that a mistake has its own line."""
    parts = fields.mapping(node, f"optimizer {name}", PARTS)
    pinned: dict[str, Value] = {}
    grids: dict[str, list[Value]] = {}
    starts: dict[str, Value] = {}
    for part, into in (("set", pinned), ("grid", grids), ("start", starts)):
        if part not in parts:
            continue
        if not isinstance(parts[part].plain, dict):
            parts[part].fail(f"{part} must be a mapping of hyperparameters, not {fields.in_words(parts[part])}")
        for key, entry in parts[part].items():
            if part == "grid":
                grids[key] = [fields.value(each, f"a value of {key}") for each in fields.sequence(entry, key)]
            else:
                into[key] = fields.value(entry, key)  # type: ignore[assignment]
            try:
                plane = space.on(ladder, pinned, grids)
                plane.begin_at(starts)
            except InputError as error:
                parts[part].fail(str(error), parts[part].keys[key])
    return space.on(ladder, pinned, grids).begin_at(starts)


def _phases(
    root: Node, keys: Mapping[str, Node], scales: Mapping[str, Scale], every: list[Place]
) -> dict[str, tuple[Place, ...]]:
    if "phase_1" not in keys:
        for name in ("phase_2", "phase_3"):
            if name in keys:
                words = {"phase_2": "Phase II sweeps what Phase I finds", "phase_3": "Phase III predicts from Phase I"}
                root.fail(f"{words[name]}, and there is no phase_1; declare its regimes", root.keys[name])
        return {"phase_1": tuple(every), "phase_2": (), "phase_3": ()}
    first = _regimes(keys["phase_1"], "phase_1", scales, every)
    second = _regimes(keys["phase_2"], "phase_2", scales, [each for each in every if each not in first]) \
        if "phase_2" in keys else ()  # fmt: skip
    third = _regimes(keys["phase_3"], "phase_3", None, []) if "phase_3" in keys else ()
    for name, places, before in (("phase_2", second, first), ("phase_3", third, (*first, *second))):
        for place in places:
            if place in before:
                keys[name].fail(f"{name} names {place[0]} at ratio {place[1]:g}, which an earlier phase has; drop one")
    ladder = next(iter(scales.values())).ladder
    for place in third:
        if find_scale(place[0]).ladder != ladder:
            keys["phase_3"].fail(f"{place[0]} is on another ladder than the study's scales; predictions stay on one")
    return {"phase_1": first, "phase_2": second, "phase_3": third}


def _regimes(node: Node, name: str, scales: Mapping[str, Scale] | None, rest: list[Place]) -> tuple[Place, ...]:
    parts = fields.mapping(node, name, ("regimes", "star") if name == "phase_3" else ("regimes",))
    if "regimes" not in parts:
        node.fail(f"{name} needs its regimes, such as regimes: {{nano-65k: [1, 2]}}")
    listed = parts["regimes"]
    if listed.plain == REST and name != "phase_3":
        if not rest:
            listed.fail(f"nothing is left for {name}: the phase before has every scale and ratio")
        return tuple(rest)
    if not isinstance(listed.plain, dict) or not listed.plain:
        listed.fail(f"the regimes of {name} must be a mapping of scales to ratios, not {fields.in_words(listed)}; "
                    "try {nano-65k: [1, 2]}")  # fmt: skip
    found: dict[Place, None] = {}
    for key, entry in listed.items():
        shape = fields.scale(listed, line=listed.keys[key], text=key)
        if scales is not None and key not in scales:
            listed.fail(f"{key} is not among the study's scales ({', '.join(scales)}); add it there", listed.keys[key])
        for each in fields.sequence(entry, f"the ratios of {key}"):
            found[shape.name, fields.ratio(each)] = None
    return tuple(found)


def _star(node: Node) -> bool:
    return isinstance(node.plain, dict) and "star" in node.plain and fields.switch(node.plain["star"], "star")


def _compile(node: Node) -> bool | None:
    return None if node.plain == "auto" else fields.switch(node, "compile")


def _limits(node: Node) -> Limits:
    parts = fields.mapping(node, "limits", ("max_trials", "max_device_hours"))
    hours = _or(parts, "max_device_hours", lambda each: fields.number(each, "max_device_hours", above=True), None)
    return Limits(
        _or(parts, "max_trials", lambda each: fields.whole(each, "max_trials", least=1), None),
        None if hours is None else hours * 3600,
    )


def _placement(node: Node, places: list[Place]) -> dict[str, Devices]:
    """Where the trials of a scale train."""
    found = {}
    for name, entry in fields.mapping(node, "placement", tuple(dict.fromkeys(name for name, _ in places))).items():
        parts = fields.mapping(entry, f"the placement of {name}", tuple(Devices.__dataclass_fields__))
        devices = found[name] = Devices(
            _or(parts, "ranks", lambda part: fields.whole(part, "ranks", least=1, example="2"), 1),
            _or(parts, "zero", lambda part: fields.whole(part, "zero", example="2"), 0),
            _or(parts, "offload", lambda part: fields.switch(part, "offload"), False),
        )
        if devices.zero > 3:
            parts["zero"].fail(f"zero must be a stage from 0 to 3, not {devices.zero}")
        if devices.offload and not devices.zero:
            parts["offload"].fail("offload needs ZeRO; add zero: 1, 2 or 3")
    return found


def _check(study: Study, keys: Mapping[str, Node], root: Node) -> None:
    """That every sweep of Phase I can start, and that the limits allow for their first waves."""
    corpus = CorpusId(study.corpus, "", study.vocabulary)
    least = 0
    for name, space in study.spaces.items():
        for regime in regimes_of(study, corpus, "I"):
            try:
                least += len(sweep_in(study, space, regime, False).state({}).pending)
            except InputError as error:
                keys.get("phase_1", root).fail(f"{name} cannot start in {fields.label(regime)}: {error}")
    most = study.limits.max_trials
    if most is not None and most < least:
        node = keys["limits"].plain["max_trials"]
        node.fail(f"max_trials {most} is below the {least} trials of Phase I's first waves; raise it, or drop regimes")
