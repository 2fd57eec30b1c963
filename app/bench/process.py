"""A service under measurement: started in a process group of its own, watched through /proc, ended by its ids.

Knows nothing of what it serves. Processor time and memory are those of the whole tree: a service may be many processes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

PROC = Path("/proc")
STOP_S = 30


class ServiceError(RuntimeError):
    """A service that did not start, or does not answer; the text ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a process tree: processor seconds so far, resident bytes, and the same with shared pages counted once."""

    cpu_s: float
    rss_bytes: int
    pss_bytes: int


@dataclass(frozen=True, slots=True)
class _Entry:
    pid: int
    parent: int
    session: int
    started: str
    cpu_s: float
    rss_bytes: int


@dataclass
class Service:
    """A running service; `known` holds every process id seen in its tree, with its start time, since ids are used again."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    known: dict[int, str] = field(default_factory=dict)

    def usage(self) -> Usage:
        """What the tree uses now; zeros where there is no /proc."""
        entries = self._tree()
        return Usage(
            sum(e.cpu_s for e in entries),
            sum(e.rss_bytes for e in entries),
            sum(_pss(e.pid) or e.rss_bytes for e in entries),
        )

    def wait_until_ready(self, path: str, limit_s: float) -> float:
        """Ask GET `path` until it succeeds; return the seconds it took.

        Raises:
            ServiceError: the process ended, or the limit passed.
        """
        started = time.monotonic()
        with httpx.Client(base_url=self.url, timeout=10, trust_env=False) as client:
            while True:
                with suppress(httpx.TransportError):
                    if client.get(path).is_success:
                        return time.monotonic() - started
                self.check()
                if time.monotonic() - started > limit_s:
                    raise ServiceError(f"not ready within {limit_s:g} s:\n{self.tail()}")
                time.sleep(0.01)

    def check(self) -> None:
        """Raise `ServiceError` if the process has ended."""
        status = self.process.poll()
        if status is not None:
            raise ServiceError(f"the service ended with exit status {status}:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(line[:300] for line in self.log.read_text(errors="replace").splitlines()[-8:])

    def stop(self) -> None:
        """SIGTERM to the group, then SIGKILL to whatever of the tree is left."""
        self._tree()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        left = {e.pid for e in _entries() if self.known.get(e.pid) == e.started or e.session == self.process.pid}
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(STOP_S)

    def _tree(self) -> list[_Entry]:
        entries = {e.pid: e for e in _entries()}
        mine = {p for p, e in entries.items() if e.session == self.process.pid or self.known.get(p) == e.started}
        while True:
            children = {p for p, e in entries.items() if e.parent in mine} - mine
            if not children:
                break
            mine |= children
        self.known |= {p: entries[p].started for p in mine}
        return [entries[p] for p in mine]


@contextmanager
def running(
    command: Sequence[str], url: str, log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Service]:
    """Start a service and end it, whatever happens between. Its output goes to `log`; `env` replaces the environment."""
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - the caller's own command
            list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, cwd=cwd, start_new_session=True
        )
    service = Service(process, url, log)
    try:
        yield service
    finally:
        service.stop()


def free_port() -> int:
    """A port of loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _entries() -> Iterator[_Entry]:
    """Every process of the machine; none where there is no /proc."""
    if not (PROC / "self" / "stat").exists():
        return
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):  # it ended meanwhile
            fields = (folder / "stat").read_text().rpartition(")")[2].split()  # the name before may hold anything
            # Of children that have ended as well (cutime, cstime), so that the sum never falls.
            cpu = sum(map(int, fields[11:15])) / tick
            yield _Entry(int(folder.name), int(fields[1]), int(fields[3]), fields[19], cpu, int(fields[21]) * page)


def _pss(pid: int) -> int:
    """Resident bytes with each shared page divided among its users; 0 where the kernel does not tell."""
    with suppress(OSError):
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
