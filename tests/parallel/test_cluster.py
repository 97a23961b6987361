import socket

import pytest
from rich.console import Console

from jaxdna.config import load_config
from jaxdna.errors import UserError
from jaxdna.parallel.cluster import join
from jaxdna.parallel.start import decide


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = [f"cluster.coordinator=127.0.0.1:{port}", "cluster.processes=2"]
        settings = load_config("configs/tal1.py", flags).cluster
        with pytest.raises(UserError, match=rf"port {port} cannot be used"):
            join(settings, decide(settings, {}, False), Console(quiet=True))
