"""Architectures: the shape of a decoder by name, and the two ladders that are built in.

The defaults are the study's Llama 2 (Wen et al., arXiv 2509.02046). Options lead to GPT-2, Qwen3, nanochat and kin.
`tuneopt.training.model` builds what is said here. Files of a user's own are read by `tuneopt.scale_files`.
Units: parameters, tokens, FLOPs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from tuneopt import checked
from tuneopt.errors import InputError

WORDS_OF_SCALE: Mapping[str, tuple[str, ...]] = {
    "activation": ("swiglu", "gelu", "gelu_tanh", "relu2"),
    "norm": ("rmsnorm", "layernorm", "rms"),
    "qk_norm": ("none", "before_rope", "after_rope"),
    "positions": ("rope", "learned"),
    "init": ("normal", "fan_in"),
}
"""What each part of an architecture may be, its default first (`Scale` explains them)."""


def flat(entry: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, as they are.

    Ids and records take it thousands of times, and `dataclasses.asdict` copies every value deeply for nothing.
    """
    kind = type(entry)
    names = _names.get(kind)
    if names is None:
        names = _names[kind] = tuple(entry.name for entry in fields(kind))
    return {name: getattr(entry, name) for name in names}


_names: dict[type[Any], tuple[str, ...]] = {}


