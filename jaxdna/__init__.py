"""jaxdna: train DNA-motif classifiers on any mesh of TPUs, GPUs or CPUs.

Importing this package starts no backend and imports neither jax nor numpy.
"""

__version__ = "0.1.0"
