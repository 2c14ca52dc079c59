"""Training over several ranks with DeepSpeed's ZeRO, for every optimizer: whole-tensor directions, flat apply."""
