"""Real actors, real kills: three small Ray clusters on this machine."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from jaxdna.config import load_config
from jaxdna.data.registry import load_dataset
from jaxdna.errors import EXIT_OK, EXIT_PEER, PeerError, UserError
from jaxdna.parallel.mesh import make_mesh
from jaxdna.runs.guard import Guard
from jaxdna.runs.loop import train
from jaxdna.runs.run_folder import RunFolder
from jaxdna.storage.permissions import umask
from jaxdna.strategies.prepare import Prepared
from jaxdna.training.program import Program
from tests.strategies.short_sequences import SHORT

ray = pytest.importorskip("ray")

from jaxdna.strategies.parameter_actors import answer_of, patiently  # noqa: E402
from jaxdna.strategies.parameter_server import (  # noqa: E402
    ParameterServerProgram,
    Steps,
    Ticket,
)
from jaxdna.strategies.part_gradient import make_part_gradient  # noqa: E402

SMALL = ["data.length=60", "data.train_examples=200", "train.batch_size=32"]  # 7 steps, one partial


def built(kind, *overrides):
    config = load_config("configs/tal1.py", overrides)
    dataset = load_dataset(config)
    mesh = make_mesh(config, jax.devices()[:1])
    size = len(dataset.splits["train"])
    return kind(config, mesh, dataset.example_shape, dataset.task, size), dataset


def servers(*overrides):
    # Three processes that import jax on a busy machine: the default of 60 s is for people.
    settings = [f"parameter_server.{text}" for text in ("patience=300", *overrides)]
    return ["strategy=parameter_server", *settings]


def ordinary(dataset, *overrides, steps):
    """`strategy=spmd` with `train.steps_per_call=1`: a loop of steps is another XLA program."""
    program, _ = built(Program, *overrides)
    state, feed, call = program.init(), program.feed(dataset.splits["train"]), program.compiled(1)
    sums = []
    for step in range(steps):
        state, metrics = call(state, feed(step, 1))
        sums.append(jax.tree.map(np.asarray, metrics))
    return jax.tree.map(np.asarray, state), {
        k: np.concatenate([s[k] for s in sums]) for k in sums[0]
    }


def test_one_worker_at_staleness_0_is_the_ordinary_run_bit_for_bit():
    options = servers("workers=1", "servers=2", "max_staleness=0")
    program, dataset = built(ParameterServerProgram, *SMALL, *options)
    feed = program.feed(dataset.splits["train"])
    try:
        state, metrics = program.compiled(7)(program.init(), feed(0, 7))
        report = program.report()
    finally:
        program.close()
    expected, sums = ordinary(dataset, *SMALL, steps=7)
    jax.tree.map(np.testing.assert_array_equal, expected, jax.tree.map(np.asarray, state))
    for name, values in sums.items():
        np.testing.assert_array_equal(values, metrics[name])
    assert report["staleness"] == [2 * 7]  # every push of 7 steps to 2 servers
    assert report["updates_per_second"] > 0
    assert not ray.is_initialized()


def test_synchronous_workers_share_each_batch_and_survive_a_server_that_dies():
    """A server dies while it holds one of a step's two parts: the one moment that could lose it."""
    sgd = ["optimizer.name=sgd", "optimizer.learning_rate=0.5"]
    options = servers("workers=2", "servers=2", "max_staleness=0", "checkpoint_every=1")
    program, dataset = built(ParameterServerProgram, *SMALL, *sgd, *options)
    feed = program.feed(dataset.splits["train"])
    cluster = program.clusters[0]

    def work(part, again):
        answer = cluster.workers[part].work.remote(Ticket(3, part), again)
        return ray.get(answer)["applied"]

    try:
        state, before = cluster.train(program.init(), feed(0, 3))
        victim = cluster.about()["servers"][1]["pid"]
        cluster.load(state, 3)
        assert work(0, again=False) == [False, False]
        os.kill(victim, signal.SIGKILL)
        assert work(1, again=False) == [True, False]  # the first server goes on, the second cannot
        assert work(0, again=True) == [True, True]  # it has had the other part since it came back
        assert work(1, again=True) == [True, True]  # and takes no part twice
        state, after = cluster.train(cluster.collect(state, 1), feed(4, 3))
        about = cluster.about()["servers"]
    finally:
        program.close()
    assert about[1]["restarted"]
    assert [own["version"] for own in about] == [7, 7]
    expected, sums = ordinary(dataset, *SMALL, *sgd, steps=7)
    # Sums of 32 rows in two halves: a few units of float32 per step in parameters below 1. A part
    # computed anew would be that of newer weights, and off by the step size.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6),
        expected.params,
        jax.tree.map(np.asarray, state.params),
    )
    for name, values in sums.items():
        np.testing.assert_allclose(values[:3], before[name], rtol=1e-5)
        np.testing.assert_allclose(values[4:], after[name], rtol=1e-5)


