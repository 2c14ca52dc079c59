"""A scale, a vocabulary and hyperparameters for trials that end in a second."""

from tuneopt.spec import Scale

TINY = Scale("tiny", "nano", layers=2, d_model=16, d_ff=64, heads=1, seq_len=32)
VOCAB = 272

CONFIG = {
    "learning_rate": 0.01,
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.95,
    "epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "train_batch_size": 8,
    "warmup": 0.1,
    "min_lr_ratio": 0.0,
    "lr_schedule": "cosine",
}
