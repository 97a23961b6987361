"""Sequences, motifs, the simulator, and how a config becomes a data set and batches."""