@dataclass(frozen=True, slots=True)
class Scale:
    """The shape of a decoder. The seven fields without a default give the study's Llama 2: no biases, SwiGLU, RMSNorm,
    rotary positions, an untied head. The others turn it into GPT-2, Qwen3, nanochat and kin.

    Raises `InputError` for what no model can have. Ids hash a scale, its name included, and leave out what has its
    default (`to_dict`), so a field that is added keeps every id.
    """

    name: str
    ladder: str
    """``paper`` or ``nano``: search spaces and vocabularies are declared for a ladder."""
    layers: int
    d_model: int
    d_ff: int
    heads: int
    seq_len: int
    """Tokens of a training sequence."""
    kv_heads: int | None = None
    """Heads of keys and values, each shared by ``heads / kv_heads`` queries (grouped queries); None: as ``heads``."""
    head_dim: int | None = None
    """Width of a head; None: d_model / heads."""
    tied: bool = False
    """Whether the head is the embedding."""
    activation: str = "swiglu"
    """``swiglu`` has three matrices; ``gelu`` (exact), ``gelu_tanh`` (as GPT-2) and ``relu2`` (squared) have two."""
    norm: str = "rmsnorm"
    """``rmsnorm`` and ``layernorm`` have weights, ``rms`` has none."""
    norm_eps: float = 1e-5
    qk_norm: str = "none"
    """Norms over each head's queries and keys, ``before_rope`` (Qwen3) or ``after_rope`` (nanochat)."""
    positions: str = "rope"
    rope_base: float = 10_000.0
    embed_norm: bool = False
    """Whether the embedding is normalized before the first layer."""
    biases: bool = False
    """Biases of all matrices but embedding and head, and of LayerNorm."""
    softcap: float = 0.0
    """c: logits are c tanh(z / c); 0 leaves them."""
    init: str = "normal"
    """``normal``: every matrix from N(0, init_std^2). ``fan_in``: all but embedding and head from N(0, 1 / columns)."""
    init_std: float = 0.02

    def __post_init__(self) -> None:
        checked.text("a scale's name", self.name)
        checked.text("a scale's ladder", self.ladder)
        checked.whole("a scale's layers", self.layers, least=1, most=10**4)
        checked.whole("a scale's seq_len", self.seq_len, least=1, most=2**31)
        for name in ("d_model", "d_ff", "heads"):
            checked.whole(f"a scale's {name}", getattr(self, name), least=1, most=10**6)
        for name, words in WORDS_OF_SCALE.items():
            chosen = getattr(self, name)
            if chosen not in words:
                raise InputError(f"a scale's {name} cannot be {checked.shown(chosen)}; use {', '.join(words)}")
        for name in ("tied", "embed_norm", "biases"):
            checked.switch(f"a scale's {name}", getattr(self, name))
        for name, least in (("norm_eps", 0.0), ("rope_base", 1.0), ("init_std", 0.0), ("softcap", 0.0)):
            number = getattr(self, name)
            if not checked.is_number(number) or number < least:
                raise InputError(f"a scale's {name} must be {least:g} or more, not {checked.shown(number)}")
        # One spelling for one architecture: what is given as its default is left out.
        for name, default in (("kv_heads", self.heads), ("head_dim", self.d_model / self.heads)):
            if getattr(self, name) is not None:
                checked.whole(f"a scale's {name}", getattr(self, name), least=1, most=10**6)
                if getattr(self, name) == default:
                    object.__setattr__(self, name, None)
        self._check_heads()

    def _check_heads(self) -> None:
        if self.head_dim is None and self.d_model % self.heads:
            raise InputError(f"{self.heads} heads do not divide d_model {self.d_model}; use others, or give head_dim")
        if self.heads % self.groups:
            raise InputError(f"kv_heads {self.groups} do not divide {self.heads} heads; use a divisor")
        if self.positions == "rope" and self.head_width % 2:
            raise InputError(f"rotary positions need heads of even width, not {self.head_width}; choose other heads")
        if self.qk_norm == "after_rope" and self.positions != "rope":
            raise InputError("qk_norm after_rope needs rotary positions; use before_rope")

    def declaration(self) -> dict[str, Any]:
        """The scale file that declares it."""
        return self.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and for ids; ``Scale(**plain)`` is its inverse. Fields that have their default are not
        in it, so scales from before a field existed keep their ids.
        """
        plain = flat(self)
        return {key: plain[key] for key in plain if key in SHAPE or plain[key] != _DEFAULTS[key]}

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of its content, to tell architectures apart that share a name."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:8]

    @property
    def head_width(self) -> int:
        """Elements of a query, a key and a value of one head."""
        return self.head_dim or self.d_model // self.heads

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def precision(self) -> str:
        """Precision of the compute where nobody names one: bf16 on the paper ladder, which is meant for GPUs.

        There fp32 is ten times slower. It follows from the ladder and not from the machine, because it is part of a
        trial's id.
        """
        return "bf16" if self.ladder == "paper" else "fp32"

    def facts(self, names: Iterable[str]) -> dict[str, Any]:
        """What an optimizer asks about its model, by the names of fields; ``heads`` are those of keys and values."""
        return {name: self.groups if name == "heads" else getattr(self, name) for name in names}

    @property
    def mlp_matrices(self) -> int:
        """Matrices of a feed-forward layer: SwiGLU has a gate."""
        return 3 if self.activation == "swiglu" else 2

    @property
    def attention_width(self) -> int:
        """Width of all queries of a token, which is d_model unless ``head_dim`` says otherwise."""
        return self.heads * self.head_width

    @property
    def parameters(self) -> int:
        """Non-embedding matrix parameters N, the N of every scaling law here: L (3 d f + 4 d d) for the study's Llama.

        Biases, norms, positions, embedding and head do not count.
        """
        attention = 2 * self.d_model * (self.attention_width + self.groups * self.head_width)
        return self.layers * (self.mlp_matrices * self.d_model * self.d_ff + attention)

    def total_parameters(self, vocab_size: int) -> int:
        """All trained parameters: N, embedding, head unless tied, learned positions, norms and biases."""
        vectors = {"rmsnorm": 1, "layernorm": 2 if self.biases else 1, "rms": 0}[self.norm]
        norms = (2 * self.layers + 1 + self.embed_norm) * vectors * self.d_model
        norms += 2 * self.layers * vectors * self.head_width * (self.qk_norm != "none")
        tables = (1 if self.tied else 2) * vocab_size + (self.seq_len if self.positions == "learned" else 0)
        biases = 0
        if self.biases:
            attention = self.attention_width + 2 * self.groups * self.head_width + self.d_model
            biases = self.layers * (attention + (self.mlp_matrices - 1) * self.d_ff + self.d_model)
        return self.parameters + tables * self.d_model + norms + biases

    def flops_per_token(self, vocab_size: int) -> int:
        """Training FLOPs per token, forward and backward: 6N + 6 L T d (causal attention) + 6 d V (head)."""
        attention = 6 * self.layers * self.seq_len * self.attention_width
        return 6 * self.parameters + attention + 6 * self.d_model * vocab_size


@dataclass(frozen=True, slots=True)
class OwnModel(Scale):
    """A model of a user's own, built by a function of a file, in the place of a scale.

    Nothing is known of its inside: the shape of a `Scale` is 1 in every number, and the parameters were counted on the
    model itself (`tuneopt.training.own_model`). What decides its training is here, so that ids hash it.
    """

    model: str = ""
    """The function, and twelve digits of the SHA-256 of its file's content: ``build@0123456789ab``."""
    arguments: tuple[tuple[str, float | int | str | bool], ...] = ()
    """What the function is called with, besides the vocabulary and the length of a sequence."""
    routing: tuple[tuple[str, str], ...] = ()
    """Patterns of parameter names and the roles that their user gives them (`tuneopt.optim.routing`)."""
    tables: tuple[tuple[str, str], ...] = ()
    """The parameters whose shape follows the vocabulary, and whether they are ``embedding`` or ``head``."""
    matrices: int = 0
    """N: parameters in matrices, without embedding, head, positions, norms and biases."""
    others: int = 0
    """Parameters that neither count for N nor follow the vocabulary."""
    entry: int = 0
    """Parameters for each entry of the vocabulary: twice the width where embedding and head are two tables."""
    width: int = 0
    """Columns of the head."""
    place: str = field(default="", compare=False)
    """Where the file lies on this machine; no part of what it is."""

    def __post_init__(self) -> None:
        Scale.__post_init__(self)
        for name in ("arguments", "tables"):  # mappings in JSON, and one order for one meaning
            object.__setattr__(self, name, tuple(sorted(dict(getattr(self, name)).items())))
        object.__setattr__(self, "routing", tuple((str(pattern), str(role)) for pattern, role in self.routing))
        checked.text("a model's function", self.model)
        for name, least in (("matrices", 1), ("others", 0), ("entry", 1), ("width", 1)):
            checked.whole(f"a model's {name}", getattr(self, name), least=least, most=checked.LARGEST_COUNT)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and for ids; `scale_of` is its inverse."""
        pairs: dict[str, Any] = {name: dict(getattr(self, name)) for name in ("arguments", "tables")}
        pairs["routing"] = [list(pair) for pair in self.routing]  # a list: the first pattern that fits decides
        counts = {name: getattr(self, name) for name in ("matrices", "others", "entry", "width")}
        about = {name: getattr(self, name) for name in ("name", "ladder", "seq_len", "model")}
        return {**about, **{name: plain for name, plain in pairs.items() if plain}, **counts}

    def declaration(self) -> dict[str, Any]:
        """The scale file that asks for it, on this machine."""
        plain = {name: getattr(self, name) for name in ("name", "ladder", "seq_len")}
        plain["model"] = f"{self.place}:{self.model.partition('@')[0]}"
        pairs = {"arguments": dict(self.arguments), "routing": dict(self.routing)}
        return {**plain, **{name: entries for name, entries in pairs.items() if entries}}

    def facts(self, names: Iterable[str]) -> dict[str, Any]:
        """Nothing: what is inside is not known."""
        return {}

    @property
    def parameters(self) -> int:
        """The counted N."""
        return self.matrices

    def total_parameters(self, vocab_size: int) -> int:
        """All trained parameters, as counted."""
        return self.matrices + self.others + self.entry * vocab_size

    def flops_per_token(self, vocab_size: int) -> int:
        """6 (N + d V): what the products with matrices and head take. Attention and all else is not known."""
        return 6 * (self.matrices + self.width * vocab_size)


def scale_of(plain: Mapping[str, Any]) -> Scale:
    """The scale, or the model of a user's own, of plain data; raises `TypeError` for what is neither."""
    if "model" not in plain:
        return Scale(**plain)
    return OwnModel(**{**dict.fromkeys(("layers", "d_model", "d_ff"), 1), "heads": 1, "positions": "learned", **plain})


SHAPE = tuple(entry.name for entry in fields(Scale) if entry.default is MISSING)
"""The fields that every scale has to name."""

_DEFAULTS = {entry.name: entry.default for entry in fields(Scale)}


def _paper(name: str, d_model: int) -> Scale:
    """32 layers, heads of 64 dimensions, sequences of 4096 tokens."""
    return Scale(name, "paper", 32, d_model, 4 * d_model, d_model // 64, 4096)


def _nano(name: str, d_model: int) -> Scale:
    """4 layers, heads of 32 dimensions, sequences of 128 tokens: a run takes minutes on one core."""
    return Scale(name, "nano", 4, d_model, 4 * d_model, max(1, d_model // 32), 128)


SCALES: Mapping[str, Scale] = {
    scale.name: scale
    for scale in (
        _nano("nano-65k", 32),
        _nano("nano-147k", 48),
        _nano("nano-262k", 64),
        _nano("nano-590k", 96),
        _nano("nano-1m", 128),
        _paper("130m", 512),
        _paper("300m", 768),
        _paper("520m", 1024),
        _paper("1.2b", 1536),
    )
}
"""Both ladders, smallest first. The paper's is that of arXiv 2509.02046; the nano ladder is for CPUs."""
