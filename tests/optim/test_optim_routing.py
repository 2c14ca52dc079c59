"""Parameters go where their full names say, for our Llama, transformers' models and odd modules."""

import pytest
import torch
from torch import nn

from tuneopt.optim import SOAP, AdamW, Muon, RouteRule, route_table
from tuneopt.optim.routing import DEFAULT_RULES, owners, route
from tuneopt.spec import SCALES, InputError
from tuneopt.training.model import Decoder


def table(model, **options):
    return {entry.parameter: entry for entry in route(model.named_parameters(), modules=owners(model), **options)}


def test_our_llama():
    routes = {entry.parameter: entry for entry in Muon(Decoder(SCALES["nano-65k"], 64)).routing}
    for name, entry in routes.items():
        hidden = "_proj" in name
        assert entry.rule == ("muon" if hidden else "adamw"), name
        assert entry.decay is (hidden or name == "lm_head.weight"), name
    assert sum(entry.rule == "muon" for entry in routes.values()) == 28
    assert routes["embed_tokens.weight"].reason == "embedding"
    assert routes["lm_head.weight"].reason == "output head"
    assert routes["norm.weight"].reason == "norm"


@pytest.mark.slow
def test_transformers_llama_with_biases():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        attention_bias=True,
        tie_word_embeddings=False,
    )
    for name, entry in table(LlamaForCausalLM(config)).items():
        hidden = name.endswith("proj.weight")
        assert entry.rule == ("main" if hidden else "fallback"), name
        assert entry.decay is (hidden or name == "lm_head.weight"), name
        assert not entry.transposed


@pytest.fixture(scope="module")
def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=2, n_head=2))


@pytest.mark.slow
def test_gpt2(gpt2):
    routes = table(gpt2)
    assert routes["transformer.wte.weight"].reason == "embedding"  # tied to the head, listed once
    assert routes["transformer.wpe.weight"].reason == "embedding"
    assert "lm_head.weight" not in routes
    for name, entry in routes.items():
        hidden = name.endswith(".weight") and (".c_" in name)
        assert entry.rule == ("main" if hidden else "fallback"), name
        assert entry.decay is hidden, name
        assert entry.transposed is hidden, name


@pytest.mark.slow
def test_gpt2_scale_follows_the_stored_layout(gpt2):
    """Conv1D stores (in, out): the up projection must get sqrt(out / in) = 2, the down projection 1."""
    optimizer = Muon(gpt2, lr=0.5, weight_decay=0.0, momentum=0.0)
    start = {name: parameter.detach().clone() for name, parameter in gpt2.named_parameters()}
    for parameter in gpt2.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    for name, scale in (("mlp.c_fc", 2.0), ("mlp.c_proj", 1.0), ("attn.c_attn", 3**0.5)):
        key = f"transformer.h.0.{name}.weight"
        change = (gpt2.get_parameter(key).detach() - start[key]) / 0.5
        values = torch.linalg.svdvals(change) / scale
        assert values.min() > 0.6 and values.max() < 1.3, name
    with torch.no_grad():
        for name, parameter in gpt2.named_parameters():
            parameter.copy_(start[name])
            parameter.grad = None


@pytest.mark.slow
def test_fused_weights_are_orthogonalized_piece_by_piece(gpt2):
    fused = RouteRule(r"c_attn\.weight$", "main", True, "fused q, k, v", pieces=3)
    optimizer = Muon(gpt2, lr=0.5, weight_decay=0.0, rules=(fused, *DEFAULT_RULES))
    key = "transformer.h.0.attn.c_attn.weight"
    before = gpt2.get_parameter(key).detach().clone()
    gradient = torch.randn(before.shape, generator=torch.Generator().manual_seed(1))
    gradient[:, :16] *= 1e-3  # a small query gradient must not vanish behind the others
    for parameter in gpt2.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gpt2.get_parameter(key).grad = gradient
    optimizer.step()
    change = (gpt2.get_parameter(key).detach() - before) / 0.5
    for piece in change.split(16, dim=1):
        values = torch.linalg.svdvals(piece)
        assert values.min() > 0.6 and values.max() < 1.3
    assert optimizer.state[gpt2.get_parameter(key)]["momentum_buffer"].shape == (3, 16, 16)
    assert "(as 3 matrices)" in route_table(optimizer.routing)


