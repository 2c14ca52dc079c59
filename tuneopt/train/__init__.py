"""The training path: model, schedule, loop, evaluation, checkpoints. Runs with torch and pyarrow alone."""
