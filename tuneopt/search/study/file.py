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

docs/studies.md explains every key. Values are read one by one (`tuneopt.declared`), then the study as a whole is
checked: that every sweep of Phase I can start, and that its limits allow for their first waves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tuneopt import declared
from tuneopt.checked import SUFFIXES, count
from tuneopt.constants import LARGEST_RATIO, VOCAB_SIZES
from tuneopt.declared import Node, distinct, in_words, mapping, number, sequence, switch, value, whole, word
from tuneopt.paths import shipped
from tuneopt.scale_files import ModelOf, declared_scale, find_scale, no_models
from tuneopt.search.descent import POLICIES
from tuneopt.search.queue import Limits
from tuneopt.search.space import LadderSpace, SearchSpace, load_space, space_names
from tuneopt.search.study.rules import comparison_rules
from tuneopt.search.study.study import Devices, ScaleRatio, Study
from tuneopt.spec import SCALES, CorpusId, Evaluation, InputError, Scale, Value, nearest, ratio_of

EXAMPLE = "studies/smoke.yaml"
"""The file that errors name where a study is missing or empty."""

KEYS = (
    "name", "optimizers", "scales", "ratios", "tokens", "steps", "corpus", "vocabulary", "phase_1", "phase_2",
    "phase_3", "seed", "replicates", "policy", "tolerance", "resolution", "near_optimal", "precision", "compile",
    "evaluation",
    "match_budget", "comparison", "bracket", "limits", "placement",
)  # fmt: skip
"""The keys of a study file."""

PARTS = ("space", "coordinates", "set", "grid", "start")
"""What a study may say of an optimizer."""

NEEDED = ("name", "optimizers", "scales", "ratios", "corpus")
"""The keys that have no default: what is compared, and where."""

REST = "rest"
"""The word for every pair of the study's scales and ratios that Phase I leaves over."""

SpaceOf = Callable[[str, str | None], SearchSpace]
"""From an optimizer's name or file, and a search space's name or file if one is given, to its search space."""


def built_in(optimizer: str, space: str | None) -> SearchSpace:
    """The search space of a built-in optimizer; who knows optimizers from elsewhere reads studies with more."""
    return load_space(space or optimizer)


def read_study(path: str | Path, space_of: SpaceOf = built_in, model_of: ModelOf = no_models) -> Study:
    """The study that a YAML file declares; raises `InputError` as ``FILE:LINE: what is wrong``."""
    return _study(declared.read_yaml(shipped(path, "studies"), "study", EXAMPLE), space_of, model_of)


def parse_study(
    text: str, path: str = "study.yaml", space_of: SpaceOf = built_in, model_of: ModelOf = no_models
) -> Study:
    """The study that a YAML text declares; ``path`` is named in errors."""
    return _study(declared.parse_yaml(text, path, EXAMPLE), space_of, model_of)


