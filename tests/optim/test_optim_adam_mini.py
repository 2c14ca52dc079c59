"""Adam-mini: its twin, its blocks and heads, its proof, and what only carries its name."""

import pytest
import torch
from parity import LR, WD, as_parameters, error, follow, train
from suites import SIZES, ElementwiseSuite, broken
from torch import nn
from watching import failed_rules, watch

from tuneopt.optim import AdamMini, UpdateCheck, create, portions
from tuneopt.optim.adam_mini import AdamMiniHeadsRule, AdamMiniRule, block_count, by_block, heads_of
from tuneopt.optim.adamw import AdamWRule
from tuneopt.optim.routing import DEFAULT_RULES, RouteRule
from tuneopt.optim.testing import OptimizerConformance, TinyModel, seed_gradients
from tuneopt.spec import SCALES, InputError
from tuneopt.training.model import Decoder

RULE = {"betas": (0.9, 0.98), "eps": 1e-10, "weight_decay": WD}


class TestConformance(OptimizerConformance):
    def make(self, params, **overrides):
        return AdamMini(params, heads=2, **overrides)


class TestConformanceWithoutHeads(OptimizerConformance):
    def make(self, params, **overrides):
        return AdamMini(params, clipped="all", **overrides)


class TestSuite(ElementwiseSuite):
    kind, name, settings = AdamMini, "adam_mini", {"heads": 2}


def run(dtype=torch.float32, limit=1.0, heads=4, clipped="vectors"):
    parameters = as_parameters(dtype)
    return train(parameters, AdamMini(parameters, LR, **RULE, heads=heads, max_grad_norm=limit, clipped=clipped))


def reference(limit=1.0, heads=4, clip_all=False):
    words = {"beta1": 0.9, "beta2": 0.98, "epsilon": 1e-10, "heads": heads, "max_grad_norm": limit}
    return follow("adam_mini", clipped="all" if clip_all else "vectors", **words)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("limit", [0.0, 0.1])
@pytest.mark.parametrize("clipped", ["vectors", "all"])
def test_adam_mini_equals_its_twin(dtype, tolerance, limit, clipped):
    """The fused kernel that moves the vectors has an fp32 divisor, which shows in float64 where clipping is on."""
    theirs = reference(limit, clip_all=clipped == "all")
    assert error(run(dtype, limit, clipped=clipped), theirs) <= (tolerance if limit == 0 else max(tolerance, 1e-7))


@pytest.mark.parametrize("heads", [1, 2, 16])
def test_any_number_of_heads_equals_its_twin(heads):
    assert error(run(heads=heads), reference(heads=heads)) <= 1e-6


def test_heads_and_clip_matter():
    assert error(run(heads=4), reference(heads=16)) > 0.01
    assert error(run(limit=0.05), reference(0.05, clip_all=True)) > 0.01


def rules_of(optimizer):
    return {entry.parameter.removesuffix(".weight"): (entry.rule, entry.decay) for entry in optimizer.routing}


def test_routing():
    assert rules_of(AdamMini(TinyModel(), heads=2)) == {
        "embed_tokens": ("adam_mini", False),
        "q_proj": ("adam_mini_heads", True),
        "k_proj": ("adam_mini_heads", True),
        "up_proj": ("adam_mini", True),
        "down_proj": ("adam_mini", True),
        "norm": ("adamw", False),
        "lm_head": ("adam_mini", True),
    }


def test_unknown_heads_are_said_in_the_routing_table():
    optimizer = AdamMini(TinyModel().named_parameters())
    assert rules_of(optimizer)["q_proj"] == ("adam_mini", True)
    assert {e.reason for e in optimizer.routing if "q_proj" in e.parameter} == {
        "query or key: one block per row, the number of heads is unknown"
    }