@pytest.mark.parametrize(
    ("name", "shape", "rule", "decay"),
    [
        ("model.embed_tokens.weight", (8, 4), "fallback", False),
        ("gpt_neox.embed_in.weight", (8, 4), "fallback", False),
        ("embed_out.weight", (8, 4), "fallback", True),
        ("output.weight", (8, 4), "fallback", True),
        ("tok_embeddings.weight", (8, 4), "fallback", False),
        ("embeddings.LayerNorm.weight", (4,), "fallback", False),
        ("embedder.layers.0.q_proj.weight", (4, 4), "main", True),
        ("encoder.layer.0.attention.output.dense.weight", (4, 4), "main", True),
        ("layers.0.attn.q_norm.weight", (4,), "fallback", False),
        ("h.0.ln_1.weight", (4,), "fallback", False),
        ("h.0.norm_scale", (4,), "fallback", False),
        ("pos_embed", (1, 8, 4), "fallback", False),
        ("conv.weight", (4, 4, 3, 3), "fallback", True),
        ("gate.weight", (1, 4), "fallback", False),
        ("temperature", (), "fallback", False),
        ("mlp.fc1.weight", (8, 4), "main", True),
        ("linear_in.weight", (8, 4), "main", True),
    ],
)
def test_names(name, shape, rule, decay):
    (entry,) = route([(name, torch.zeros(shape, requires_grad=True))])
    assert (entry.rule, entry.decay) == (rule, decay), entry.reason


def test_module_types_help_where_names_say_nothing():
    model = nn.Sequential(nn.Embedding(8, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 8))
    reasons = [entry.reason for entry in table(model).values()]
    assert reasons == ["embedding", "norm", "bias", "matrix", "bias", "matrix", "bias"]


def test_first_match_wins_and_own_rules_go_first():
    own = RouteRule(r"q_proj", "fallback", False, "mine")
    rules = (own, RouteRule(r"q_proj", "main", True, "too late"), *DEFAULT_RULES)
    (entry,) = route([("q_proj.weight", torch.zeros(4, 4, requires_grad=True))], rules)
    assert (entry.rule, entry.decay, entry.reason) == ("fallback", False, "mine")


def test_the_head_can_be_sent_to_the_main_rule():
    model = Decoder(SCALES["nano-65k"], 64)
    optimizer = SOAP(model, rules=(RouteRule(r"^lm_head", "main", True, "as the study"), *DEFAULT_RULES))
    assert {e.parameter: e.rule for e in optimizer.routing}["lm_head.weight"] == "soap"


def test_frozen_parameters_are_listed_and_left_out():
    model = nn.Linear(4, 4)
    model.bias.requires_grad_(False)
    optimizer = AdamW(model)
    assert [entry.rule for entry in optimizer.routing] == ["adamw", "frozen"]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 1


def test_errors_say_what_and_how_to_mend():
    matrix = torch.zeros(4, 4, requires_grad=True)
    with pytest.raises(InputError, match=r"no routing rule takes parameter 'w'.*DEFAULT_RULES"):
        route([("w", matrix)], (RouteRule("nothing", "main", True, ""),))
    with pytest.raises(InputError, match="cannot be cut into 3"):
        route([("w", matrix)], (RouteRule("w", "main", True, "", pieces=3),))


def test_table_is_aligned_text():
    text = route_table(AdamW(nn.Linear(4, 3)).routing)
    assert text.splitlines() == [
        "parameter  shape  rule   decay  reason",
        "weight     3x4    adamw  yes    matrix",
        "bias       3      adamw  no     bias",
    ]


def test_routes_are_plain_data():
    (entry, _) = AdamW(nn.Linear(4, 3)).routing
    assert entry.to_dict() == {
        "parameter": "weight",
        "shape": [3, 4],
        "rule": "adamw",
        "decay": True,
        "reason": "matrix",
        "pieces": 1,
        "transposed": False,
    }
