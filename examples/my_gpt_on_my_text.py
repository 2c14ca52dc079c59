"""Is Muon better than AdamW for my GPT, on my files?

    python examples/my_gpt_on_my_text.py my-texts/ 6x384,seq=256,family=gpt2

The first argument is a folder of .txt, .jsonl or .parquet files, the second a scale: a name, a YAML file or a shorthand
(docs/scales.md). The full answer is `to.compare` with a budget in hours; this script takes one trial of each optimizer
at a tiny budget first, to see that both run and learn.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tuneopt as to

SCALE = "2x32,seq=64,family=gpt2,ladder=nano"
RATIO = 0.02
"""Of the Chinchilla budget: enough to see a loss fall, and no more."""


def main(texts: str, scale: str = SCALE, ledger: str = "ledger-mine", ratio: float = RATIO) -> dict[str, float]:
    """Train one trial of each optimizer; the select losses in nats per token."""
    losses = {}
    for optimizer in ("adamw", "muon"):
        record = to.train(
            optimizer, texts, ledger, scale=scale, ratio=ratio, compile=False, overrides={"train_batch_size": 8}
        )
        assert record.select_loss is not None, f"{optimizer} diverged; lower its learning rate"
        losses[optimizer] = record.select_loss
        print(
            f"{optimizer}: {record.initial_loss:.3f} -> {record.select_loss:.3f} nats per token in {record.steps} steps"
        )

    # The answer itself. Whoever runs this again goes on where it stopped.
    print("\nnow ask for the answer, tuned alike and with its interval:")
    print(f"  tuneopt compare muon --scale {scale} --corpus {texts} --ledger {ledger} --hours 2")
    return losses


if __name__ == "__main__":
    if len(sys.argv) < 2 or not Path(sys.argv[1]).exists():
        sys.exit("give a folder of texts, such as: python examples/my_gpt_on_my_text.py my-texts/")
    main(*sys.argv[1:3])
