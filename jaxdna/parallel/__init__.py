"""Processes, the device mesh, and what is sharded over which axis."""
