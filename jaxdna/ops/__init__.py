"""The few numeric operations that we write ourselves."""
