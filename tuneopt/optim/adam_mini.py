"""Adam-mini: one second moment per block. Source: Zhang et al., arXiv 2406.16793; as run in arXiv 2509.02046.

m <- beta1 m + (1 - beta1) g
v <- beta2 v + (1 - beta2) mean(g^2)              (mean over a block)
u  = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
p <- p - lr (u + wd p)

A block is a row (an output neuron, a token of the embedding or the head), or in query and key projections the rows of
one attention head. Norms and other vectors are AdamW's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from tuneopt.optim.adamw import AdamWRule
from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.hyperparameters import Bounds, OneOf, Only, Settings, settings_of
from tuneopt.optim.portions import portions
from tuneopt.optim.routing import DEFAULT_RULES, MAIN, RouteRule
from tuneopt.optim.rule import Divisor, ElementwiseRule, ListState, Shape, Tensors, apply_in_one_pass, divided
from tuneopt.spec import InputError

QUERY_OR_KEY = r"(^|[._])(w?[qk]|query|key)(_?proj)?\.weight$"
"""Names of the projections that have one block per head."""

HEAD_COUNTS = ("num_key_value_heads", "num_kv_heads", "heads", "num_heads", "n_heads", "num_attention_heads")
"""Attributes in which attention modules and their configurations say how many key and value heads they have."""

PER_HEAD = RouteRule(QUERY_OR_KEY, "adam_mini_heads", True, "query or key: one block per head", min_ndim=2, max_ndim=2)
HEADS_UNKNOWN = replace(PER_HEAD, rule=MAIN, reason="query or key: one block per row, the number of heads is unknown")


def adam_mini_update(
    gradients: list[Tensor],  # g, stacks of blocks (n, a, b)
    exp_avg: list[Tensor],  # m, (n, a, b), updated in place
    exp_avg_sq: list[Tensor],  # v, one number per block, (n, 1, 1), updated in place
    *,
    step: int,
    beta1: float,
    beta2: float,
    eps: float,
) -> list[Tensor]:
    """The direction u of the module's formula, (n, a, b); ``step`` is t and counts from 1."""
    torch._foreach_lerp_(exp_avg, gradients, 1 - beta1)
    norms = [torch.linalg.vector_norm(gradient, dim=(1, 2), keepdim=True) for gradient in gradients]
    squares = torch._foreach_mul(norms, norms)
    torch._foreach_div_(squares, [float(gradient[0].numel()) for gradient in gradients])
    torch._foreach_lerp_(exp_avg_sq, squares, 1 - beta2)
    scale = torch._foreach_div(exp_avg_sq, 1 - beta2**step)
    torch._foreach_sqrt_(scale)
    torch._foreach_add_(scale, eps)
    torch._foreach_mul_(scale, 1 - beta1**step)
    torch._foreach_reciprocal_(scale)
    return list(torch._foreach_mul(exp_avg, scale))


def block_count(shape: Shape, settings: Settings) -> int:
    """Blocks of a parameter: the group's ``heads`` for each of its logical matrices; where that is 0, its rows."""
    rows = shape[1] if settings["transposed"] else shape[0]
    return int(settings["heads"] * settings["pieces"]) or rows


def by_block(tensor: Tensor, settings: Settings) -> Tensor:
    """A parameter-shaped tensor as a view (blocks, rows of a block, in)."""
    matrix = tensor.mT if settings["transposed"] else tensor
    return matrix.view(block_count(tuple(tensor.shape), settings), -1, matrix.shape[1])


def heads_of(model: object) -> int:
    """The number of key and value heads that every attention module of a model agrees on; 0 where it is unknown."""
    if not isinstance(model, nn.Module):
        return 0
    found = set()
    for module in model.modules():
        if any(re.search(QUERY_OR_KEY, f"{child}.weight") for child, _ in module.named_children()):
            homes = (module, getattr(module, "config", None), getattr(model, "config", None))
            counts = (getattr(home, name, None) for home in homes for name in HEAD_COUNTS)
            found.add(next((count for count in counts if isinstance(count, int)), 0))
    return found.pop() if len(found) == 1 else 0