def _study(root: Node, space_of: SpaceOf, model_of: ModelOf) -> Study:
    keys = mapping(root, "a study", KEYS)
    if "steps" in keys:
        keys["steps"].fail("budgets of a study are ratios or tokens: batches differ, so steps would be other budgets")
    if "tokens" in keys and "ratios" in keys:
        keys["tokens"].fail("give ratios or tokens, not both: each is a list of budgets")
    for key in NEEDED:
        if key not in keys and (key, "tokens" in keys) != ("ratios", True):
            root.fail(f"a study needs the key {key!r}; {EXAMPLE} is an example")
    scales: dict[str, Scale] = {}  # by name
    for entry in sequence(keys["scales"], "scales"):
        shape = _scale(entry, model_of)
        if scales and shape.ladder != next(iter(scales.values())).ladder:
            entry.fail(f"{shape.name} is on the ladder {shape.ladder!r}, and a study stays on one; make two studies")
        if shape in scales.values():
            entry.fail(f"scale {shape.name} is listed twice; keep one")
        _joins(scales, shape, entry, entry.line)
    ladder = next(iter(scales.values())).ladder
    budget: Callable[[Node], float] = _ratio if "ratios" in keys else _tokens
    budgets = distinct(keys["ratios" if "ratios" in keys else "tokens"], "budgets", "the budget", budget)
    every = [  # all regimes, as scale and ratio
        (name, float(amount) if "ratios" in keys else ratio_of(shape, int(amount)))
        for name, shape in scales.items()
        for amount in budgets
    ]
    phases = _phases(root, keys, scales, every, model_of)  # which adds the scales of Phase III
    # In this order whatever the file's is. What is left out has the study's default.
    readers: dict[str, Callable[[Node], Any]] = {
        "vocabulary": lambda node: whole(node, "vocabulary", least=2),
        "seed": lambda node: whole(node, "seed"),
        "replicates": lambda node: whole(node, "replicates", least=1, example="3"),
        "policy": lambda node: word(node, "policy", POLICIES),
        "tolerance": lambda node: number(node, "tolerance", example="0.003"),
        "resolution": lambda node: number(node, "resolution", above=True, example="0.03"),
        "near_optimal": lambda node: number(node, "near_optimal", example="0.007"),
        "precision": lambda node: word(node, "precision", ("fp32", "bf16")),
        "compile": lambda node: None if node.plain == "auto" else switch(node, "compile"),
        "evaluation": _evaluation,
        "match_budget": lambda node: switch(node, "match_budget"),
        "comparison": lambda node: comparison_rules(node, keys, phases["phase_1"]),
        "bracket": lambda node: word(node, "the baseline to bracket"),
        "limits": _limits,
        "placement": lambda node: _placement(node, scales),
    }
    study = Study(
        name=word(keys["name"], "name"),
        spaces=_spaces(keys["optimizers"], ladder, space_of),
        corpus=word(keys["corpus"], "corpus"),
        scales={name: shape for name, shape in scales.items() if name not in SCALES},
        # In one mapping, so that a field of `Study` that the file leaves out keeps the default that `Study` gives it.
        **{
            "vocabulary": VOCAB_SIZES[ladder],
            "precision": next(iter(scales.values())).precision,
            **phases,
            **{name: read(keys[name]) for name, read in readers.items() if name in keys},
        },
    )
    if study.comparison is not None:
        rules, own = study.comparison, partial(_own_name, study, keys, "comparison")
        prices = {own(name, what="priced optimizer"): price for name, price in rules.prices.items()}
        if prices and (unpriced := [name for name in study.spaces if name not in prices]):
            keys["comparison"].fail(f"prices lack {' and '.join(unpriced)}: give those of all optimizers, or of none")
        study = replace(study, comparison=replace(rules, baseline=own(rules.baseline), prices=prices))
    if study.bracket is not None:
        if study.comparison is not None:
            keys["bracket"].fail("a comparison brackets its baseline anyway; drop the key")
        study = replace(study, bracket=_own_name(study, keys, "bracket", study.bracket))
    _check(study, keys, root)
    return study


def _own_name(study: Study, keys: Mapping[str, Node], key: str, called: str, what: str = "baseline") -> str:
    """An optimizer by the name that its search space gives it; a file may have ``called`` it by its path in ``key``."""
    listed = keys["optimizers"].plain
    words = (
        list(listed) if isinstance(listed, dict) else [str(entry.plain) for entry in sequence(keys["optimizers"], "")]
    )
    names = dict(zip(words, study.spaces, strict=True))
    if called not in names:
        keys[key].fail(f"the {what} {called!r} is not compared; {nearest(called, names)}")
    return str(names[called])


