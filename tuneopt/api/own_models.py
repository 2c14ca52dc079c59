"""Scales by their words, models of a user's own among them, and whether an optimizer can train such a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tuneopt.constants import VOCAB_SIZES
from tuneopt.errors import in_words
from tuneopt.scale_files import ModelFile, find_scale
from tuneopt.spec import InputError, OwnModel, Scale, Value

if TYPE_CHECKING:
    from tuneopt.search.space import LadderSpace

DEFAULT_SCALE = "nano-65k"
"""The scale where nobody names one."""


def scale_named(word: str | Scale) -> Scale:
    """The scale of a name, a YAML file, a shorthand, or ``PATH.py:build``, which is run; a scale is taken as it is.

    Raises `InputError` for anything else, and for a model that trials could not rely on.
    """
    return word if isinstance(word, Scale) else find_scale(word, model_of)


def model_of(file: ModelFile) -> Scale:
    """Build, count and try the model that a file asks for (`tuneopt.training.own_model.measure`)."""
    from tuneopt.training.own_model import measure

    return measure(file)


def own_model(
    word: str, arguments: Mapping[str, Value] | None = None, routing: Mapping[str, str] | None = None
) -> Scale:
    """A model of a user's own in the place of a scale: ``PATH.py:build`` with what ``build`` is called with.

    ``routing`` maps patterns of parameter names to roles (`tuneopt.optim.routing.ROLES`); the first that fits decides.
    """
    pairs = tuple((arguments or {}).items())
    return model_of(ModelFile(word, arguments=pairs, routing=tuple((routing or {}).items())))


def chosen_scale(
    scale: str, model: str | None, arguments: Mapping[str, Value], routing: Mapping[str, str]
) -> str | Scale:
    """What a command's ``--scale`` or ``--model`` asks for; raises `InputError` where they contradict each other."""
    if model is None:
        given = [option for option, value in (("--model-set", arguments), ("--route", routing)) if value]
        if given:
            raise InputError(f"{given[0]} belongs to a model of your own; add --model PATH.py:build")
        return scale
    if scale != DEFAULT_SCALE:
        raise InputError(f"--model takes the place of --scale {scale}; give one of them")
    return own_model(model, arguments, routing)


def check_on_model(space: LadderSpace, scale: Scale) -> None:
    """Build an optimizer once over a model of a user's own, at the start of its space; nothing for other scales.

    Raises `InputError` for one that needs to know the inside of a model, and for one that cannot be built.
    """
    if isinstance(scale, OwnModel):
        routes(space, scale)


