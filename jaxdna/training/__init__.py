"""State, step, program, feed, evaluation, optimizer, checkpoints: pure, and what compiles."""