def _scale(node: Node, model_of: ModelOf, line: int | None = None, name: str | None = None) -> Scale:
    """A scale by its word, which is the node's own text or a key's, or as the mapping that a scale file would hold.

    A path counts from the folder of the study's file where it names one there, else from the current folder.
    """
    if name is None and isinstance(node.plain, dict):
        return declared_scale(node, "", model_of)
    name = node.plain if name is None else name
    if not isinstance(name, str):
        node.fail(f"scale must be the name of a scale, not {in_words(node)}; try 130m or nano-65k")
    beside = Path(node.path).parent / name
    is_beside = name.endswith((".yaml", ".yml", ".py")) or ".py:" in name
    is_beside = is_beside and beside.with_name(beside.name.partition(":")[0]).is_file()
    try:
        return find_scale(str(beside) if is_beside else name, model_of)
    except InputError as error:
        node.fail(str(error), line)


def _joins(scales: dict[str, Scale], shape: Scale, node: Node, line: int) -> None:
    """Add a scale under its name, which regimes and results go by; another of that name is a mistake."""
    if scales.setdefault(shape.name, shape) != shape:
        node.fail(f"two scales of the study are called {shape.name!r}; give one of them another name", line)


def _ratio(node: Node) -> float:
    """A data-to-model ratio; 0 and below have a sentence of their own, which says what a ratio counts."""
    ratio = number(node, "a ratio", least=-math.inf, example="1")
    if ratio <= 0:
        node.fail(f"a ratio must be a positive number of Chinchilla budgets, not {ratio:g}; try 1")
    if ratio > LARGEST_RATIO:
        node.fail(f"a ratio of {ratio:g} is beyond any budget; try 1")
    return ratio


def _tokens(node: Node) -> int:
    """A budget in tokens, such as 50M."""
    try:
        return count("a budget in tokens", node.plain)
    except InputError as error:
        node.fail(str(error))


def _share(node: Node, scale: Scale, in_tokens: bool) -> float:
    """The ratio that a budget is at a scale: of tokens where the study's are, or with a letter behind the count."""
    if in_tokens or (isinstance(node.plain, str) and node.plain[-1:].lower() in SUFFIXES):
        return ratio_of(scale, _tokens(node))
    return _ratio(node)


def _evaluation(node: Node) -> Evaluation:
    """How often and on how much every trial is evaluated; what is left out takes its default."""
    parts = mapping(node, "evaluation", tuple(Evaluation.__dataclass_fields__))
    return Evaluation(**{name: whole(part, name, least=1, example="16") for name, part in parts.items()})


def _spaces(node: Node, ladder: str, space_of: SpaceOf) -> dict[str, LadderSpace]:
    """The search space of each optimizer, from a list of names or a mapping of names to changes.

    Keyed by the name that the space gives itself: two files may hold the same optimizer, and that is a mistake.
    """
    entries: list[tuple[str, int, Node | None]] = []
    if isinstance(node.plain, dict) and node.plain:
        entries = [(name, node.keys[name], entry) for name, entry in node.items()]
    else:
        for entry in sequence(node, "optimizers"):
            # Names can be checked at once only where nobody else can bring optimizers of other names.
            is_path = isinstance(entry.plain, str) and (entry.plain.endswith(".py") or "/" in entry.plain)
            known = () if space_of is not built_in or is_path else space_names()
            entries.append((word(entry, "optimizer", known), entry.line, None))
    spaces: dict[str, LadderSpace] = {}
    for name, line, changes in entries:
        parts = {}
        if changes is not None and changes.plain is not None:
            parts = mapping(changes, f"optimizer {name}", PARTS)
        own = word(parts["space"], "space") if "space" in parts else None
        try:
            space = space_of(name, own)
            if space.optimizer in spaces:
                raise InputError(f"optimizer {space.optimizer} is listed twice; keep one")
            spaces[space.optimizer] = space.on(ladder)
        except InputError as error:
            node.fail(str(error), line)
        if parts:
            spaces[space.optimizer] = _changed(space, ladder, parts)
    return spaces


