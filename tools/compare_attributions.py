"""Compares DeepLIFT/SHAP with tangermeme's: the same networks, sequences and references.

python tools/compare_attributions.py --python=PEER/bin/python runs/tal1 runs/deep_cnn runs/dilated

PEER is an environment of its own: `python -m venv PEER; PEER/bin/pip install torch tangermeme`.
Both take turns, and what is compared is processor time, so that other work on the machine counts
little. Both are also asked in float64, where they must agree. The scores of each in float32 are
compared with its own in float64; "beyond" counts the sequences of which one is further from them
than 1e-5.
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

import jaxdna
from jaxdna.analysis.attribution import Settings, make_attributor
from jaxdna.analysis.deeplift import multipliers
from jaxdna.analysis.interpretation import test_sample
from jaxdna.analysis.references import make_references
from jaxdna.console import results_console, table
from jaxdna.data.sequences import Codes, one_hot
from jaxdna.ops.strands import complement_strand
from jaxdna.parallel.sharding import path_name
from jaxdna.runs.trained import Trained

WORKER = Path(__file__).parent / "peers" / "tangermeme_worker.py"
ROUNDS = 3
BEYOND = 1e-5
BATCH = 64  # pairs that tangermeme takes at once: the fastest of 32, 64, 128 and 256 here


def in_float64(
    trained: Trained, codes: Codes, references: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Returns our hypothetical scores [sequences, length, 4], all of it computed in float64."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), trained.params)
        network = trained.network(params)

        def output(x: jax.Array) -> jax.Array:
            return (network(x[None]) + network(complement_strand(x[None])))[0] / 2

        @jax.jit
        @jax.vmap
        def slopes(x: jax.Array, reference: jax.Array) -> jax.Array:
            return multipliers(output, x, reference)[0]

        def scores(x: NDArray, own: NDArray) -> NDArray:
            found = np.asarray(slopes(np.broadcast_to(x, own.shape).astype(np.float64), own))
            assert found.dtype == np.float64
            return (found - (found * own).sum(axis=-1, keepdims=True)).mean(axis=0)

        return np.stack([*map(scores, one_hot(codes), references.astype(np.float64))])


def compare(workdir: str, count: int, peer: subprocess.Popen, folder: Path) -> list:
    """Returns one row of the table: differences, and processor seconds of each sequence."""
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
    other, exact = (np.load(f"{path}.npy").swapaxes(1, 2) for path in paths.values())
    found = np.concatenate([part.hypothetical[:, 0] for part in parts])
    ours_exact = in_float64(trained, codes, references)
    missed = max(float(part.missed.max()) for part in parts)
    size = np.concatenate([part.size for part in parts])[:, 0]
    change = np.concatenate([part.change for part in parts])[:, 0]
    total = (other * one_hot(codes)).sum(axis=(1, 2), dtype=np.float64)
    off = [np.abs(own - true).max(axis=(1, 2)) for own, true in
           ((found, ours_exact), (other, exact))]  # fmt: skip
    return [
        trained.config.model.name,
        count,
        f"{np.abs(found).max():.2f}",
        f"{np.abs(ours_exact - exact).max():.1e}",
        *(f"{each.max():.1e}, {(each > BEYOND).sum()} beyond" for each in off),
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
    columns = ["network", "sequences", "largest score", "apart in float64"]
    columns += ["float32 off", "tangermeme's", "delta", "tangermeme's"]
    columns += ["ms a sequence", "tangermeme's", "ratio"]
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
