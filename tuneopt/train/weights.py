"""Final weights of a trial, kept with its record: a folder in the layout of transformers' Llama, loaded as it is.

The model is that Llama: the same half-split rotation, norms, SwiGLU, and an untied head. Weights go over by renaming,
in fp32 as they were trained. No transformers is needed to write it. What could differ unnoticed (the rotation's base,
the norms' epsilon) comes from `tuneopt.train.model`; a test compares the logits of both (docs/export.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tuneopt.data import Corpus
from tuneopt.data.manifest import TOKENIZER_FILE
from tuneopt.ledger import Ledger
from tuneopt.ledger.folders import new_folder
from tuneopt.spec import TrialSpec
from tuneopt.train.model import INITIALIZER_RANGE, RMS_NORM_EPS, ROPE_BASE

WEIGHTS = "model.safetensors"


def kept_weights(trial: str) -> str:
    """The folder of a trial's final weights in its ledger."""
    return f"weights/{trial}"


def store_weights(spec: TrialSpec, corpus: Corpus, ledger: Ledger, weights: Mapping[str, Tensor]) -> None:
    """Store the final weights of a trial, by the names of `tuneopt.train.model.Llama`; they appear all at once.

    They are there before the record is, so that a trial with a record has them if it was asked to keep them.
    """
    with new_folder(ledger, kept_weights(spec.id)) as folder:
        write_model(folder, spec, corpus, weights)


def write_model(folder: Path, spec: TrialSpec, corpus: Corpus, weights: Mapping[str, Tensor]) -> None:
    """Write everything that ``AutoModelForCausalLM`` and ``AutoTokenizer.from_pretrained`` read into ``folder``.

    ``weights`` has the names of `tuneopt.train.model.Llama`.
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
    # safetensors refuses what is not contiguous.
    renamed = {renamed_weight(name): tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(renamed, folder / WEIGHTS, metadata={"format": "pt", "trial": spec.id})


def renamed_weight(name: str) -> str:
    """The name of a weight in transformers' Llama."""
    return name if name.startswith("lm_head.") else f"model.{name}"


def config(spec: TrialSpec, end: int) -> dict[str, Any]:
    """The ``config.json`` of a trial's model; ``end`` is the token that ends, and so begins, a document."""
    scale = spec.regime.scale
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": spec.regime.corpus.vocab_size,
        "hidden_size": scale.d_model,
        "intermediate_size": scale.d_ff,
        "num_hidden_layers": scale.layers,
        "num_attention_heads": scale.heads,
        "num_key_value_heads": scale.heads,  # every head has its own keys: no grouped queries
        "head_dim": scale.d_model // scale.heads,
        "hidden_act": "silu",
        "max_position_embeddings": scale.seq_len,
        "rms_norm_eps": RMS_NORM_EPS,
        "rope_theta": ROPE_BASE,  # transformers 4 reads this, transformers 5 the next
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "initializer_range": INITIALIZER_RANGE,
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": "float32",
    }
