"""What MAVE-NN ships: measured sequences, and its models' predictions; see bench_real_numbers.py.

Writes for each of its sets into the folder of the command line: NAME.train.csv (its training and
validation rows) and NAME.test.csv (its test rows), each with columns `sequence` and `y`, and
NAME.npy, the shipped model's prediction of `y` of the test rows.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import mavenn
import numpy as np

BINS = 10


def splicing(rows: Any) -> np.ndarray:
    """Logarithm to base 10 of the share of spliced transcripts, relative to the consensus."""
    return rows["y"].to_numpy()


def mean_bin(rows: Any) -> np.ndarray:
    """Mean number of the bins that a sequence was sorted into."""
    counts = rows[[f"ct_{i}" for i in range(BINS)]].to_numpy()
    return counts @ np.arange(BINS) / counts.sum(1)


def expected_bin(model: Any, x: np.ndarray) -> np.ndarray:
    """The mean over the probabilities of the bins."""
    phi = model.x_to_phi(x)
    return sum(i * model.p_of_y_given_phi(i, phi) for i in range(BINS))


Predict = Callable[[Any, np.ndarray], np.ndarray]
SETS: dict[str, tuple[str, Callable[[Any], np.ndarray], Predict]] = {
    "mpsa": ("mpsa_ge_pairwise", splicing, lambda model, x: model.x_to_yhat(x)),
    "sortseq": ("sortseq_mpa_additive", mean_bin, expected_bin),
}


def main() -> None:
    """Writes everything."""
    folder = Path(sys.argv[1])
    for name, (model, target, predict) in SETS.items():
        rows = mavenn.load_example_dataset(name)
        tested = rows["set"] == "test"
        for part, chosen in (("train", rows[~tested]), ("test", rows[tested])):
            table = chosen[["x"]].rename(columns={"x": "sequence"}).assign(y=target(chosen))
            table.to_csv(folder / f"{name}.{part}.csv", index=False)
        shipped = mavenn.load_example_model(model)
        np.save(folder / f"{name}.npy", predict(shipped, rows[tested]["x"].to_numpy()))


if __name__ == "__main__":
    main()