def _changed(space: SearchSpace, ladder: str, parts: Mapping[str, Node]) -> LadderSpace:
    """The space with what the file changes.

    One change may need another that stands below it, so they count together. Where they fail, the line is that of the
    first one by which they do.
    """
    pinned: dict[str, Value] = {}
    grids: dict[str, list[Value]] = {}
    starts: dict[str, Value] = {}
    faults: list[tuple[str, Node, int]] = []
    for part in ("set", "grid", "start"):  # a start must lie on the grid, so it is read last
        if part not in parts:
            continue
        if not isinstance(parts[part].plain, dict):
            parts[part].fail(f"{part} must be a mapping of hyperparameters, not {in_words(parts[part])}")
        for key, entry in parts[part].items():
            if part == "grid":
                grids[key] = [value(item, f"a value of {key}") for item in sequence(entry, key)]
            else:
                (pinned if part == "set" else starts)[key] = value(entry, key)
            try:
                space.on(ladder, pinned, grids, starts)
            except InputError as error:
                faults.append((str(error), parts[part], parts[part].keys[key]))
    try:
        changed = space.on(ladder, pinned, grids, starts)
    except InputError as error:  # the last change was tried with all others, so that one fault says this
        _, node, line = next(fault for fault in faults if fault[0] == str(error))
        node.fail(str(error), line)
    if "coordinates" not in parts:
        return changed
    names = [axis.name for axis in changed.varied]
    kept = distinct(parts["coordinates"], "coordinates", "the coordinate", lambda node: word(node, "coordinate", names))
    return changed.pin({axis.name: axis.start for axis in changed.varied if axis.name not in kept})


def _phases(
    root: Node, keys: Mapping[str, Node], scales: dict[str, Scale], every: list[ScaleRatio], model_of: ModelOf
) -> dict[str, Any]:
    """The regimes of the phases, and whether Phase III has a star; without any phase, all is swept in Phase I.

    ``every`` holds all pairs of the study's scales and ratios. Phases must not overlap: a regime has one result.
    Phase III may name scales that the study does not sweep, since predicting them is what it is for; they are added
    to ``scales``.
    """
    if "phase_1" not in keys:
        whys = {"phase_2": "Phase II sweeps what Phase I finds", "phase_3": "Phase III predicts from Phase I"}
        for name, why in whys.items():
            if name in keys:
                root.fail(f"{why}, and there is no phase_1; declare its regimes", root.keys[name])
        return {"phase_1": tuple(every), "phase_2": (), "phase_3": ()}
    ladder, in_tokens = next(iter(scales.values())).ladder, "tokens" in keys
    first = _regimes(keys["phase_1"], "phase_1", scales, every, model_of, in_tokens)
    second: tuple[ScaleRatio, ...] = ()
    third: tuple[ScaleRatio, ...] = ()
    if "phase_2" in keys:
        left = [place for place in every if place not in first]
        second = _regimes(keys["phase_2"], "phase_2", scales, left, model_of, in_tokens)
    if "phase_3" in keys:
        third = _regimes(keys["phase_3"], "phase_3", scales, [], model_of, in_tokens)
    for name, places, before in (("phase_2", second, first), ("phase_3", third, (*first, *second))):
        for place in places:
            if place in before:
                keys[name].fail(f"{name} names {place[0]} at ratio {place[1]:g}, which an earlier phase has; drop one")
    for place in third:
        if scales[place[0]].ladder != ladder:
            keys["phase_3"].fail(f"{place[0]} is on another ladder than the study's scales; predictions stay on one")
    star = keys["phase_3"].plain.get("star") if "phase_3" in keys else None
    return {
        "phase_1": first,
        "phase_2": second,
        "phase_3": third,
        "star": star is not None and switch(star, "star"),
    }