@pytest.mark.parametrize("scale", ["nano-65k", "nano-262k"])
def test_heads_are_read_from_a_model_and_given_by_the_training_loop(scale):
    model = Decoder(SCALES[scale], 64)
    heads = SCALES[scale].heads
    assert AdamMini.model_facts == ("heads",)
    for optimizer in (create("adam_mini", model), create("adam_mini", model.named_parameters(), heads=heads)):
        state = {e.parameter: e for e in optimizer.routing}
        assert state["layers.0.self_attn.q_proj.weight"].rule == "adam_mini_heads"
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        shapes = {
            name: tuple(optimizer.state[parameter]["exp_avg_sq"].shape) for name, parameter in model.named_parameters()
        }
        d, f = SCALES[scale].d_model, SCALES[scale].d_ff
        assert shapes["layers.1.self_attn.k_proj.weight"] == (heads, 1, 1)
        assert shapes["layers.1.self_attn.v_proj.weight"] == (d, 1, 1)
        assert shapes["layers.1.mlp.up_proj.weight"] == (f, 1, 1)
        assert shapes["embed_tokens.weight"] == shapes["lm_head.weight"] == (64, 1, 1)
        assert shapes["norm.weight"] == (d,)


def test_heads_of_transformers_llama_are_its_key_and_value_heads():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = transformers.LlamaForCausalLM(config)
    assert heads_of(model) == 2
    optimizer = AdamMini(model)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            assert optimizer.state[parameter]["exp_avg_sq"].shape == (2, 1, 1)


class Attention(nn.Module):
    def __init__(self, **counts):
        super().__init__()
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)
        for name, count in counts.items():
            setattr(self, name, count)


