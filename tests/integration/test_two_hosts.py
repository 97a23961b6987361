"""Two hosts with addresses of their own, as network namespaces, and a cable that can be pulled."""

import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.launch_support import SHORT, environment, holds, wait_until

pytestmark = pytest.mark.launch

_HEARTBEAT = 5
_ADDRESS = "10.77.0.{}"


_LISTENING = """
import psutil
for connection in psutil.net_connections("inet"):
    if connection.status == psutil.CONN_LISTEN:
        print(connection.laddr.ip)
"""


def _ip(*arguments: object) -> None:
    subprocess.run(["ip", *map(str, arguments)], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two namespaces, joined by a pair of virtual cards."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("two hosts need root and the ip command")
    names = [f"jaxdna-{os.getpid()}-{i}" for i in (0, 1)]
    folders = [Path("/etc/netns") / name for name in names]
    try:
        try:
            for name in names:
                _ip("netns", "add", name)
            _ip("link", "add", "wire", "netns", names[0], "type", "veth",
                "peer", "name", "wire", "netns", names[1])  # fmt: skip
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this kernel lets nobody make two hosts: {error.stderr.strip()}")
        for i, (name, folder) in enumerate(zip(names, folders, strict=True), start=1):
            _ip("-n", name, "address", "add", f"{_ADDRESS.format(i)}/30", "dev", "wire")
            for card in ("wire", "lo"):
                _ip("-n", name, "link", "set", card, "up")
            folder.mkdir(parents=True)
            # As Debian has it: the host's own name is an address that no other host reaches.
            own = f"127.0.0.1 localhost\n127.0.1.1 {socket.gethostname()}\n"
            (folder / "hosts").write_text(own)
        yield names
    finally:
        for name, folder in zip(names, folders, strict=True):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
            shutil.rmtree(folder, ignore_errors=True)


def _start(hosts: list[str], folder: Path, attempt: str) -> list[subprocess.Popen[bytes]]:
    variables = environment(folder)
    flags = [
        *SHORT,
        "--config.train.epochs=40",
        "--workdir=run",
        f"--config.cluster.coordinator={_ADDRESS.format(1)}:7777",
        "--config.cluster.processes=2",
        "--config.cluster.start_seconds=60",
        f"--config.cluster.heartbeat_seconds={_HEARTBEAT}",
    ]
    return [
        subprocess.Popen(
            ["ip", "netns", "exec", host, "jaxdna", "train", *flags,
             f"--config.cluster.process_id={i}"],
            cwd=folder,
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=(folder / f"{attempt}-{i}.log").open("wb"),
        )
        for i, host in enumerate(hosts)
    ]  # fmt: skip


def test_two_hosts_train_together_end_when_the_link_is_cut_and_resume_when_it_is_back(
    hosts, tmp_path
):
    jobs = _start(hosts, tmp_path, "first")
    log = tmp_path / "first-0.log"
    try:
        assert wait_until(holds(log, "\nepoch 4/"), 90), log.read_text()[-3000:]
        _ip("-n", hosts[0], "link", "set", "wire", "down")
        codes = [job.wait(timeout=_HEARTBEAT + 30) for job in jobs]
        # 70 where ours is first to notice, SIGABRT where jax is.
        assert set(codes) <= {70, -signal.SIGABRT}, [log.read_text()[-2000:], codes]
        assert not (tmp_path / "run" / "summary.json").exists()
        _ip("-n", hosts[0], "link", "set", "wire", "up")
        jobs = _start(hosts, tmp_path, "second")
        assert [job.wait(timeout=120) for job in jobs] == [0, 0]
    finally:
        for job in jobs:
            job.kill()
            job.wait()
    again = (tmp_path / "second-1.log").read_text()
    assert "resuming after epoch" in again and "devices  2 x cpu in 2 processes" in again
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["processes"], summary["epochs"]) == (2, 40)


def test_with_a_coordinator_on_loopback_nothing_listens_elsewhere(hosts, tmp_path):
    """Although the host's own name is an address that others reach."""
    outside = _ADDRESS.format(1)
    names = Path("/etc/netns") / hosts[0] / "hosts"
    names.write_text(f"127.0.0.1 localhost\n{outside} {socket.gethostname()}\n")
    log = tmp_path / "launch.log"
    flags = [*SHORT, "--config.train.epochs=100000", "--workdir=run"]
    with log.open("wb") as stream:
        job = subprocess.Popen(
            ["ip", "netns", "exec", hosts[0], "jaxdna", "launch", "--processes=2", "--",
             "train", *flags],
            cwd=tmp_path, env=environment(tmp_path), stdout=stream, stderr=stream,
        )  # fmt: skip
    try:
        assert wait_until(holds(log, "\nepoch 2/"), 90), log.read_text()[-3000:]
        # What listens is asked for on the host, since each has its own.
        asked = ["ip", "netns", "exec", hosts[0], sys.executable, "-c", _LISTENING]
        listening = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()
        assert listening
        for ip in listening:
            address = ipaddress.ip_address(ip)
            assert (getattr(address, "ipv4_mapped", None) or address).is_loopback, listening
    finally:
        job.terminate()
        job.wait(timeout=60)