def test_a_server_that_has_lost_its_checkpoint_ends_the_run_with_a_sentence(tmp_path, monkeypatch):
    """The server's process comes back, and its variables do not; no worker is taken for dead."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    options = servers("servers=2", "max_staleness=4", "checkpoint_every=100000", "delays=0.02,0.02")
    program, dataset = built(ParameterServerProgram, *SMALL, *options)
    program.feed(dataset.splits["train"])
    cluster = program.clusters[0]

    def lose():
        while (about := ray.get(cluster.servers[0].about.remote()))["version"] < 5:
            time.sleep(0.01)
        checkpoint.unlink()
        os.kill(about["pid"], signal.SIGKILL)

    killer = threading.Thread(target=lose)
    try:
        cluster.load(program.init(), 0)
        (checkpoint,) = tmp_path.glob("jaxdna-parameters-*/server-0")
        killer.start()
        with pytest.raises(PeerError) as caught:
            cluster.train(program.init(), Steps(0, 10**6))
        killer.join()
        assert cluster.report()["tickets_lost"] == 0
        cluster.about()  # waits for what the workers were still doing
        state, _ = cluster.train(program.init(), Steps(0, 3))  # brings new variables
        assert int(state.step) == 3
        hasty = program.config.copy_and_resolve_references()
        hasty.parameter_server.patience = 0.2  # a process cannot import jax in that
        os.kill(cluster.about()["servers"][1]["pid"], signal.SIGKILL)
        with pytest.raises(PeerError, match=r"died and did not come back within 0\.2 s"):
            patiently(hasty, cluster.servers[1], "pull")
        ray.kill(cluster.servers[0])  # Ray starts it no more
        with pytest.raises(PeerError, match="a parameter server died for good; the same command"):
            answer_of(cluster.workers[0].work.remote(Ticket(3, 0), False))
    finally:
        program.close()
    assert caught.value.exit_code == EXIT_PEER
    assert str(caught.value) == (
        f"a parameter server died, and its checkpoint {checkpoint} cannot be read (No such file or "
        "directory); the same command resumes from the run's last checkpoint"
    )


def test_a_cluster_that_does_not_start_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program, dataset = built(ParameterServerProgram, *SMALL, *servers("patience=0.01"))
    with pytest.raises(UserError, match=r"were not started within 0.01 s"):
        program.feed(dataset.splits["train"])
    assert list(tmp_path.iterdir()) == []
    assert not ray.is_initialized()


TAL1 = [*SHORT, "train.batch_size=128", "train.epochs=7"]


def two_and_two():
    """Two workers and two servers on TAL1's sites in short sequences."""
    options = servers("workers=2", "servers=2", "max_staleness=4", "checkpoint_every=5")
    program, dataset = built(ParameterServerProgram, *TAL1, *options)
    program.feed(dataset.splits["train"])
    yield program, dataset, program.clusters[0]
    program.close()


crew = pytest.fixture(two_and_two, scope="module")


