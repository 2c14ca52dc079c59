"""Final weights of a trial, kept beside its record: a folder that transformers loads as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tuneopt.data import Corpus
from tuneopt.ledger import Ledger
from tuneopt.ledger.folders import new_folder
from tuneopt.train.checkpoint import CheckpointStore
from tuneopt.train.transformers_layout import write_model

if TYPE_CHECKING:
    from tuneopt.train.loop import Training


def kept_weights(trial: str) -> str:
    """The folder of a trial's final weights in its ledger."""
    return f"weights/{trial}"


def store_weights(training: Training, corpus: Corpus, ledger: Ledger) -> None:
    """Store the weights of a finished trial, one process' own."""
    _write(training, corpus, ledger, dict(training.model.state_dict()))


def store_sharded_weights(training: Training, corpus: Corpus, ledger: Ledger, rank: int) -> None:
    """Store the weights of a finished trial that no rank holds whole; all ranks together, rank 0 writes.

    They come together in a last checkpoint, which every rank can see.
    """
    if training.store is None:
        return
    training.save()
    if rank == 0:
        # A store of its own: what is wanted is the checkpoint just written, and no copy from anywhere else.
        newest = CheckpointStore(training.store.folder).load_newest(torch.device("cpu"))
        if newest is None or newest[0] != training.step:
            raise RuntimeError(f"the last checkpoint of trial {training.spec.id} cannot be read back")
        _write(training, corpus, ledger, newest[1]["model"])


def _write(training: Training, corpus: Corpus, ledger: Ledger, weights: dict[str, Tensor]) -> None:
    with new_folder(ledger, kept_weights(training.spec.id)) as folder:
        write_model(folder, training.spec, corpus, weights)
