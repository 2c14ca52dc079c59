"""How does an optimizer from a package compare? Here Lion of lion-pytorch, against the built-in AdamW.

    pip install lion-pytorch
    python examples/optimizer_from_a_package.py

Two small files make it known: one line that imports the class, and a search space that says what is tuned
(docs/bring-your-own-optimizer.md). Everything else is as for the built-in ones.
"""

from __future__ import annotations

from pathlib import Path

import tuneopt as to

OPTIMIZER = "from lion_pytorch import Lion  # noqa: F401\n"

SPACE = '''"""What is tuned of lion-pytorch's Lion on the nano ladder."""
from tuneopt.search.space import SearchSpace, learning_rate, train_batch_size, warmup

SPACE = SearchSpace(
    "Lion",
    (learning_rate({"nano": (0.0005, 0.001, 0.002)}, {"nano": 0.001}), train_batch_size(), warmup()),
    {"nano": {"lr_schedule": "cosine", "min_lr_ratio": 0, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1}},
    "Chen et al., arXiv 2302.06675, as lion-pytorch has it",
    "a factor of two around the built-in Lion's start",
)
'''


def main(folder: str = "lion-example", ratio: float = 0.02) -> dict[str, float]:
    """Write the two files and train one trial of each; the select losses in nats per token."""
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    (home / "lion.py").write_text(OPTIMIZER)
    (home / "lion_space.py").write_text(SPACE)
    theirs = f"{home / 'lion.py'}:Lion"
    losses = {}
    for optimizer, space in ((theirs, str(home / "lion_space.py")), ("adamw", None)):
        record = to.train(optimizer, "embedded", home / "ledger", space=space, ratio=ratio, compile=False)
        assert record.select_loss is not None, f"{optimizer} diverged; lower its learning rate"
        losses[record.spec.optimizer.partition("@")[0]] = record.select_loss
        check = "passed" if record.proof_passed else "failed"
        print(f"{record.spec.optimizer}: {record.select_loss:.3f} nats per token; update check {check}")

    print("\nnow tune both alike, and compare:")
    print(f"  tuneopt compare {theirs} --space {theirs}={home / 'lion_space.py'} --minutes 8")
    return losses


if __name__ == "__main__":
    main()
