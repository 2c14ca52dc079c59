"""Models of a user's own: any `torch.nn.Module` that maps tokens to logits, or tokens and targets to a loss.

    def build(vocab_size, seq_len=256):
        return MyModel(vocab_size, seq_len)

`measure` builds such a model, counts its parameters, finds embedding and head, and tries whether trials can rely on it:
whether seeds decide its weights, and weights its loss. `build` and `loss_of` are what a trial trains. The place of a
`tuneopt.spec.Scale` is taken by the `tuneopt.spec.OwnModel` that `measure` gives.
"""

from __future__ import annotations

import inspect
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tuneopt import outside
from tuneopt.architecture import scale_of
from tuneopt.errors import in_words
from tuneopt.optim.routing import model_roles, roles_of
from tuneopt.paths import expanded
from tuneopt.scale_files import SEQUENCE, ModelFile, nearest_ladder
from tuneopt.spec import InputError, OwnModel, Value, nearest

VOCABULARIES = (509, 521)
"""Two vocabularies of prime size: parameters whose shape differs between them follow the vocabulary. Primes, so that
nothing else in a model has that length."""

TRIED_TOKENS = 64
"""Tokens of the sequences that a model is tried on."""

TARGETS = ("targets", "target", "y")
"""The name of a second argument of ``forward`` that asks for the tokens to predict."""

HEAD = re.compile(r"head|unembed|embed_out|(^|[._])(out|output|classifier)", re.IGNORECASE)
"""What heads are called that no module tells apart from an embedding."""

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""``loss(tokens, targets) -> nats per token``, both inputs (B, T) int64."""


def measure(file: ModelFile) -> OwnModel:
    """The model that a file asks for, counted and tried; raises `InputError` in one sentence for what cannot be."""
    path, colon, function = file.word.rpartition(":")
    if not colon or not function.isidentifier():
        raise InputError(f"{file.word!r} names no function; write the file and the function as PATH.py:build")
    model = f"{function}@{outside.take_source(expanded(path), 'model')}"
    try:
        return _measured(file, model)
    except (InputError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a user's code may raise anything, and leave things on which others fail
        raise InputError(f"the model of {function} cannot be tried: {in_words(error)[:300]}") from error


# Remembered by the file's content, whose digest is in `model`: a command asks for one scale several times, and each
# answer builds the model half a dozen times over.
@cache
def _measured(file: ModelFile, model: str) -> OwnModel:
    path = file.word.rpartition(":")[0]
    function, arguments = model.partition("@")[0], dict(file.arguments)
    declared = _parameters(model).get("seq_len")
    given = arguments.pop("seq_len", None)
    default = declared.default if declared is not None and isinstance(declared.default, int) else None
    # Who asks most directly wins: the file's own key, then an argument of the model, then the function's default.
    seq_len = file.seq_len or given or default
    if not isinstance(seq_len, int | None) or isinstance(seq_len, bool):
        raise InputError(f"seq_len must be a whole number of tokens, not {seq_len!r}")
    stem = expanded(path).stem
    words = [
        stem if function == "build" else f"{stem}.{function}",
        *(f"{key}={value}" for key, value in arguments.items()),
    ]
    # The name stands in labels and file names, so it holds no other signs, and tells apart what arguments tell apart.
    name = file.name or re.sub(r"[^\w.,=+-]", "-", ",".join(words))[:160]
    # The ladder follows from the size, and the usual sequence from the ladder: so the size is taken once for a guess.
    sketch = _counted(name, file, model, arguments, seq_len or SEQUENCE["nano"])
    ladder = file.ladder or nearest_ladder(sketch)
    if seq_len is None and SEQUENCE[ladder] != sketch.seq_len:  # a table of positions is as long as a sequence
        sketch = _counted(name, file, model, arguments, SEQUENCE[ladder])
    scale = replace(sketch, ladder=ladder, place=str(expanded(path).resolve()))
    _try(scale)
    return scale


def build(scale: OwnModel, vocab_size: int, seed: int) -> nn.Module:
    """The model of ``scale`` on the CPU, its weights drawn from ``seed``; no generator of the process moves on."""
    with seeded(seed):
        return _called(scale.model, dict(scale.arguments), vocab_size, scale.seq_len)


def fill(model: nn.Module, scale: OwnModel, vocab_size: int, seed: int) -> None:
    """Give a model that was built before the weights and buffers of ``seed``."""
    model.load_state_dict(build(scale, vocab_size, seed).state_dict())


def loss_of(model: nn.Module) -> LossFunction:
    """``loss(tokens, targets)``, the mean nats per token, of whatever the model's call gives.

    A method ``loss(tokens, targets)`` comes first; then a ``forward`` that takes ``targets`` too; then logits, alone or
    as ``logits`` of what comes back, from which the loss is computed in fp32.
    """
    own = getattr(model, "loss", None)
    if callable(own) and not isinstance(own, nn.Module):
        return lambda tokens, targets: _loss(own(tokens, targets), targets)
    accepted = inspect.signature(model.forward).parameters
    word = next((name for name in TARGETS if name in accepted), None)
    more: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}  # transformers keeps keys and values
    if word is not None:
        return lambda tokens, targets: _loss(model(tokens, **{word: targets}, **more), targets)
    return lambda tokens, targets: _loss(model(tokens, **more), targets)


def _loss(given: Any, targets: Tensor) -> Tensor:
    """A loss as it is, or that of logits (B, T, V)."""
    loss, logits = _parts(given)
    if loss is not None:
        return loss
    if logits is None or logits.shape[:2] != targets.shape:
        shape = "nothing that is one" if logits is None else f"shape {tuple(logits.shape)}"
        raise InputError(
            f"the model must give logits of shape (B, T, V) or a loss, and for tokens of shape {tuple(targets.shape)} "
            f"it gave {shape}"
        )
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def _parts(given: Any) -> tuple[Tensor | None, Tensor | None]:
    """The loss and the logits in what a model gave, where there are any."""
    if isinstance(given, Mapping):
        entries = [given.get("loss"), given.get("logits")]
    elif hasattr(given, "logits"):
        entries = [getattr(given, "loss", None), given.logits]
    else:
        entries = list(given) if isinstance(given, tuple | list) else [given]
    # By dimensions, not by place: some models give (loss, logits), some (logits, loss), some hidden states as well.
    tensors = [entry for entry in entries if isinstance(entry, Tensor)]
    loss = next((entry for entry in tensors if entry.ndim == 0), None)
    return loss, next((entry for entry in tensors if entry.ndim == 3), None)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from ``seed`` with torch, numpy and random, and leave their generators as they were."""
    python, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # numpy takes no more than 32 bits
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)