def test_heads_that_modules_do_not_agree_on_are_unknown():
    assert heads_of(nn.Sequential(Attention(num_heads=2), Attention(num_heads=2))) == 2
    assert heads_of(nn.Sequential(Attention(num_heads=2), Attention(num_heads=4))) == 0
    assert heads_of(Attention()) == heads_of(nn.Linear(2, 2)) == heads_of([]) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, r"'q_proj.weight' of shape \(8, 8\) cannot be cut into 3 heads"),
        ({"heads": 2.5}, "heads must be a whole number"),
        ({"clipped": "al"}, "unknown clipped 'al'; did you mean 'all'"),
        ({"betas": (0.9, 1.0)}, "beta2"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        AdamMini(TinyModel(), **settings)


def test_blocks_are_views():
    tensor = torch.arange(24.0).view(6, 4)
    plain = {"heads": 0, "pieces": 1, "transposed": False}
    assert by_block(tensor, plain).shape == (6, 1, 4) and block_count((6, 4), plain) == 6
    heads = by_block(tensor, {**plain, "heads": 3})
    assert heads.shape == (3, 2, 4) and torch.equal(heads[1], tensor[2:4])
    assert by_block(tensor, {**plain, "heads": 1, "pieces": 3}).shape == (3, 2, 4)
    transposed = by_block(tensor, {**plain, "heads": 2, "transposed": True})
    assert torch.equal(transposed[1], tensor.mT[2:])
    assert all(t.data_ptr() == tensor.data_ptr() for t in (by_block(tensor, plain), heads, transposed[:1]))


def test_weights_stored_the_other_way_round_move_alike(monkeypatch):
    """transformers' Conv1D keeps (in, out); a block is still an output neuron."""
    monkeypatch.setattr(portions, "PORTION", 20)

    class Conv1D(nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.weight = nn.Parameter(weight.clone())

    start = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    usual, turned = nn.ModuleDict({"fc": nn.Linear(4, 6, bias=False)}), nn.ModuleDict({"fc": Conv1D(start.T)})
    usual["fc"].weight.data.copy_(start)
    optimizers = [AdamMini(model) for model in (usual, turned)]
    for seed in range(4):
        gradient = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
        usual["fc"].weight.grad, turned["fc"].weight.grad = gradient, gradient.T.contiguous()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(usual["fc"].weight, turned["fc"].weight.T)
    rule, group = optimizers[1].main, optimizers[1].param_groups[0]
    state = {key: [value.clone()] for key, value in optimizers[1].state[turned["fc"].weight].items() if key != "step"}
    assert rule.direction([torch.ones(4, 6)], state, group, 5)[0].shape == (4, 6)


def test_a_fused_weight_has_blocks_of_heads_in_each_piece():
    fused = RouteRule(r"qkv\.weight$", "adam_mini_heads", decay=True, reason="fused q, k, v", pieces=3)
    weight = nn.Parameter(torch.randn(12, 4))
    optimizer = AdamMini([("qkv.weight", weight)], heads=2, rules=(fused, *DEFAULT_RULES))
    weight.grad = torch.randn(12, 4)
    optimizer.step()
    assert optimizer.state[weight]["exp_avg_sq"].shape == (6, 1, 1)


def test_state_is_half_of_adamw_and_a_little():
    model = Decoder(SCALES["nano-65k"], 64)
    ours, adamw = create("adam_mini", model).predicted_state_bytes(), create("adamw", model).predicted_state_bytes()
    assert 0.5 < ours / adamw < 0.53


class FullAdam(AdamMiniRule):
    """AdamW's second moments, reported as blocks."""

    def state_shapes(self, shape, settings):
        return {**super().state_shapes(shape, settings), "full": shape}

    def advance(self, parameters, gradients, state, settings, step, divisor):
        state = {"exp_avg": state["exp_avg"], "exp_avg_sq": state["full"]}
        AdamWRule().advance(parameters, gradients, state, settings, step, divisor)


class FullAdamHeads(FullAdam):
    name = "adam_mini_heads"


class RowsForHeads(AdamMiniHeadsRule):
    """One denominator per row where one per head is due."""

    def state_shapes(self, shape, settings):
        return super().state_shapes(shape, {**settings, "heads": 0})

    def advance(self, parameters, gradients, state, settings, step, divisor):
        super().advance(parameters, gradients, state, {**settings, "heads": 0}, step, divisor)


class OneForAll(AdamMiniRule):
    """One denominator for a whole tensor."""

    def state_shapes(self, shape, settings):
        return super().state_shapes(shape, {**settings, "heads": 1})

    def advance(self, parameters, gradients, state, settings, step, divisor):
        super().advance(parameters, gradients, state, {**settings, "heads": 1}, step, divisor)


class SumOfSquares(AdamMiniRule):
    """A sum over the block where a mean is due."""

    def _update(self, *moments_and_settings):
        return [u / u[0].numel() ** 0.5 for u in super()._update(*moments_and_settings)]


HEADS, VECTORS = AdamMiniHeadsRule(), AdamWRule()
BROKEN = [
    ((FullAdam(), FullAdamHeads(), VECTORS), {"adam_mini", "adam_mini_heads"}),
    ((AdamMiniRule(), RowsForHeads(), VECTORS), {"adam_mini_heads"}),
    ((OneForAll(), HEADS, VECTORS), {"adam_mini"}),
    ((SumOfSquares(), HEADS, VECTORS), {"adam_mini"}),
]


@pytest.mark.parametrize(("rules", "caught"), BROKEN, ids=["FullAdam", "RowsForHeads", "OneForAll", "SumOfSquares"])
def test_what_only_carries_the_name_is_caught(rules, caught):
    """`OneForAll` has one denominator in every row too, but the wrong one."""
    proof, *_ = watch(broken(AdamMini, *rules), heads=2, scale=lambda step: SIZES[step % 4])
    assert failed_rules(proof) == caught


def test_the_proof_looks_at_whole_blocks_of_a_large_tensor():
    weight = nn.Parameter(0.02 * torch.randn(700, 256, generator=torch.Generator().manual_seed(0)))
    optimizer = AdamMini([("up_proj.weight", weight)])
    check = UpdateCheck(optimizer)
    for seed in range(4):
        weight.grad = torch.randn(700, 256, generator=torch.Generator().manual_seed(seed))
        check.before_step()
        optimizer.step()
        check.after_step()
    assert check.proof().passed
    assert check._followers[0].state["m"].shape == (350, 256)


def test_a_late_gradient_keeps_its_own_step_number():
    model = TinyModel(width=16)
    optimizer = AdamMini(model, heads=2)
    late = model.get_parameter("q_proj.weight")
    for seed in range(3):
        seed_gradients(model, seed)
        if seed < 2:
            late.grad = None
        optimizer.step()
    assert optimizer.state[late]["step"] == 1