def replay(program, cluster, script):
    """Makes the workers pull and push in a given order; returns the parameters."""
    state = program.init()
    cluster.load(state, 0)
    for rank, step, do in script:
        method = getattr(cluster.workers[rank], do)
        ray.get(method.remote(Ticket(step, 0)))
    params = jax.tree.map(np.asarray, cluster.collect(state, 0).params)
    # On each of two servers: two pushes saw no other update, one saw one, and one saw two.
    assert cluster.report()["staleness"] == [4, 2, 2]
    return params


def test_a_scripted_interleaving_replays_exactly(crew):
    program, dataset, cluster = crew
    script = [
        (0, 0, "pull"), (1, 1, "pull"), (1, 1, "push"), (1, 2, "pull"), (0, 0, "push"),
        (0, 3, "pull"), (0, 3, "push"), (1, 2, "push"),
    ]  # fmt: skip
    once, twice = replay(program, cluster, script), replay(program, cluster, script)
    jax.tree.map(np.testing.assert_array_equal, once, twice)

    # The same order on one device: a gradient is that of the parameters when it was pulled.
    gradient = jax.jit(make_part_gradient(program, 1))
    feed = Program.feed(program, dataset.splits["train"])

    def update(params, opt_state, gradients):
        updates, opt_state = program.optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    update, state, pulled = jax.jit(update), program.init(), {}
    params, opt_state = state.params, state.opt_state
    for _, step, do in script:
        if do == "pull":
            pulled[step] = params
        else:
            batch = feed(step, 1)
            gradients, _ = gradient(pulled[step], jnp.int32(step), jnp.int32(0), batch)
            params, opt_state = update(params, opt_state, gradients)
    jax.tree.map(np.testing.assert_array_equal, once, jax.tree.map(np.asarray, params))


def test_a_client_without_the_token_is_refused(crew, tmp_path):
    """Any user of a machine reaches its loopback ports; the token is what keeps others out."""
    address = ray.get_runtime_context().gcs_address
    check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # else Ray asks at an interface's address
    ours = subprocess.run(
        check, env=os.environ | loopback, capture_output=True, timeout=300, check=False
    )
    assert ours.returncode == 0, ours.stderr
    stranger = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    stranger |= loopback | {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    theirs = subprocess.run(check, env=stranger, capture_output=True, timeout=300, check=False)
    assert theirs.returncode != 0
    assert b"token" in theirs.stderr


def test_what_workers_and_servers_make_has_the_permissions_of_the_users_umask(crew):
    """Ray's own files are closed to others; caches may be shared."""
    about = crew[2].about()
    for actor in [*about["servers"], *about["workers"]]:
        status = Path(f"/proc/{actor['pid']}/status").read_text()
        assert f"Umask:\t{umask():04o}\n" in status


def test_a_user_without_a_home_folder_can_import_ray():
    code = (
        "import os, pwd\n"
        "os.environ.pop('HOME', None)\n"
        "def nobody(number): raise KeyError(number)\n"
        "pwd.getpwuid = nobody\n"
        "import jaxdna.strategies.ray_cluster"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_ray_that_is_in_use_already_is_left_alone(crew):
    program, _ = built(ParameterServerProgram, *SMALL, *servers())
    with pytest.raises(UserError, match=r"call ray.shutdown\(\) first"):
        program.check()


def test_tal1_reaches_its_score_with_two_workers_and_leaves_its_metrics(crew, tmp_path):
    program, dataset, _ = crew
    folder, console = RunFolder(tmp_path / "run"), Console(quiet=True)
    prepared = Prepared(program.mesh, dataset, program)
    with Guard(program.config.watchdog, False) as guard, folder.locked(lambda text: None):
        folder.open(program.config)
        folder.record_data(dataset)
        summary = train(prepared, folder, guard, console, lambda *_: "", EXIT_OK)
    assert summary["ceiling"]["auroc"] > 0.995
    assert summary["test"]["auroc"] >= 0.98
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    for row in rows:
        assert sum(row["staleness"]) == 2 * 50
        assert len(row["staleness"]) <= 4 + 1
        assert row["staleness_mean"] >= 0
        assert row["updates_per_second"] > 0
        assert row["waiting_seconds"] >= 0
    events = b"".join(path.read_bytes() for path in (tmp_path / "run").glob("tensorboard/train/*"))
    for tag in (b"staleness", b"updates_per_second", b"waiting_seconds"):
        assert tag in events


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["parameter_server.servers=5"], "more than the 4 variables of the network; legal: 1 to 4"),
        (
            ["parameter_server.max_staleness=0", "parameter_server.workers=3"],
            "batch_size=32 is not divisible by 3 workers at a time with 1 devices each; nearest "
            "legal: 30 or 33",
        ),
        (["parameter_server.address=foo"], "address=foo is not a HOST:PORT; give that of a head"),
        (["parameter_server.delays=fast"], "must be numbers of 0 or more, with commas"),
        (["gradient_sync.method=ring"], "the only legal value is auto"),
    ],
)
def test_what_does_not_fit_is_one_sentence(overrides, words):
    with pytest.raises(UserError) as caught:
        built(ParameterServerProgram, *SMALL, "strategy=parameter_server", *overrides)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cluster_that_does_not_answer_is_waited_for_no_longer_than_said():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        options = servers(f"address={address}", "patience=6")
        program, _ = built(ParameterServerProgram, *SMALL, *options)
        start = time.monotonic()
        with pytest.raises(UserError, match=f"address={address} does not answer within 6 s"):
            program.check()
        assert time.monotonic() - start < 30  # Ray by itself asks for 40 s