def _parameters(model: str) -> Mapping[str, inspect.Parameter]:
    function = outside.attribute_of(model, "model", "function")
    if not callable(function):
        raise InputError(f"{model.partition('@')[0]} is no function; give one that returns the model")
    return inspect.signature(function).parameters


def _called(model: str, arguments: Mapping[str, Value], vocab_size: int, seq_len: int) -> nn.Module:
    """What the function returns; `InputError` where it cannot be called so, or returns something else."""
    accepted, word = _parameters(model), model.partition("@")[0]
    open_ended = any(entry.kind is entry.VAR_KEYWORD for entry in accepted.values())
    if "vocab_size" not in accepted and not open_ended:
        raise InputError(
            f"{word} must take vocab_size, the entries of the corpus's tokenizer: def {word}(vocab_size, ...)"
        )
    for name in arguments:
        if name not in accepted and not open_ended:
            raise InputError(f"{word} takes no argument {name!r}; {nearest(name, accepted)}")
    given: dict[str, Any] = {"vocab_size": vocab_size, **arguments}
    if "seq_len" in accepted:
        given["seq_len"] = seq_len
    try:
        function = outside.attribute_of(model, "model", "function")
        with outside.covered(model):
            built = function(**given)
    except InputError:
        raise
    except Exception as error:  # a user's code may raise anything
        called = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise InputError(f"{word}({called}) failed: {in_words(error)}") from error
    if not isinstance(built, nn.Module):
        raise InputError(f"{word} returned {type(built).__name__} and must return a torch.nn.Module")
    return built


def _shapes(model: str, arguments: Mapping[str, Value], vocab_size: int, seq_len: int) -> nn.Module:
    """The model without storage where it can be built so, for what its shapes tell."""
    try:
        with seeded(0), torch.device("meta"):
            return _called(model, arguments, vocab_size, seq_len)
    except InputError:  # its code wants numbers
        with seeded(0):
            return _called(model, arguments, vocab_size, seq_len)