def routes(space: LadderSpace, scale: OwnModel) -> Sequence[Any]:
    """The routing table of an optimizer over a model of a user's own (`tuneopt.optim.routing.Route`)."""
    from tuneopt.optim.base import Optimizer
    from tuneopt.optim.factory import implementation
    from tuneopt.spec import CorpusId, Regime, TrialSpec
    from tuneopt.training.building import build_optimizer
    from tuneopt.training.own_model import VOCABULARIES, build

    kind, word = implementation(space.optimizer), scale.model.partition("@")[0]
    if kind.update_hessian is not Optimizer.update_hessian:
        raise InputError(
            f"{space.optimizer} takes second derivatives by tuneopt's own layers, which {word} does not have; choose "
            "another optimizer, or a scale"
        )
    if kind.model_facts:
        raise InputError(
            f"{space.optimizer} asks for the {' and '.join(kind.model_facts)} of a model, which nothing tells of "
            f"{word}; choose another optimizer, or a scale"
        )
    regime = Regime(scale, 1.0, CorpusId("unread", "", VOCABULARIES[0]))
    spec = TrialSpec(space.optimizer, space.start, regime)
    try:
        return build_optimizer(spec, build(scale, VOCABULARIES[0], 0)).routing
    except (InputError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a user's code may raise anything
        raise InputError(f"{space.optimizer} cannot be built over {word}: {in_words(error)}") from error


@dataclass(frozen=True, slots=True)
class RouteGroup:
    """Parameters that differ in the numbers of their names alone, such as those of all layers: where they go."""

    parameter: str
    count: int
    shape: tuple[int, ...]
    role: str
    rule: str
    pieces: int
    decay: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model of a user's own in figures, and its routing table under an optimizer.

    ``parameters`` is N, ``tokens`` those of ratio 1; shapes are those over ``vocabulary`` entries.
    """

    scale: OwnModel
    vocabulary: int
    parameters: int
    total_parameters: int
    flops_per_token: int
    tokens: int
    optimizer: str
    routing: tuple[RouteGroup, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON shape of ``model show``."""
        return {**asdict(self), "scale": self.scale.to_dict()}


def model_facts(
    word: str,
    optimizer: str = "muon",
    space: str | None = None,
    arguments: Mapping[str, Value] | None = None,
    routing: Mapping[str, str] | None = None,
) -> ModelFacts:
    """What a model of a user's own is, and which rule of an optimizer takes which of its parameters.

    ``word`` is ``PATH.py:build``, or a YAML file that names one. Raises `InputError` for a model that cannot be used.
    """
    from tuneopt.api.optimizers import space_of
    from tuneopt.optim.routing import model_roles
    from tuneopt.spec import CorpusId, Regime
    from tuneopt.training.own_model import VOCABULARIES, build

    if ".py" not in word and (arguments or routing):
        raise InputError(f"{word} says itself what its model is called with and routed by; write it there")
    scale = own_model(word, arguments, routing) if ".py" in word else scale_named(word)
    if not isinstance(scale, OwnModel):
        raise InputError(f"{word} is no model of your own; see it with `tuneopt scale show {word}`")
    declared = space_of(optimizer, space).on(scale.ladder)
    vocabulary = VOCAB_SIZES[scale.ladder]
    roles = model_roles(build(scale, VOCABULARIES[0], 0), scale)
    return ModelFacts(
        scale=scale,
        vocabulary=vocabulary,
        parameters=scale.parameters,
        total_parameters=scale.total_parameters(vocabulary),
        flops_per_token=scale.flops_per_token(vocabulary),
        tokens=Regime(scale, 1.0, CorpusId("unread", "", vocabulary)).tokens,
        optimizer=declared.optimizer,
        routing=_grouped(routes(declared, scale), roles, vocabulary),
        notes=(limits_of(scale),),
    )


def limits_of(scale: OwnModel) -> str:
    """What a model of a user's own cannot have, in a sentence."""
    word = scale.model.partition("@")[0]
    return (
        f"{word} is a model of your own: it trains without ZeRO, activation checkpointing, a chunked head, and export; "
        "its FLOPs count matrices and head alone, and the memory of its passes is not predicted"
    )


def role_summary(scale: OwnModel) -> str:
    """Which parameters of a model are what, in a sentence; names of layers are joined."""
    from tuneopt.optim.routing import model_roles
    from tuneopt.training.own_model import VOCABULARIES, build

    model = build(scale, VOCABULARIES[0], 0)
    by_kind: dict[str, dict[str, int]] = {}
    for name, role in model_roles(model, scale).items():
        names = by_kind.setdefault(role.kind if role.pieces == 1 else f"{role.kind}*{role.pieces}", {})
        names[joined(name)] = names.get(joined(name), 0) + 1
    tied = len({id(entry) for _, entry in model.named_parameters(remove_duplicate=False)}) < sum(
        1 for _ in model.named_parameters(remove_duplicate=False)
    )
    parts = []
    for kind, names in by_kind.items():
        listed = f"{sum(names.values())} parameters" if kind == "vector" else ", ".join(
            name if count == 1 else f"{name} x{count}" for name, count in names.items()
        )  # fmt: skip
        parts.append(f"{kind}: {listed}")
    return f"routing of {scale.name}: {'; '.join(parts)}" + ("; tied weights count once, as the embedding" * tied)


def joined(name: str) -> str:
    """A parameter's name with a star for each number in it."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def _grouped(table: Sequence[Any], roles: Mapping[str, Any], vocabulary: int) -> tuple[RouteGroup, ...]:
    from tuneopt.training.own_model import VOCABULARIES

    groups: dict[tuple[Any, ...], int] = {}
    for route in table:
        role = roles.get(route.parameter)
        kind, reason = (role.kind, role.reason) if role else ("frozen", route.reason)
        follows = reason == "its shape follows the vocabulary"
        shape = tuple(vocabulary if follows and side == VOCABULARIES[0] else side for side in route.shape)
        key = (joined(route.parameter), shape, kind, route.rule, route.pieces, route.decay, reason)
        groups[key] = groups.get(key, 0) + 1
    return tuple(RouteGroup(key[0], count, *key[1:]) for key, count in groups.items())