class AdamMiniRule(ElementwiseRule):
    """Adam-mini for matrices, embeddings and the head; the group's ``heads`` cuts blocks, or 0 for one per row."""

    name = "adam_mini"

    def takes(self, shape: Shape) -> bool:
        """What has rows."""
        return len(shape) >= 2

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """The first moment, and one second moment per block."""
        return {"exp_avg": shape, "exp_avg_sq": (block_count(shape, settings), 1, 1)}

    def direction(self, gradients: Tensors, state: ListState, settings: Settings, step: int) -> Tensors:
        """See `adam_mini_update`; gradients and result are shaped as parameters."""
        grads, exp_avg = ([by_block(t, settings) for t in column] for column in (gradients, state["exp_avg"]))
        update = self._update(grads, exp_avg, state["exp_avg_sq"], settings, step)
        matrices = [stack.flatten(0, 1) for stack in update]
        return [matrix.mT for matrix in matrices] if settings["transposed"] else matrices

    def advance(
        self, parameters: Tensors, gradients: Tensors, state: ListState, settings: Settings, step: int, divisor: Divisor
    ) -> None:
        """Direction and apply on views (blocks, rows, in), so that a portion holds whole blocks."""
        whole = (parameters, gradients, state["exp_avg"])
        stacks = [[by_block(tensor, settings) for tensor in column] for column in whole]
        for _, (own, grads, exp_avg, exp_avg_sq) in portions([*stacks, state["exp_avg_sq"]]):
            apply_in_one_pass(own, self._update(divided(grads, divisor), exp_avg, exp_avg_sq, settings, step), settings)

    def _update(
        self, grads: list[Tensor], exp_avg: list[Tensor], exp_avg_sq: list[Tensor], settings: Settings, step: int
    ) -> list[Tensor]:
        beta1, beta2 = settings["betas"]
        return adam_mini_update(grads, exp_avg, exp_avg_sq, step=step, beta1=beta1, beta2=beta2, eps=settings["eps"])


class AdamMiniHeadsRule(AdamMiniRule):
    """Adam-mini for query and key projections: a block is what belongs to one key and value head."""

    name = "adam_mini_heads"


class AdamMini(Optimizer):
    """Adam-mini for matrices, embeddings and the head; AdamW at the same rate for norms and other vectors.

    ``heads`` is the number of key and value heads: query and key weights have one second moment per head, all other
    rows one each. Left out, it is read from the attention modules of a model that is passed; where it stays unknown,
    query and key weights have one per row too, and `routing` says so. ``max_grad_norm`` (0 = off) is the joint norm
    of the ``clipped`` gradients: those of the ``vectors`` alone (the study's rule) or of ``all`` parameters.
    Raises `InputError` where the heads do not divide the rows.
    """

    rules = (AdamMiniRule(), AdamMiniHeadsRule(), AdamWRule())
    routing_rules = (
        *(replace(r, rule=MAIN) if r.reason in ("embedding", "output head") else r for r in DEFAULT_RULES[:-1]),
        PER_HEAD,
        DEFAULT_RULES[-1],
    )
    model_facts = ("heads",)
    fixed: ClassVar = {"nesterov": False}

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.004,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-10,
        weight_decay: float = 0.1,
        *,
        heads: Annotated[int | None, Bounds(whole=True), Only("adam_mini_heads")] = None,
        max_grad_norm: float = 1.0,
        clipped: Annotated[str, OneOf(("vectors", "all"))] = "vectors",
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        heads = heads_of(params) if heads is None else heads
        if rules is None and heads == 0:
            rules = [HEADS_UNKNOWN if rule is PER_HEAD else rule for rule in self.routing_rules]
        super().__init__(params, settings_of(locals()), rules)

    def rule_settings(self, rule: str, settings: Settings) -> Settings:
        """Vectors alone are clipped unless ``clipped`` says all."""
        own = super().rule_settings(rule, settings)
        if rule != "adamw" and settings["clipped"] == "vectors":
            own["max_grad_norm"] = 0.0
        return own

    def _add(self, param_group: Mapping[str, Any]) -> None:
        """Raises `InputError` too where heads do not divide the rows."""
        known = len(self.param_groups)
        super()._add(param_group)
        for group in self.param_groups[known:]:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                shape = tuple(parameter.shape)
                if group["heads"] and shape[group["transposed"]] % block_count(shape, group):
                    raise InputError(f"{name!r} of shape {shape} cannot be cut into {group['heads']} heads")
