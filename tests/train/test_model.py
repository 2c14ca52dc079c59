"""The model against transformers' Llama, and its initialisation."""

import math

import pytest
import torch

from tuneopt.spec import SCALES, Scale
from tuneopt.train.model import INITIALIZER_RANGE, RMS_NORM_EPS, ROPE_BASE, Llama

VOCAB = 97


def transformers_twin(model: Llama, scale: Scale):
    """transformers' Llama with the same weights: the names differ by one prefix alone."""
    from transformers import LlamaConfig, LlamaForCausalLM

    twin = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=scale.d_model,
            intermediate_size=scale.d_ff,
            num_hidden_layers=scale.layers,
            num_attention_heads=scale.heads,
            num_key_value_heads=scale.heads,
            max_position_embeddings=scale.seq_len,
            rms_norm_eps=RMS_NORM_EPS,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
            tie_word_embeddings=False,
            attention_bias=False,
        )
    ).eval()
    weights = {
        name if name.startswith("lm_head") else f"model.{name}": value for name, value in model.state_dict().items()
    }
    twin.load_state_dict(weights, strict=True)
    return twin


@pytest.mark.parametrize("scale", [SCALES["nano-65k"], SCALES["nano-262k"], SCALES["nano-590k"]], ids=lambda s: s.name)
def test_logits_agree_with_transformers(scale: Scale) -> None:
    torch.manual_seed(3)
    model = Llama(scale, VOCAB)
    with torch.no_grad():
        for parameter in model.parameters():  # far from the initialisation, where every term matters
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    tokens = torch.randint(VOCAB, (2, scale.seq_len))
    with torch.no_grad():
        ours, theirs = model(tokens), transformers_twin(model, scale)(tokens).logits
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_loss_is_the_mean_cross_entropy_in_nats() -> None:
    model = Llama(SCALES["nano-65k"], VOCAB)
    model.initialize(0)
    tokens = torch.randint(VOCAB, (2, 17))
    logits = model(tokens[:, :-1]).double()
    expected = -torch.log_softmax(logits, -1).gather(-1, tokens[:, 1:, None]).mean()
    assert model.loss(tokens[:, :-1], tokens[:, 1:]).item() == pytest.approx(expected.item(), rel=1e-6)
    assert expected.item() == pytest.approx(math.log(VOCAB), rel=0.02)  # an untrained model knows nothing


def test_attention_is_causal() -> None:
    model = Llama(SCALES["nano-65k"], VOCAB)
    model.initialize(0)
    tokens = torch.randint(VOCAB, (1, 32))
    changed = tokens.clone()
    changed[0, 20] = (changed[0, 20] + 1) % VOCAB
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 20:], after[:, 20:])


def test_initial_weights_follow_the_seed_alone() -> None:
    one, two = Llama(SCALES["nano-65k"], VOCAB), Llama(SCALES["nano-65k"], VOCAB)
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
    assert matrices.std().item() == pytest.approx(INITIALIZER_RANGE, rel=0.02)
    assert all(torch.equal(p, torch.ones_like(p)) for p in one.parameters() if p.ndim == 1)
