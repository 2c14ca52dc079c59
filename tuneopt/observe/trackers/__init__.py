"""Metrics of trials for TensorBoard, Weights & Biases and MLflow, each written by a process of its own."""
