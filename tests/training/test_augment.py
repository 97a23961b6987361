import jax
import numpy as np

from jaxdna.training.augment import flip_and_shift


def test_every_image_is_one_of_its_mirrored_and_shifted_selves():
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (400, 12, 12, 3), dtype=np.uint8)
    moved = np.asarray(flip_and_shift({"x": images}, jax.random.key(1))["x"])
    assert moved.dtype == np.uint8
    assert moved.shape == images.shape
    found = []
    for image, other in zip(images, moved, strict=True):
        cases = {
            (flip, y, x): np.pad(image[:, ::-1] if flip else image, ((4, 4), (4, 4), (0, 0)))[
                y : y + 12, x : x + 12
            ]
            for flip in (False, True)
            for y in range(9)
            for x in range(9)
        }
        (case,) = [key for key, candidate in cases.items() if np.array_equal(candidate, other)]
        found.append(case)
    flips, ys, xs = np.array(found).T
    assert abs(flips.mean() - 0.5) < 4 * 0.5 / np.sqrt(400)
    for shifts in (ys, xs):  # uniform on 0..8: mean 4, variance 80 / 12
        assert set(shifts) == set(range(9))
        assert abs(shifts.mean() - 4) < 4 * np.sqrt(80 / 12 / 400)
    assert abs(np.corrcoef(ys, xs)[0, 1]) < 4 / np.sqrt(400)


def test_another_key_moves_otherwise():
    images = np.random.default_rng(0).integers(1, 256, (8, 12, 12, 1), dtype=np.uint8)
    first, second = (flip_and_shift({"x": images}, jax.random.key(seed))["x"] for seed in (1, 2))
    assert not np.array_equal(first, second)
