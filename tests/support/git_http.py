"""Git over HTTP: ``git http-backend`` behind a small server that wants a token, and fails in the ways of servers."""

from __future__ import annotations

import base64
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

Start = Callable[..., Any]

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, with RST


class GitServer:
    """Serves the bare repositories below `folder` to those who come with `token` as their password.

    Attributes:
        url: of the server; a repository is at ``{url}/name.git``.
        authorizations: every ``authorization`` header that came.
        redirect_to: when set, every request is sent there.
        answering: while cleared, requests wait.
        read_only: whether the token is one that may not push.
        failing: when set, the status that every request is answered with.
        before_push: called when a push has arrived, before it is done.
        forgets_answers: whether the connection is reset once a push is done, in place of an answer.
    """

    def __init__(self, folder: Path, token: str) -> None:
        self._folder = folder
        self._token = token
        self.url = ""
        self.authorizations: list[str] = []
        self.redirect_to: str | None = None
        self.answering = threading.Event()
        self.answering.set()
        self.read_only = False
        self.failing: str | None = None
        self.before_push: Callable[[], object] | None = None
        self.forgets_answers = False

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        self.answering.wait(30)
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        if authorization:
            self.authorizations.append(authorization)
        body = _body(environ)
        if self.redirect_to is not None:
            query = f"?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else ""
            start("302 Found", [("Location", self.redirect_to + environ["PATH_INFO"] + query), ("Content-Length", "0")])
            return []
        if not self._admits(authorization):
            start("401 Unauthorized", [("WWW-Authenticate", 'Basic realm="git"'), ("Content-Length", "0")])
            return []
        if self.failing is not None or (self.read_only and "git-receive-pack" in _asked(environ)):
            start(self.failing or "403 Forbidden", [("Content-Length", "0")])
            return []
        if not environ["PATH_INFO"].endswith("/git-receive-pack"):
            return self._backend(environ, body, start)
        if self.before_push is not None:
            self.before_push()
        answer = self._backend(environ, body, start)
        if self.forgets_answers:
            connection: socket.socket = environ["datom.connection"]
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            connection.shutdown(socket.SHUT_RDWR)
        return answer

    def _admits(self, authorization: str) -> bool:
        scheme, _, value = authorization.partition(" ")
        return scheme == "Basic" and base64.b64decode(value).decode().partition(":")[2] == self._token

    def _backend(self, environ: dict[str, Any], body: bytes, start: Start) -> Iterable[bytes]:
        variables = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "GIT_PROJECT_ROOT": str(self._folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_CONFIG_KEY_1": "http.receivepack",
            "GIT_CONFIG_VALUE_1": "true",
            **{key: str(environ.get(key) or "") for key in ("PATH_INFO", "QUERY_STRING", "REQUEST_METHOD")},
            **{key: str(environ.get(key) or "") for key in ("CONTENT_TYPE", "HTTP_GIT_PROTOCOL")},
            "CONTENT_LENGTH": str(len(body)),
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=variables, capture_output=True, timeout=30, check=True
        )
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        headers = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")]
        status = next((value for name, value in headers if name == "Status"), "200 OK")
        start(status, [header for header in headers if header[0] != "Status"])
        return [answer]


def _asked(environ: dict[str, Any]) -> str:
    return f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"


def _body(environ: dict[str, Any]) -> bytes:
    """What the request carries, also where it comes in chunks, as libgit2 sends packs."""
    source = environ["wsgi.input"]
    if environ.get("HTTP_TRANSFER_ENCODING", "").lower() != "chunked":
        return bytes(source.read(int(environ.get("CONTENT_LENGTH") or 0)))
    body = b""
    while size := int(source.readline().partition(b";")[0], 16):
        body += source.read(size)
        source.readline()
    source.readline()
    return body


class _Threading(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False


class _Quiet(WSGIRequestHandler):
    def get_environ(self) -> dict[str, Any]:
        return {**super().get_environ(), "datom.connection": self.connection}

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def git_server(folder: Path, token: str) -> Iterator[GitServer]:
    """A `GitServer` on a free port of this machine, for the time of a ``with`` block."""
    app = GitServer(folder, token)
    with make_server("127.0.0.1", 0, app, server_class=_Threading, handler_class=_Quiet) as server:
        app.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield app
        finally:
            app.answering.set()
            server.shutdown()
            thread.join(10)
