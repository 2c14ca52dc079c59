"""The model against transformers' Llama, and its initialisation."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tuneopt.spec import SCALES, Scale
from tuneopt.training.model import Decoder
from tuneopt.training.weights import family_of

VOCAB = 97


def transformers_twin(model: Decoder, scale: Scale):
    """The model of transformers that stands for a scale's family, with the same weights."""
    import transformers

    family = family_of(scale)
    assert family is not None, "no family computes what this scale says"
    kind = getattr(transformers, family.architecture)
    settings = {**family.config(scale), "vocab_size": VOCAB, "tie_word_embeddings": scale.tied}
    twin = kind(kind.config_class(**settings, bos_token_id=0, eos_token_id=0)).eval()
    weights = family.convert(scale, dict(model.named_parameters()))
    missing = twin.load_state_dict({name: tensor.detach() for name, tensor in weights.items()}, strict=False)
    # Of a tied pair one is given. Nothing else may be left out, on either side.
    assert missing.unexpected_keys == [] and missing.missing_keys == (["lm_head.weight"] if scale.tied else [])
    twin.tie_weights()
    return twin


SMALL = Scale("small", "nano", 3, 48, 128, 4, 32)
OWN = {
    "nano-65k": SCALES["nano-65k"],
    "nano-590k": SCALES["nano-590k"],
    "llama, grouped, biases, tied": replace(SMALL, kv_heads=2, biases=True, tied=True, rope_base=500_000.0),
    "llama, wide heads": replace(SMALL, head_dim=24, norm_eps=1e-6),
    "qwen3": replace(SMALL, kv_heads=1, head_dim=16, qk_norm="before_rope", norm_eps=1e-6, tied=True),
    "gpt2": replace(
        SMALL, norm="layernorm", positions="learned", activation="gelu_tanh", biases=True, tied=True, seq_len=40
    ),
    "gpt2, untied, gelu": replace(SMALL, norm="layernorm", positions="learned", activation="gelu", biases=True),
    "nanochat": replace(
        SMALL, norm="rms", activation="relu2", qk_norm="after_rope", embed_norm=True, softcap=15.0, kv_heads=2,
        norm_eps=1e-6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("scale", OWN.values(), ids=OWN)
def test_logits_agree_with_transformers(scale: Scale) -> None:
    torch.manual_seed(3)
    model = Decoder(scale, VOCAB)
    with torch.no_grad():
        for parameter in model.parameters():  # far from the initialisation, where every term matters
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    tokens = torch.randint(VOCAB, (2, scale.seq_len))
    with torch.no_grad():
        ours, theirs = model(tokens), transformers_twin(model, scale)(tokens).logits
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("scale", OWN.values(), ids=OWN)
def test_parameters_and_flops_are_those_of_the_model(scale: Scale) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = Decoder(scale, VOCAB)
    model.initialize(0)
    named = dict(model.named_parameters())
    assert sum(parameter.numel() for parameter in named.values()) == scale.total_parameters(VOCAB)
    assert scale.parameters == sum(p.numel() for name, p in named.items() if name.startswith("layers.") and p.ndim == 2)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        tokens = torch.randint(VOCAB, (1, scale.seq_len))
        model.loss(tokens, tokens).backward()
    # torch counts whole T x T attention, of which a causal kernel needs half.
    whole = scale.flops_per_token(VOCAB) + 6 * scale.layers * scale.seq_len * scale.attention_width
    assert counter.get_total_flops() == pytest.approx(whole * scale.seq_len, rel=1e-9)


def test_loss_is_the_mean_cross_entropy_in_nats() -> None:
    model = Decoder(SCALES["nano-65k"], VOCAB)
    model.initialize(0)
    tokens = torch.randint(VOCAB, (2, 17))
    logits = model(tokens[:, :-1]).double()
    expected = -torch.log_softmax(logits, -1).gather(-1, tokens[:, 1:, None]).mean()
    assert model.loss(tokens[:, :-1], tokens[:, 1:]).item() == pytest.approx(expected.item(), rel=1e-6)
    assert expected.item() == pytest.approx(math.log(VOCAB), rel=0.02)  # an untrained model knows nothing


def test_attention_is_causal() -> None:
    model = Decoder(SCALES["nano-65k"], VOCAB)
    model.initialize(0)
    tokens = torch.randint(VOCAB, (1, 32))
    changed = tokens.clone()
    changed[0, 20] = (changed[0, 20] + 1) % VOCAB
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 20:], after[:, 20:])


def test_initial_weights_follow_the_seed_alone() -> None:
    one, two = Decoder(SCALES["nano-65k"], VOCAB), Decoder(SCALES["nano-65k"], VOCAB)
    with torch.no_grad():
        two.norm.weight.fill_(7.0)  # left over from an earlier run
    one.initialize(5)
    torch.manual_seed(99)
    torch.rand(7)  # the global generator has no say
    two.initialize(5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    two.initialize(6)
    assert not torch.equal(one.lm_head.weight, two.lm_head.weight)
    matrices = torch.cat([p.flatten() for p in one.parameters() if p.ndim == 2])
    assert matrices.std().item() == pytest.approx(0.02, rel=0.02)
    assert all(torch.equal(p, torch.ones_like(p)) for p in one.parameters() if p.ndim == 1)
