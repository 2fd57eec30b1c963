"""Hostile clients by the thousand, and a good one beside them: `python -m benchmarks.soak.hostile`.

Each attack goes on for some seconds: what the service closes is opened anew. Holds that every good request is answered, in time,
that each attack gets what is documented, and that memory and descriptors are back at the end. Exit status 1 where one fails.
"""

from __future__ import annotations

import argparse
import select
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from app.descriptors import raise_limit
from benchmarks.report import markdown, publish
from tests.e2e.hostile_clients import ATTACKS, CHUNKED, DEAF, GET, LIMITS, POST, Good, attack, good_client, head, length, statuses
from tests.e2e.server import Server, serve

WORST_S = 3.0  # for a good request beside an attack, on a machine that has both
OPEN_AT_ONCE = 200  # connections opened before the others have their turn


@dataclass
class Held:
    """One hostile connection: what it still sends, and what it got."""

    socket: socket.socket
    left: memoryview
    got: bytes = b""


@dataclass(frozen=True)
class Kind:
    """An attack of many connections that stay: what each sends first, and then again and again.

    `again` is sent every second, or as fast as it is taken where `flood`. A `deaf` one never reads.
    """

    name: str
    count: int
    first: bytes
    may_get: set[int]  # as the last answer
    again: bytes = b""
    flood: bool = False
    deaf: bool = False


@dataclass
class Outcome:
    """What an attack's connections met: answers by their statuses, () for none."""

    opened: int = 0
    most: int = 0  # open at once, as the attacker sees it
    got: Counter[tuple[int, ...]] = field(default_factory=Counter)


NOTHING = 0  # closed without an answer
KINDS = (
    Kind("idle connections", 4000, b"", {NOTHING}),
    Kind("half a head, a byte a second", 500, b"GET /livez HTTP/1.1\r\nA: ", {NOTHING}, again=b"x"),
    Kind("a body, a byte a second", 500, head(length(1000)), {408, NOTHING}, again=b"x"),
    Kind(
        "endless chunked bodies", 50, head(CHUNKED), {413, 408, 429, NOTHING}, b"4000\r\n" + bytes(0x4000) + b"\r\n", flood=True
    ),
    Kind("chunks of a byte", 50, head(CHUNKED), {400, 408, NOTHING}, b"1\r\nx\r\n" * 3000, flood=True),
    Kind("a TLS hello", 100, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400, NOTHING}),
    Kind("answers that nobody reads", 200, DEAF, {NOTHING}, deaf=True),
    Kind("announced bodies of 1.9 MB that never come", 500, head(length(1_900_000)), {408, 429, NOTHING}),
    Kind("requests ahead without end", 20, GET * 100, {200, NOTHING}, GET * 100, flood=True),
)


class Press:
    """Keeps so many connections of a kind open until told to stop."""

    def __init__(self, server: Server, kind: Kind) -> None:
        self._server = server
        self._kind = kind
        self._poll = select.poll()
        self._held: dict[int, Held] = {}
        self.outcome = Outcome()

    def run(self, stop: threading.Event) -> None:
        again_at = time.monotonic() + 1
        while not stop.is_set():
            for _ in range(min(OPEN_AT_ONCE, self._kind.count - len(self._held))):
                self._open()
            self.outcome.most = max(self.outcome.most, len(self._held))
            for number, _ in self._poll.poll(50):
                self._serve(self._held[number])
            if not self._kind.flood and time.monotonic() > again_at:
                again_at += 1
                for held in list(self._held.values()):
                    self._send(held, self._kind.again)
        for held in list(self._held.values()):
            self._close(held, count=False)

    def _open(self) -> None:
        with suppress(OSError):
            made = socket.create_connection(("127.0.0.1", self._server.port), 5)
            if self._kind.deaf:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.setblocking(False)
            held = Held(made, memoryview(self._kind.first))
            self._held[made.fileno()] = held
            self.outcome.opened += 1
            events = 0 if self._kind.deaf else select.POLLIN
            self._poll.register(made, events | (select.POLLOUT if self._kind.first or self._kind.flood else 0))

    def _serve(self, held: Held) -> None:
        if held.left or self._kind.flood:
            held.left = held.left or memoryview(self._kind.again)
            self._send(held)
        if self._kind.deaf:
            if not held.left:
                self._poll.modify(held.socket, 0)  # an error is told all the same
            if held.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._close(held)
            return
        try:
            data = held.socket.recv(1 << 16)
        except BlockingIOError:
            if not held.left and not self._kind.flood:
                self._poll.modify(held.socket, select.POLLIN)
            return
        except OSError:
            data = b""
        held.got += data
        if not data:
            self._close(held)

    def _send(self, held: Held, more: bytes = b"") -> None:
        try:
            sent = held.socket.send(held.left or more) if held.left or more else 0
            held.left = held.left[sent:]
        except BlockingIOError:
            pass
        except OSError:
            held.left = memoryview(b"")  # what the service answered may still be there

    def _close(self, held: Held, *, count: bool = True) -> None:
        if held.socket.fileno() < 0:
            return
        if count:
            self.outcome.got[statuses(held.got)] += 1
        self._poll.unregister(held.socket)
        del self._held[held.socket.fileno()]
        held.socket.close()