def _regimes(
    node: Node, name: str, scales: dict[str, Scale], rest: list[ScaleRatio], model_of: ModelOf, in_tokens: bool
) -> tuple[ScaleRatio, ...]:
    """The regimes of one phase; ``scales`` are those that it may name. Phase III may name others, which join them."""
    parts = mapping(node, name, ("regimes", "star") if name == "phase_3" else ("regimes",))
    if "regimes" not in parts:
        node.fail(f"{name} needs its regimes, such as regimes: {{nano-65k: [1, 2]}}")
    listed = parts["regimes"]
    if listed.plain == REST and name != "phase_3":
        if not rest:
            listed.fail(f"nothing is left for {name}: the phase before has every scale and ratio")
        return tuple(rest)
    if not isinstance(listed.plain, dict) or not listed.plain:
        what = f"the regimes of {name} must be a mapping of scales to ratios"
        listed.fail(f"{what}, not {in_words(listed)}; try {{nano-65k: [1, 2]}}")
    places: list[ScaleRatio] = []
    for key, entry in listed.items():
        line = listed.keys[key]
        # By the name that a scale has, or by the word that it is listed by, such as a file.
        shape = scales[key] if key in scales else _scale(listed, model_of, line, key)
        if name != "phase_3" and shape.name not in scales:
            listed.fail(f"{key} is not among the study's scales ({', '.join(scales)}); add it there", line)
        _joins(scales, shape, listed, line)
        for budget in sequence(entry, f"the {'budgets in tokens' if in_tokens else 'ratios'} of {key}"):
            place = shape.name, _share(budget, shape, in_tokens)
            if place in places:
                budget.fail(f"{name} lists {place[0]} at ratio {place[1]:g} twice; keep one")
            places.append(place)
    return tuple(places)


def _limits(node: Node) -> Limits:
    """What may be spent; a file says device-hours, everything else counts device seconds."""
    parts = mapping(node, "limits", ("max_trials", "max_device_hours"))
    hours, trials = parts.get("max_device_hours"), parts.get("max_trials")
    return Limits(
        max_device_seconds=None if hours is None else 3600 * number(hours, "max_device_hours", above=True),
        max_trials=None if trials is None else whole(trials, "max_trials", least=1),
    )


def _placement(node: Node, scales: Mapping[str, Scale]) -> dict[str, Devices]:
    """Where the trials of a scale train. Only scales that the study has can be placed: another is a typing error."""
    placement = {}
    for name, entry in mapping(node, "placement", tuple(scales)).items():
        parts = mapping(entry, f"the placement of {name}", tuple(Devices.__dataclass_fields__))
        readers: dict[str, Callable[[Node], Any]] = {
            "ranks": lambda part: whole(part, "ranks", least=1, example="2"),
            "zero": lambda part: whole(part, "zero", example="2"),
            "offload": lambda part: switch(part, "offload"),
        }
        devices = placement[name] = Devices(**{key: read(parts[key]) for key, read in readers.items() if key in parts})
        if devices.zero > 3:
            parts["zero"].fail(f"zero must be a stage from 0 to 3, not {devices.zero}")
        if devices.offload and not devices.zero:
            parts["offload"].fail("offload needs ZeRO; add zero: 1, 2 or 3")
    return placement


def _check(study: Study, keys: Mapping[str, Node], root: Node) -> None:
    """That every sweep of Phase I can start, and that the limits allow for their first waves."""
    # The corpus is not read here: its name and the size of its vocabulary are all that a first wave depends on.
    least = 0
    for name, space in study.spaces.items():
        for regime in study.regimes("I", CorpusId(study.corpus, "", study.vocabulary)):
            try:
                least += len(study.sweep(space, regime, False).state({}).pending)
            except InputError as error:
                where = f"{regime.scale.name} at ratio {regime.ratio:g}"
                keys.get("phase_1", root).fail(f"{name} cannot start in {where}: {error}")
    most = study.limits.max_trials
    if most is not None and most < least:
        node = keys["limits"].plain["max_trials"]
        node.fail(f"max_trials {most} is below the {least} trials of Phase I's first waves; raise it, or drop regimes")
