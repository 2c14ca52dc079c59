"""Scales of a user's own: a YAML file, or a word such as ``6x384,seq=256``; and the scales that are built in, by name.

    name: my-gpt
    family: gpt2        # the options of a family; those that follow change single ones
    layers: 6
    d_model: 384
    seq_len: 256

docs/scales.md explains every key. A file is read strictly (`tuneopt.declared`); what is left out follows from what is
there. Search spaces are declared for a ladder, so a scale belongs to one: to that whose nearest scale is nearest in N,
unless it says ``ladder``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tuneopt import declared
from tuneopt.architecture import SCALES, WORDS_OF_SCALE, Scale
from tuneopt.errors import InputError, nearest
from tuneopt.paths import shipped
from tuneopt.spec import Value

FOLDER = Path(__file__).resolve().parents[1] / "scales"
"""Scale files that come with the package; a file's name without its ending is the name of its scale."""

EXAMPLE = "scales/gpt2.yaml"
"""The file that errors name where a scale file is missing or empty."""

FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "gpt2": {"norm": "layernorm", "positions": "learned", "activation": "gelu_tanh", "biases": True, "tied": True},
    "qwen3": {"qk_norm": "before_rope", "norm_eps": 1e-6, "rope_base": 1e6},
    "nanochat": {
        "norm": "rms", "norm_eps": 1e-6, "activation": "relu2", "qk_norm": "after_rope", "embed_norm": True,
        "softcap": 15.0,
    },
}  # fmt: skip
"""What ``family`` stands for: the options of a `Scale` by which it differs from the study's Llama."""

MODEL_KEYS = ("model", "arguments", "routing", "name", "ladder", "seq_len")
"""The keys of a scale file that names a model of its own."""

KEYS = ("family", *(field.name for field in fields(Scale)))
"""The keys of a scale file."""

SHORTHAND = re.compile(r"(?P<layers>[0-9]+)x(?P<d_model>[0-9]+)(?P<rest>(,[a-z_]+=[^,=]+)*)")
"""Layers by width, then options; ``seq`` is short for ``seq_len``."""

SEQUENCE = {"nano": 128, "paper": 4096}
"""Tokens of a sequence where a scale says nothing: those of its ladder."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model of a user's own as it is asked for: a function of a Python file, and what it is called with.

    ``word`` is ``PATH.py:function``. ``routing`` holds pairs of a pattern of parameter names and a role, the first that
    fits decides. What is empty follows from the model: its name from the file, its ladder from its size, the length of
    its sequences from its signature or the ladder.
    """

    word: str
    name: str = ""
    ladder: str = ""
    seq_len: int | None = None
    arguments: tuple[tuple[str, Value], ...] = ()
    routing: tuple[tuple[str, str], ...] = ()


ModelOf = Callable[[ModelFile], Scale]
"""Builds and measures a model of a user's own; who can do that hands it to the readers here, which know no torch."""


def no_models(file: ModelFile) -> Scale:
    """Raises `InputError`: the place of a `ModelOf` where no model can be built."""
    raise InputError(f"{file.word} is a model of your own, and here the name or the file of a scale is needed")


def find_scale(name: str, model_of: ModelOf = no_models) -> Scale:
    """The scale of that name, of a YAML file, or of a shorthand; raises `InputError` for anything else.

    A name is one of the two ladders' or of `FOLDER`'s. A file is told by its ending, ``.yaml`` or ``.yml``. A model of
    a user's own is ``PATH.py:function``, or a file with the key ``model``; ``model_of`` builds it.
    """
    if name in SCALES:
        return SCALES[name]
    if name.endswith((".yaml", ".yml")):
        return read_scale(shipped(name, "scales"), model_of)
    if ".py" in name and "=" not in name:
        return model_of(ModelFile(name))
    if match := SHORTHAND.fullmatch(name):
        pairs = [pair.split("=", 1) for pair in match["rest"].split(",")[1:]]
        lines = [f"layers: {match['layers']}", f"d_model: {match['d_model']}"]
        lines += [f"{'seq_len' if key == 'seq' else key}: {value}" for key, value in pairs]
        return parse_scale("\n".join(lines), f"--scale {name}", name)
    named = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
    if name in named:
        return read_scale(named[name])
    known = nearest(name, [*SCALES, *named])
    raise InputError(f"unknown scale {name!r}; {known}, or give a file such as {EXAMPLE}, or 6x384,seq=256")


def read_scale(path: Path, model_of: ModelOf = no_models) -> Scale:
    """The scale that a YAML file declares; raises `InputError` as ``FILE:LINE: what is wrong``."""
    return declared_scale(declared.read_yaml(path, "scale", EXAMPLE), path.stem, model_of)


def parse_scale(text: str, path: str, name: str) -> Scale:
    """The scale that a YAML text declares; ``path`` is named in errors, ``name`` is the scale's unless it has one."""
    return declared_scale(declared.parse_yaml(text, path, EXAMPLE), name)