def test_another_cluster_is_joined_with_its_token_and_not_without(jaxdna, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = "127.0.0.1:" + str(free.getsockname()[1])
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "member"))
    ray_command = [sys.executable, "-m", "ray.scripts.scripts"]
    start = [
        *ray_command, "start", "--head", "--block", "--num-cpus=3", "--node-ip-address=127.0.0.1",
        f"--port={address.split(':')[1]}", "--include-dashboard=false", "--disable-usage-stats",
    ]  # fmt: skip
    subprocess.run([*ray_command, "get-auth-token", "--generate"], check=True, capture_output=True)
    token = tmp_path / "member" / ".ray" / "auth_token"
    token.parent.chmod(0o755)  # as Ray makes them under the usual umask
    token.chmod(0o644)
    settings = ["train.epochs=1", *SMALL, *servers(f"address={address}", "patience=120")]
    train = ["train", "--config=configs/tal1.py", *(f"--config.{setting}" for setting in settings)]
    with subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as head:
        try:
            assert any(b"Ray runtime started" in line for line in head.stdout)
            done = jaxdna(*train, f"--workdir={tmp_path}/member_s")
            assert done.returncode == 0, done.stderr
            assert [stat.S_IMODE(p.stat().st_mode) for p in (token.parent, token)] == [0o700, 0o600]
            monkeypatch.setenv("HOME", str(tmp_path / "stranger"))
            done = jaxdna(*train, f"--workdir={tmp_path}/stranger_s")
            assert done.returncode == 2, done.stderr
            last = done.stderr.splitlines()[-1]
            assert f"address={address} answers, but does not let this process join" in last
        finally:
            head.terminate()


def test_without_ray_the_sentence_names_the_extra(tmp_path):
    hidden = (
        "import sys; sys.modules['ray'] = None; from jaxdna.cli.main import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [
            sys.executable, "-c", hidden, "train", "--config=configs/tal1.py",
            "--config.strategy=parameter_server", f"--workdir={tmp_path}/run",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "jaxdna: --config.strategy=parameter_server needs ray, which is not installed; "
        "install jaxdna[ray], or take strategy spmd or pipeline"
    )
    assert "Traceback" not in done.stderr
