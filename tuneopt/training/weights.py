"""Final weights of a trial, kept with its record: a folder in the layout of transformers, loaded as it is.

The decoder computes what four families of transformers do (`FAMILIES`): Llama, Qwen3, GPT-2 and NanoChat. Weights go
over by renaming, in fp32 as they were trained. GPT-2 keeps its matrices transposed, and query, key and value in one.
NanoChat rotates the other way round. No transformers is needed to write any of it. Tests compare the logits of both
(docs/export.md). An architecture of no family is stored under its own names, with its scale, and transformers cannot
load it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tuneopt.data import Corpus
from tuneopt.data.manifest import TOKENIZER_FILE
from tuneopt.ledger import Ledger
from tuneopt.ledger.folders import new_folder
from tuneopt.spec import OwnModel, Scale, TrialSpec

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"


def kept_weights(trial: str) -> str:
    """The folder of a trial's final weights in its ledger."""
    return f"weights/{trial}"


def store_weights(spec: TrialSpec, corpus: Corpus, ledger: Ledger, weights: Mapping[str, Tensor]) -> None:
    """Store the final weights of a trial, by the names of `tuneopt.training.model.Decoder`; they appear all at once.

    They are there before the record is, so that a trial with a record has them if it was asked to keep them.
    """
    with new_folder(ledger, kept_weights(spec.id)) as folder:
        write_model(folder, spec, corpus, weights)


def write_model(folder: Path, spec: TrialSpec, corpus: Corpus, weights: Mapping[str, Tensor]) -> None:
    """Write everything that ``AutoModelForCausalLM`` and ``AutoTokenizer.from_pretrained`` read into ``folder``.

    ``weights`` has the names of `tuneopt.training.model.Decoder`.
    """
    from safetensors.torch import save_file  # training alone runs without it

    # One token ends every document, and the next begins right after it: it serves as both ends.
    end = corpus.split("train").last_token
    word = corpus.tokenizer.id_to_token(end)
    documents: dict[str, Any] = {
        "config.json": config(spec, end),
        "generation_config.json": {"bos_token_id": end, "eos_token_id": end},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": word,
            "eos_token": word,
            "model_max_length": spec.regime.scale.seq_len,
            "clean_up_tokenization_spaces": False,
        },
        "special_tokens_map.json": {"bos_token": word, "eos_token": word},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2) + "\n")
    (folder / TOKENIZER_FILE).write_bytes((corpus.folder / TOKENIZER_FILE).read_bytes())
    scale, family = spec.regime.scale, family_of(spec.regime.scale)
    plain = {name: tensor.detach().cpu() for name, tensor in weights.items()}
    if scale.tied:
        plain.pop("lm_head.weight", None)  # it is the embedding, and safetensors stores a tensor once
    renamed = family.convert(scale, plain) if family else plain
    own = isinstance(scale, OwnModel)  # which may tie any tensors
    # safetensors refuses what is not contiguous, and what shares its storage.
    save_file(
        {name: tensor.contiguous().clone() if own else tensor.contiguous() for name, tensor in renamed.items()},
        folder / WEIGHTS,
        metadata={"format": "pt", "trial": spec.id},
    )


def config(spec: TrialSpec, end: int) -> dict[str, Any]:
    """The ``config.json`` of a trial's model; ``end`` is the token that ends, and so begins, a document."""
    scale, family = spec.regime.scale, family_of(spec.regime.scale)
    shared = {
        "vocab_size": spec.regime.corpus.vocab_size,
        "tie_word_embeddings": scale.tied,
        "initializer_range": scale.init_std,
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": "float32",
    }
    if family is None:
        return {"model_type": "tuneopt", "scale": scale.to_dict(), **shared}
    return {"architectures": [family.architecture], "model_type": family.name, **family.config(scale), **shared}


Weights: TypeAlias = "Mapping[str, Tensor]"


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """A model of transformers, and how a decoder's weights and shape are told to it.

    ``fits`` says whether the family computes what a scale says; ``config`` gives the part of ``config.json`` that
    follows from the scale; ``convert`` renames weights.
    """

    name: str
    architecture: str
    fits: Callable[[Scale], bool]
    config: Callable[[Scale], dict[str, Any]]
    convert: Callable[[Scale, Weights], dict[str, Tensor]]


HIDDEN_ACTIVATIONS = {"swiglu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu2": "relu2"}
"""What transformers calls an activation; SwiGLU's is that of its gate."""


def _llama_names(scale: Scale, weights: Weights) -> dict[str, Tensor]:
    return {name if name.startswith("lm_head.") else f"model.{name}": tensor for name, tensor in weights.items()}


def _llama_config(scale: Scale) -> dict[str, Any]:
    # All that transformers would otherwise take from its own defaults, which change between its versions.
    return {
        "hidden_size": scale.d_model,
        "intermediate_size": scale.d_ff,
        "num_hidden_layers": scale.layers,
        "num_attention_heads": scale.heads,
        "num_key_value_heads": scale.groups,
        "head_dim": scale.head_width,
        "hidden_act": HIDDEN_ACTIVATIONS[scale.activation],
        "max_position_embeddings": scale.seq_len,
        "rms_norm_eps": scale.norm_eps,
        "rope_theta": scale.rope_base,  # transformers 4 reads this, transformers 5 the next
        "rope_parameters": {"rope_type": "default", "rope_theta": scale.rope_base},
        "attention_bias": scale.biases,
        "attention_dropout": 0.0,
        "mlp_bias": scale.biases,
    }