def declared_scale(root: declared.Node, name: str, model_of: ModelOf = no_models) -> Scale:
    """The scale that a mapping declares, of a file or inside of one; ``name`` is its name unless it has one."""
    if isinstance(root.plain, dict) and "model" in root.plain:
        return _declared_model(root, name, model_of)
    keys = declared.mapping(root, "a scale", KEYS)
    for key in ("layers", "d_model"):
        if key not in keys:
            root.fail(f"a scale needs the key {key!r}; {EXAMPLE} is an example")
    options = dict(FAMILIES[declared.word(keys["family"], "family", tuple(FAMILIES))]) if "family" in keys else {}
    defaults = {field.name: field.default for field in fields(Scale)}
    for key, node in keys.items():
        if key in ("family", "name", "ladder"):
            continue
        if key in WORDS_OF_SCALE:
            options[key] = declared.word(node, key, WORDS_OF_SCALE[key])
        elif isinstance(defaults[key], bool):
            options[key] = declared.switch(node, key)
        elif isinstance(defaults[key], float):
            options[key] = declared.number(node, key)
        else:
            options[key] = declared.whole(node, key, least=1)
    if options.get("positions", "rope") != "rope":
        if "rope_base" in keys:
            keys["rope_base"].fail(
                "rope_base has no use without rotary positions; leave it out, or say positions: rope"
            )
        options.pop("rope_base", None)  # a family's, of no use either: one architecture has one spelling
    width = options["d_model"]
    options.setdefault("d_ff", 4 * width)
    if "heads" not in options:
        # Heads of 64 are usual from GPT-2 on; narrow models have heads of 32, as the nano ladder.
        size = next((size for size in (64, 32) if width % size == 0 and width >= size**2 // 16), width)
        options["heads"] = width // size
    named = declared.word(keys["name"], "name") if "name" in keys else name
    if not named:
        root.fail("a scale that is written into another file needs the key 'name'")
    if not re.fullmatch(r"[\w.,=+-]{1,160}", named):  # reports and ledgers name files after it
        root.fail(f"a scale's name cannot be {named!r}; use letters, digits and .,=+-_", root.keys.get("name"))
    if named in SCALES and Path(root.path).parent != FOLDER:
        root.fail(f"{named!r} is the name of a built-in scale; choose another", root.keys.get("name"))
    try:
        scale = Scale(named, "nano", seq_len=options.pop("seq_len", 1), **options)
        ladder = nearest_ladder(scale)
        if "ladder" in keys:
            ladder = declared.word(keys["ladder"], "ladder", tuple(SEQUENCE))
        return replace(scale, ladder=ladder, seq_len=scale.seq_len if "seq_len" in keys else SEQUENCE[ladder])
    except InputError as error:
        # The key that the sentence names first is the one to look at.
        words = re.findall(r"\w+", str(error))
        root.fail(str(error), next((root.keys[word] for word in words if word in root.keys), root.line))


def _declared_model(root: declared.Node, name: str, model_of: ModelOf) -> Scale:
    keys = declared.mapping(root, "a scale with a model of its own", MODEL_KEYS)
    word = declared.word(keys["model"], "model")
    beside = Path(root.path).parent / word
    if beside.parent.joinpath(beside.name.partition(":")[0]).is_file():
        word = str(beside)
    arguments, routing = _pairs(keys, "arguments", "{width: 64}"), _pairs(keys, "routing", "{down: vector}")
    if "seq_len" in keys and "seq_len" in arguments and keys["seq_len"].plain != arguments["seq_len"].plain:
        arguments["seq_len"].fail("the arguments have another seq_len than the scale; give it once, as seq_len")
    try:
        return model_of(
            ModelFile(
                word,
                name=declared.word(keys["name"], "name") if "name" in keys else name,
                ladder=declared.word(keys["ladder"], "ladder", tuple(SEQUENCE)) if "ladder" in keys else "",
                seq_len=declared.whole(keys["seq_len"], "seq_len", least=1) if "seq_len" in keys else None,
                arguments=tuple((key, declared.value(node, key)) for key, node in arguments.items()),
                routing=tuple((key, declared.word(node, "a role")) for key, node in routing.items()),
            )
        )
    except InputError as error:
        if str(error).startswith(f"{root.path}:"):
            raise
        root.fail(str(error))


def _pairs(keys: Mapping[str, declared.Node], key: str, example: str) -> dict[str, declared.Node]:
    """What stands under a key that is a mapping of any names; nothing where there is no such key, or nothing in it."""
    node = keys.get(key)
    if node is None or node.plain is None:
        return {}
    if not isinstance(node.plain, dict):
        node.fail(f"{key} must be a mapping, not {declared.in_words(node)}; try {key}: {example}")
    return dict(node.plain)


def nearest_ladder(scale: Scale) -> str:
    """The ladder with the scale that is nearest in N (by ratio): its search space and starts are the likeliest."""
    return min(SCALES.values(), key=lambda known: _apart(known, scale)).ladder


def _apart(one: Scale, other: Scale) -> float:
    """How far two scales are apart in N, by ratio."""
    return abs(math.log(one.parameters / other.parameters))


def ladder_note(scale: Scale) -> str:
    """Whose grids and starts apply to a scale that is not built in, in a sentence; empty for the others."""
    if SCALES.get(scale.name) == scale:
        return ""
    ladder = [known for known in SCALES.values() if known.ladder == scale.ladder]
    near = min(ladder or SCALES.values(), key=lambda known: _apart(known, scale))  # a ladder may be a user's own
    times = scale.parameters / near.parameters
    size = f"{times:.3g} times as large" if times >= 1 else f"{1 / times:.3g} times smaller"
    return (
        f"{scale.name} has N = {scale.parameters:,} and takes grids and starts of the ladder {scale.ladder}, whose "
        f"nearest scale is {near.name}" + (f"; it is {size}" if times != 1 else "")
    )
