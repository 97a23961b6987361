"""Flax NNX networks, all of them a plain sequence of layers, and their registry."""
