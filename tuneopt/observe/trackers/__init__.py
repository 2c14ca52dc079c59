"""Metrics of trials for TensorBoard, Weights & Biases and MLflow, each written by a process of its own.

`tracker` is the driver's end, `child` the process, `libraries` what it calls. The ledger holds all that a tracker
shows: trackers are for watching, and nothing is read back from them.
"""
