"""A model hub on loopback: what the client library asks of one, and the ways in which a hub can let it down.

Answers as the public hub does: small files directly, weights by a redirect to another host name, SHA-256 as the tag of
weights, `X-Error-Code` beside a 404. Knows nothing of checkpoints.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType

WEIGHTS = (".safetensors", ".bin")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Repository:
    """Files by revision. `told` replaces the SHA-256 that the hub tells of a file."""

    revisions: dict[str, dict[str, bytes]]
    told: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    broken: bool = False  # answers every request with 503
    foreign: bool = False  # answers like some web server that is no hub

    def commit(self, revision: str) -> str | None:
        if revision in self.revisions:
            return hashlib.sha1(revision.encode()).hexdigest()
        return next((c for r in self.revisions if (c := self.commit(r)) == revision), None)

    def files(self, commit: str) -> dict[str, bytes]:
        return next(files for revision, files in self.revisions.items() if self.commit(revision) == commit)


class HubServer:
    """A context manager; `url` is what HF_ENDPOINT must be, `requests` the "METHOD path" of every request so far."""

    def __init__(self, **repositories: Repository) -> None:
        self.repositories = {name.replace("__", "/"): repository for name, repository in repositories.items()}
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def downloads(self) -> list[str]:
        """Names of the files sent so far."""
        return [line.rpartition("/")[2] for line in self.requests if line.startswith("GET")]


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            from_cdn = self.path.startswith("/cdn/")
            path = self.path.removeprefix("/cdn").strip("/")
            parts = path.split("/", 4)
            repository = hub.repositories.get("/".join(parts[:2]))
            if repository is None or len(parts) < 5:
                return self._send(404, {"X-Error-Code": "RepoNotFound"})
            if repository.gated:
                return self._send(403, {"X-Error-Code": "GatedRepo"})
            if repository.broken:
                return self._send(503, {})
            if repository.foreign:
                return self._send(200, {}, b"<html>")
            return self._send_file(repository, parts[3], parts[4], from_cdn=from_cdn)

        def _send_file(self, repository: Repository, revision: str, name: str, *, from_cdn: bool) -> None:
            commit = repository.commit(revision)
            if commit is None:
                return self._send(404, {"X-Error-Code": "RevisionNotFound"})
            data = repository.files(commit).get(name)
            headers = {"X-Repo-Commit": commit}
            if data is None:
                return self._send(404, {**headers, "X-Error-Code": "EntryNotFound"})
            if not name.endswith(WEIGHTS):
                return self._send(200, {**headers, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}, data)
            if from_cdn:
                return self._send(200, {"ETag": '"of-the-storage"'}, data)
            headers |= {
                "X-Linked-Etag": f'"{repository.told.get(name, sha256(data))}"',
                "X-Linked-Size": str(len(data)),
                # Another host name than the endpoint's, or the client takes it for part of the hub.
                "Location": f"http://localhost:{hub.port}/cdn{self.path}",
            }
            return self._send(302, headers)

        def _send(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    return Handler