def one_by_one(server: Server, stop: threading.Event, outcome: Outcome, wrong: list[str]) -> None:
    """Every attack of one connection, over and over."""
    while not stop.is_set():
        for each in ATTACKS:
            outcome.opened += 1
            got, _ = attack(server, each)
            outcome.got[got[-1:]] += 1
            if got != each.statuses:
                wrong.append(f"{each.name}: {got}")
            if stop.is_set():
                return


def leavers(server: Server, stop: threading.Event, outcome: Outcome) -> None:
    """Requests whose clients end their side: each must get its answer. Every other one leaves altogether."""
    while not stop.is_set():
        for leaves in (False, True):
            with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 20) as made:
                outcome.opened += 1
                made.sendall(POST)
                if leaves:
                    continue
                made.shutdown(socket.SHUT_WR)
                got = b""
                while data := made.recv(1 << 16):
                    got += data
                outcome.got[statuses(got)[-1:]] += 1


@dataclass
class Report:
    """The table, and what did not hold."""

    rows: list[tuple[str, ...]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, name: str, outcome: Outcome, good: Good, server: Server, wrong: list[str]) -> None:
        got = ", ".join(f"{count} x {_words(seen)}" for seen, count in outcome.got.most_common(4)) or "nothing in that time"
        self.rows.append((name, f"{outcome.opened:,} ({outcome.most or '-'} at once)", got, *_times(good), str(len(good.faults)),
                          f"{resident_mib(server):.0f}", str(descriptors(server))))  # fmt: skip
        print(" | ".join(self.rows[-1]), flush=True)
        if good.faults:
            self.failures.append(f"{name}: {len(good.faults)} good requests failed, the first with {good.faults[0]}")
        if good.quantile(1) > WORST_S:
            self.failures.append(f"{name}: a good request took {good.quantile(1):.2f} s")
        self.failures += wrong[:3]


def _words(seen: tuple[int, ...]) -> str:
    return "closed" if not seen else str(seen[-1]) if len(seen) < 3 else f"{len(seen)} answers"


def _times(good: Good) -> tuple[str, ...]:
    return tuple(f"{good.quantile(part) * 1000:.0f}" for part in (0.5, 0.99, 1))


def resident_mib(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def during(server: Server, seconds: float, *attackers: Callable[[threading.Event], None]) -> Good:
    """A good client beside these attackers, each in a thread."""
    stop = threading.Event()
    threads = [threading.Thread(target=attacker, args=(stop,)) for attacker in attackers]
    with good_client(server) as good:
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        stop.set()
        for thread in threads:
            thread.join()
    return good


def attack_all(server: Server, seconds: float, scale: float, report: Report) -> None:
    for kind in KINDS:
        press = Press(server, Kind(**{**vars(kind), "count": max(1, int(kind.count * scale))}))
        good = during(server, seconds, press.run)
        wrong = [
            f"{kind.name}: a client got {seen}" for seen in press.outcome.got if (seen or (NOTHING,))[-1] not in kind.may_get
        ]
        report.add(kind.name, press.outcome, good, server, wrong)
    outcome, wrong = Outcome(), list[str]()
    good = during(server, seconds, *([lambda stop: one_by_one(server, stop, outcome, wrong)] * 4))
    report.add(f"{len(ATTACKS)} odd requests, four at once", outcome, good, server, wrong)
    outcome = Outcome()
    good = during(server, seconds, *([lambda stop: leavers(server, stop, outcome)] * 4))
    report.add("ends its side, or leaves", outcome, good, server, [f"ended its side: {s}" for s in outcome.got if s != (200,)])


def settle(server: Server, before: tuple[float, int], report: Report) -> None:
    """Afterwards all must be as before; memory within what allocators keep."""
    end = time.monotonic() + 30
    while descriptors(server) > before[1] and time.monotonic() < end:
        time.sleep(0.1)
    if descriptors(server) > before[1]:
        report.failures.append(f"{descriptors(server)} descriptors at the end, {before[1]} before")
    if resident_mib(server) > before[0] + 300:
        report.failures.append(f"{resident_mib(server):.0f} MiB resident at the end, {before[0]:.0f} before")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.hostile", description=__doc__)
    parser.add_argument("--seconds", type=float, default=12, help="of each attack")
    parser.add_argument("--scale", type=float, default=1, help="of the numbers of connections")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    args = parser.parse_args()
    raise_limit()
    report = Report()
    limits = {**LIMITS, "SKNET_DEADLINE_S": "5", "SKNET_KEEP_ALIVE_S": "5", "SKNET_MAX_CONNECTIONS": str(int(3000 * args.scale))}
    with serve(**limits) as server:
        alone = during(server, args.seconds / 2)
        before = resident_mib(server), descriptors(server)
        report.add("none", Outcome(), alone, server, [])
        attack_all(server, args.seconds, args.scale, report)
        settle(server, before, report)
        report.add("none, afterwards", Outcome(), during(server, args.seconds / 2), server, [])
    top = ("attack", "connections", "what they got", "good p50 ms", "p99 ms", "worst ms", "failed", "RSS MiB", "descriptors")
    failed = "".join(f"\nFAILS: {failure}" for failure in report.failures) or "\nholds: every good request was answered in time"
    figures: dict[str, object] = {"rows": [dict(zip(top, row, strict=True)) for row in report.rows], "failures": report.failures}
    publish("hostile", "Hostile clients", markdown([top, *report.rows]) + "\n" + failed, figures, args.output)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