GPT2_NAMES = {
    "input_layernorm": "ln_1",
    "self_attn.o_proj": "attn.c_proj",
    "post_attention_layernorm": "ln_2",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
}
"""Parts of a layer, and what GPT-2 calls them; query, key and value are one there."""


def _gpt2_config(scale: Scale) -> dict[str, Any]:
    # GPT-2's defaults have dropout 0.1 everywhere, and a model that is trained on would suddenly have it.
    return {
        "n_embd": scale.d_model,
        "n_inner": scale.d_ff,
        "n_layer": scale.layers,
        "n_head": scale.heads,
        "n_positions": scale.seq_len,
        "activation_function": HIDDEN_ACTIVATIONS[scale.activation],
        "layer_norm_epsilon": scale.norm_eps,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def _gpt2_names(scale: Scale, weights: Weights) -> dict[str, Tensor]:
    import torch  # late: which family a scale belongs to is asked without torch

    named = {
        "transformer.wte.weight": weights["embed_tokens.weight"],
        "transformer.wpe.weight": weights["embed_positions.weight"],
        "transformer.ln_f.weight": weights["norm.weight"],
        "transformer.ln_f.bias": weights["norm.bias"],
    }
    if not scale.tied:
        named["lm_head.weight"] = weights["lm_head.weight"]
    for layer in range(scale.layers):
        # Query, key and value in this order, one below the other: (3 d, d), which is (d, 3 d) in GPT-2's storage.
        ours, theirs = f"layers.{layer}.", f"transformer.h.{layer}."
        for kind in ("weight", "bias"):
            fused = torch.cat([weights[f"{ours}self_attn.{part}_proj.{kind}"] for part in "qkv"])
            parts = {"attn.c_attn": fused}
            parts |= {name: weights[f"{ours}{part}.{kind}"] for part, name in GPT2_NAMES.items()}
            # GPT-2 stores matrices as (in, out); a vector is its own transpose.
            named |= {f"{theirs}{name}.{kind}": tensor.t() for name, tensor in parts.items()}
    return named


def _nanochat_config(scale: Scale) -> dict[str, Any]:
    plain = _llama_config(scale)
    return {**plain, "final_logit_softcapping": scale.softcap or None}


def _nanochat_names(scale: Scale, weights: Weights) -> dict[str, Tensor]:
    """NanoChat rotates by the negative angle, which is ours between two swaps of a head's halves: queries and keys are
    stored with their halves swapped, and the products of both are the same."""
    named = {}
    for name, tensor in _llama_names(scale, weights).items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            # (heads, two halves, half a head, d): the middle one is swapped. Rows are output features of a head.
            halves = tensor.view(-1, 2, scale.head_width // 2, scale.d_model)
            tensor = halves.flip(1).reshape(tensor.shape)
        named[name.replace("mlp.up_proj", "mlp.fc1").replace("mlp.down_proj", "mlp.fc2")] = tensor
    return named


def _rotary(scale: Scale, norm: str, activation: str, qk_norm: str) -> bool:
    """Whether a scale has rotary positions and exactly these parts."""
    return (scale.positions, scale.norm, scale.activation, scale.qk_norm) == ("rope", norm, activation, qk_norm)


FAMILIES: tuple[ModelFamily, ...] = (
    ModelFamily(
        "llama",
        "LlamaForCausalLM",
        lambda scale: _rotary(scale, "rmsnorm", "swiglu", "none") and not scale.embed_norm and not scale.softcap,
        _llama_config,
        _llama_names,
    ),
    ModelFamily(
        "qwen3",
        "Qwen3ForCausalLM",
        lambda scale: (
            _rotary(scale, "rmsnorm", "swiglu", "before_rope")
            and not (scale.embed_norm or scale.softcap or scale.biases)
        ),
        _llama_config,
        _llama_names,
    ),
    ModelFamily(
        "gpt2",
        "GPT2LMHeadModel",
        lambda scale: (
            (scale.positions, scale.norm, scale.qk_norm) == ("learned", "layernorm", "none")
            and scale.biases
            and scale.activation != "swiglu"
            and (scale.kv_heads, scale.head_dim) == (None, None)
            and not (scale.embed_norm or scale.softcap)
        ),
        _gpt2_config,
        _gpt2_names,
    ),
    ModelFamily(
        "nanochat",
        "NanoChatForCausalLM",
        lambda scale: (
            _rotary(scale, "rms", "relu2", "after_rope")
            and scale.embed_norm
            and scale.head_dim is None
            and not scale.biases
        ),
        _nanochat_config,
        _nanochat_names,
    ),
)
"""The families that a decoder can be stored as; the first that fits counts."""


def family_of(scale: Scale) -> ModelFamily | None:
    """The family of transformers that computes what ``scale`` says; None where there is none."""
    return next((family for family in FAMILIES if family.fits(scale)), None)
