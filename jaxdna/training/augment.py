"""Random changes of the training images that leave their class as it is, on the device."""

import jax
import jax.numpy as jnp

from jaxdna.tasks.task import Batch

_SHIFT = 4  # pixels; He et al., 2015, arXiv 1512.03385, section 4.2


def flip_and_shift(batch: Batch, key: jax.Array) -> Batch:
    """Mirrors half of the images and moves each by up to four pixels along both sides.

    Args:
      batch: `x` is uint8 [batch, height, width, channels].
      key: decides for every image on its own.

    Returns:
      As `batch`; what is moved in from outside is 0.
    """
    images = batch["x"]
    flip_key, shift_key = jax.random.split(key)
    flip = jax.random.bernoulli(flip_key, 0.5, images.shape[:1])
    images = jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)
    shifts = jax.random.randint(shift_key, (2, images.shape[0]), 0, 2 * _SHIFT + 1)
    for axis, shift in zip((1, 2), shifts, strict=True):
        images = _shifted(images, axis, shift)
    return batch | {"x": images}


def _shifted(images: jax.Array, axis: int, shift: jax.Array) -> jax.Array:
    """Moves every image along `axis` by its `shift` - 4.

    A choice among nine slices instead of a slice at a varying start: every device needs nothing but
    its own images for it.
    """
    padding = [(0, 0)] * images.ndim
    padding[axis] = (_SHIFT, _SHIFT)
    padded = jnp.pad(images, padding)
    moved = images
    for start in range(2 * _SHIFT + 1):
        chosen = (shift == start)[:, None, None, None]
        part = jax.lax.slice_in_dim(padded, start, start + images.shape[axis], axis=axis)
        moved = jnp.where(chosen, part, moved)
    return moved