def _counted(name: str, file: ModelFile, model: str, arguments: Mapping[str, Value], seq_len: int) -> OwnModel:
    """The parameters by role, and what follows the vocabulary."""
    # What differs between the two is a linear function of V, so two points tell it: the entries that one word more adds
    # (`entry`), and what is there without any (`others`, of norms, biases and tables of positions).
    first, second = (_shapes(model, arguments, size, seq_len) for size in VOCABULARIES)
    shapes = {key: parameter.shape for key, parameter in second.named_parameters()}
    if list(shapes) != [key for key, _ in first.named_parameters()]:
        raise InputError(f"{model.partition('@')[0]} gives other parameters for another vocabulary")
    following = {key: parameter for key, parameter in first.named_parameters() if parameter.shape != shapes[key]}
    # A bias of the head follows the vocabulary as well, and is no table: it has one dimension.
    tables = {key: _table(first, key, parameter) for key, parameter in following.items() if parameter.ndim > 1}
    if not tables:
        raise InputError(f"no parameter of the model follows vocab_size; {model.partition('@')[0]} must use it")
    roles = roles_of(first, tables, file.routing)
    counts = {key: parameter.numel() for key, parameter in first.named_parameters() if parameter.requires_grad}
    matrices = sum(counts[key] for key, role in roles.items() if role.kind in ("matrix", "tensor"))
    if not matrices:
        raise InputError("the model has no matrix besides embedding and head, and a budget follows from those")
    step = VOCABULARIES[1] - VOCABULARIES[0]
    entry = sum((shapes[key].numel() - counts[key]) // step for key in following if key in counts)
    # The width of a row of the head, or of the embedding where the two are tied.
    last = [key for key, kind in tables.items() if kind == "head"] or list(tables)
    others = sum(counts.values()) - matrices - entry * VOCABULARIES[0]
    scale = scale_of(
        {
            "name": name,
            "ladder": file.ladder or "nano",
            "seq_len": seq_len,
            "model": model,
            "arguments": arguments,
            "routing": file.routing,
            "tables": tables,
            "matrices": matrices,
            "others": others,
            "entry": entry,
            "width": (shapes[last[-1]].numel() - following[last[-1]].numel()) // step,
        }
    )
    assert isinstance(scale, OwnModel)
    return scale


def _table(model: nn.Module, name: str, parameter: Tensor) -> str:
    """Whether a table over the vocabulary is the embedding, which a tied one counts as, or the head."""
    # By identity, because `in` would compare entries; and all modules, because a tied weight belongs to two.
    modules = [
        module for module in model.modules() if any(own is parameter for own in vars(module)["_parameters"].values())
    ]
    if any(isinstance(module, nn.Embedding) for module in modules):
        return "embedding"
    linear = any(isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D" for module in modules)
    return "head" if linear or HEAD.search(name) else "embedding"


def _try(scale: OwnModel) -> None:
    """Raise `InputError` for a model that trials could not rely on.

    Each claim that a trial's record makes is tried once here, cheaply, before hours of device time rest on it: that the
    seed decides the weights, the weights the loss, and that the loss is one of predicting the next token.
    """
    vocabulary, word = VOCABULARIES[0], scale.model.partition("@")[0]
    model = build(scale, vocabulary, 0)
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    # Master weights are fp32: in what the passes compute is the trial's precision.
    narrow = next((name for name, value in weights.items() if value.dtype != torch.float32), None)
    if narrow is not None:
        raise InputError(
            f"{narrow} is {weights[narrow].dtype}; build the model in float32, --precision says how it computes"
        )
    if not _equal(build(scale, vocabulary, 0), weights):
        raise InputError(
            f"two models of one seed differ; {word} must draw its weights from torch, numpy or random alone"
        )
    if _equal(build(scale, vocabulary, 1), weights):
        raise InputError(
            f"models of two seeds are equal, so seeds would show no noise; let {word} set no seed of its own"
        )
    _try_memory(model, word)
    there = dict(model.named_parameters())
    tokens = torch.randint(
        vocabulary, (2, min(scale.seq_len, TRIED_TOKENS) + 1), generator=torch.Generator().manual_seed(0)
    )
    model.train()  # as a trial runs it: dropout and batch statistics show in this mode alone
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    loss = loss_of(model)
    try:
        one, again = (loss(tokens[:, :-1], tokens[:, 1:]) for _ in range(2))
    except InputError:  # of `_loss`: it says what is wrong better than the sentence below
        raise
    except Exception as error:
        shape = f"({tokens.shape[0]}, {tokens.shape[1] - 1})"
        raise InputError(f"the model fails on tokens of shape {shape}: {in_words(error)}") from error
    if not math.isfinite(one.item()):
        raise InputError("the untrained model's loss is not finite; initialize it with smaller weights")
    if one.item() != again.item():
        raise InputError(
            f"the model gives another loss each time, {one.item():.4f} and {again.item():.4f}; set its dropout to 0: "
            "with it, equal seeds would not see equal noise, and no run could go on from a checkpoint to the bit"
        )
    if any(not torch.equal(buffer, before[name]) for name, buffer in model.named_buffers()):
        raise InputError(
            "the model changes its buffers as it computes (batch statistics?); losses would depend on evaluations"
        )
    now = dict(model.named_parameters())
    made = next((name for name in {**there, **now} if there.get(name) is not now.get(name)), None)
    if made is not None:
        raise InputError(f"the model makes or replaces {made} as it computes; make all parameters in {word}")
    _try_mean(loss, tokens, vocabulary)
    _try_order(model, tokens)
    # After the tests that only look: gradients stay in the model.
    one.backward()  # type: ignore[no-untyped-call]
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    silent = next((name for name, grad in grads.items() if grad is None), None)
    if silent is not None:
        raise InputError(f"no gradient reaches {silent}; freeze it with requires_grad_(False), or leave it out")
    sparse = next((name for name, grad in grads.items() if grad is not None and grad.layout != torch.strided), None)
    if sparse is not None:
        raise InputError(
            f"the gradient of {sparse} is sparse, which no optimizer here takes; build it with sparse=False"
        )
    model_roles(model, scale)


def _try_memory(model: nn.Module, word: str) -> None:
    """That each entry of each parameter is a number of its own, and that a state dict takes them all along."""
    taken: dict[int, tuple[str, Tensor]] = {}  # by storage
    for name, parameter in ((name, parameter) for name, parameter in model.named_parameters() if parameter.numel()):
        storage = parameter.untyped_storage()
        held = parameter.numel() * parameter.element_size()
        if held == storage.nbytes() and storage.data_ptr() not in taken and parameter.is_contiguous():
            taken[storage.data_ptr()] = name, torch.empty(0)  # all of it, as usual
            continue
        places = torch.arange(storage.nbytes() // parameter.element_size())
        own = places.as_strided(parameter.shape, parameter.stride(), parameter.storage_offset()).flatten()
        own = torch.unique(own)
        other, theirs = taken.get(storage.data_ptr(), (name, own[:0]))
        if len(own) < parameter.numel() or (other != name and (not len(theirs) or torch.isin(own, theirs).any())):
            raise InputError(
                f"{name} shares memory with {'itself' if other == name else other}, so a step on one would move both; "
                f"let {word} clone it, or tie weights by one parameter"
            )
        taken[storage.data_ptr()] = name, torch.cat((theirs, own))
    try:
        kept = model.state_dict()
        lost = {name for name, _ in model.named_parameters()} - set(kept)
        if not lost:
            model.load_state_dict(kept)
    except Exception as error:  # a hook of the model's own may raise anything
        raise InputError(f"the model does not load its own state_dict: {in_words(error)}") from error
    if lost:
        raise InputError(f"the model's state_dict leaves out {min(lost)}, which checkpoints would lose")


def _equal(model: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


@torch.no_grad()
def _try_mean(loss: LossFunction, tokens: Tensor, vocabulary: int) -> None:
    """That the loss is a mean over tokens: a sequence twice has the loss of a sequence."""
    # A sum over tokens would double.
    single, twice = (float(loss(part[:, :-1], part[:, 1:])) for part in (tokens[:1], tokens[:1].repeat(2, 1)))
    if abs(twice - single) > 1e-3 * abs(single):
        raise InputError(
            f"the loss must be the mean over tokens: a sequence has {single:.4f}, and the same twice {twice:.4f}"
        )


@torch.no_grad()
def _try_order(model: nn.Module, tokens: Tensor) -> None:
    """That no logit sees a later token; a model that gives no logits cannot be asked."""
    accepted = inspect.signature(model.forward).parameters
    if any(name in accepted for name in TARGETS) or len(tokens[0]) < 3:
        return
    # Every token from the middle on becomes another one; what was predicted before must not notice, but
    # for rounding.
    half = tokens.shape[1] // 2
    changed = tokens[:, :-1].clone()
    changed[:, half:] = (changed[:, half:] + 1) % VOCABULARIES[0]
    try:
        logits, others = (_parts(model(part))[1] for part in (tokens[:, :-1], changed))
    except Exception:  # a model with a loss method of its own may not be callable at all
        return
    if logits is None or others is None or logits.shape[1] != tokens.shape[1] - 1:
        return  # logits of the last position alone, say: there is nothing to compare
    if not torch.allclose(logits[:, :half], others[:, :half], rtol=1e-3, atol=1e-4):
        raise InputError("logits see tokens that come later; the model must be causal to predict the next one")
