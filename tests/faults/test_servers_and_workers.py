"""Rows 21, 23 and 24 of the table of faults: workers and servers of strategy=parameter_server."""

import os
import signal
import threading
import time

import jax
import numpy as np
import psutil
import pytest

ray = pytest.importorskip("ray")

from jaxdna.strategies.parameter_server import Steps  # noqa: E402
from tests.faults.conftest import assert_listen_on_loopback_only  # noqa: E402
from tests.strategies.test_parameter_server import two_and_two  # noqa: E402

crew = pytest.fixture(two_and_two, scope="module")


def killed_in_the_middle(cluster, pid):
    """Kills a process once the last server has made 20 of 100 updates; returns the thread."""

    def kill():
        while ray.get(cluster.servers[-1].about.remote())["version"] < 20:
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_fault_21_ray_listens_on_loopback_only(crew):
    ours = psutil.Process()
    ray_s = ours.children(recursive=True)
    assert {"gcs_server", "raylet"} <= {process.name() for process in ray_s}
    assert_listen_on_loopback_only([ours, *ray_s])


def test_fault_23_a_killed_worker_comes_back_and_every_step_is_applied_once(crew):
    program, _, cluster = crew
    before = cluster.about()["workers"]
    cluster.load(program.init(), 0)
    killer = killed_in_the_middle(cluster, before[0]["pid"])
    state, metrics = cluster.train(program.init(), Steps(0, 100))
    killer.join()
    report = cluster.report()
    assert int(state.step) == 100
    assert metrics["weight"].sum() == 12_800
    about = cluster.about()  # waits for the new worker
    assert about["workers"][0]["pid"] != before[0]["pid"]
    assert about["workers"][1]["pid"] == before[1]["pid"]
    assert [own["version"] for own in about["servers"]] == [100, 100]
    assert report["tickets_lost"] == 1
    assert sum(report["staleness"]) == 2 * 100
    assert len(report["staleness"]) <= 5


def test_fault_24_a_killed_server_comes_back_from_its_checkpoint(crew):
    program, _, cluster = crew
    before = cluster.about()["servers"]
    cluster.load(program.init(), 0)
    killer = killed_in_the_middle(cluster, before[0]["pid"])
    state, _ = cluster.train(program.init(), Steps(0, 100))
    killer.join()
    cluster.report()  # begins the measurements anew for the next test
    after = cluster.about()["servers"]
    assert after[0]["restarted"]
    assert after[0]["pid"] != before[0]["pid"]
    # checkpoint_every=5: at most 4 acknowledged updates are gone; the other server has them all.
    assert 96 <= after[0]["version"] <= 100
    assert after[1]["version"] == 100
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
