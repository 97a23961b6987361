"""Compares DeepLIFT/SHAP with tangermeme's: the same networks, sequences and references.

python tools/compare_attributions.py --python=PEER/bin/python runs/tal1 runs/deep_cnn runs/dilated

PEER is an environment of its own: `python -m venv PEER; PEER/bin/pip install torch tangermeme`.
Both take turns, and what is compared is processor time, so that other work on the machine counts
little. The scores of both are compared with tangermeme's in float64.
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

import jaxdna
from jaxdna.analysis.attribution import Settings, make_attributor
from jaxdna.analysis.interpretation import test_sample
from jaxdna.analysis.references import make_references
from jaxdna.console import results_console, table
from jaxdna.data.sequences import one_hot
from jaxdna.parallel.sharding import path_name

WORKER = Path(__file__).parent / "peers" / "tangermeme_worker.py"
ROUNDS = 3
BATCH = 64  # pairs that tangermeme takes at once: the fastest of 32, 64, 128 and 256 here


def compare(workdir: str, count: int, peer: subprocess.Popen, folder: Path) -> list:
    """Returns one row of the table: differences, and processor seconds of each sequence."""
    import jax

    run = jaxdna.open_run(workdir, quiet=True)
    trained, settings = run.model, Settings()
    codes = test_sample(trained, run.folder).codes[:count]
    rng = np.random.default_rng([settings.seed, 0])
    references = make_references("dinucleotide_shuffle", codes, settings.shuffles, rng)
    flat = jax.tree_util.tree_leaves_with_path(trained.params)
    work = {
        "network": trained.config.model.name,
        "pool": trained.config.model.get("pool", 0),
        "batch": BATCH,
        "sequences": one_hot(codes),
        "references": references,
        **{path_name(path): np.asarray(leaf) for path, leaf in flat},
    }
    paths = {kind: folder / f"{kind}.npz" for kind in ("float32", "float64")}
    for kind, path in paths.items():
        np.savez(path, precision=kind, **work)

    def ask(kind: str) -> float:
        print(paths[kind], file=peer.stdin, flush=True)
        return float(peer.stdout.readline())

    ours, theirs, attribute = [], [], make_attributor(trained, settings)
    for _ in range(ROUNDS + 1):  # the first compiles
        begin = time.process_time()
        parts = list(attribute([([str(i) for i in range(count)], codes)]))
        ours.append(time.process_time() - begin)
        theirs.append(ask("float32"))
    ask("float64")
    other, exact = (np.load(f"{path}.npy") for path in paths.values())
    found = np.concatenate([part.hypothetical[:, 0] for part in parts]).swapaxes(1, 2)
    missed = max(float(part.missed.max()) for part in parts)
    size = np.concatenate([part.size for part in parts])[:, 0]
    change = np.concatenate([part.change for part in parts])[:, 0]
    total = (other * one_hot(codes).swapaxes(1, 2)).sum(axis=(1, 2), dtype=np.float64)
    return [
        trained.config.model.name,
        count,
        f"{np.abs(found - exact).max():.1e}",
        f"{np.abs(other - exact).max():.1e}",
        f"{np.abs(found).max():.2f}",
        f"{missed:.1e}",
        f"{(np.abs(total - change) / size).max():.1e}",
        f"{min(ours[1:]) / count * 1000:.1f}",
        f"{min(theirs[1:]) / count * 1000:.1f}",
        f"{min(theirs[1:]) / min(ours[1:]):.2f}",
    ]


def main() -> None:
    """Compares every run and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="of the environment with tangermeme")
    parser.add_argument("--sequences", type=int, default=16, help="of each run's test split")
    parser.add_argument("workdirs", nargs="+")
    arguments = parser.parse_args()
    columns = ["network", "sequences", "off float64", "tangermeme's", "largest score", "delta"]
    columns += ["tangermeme's", "ms a sequence", "tangermeme's", "ratio"]
    with tempfile.TemporaryDirectory() as folder:
        peer = subprocess.Popen(
            [arguments.python, str(WORKER)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with peer:
            rows = [
                compare(workdir, arguments.sequences, peer, Path(folder))
                for workdir in arguments.workdirs
            ]
    results_console().print(table("DeepLIFT/SHAP, 20 shuffles", columns, rows))


if __name__ == "__main__":
    main()
