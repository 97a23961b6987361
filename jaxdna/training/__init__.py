"""State, step, loop, early stopping, checkpoints, metrics."""
