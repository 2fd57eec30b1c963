"""Faults, what clients saw of each, and how long it took to recover: `python -m benchmarks.soak.faults`.

Each fault is a function of `FAULTS` that starts a service of its own, breaks something, and returns its row. Exit status 1
where a row does not hold. It does not know what other scripts try: hostile clients, restarts behind a proxy.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.report import markdown, publish
from tests.e2e.bad_inputs import jpeg
from tests.e2e.hostile_clients import Good, good_client, many
from tests.e2e.hub_folder import write
from tests.e2e.server import Server, command, environment, serve
from tests.e2e.test_environment import JUMPING
from tests.model.hub_server import HubServer, Repository
from tests.model.test_hub import Client

CLIENTS = 4  # good ones, beside each fault
WITHIN_S = 60


@dataclass(frozen=True)
class Row:
    """One fault. `recovered_s` is None where there is nothing to recover from; `held` is whether all was as documented."""

    fault: str
    seen: str
    recovered_s: float | None
    held: bool


Fault = Callable[[], Row]


# watching


@contextmanager
def clients(server: Server, count: int = CLIENTS) -> Iterator[list[Good]]:
    """Good clients that ask all the time."""
    with ExitStack() as stack:
        yield [stack.enter_context(good_client(server)) for _ in range(count)]


def words(good: list[Good]) -> str:
    """What good clients saw."""
    answered = sum(len(each.answered_at) for each in good)
    failed = [fault for each in good for fault in each.faults]
    shown = (re.search(r"\b[A-Z]\w+Error|HTTP/1.1 \d+", fault) for fault in failed)
    kinds = ", ".join(sorted({found[0] if found else "closed without an answer" for found in shown}))
    slowest = max((each.quantile(1) for each in good if each.seconds), default=0.0)
    return f"{answered} answered, {len(failed)} failed{f' ({kinds})' if kinds else ''}, slowest {slowest:.2f} s"


def failed(good: list[Good]) -> int:
    return sum(len(each.faults) for each in good)


def first_answer_after(good: list[Good], at: float) -> float | None:
    """Seconds from then until the next good answer; None where none came."""
    return min((answered - at for each in good for answered in each.answered_at if answered > at), default=None)


def wait_for(condition: Callable[[], bool], within_s: float = WITHIN_S) -> float:
    """The seconds until it is true; `within_s` where it never is."""
    started = time.monotonic()
    while not condition() and time.monotonic() - started < within_s:
        time.sleep(0.02)
    return time.monotonic() - started


def classify(server: Server) -> int:
    """The status of one request, 0 where there is none."""
    try:
        with server.client(10) as client:
            return client.post("/classify", content=jpeg(), headers={"Content-Type": "image/jpeg"}).status_code
    except httpx.HTTPError:
        return 0


def ready_workers(server: Server) -> int:
    """How many say so; 0 where the answer is lost with the one that was asked."""
    text = ""
    with server.client() as client, suppress(httpx.HTTPError):
        text = client.get("/metrics").text
    found = re.search(r"^sknet_ready_workers (\S+)$", text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def logged(server: Server, text: str) -> str:
    """The first line of the log that holds this."""
    return next((str(record["message"]) for record in server.records() if text in str(record["message"])), "")


# the faults


def sigterm_under_load() -> Row:
    with serve(SKNET_GRACE_S="1") as server:
        with clients(server) as good:
            time.sleep(1)
            at = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            status = server.process.wait(WITHIN_S)
            ended_s = time.monotonic() - at
            time.sleep(0.1)
        lost = [fault for each in good for fault in each.faults if "Refused" not in fault]
        answered = sum(len(each.answered_at) for each in good)
        seen = f"{answered} answered, {len(lost)} lost, then refused; exit {status} after {ended_s:.1f} s"
        return Row("SIGTERM under load, 1 s of grace", seen, None, status == 0 and not lost)


def sigkill_of_a_worker() -> Row:
    with serve("--workers", "2") as server:
        wait_for(lambda: ready_workers(server) == 2)
        pid = next(int(found[1]) for line in server.lines if (found := re.search(r"Started server process \[(\d+)\]", line)))
        with clients(server) as good:
            time.sleep(1)
            at = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: ready_workers(server) == 1, 5)
            wait_for(lambda: ready_workers(server) == 2)
            back_s = time.monotonic() - at
            time.sleep(1)
        # Each client may lose the one request that the dead worker had.
        return Row("SIGKILL of one of two workers", words(good), back_s, failed(good) <= 2 * CLIENTS and back_s < WITHIN_S)


def stopped() -> Row:
    with serve() as server, clients(server) as good:
        time.sleep(1)
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        at = time.monotonic()
        server.process.send_signal(signal.SIGCONT)
        time.sleep(2)
        recovered = first_answer_after(good, at)
        return Row("stopped for 3 s (SIGSTOP, SIGCONT)", words(good), recovered, failed(good) == 0 and recovered is not None)


def no_descriptors() -> Row:
    with serve(SKNET_KEEP_ALIVE_S="30") as server:
        pid = server.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 10, before[1]))
        cpu = processor_s(pid)
        with many(server, 60) as held:
            time.sleep(3)
            spent = processor_s(pid) - cpu
            closed = sum(_closed(each) for each in held)
        at = time.monotonic()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        recovered = wait_for(lambda: classify(server) == 200)
        seen = f"{60 - closed} of 60 connections held, {closed} closed at once; {spent:.2f} s of processor in 3 s"
        return Row(
            "no file descriptors left",
            seen,
            recovered,
            server.process.poll() is None and spent < 1.5 and time.monotonic() - at < WITHIN_S,
        )


def jumping_clock() -> Row:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(JUMPING)
        path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
        with serve(PYTHONPATH=path) as server:
            with clients(server) as good:
                time.sleep(4)
            return Row("wall clock that jumps by days", words(good), None, failed(good) == 0)


def unread_log() -> Row:
    return _with_log(subprocess.PIPE, "log that nobody reads (a full pipe)")


def full_disk_under_the_log() -> Row:
    with Path("/dev/full").open("w") as full:
        return _with_log(full.fileno(), "full disk under the log")


def _with_log(where: int, fault: str) -> Row:
    """A service on a port that is known beforehand, since nobody reads its log."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(command("serve", "--port", str(port)), stderr=where, text=True, env=environment())
    server = Server(process, f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: classify(server) == 200)
        with server.client() as client:
            for _ in range(1000):
                client.get("/livez")
        with clients(server) as good:
            time.sleep(3)
        status = server.stop()
        return Row(fault, f"{words(good)}; exit {status}", None, failed(good) == 0 and status == 0)
    finally:
        process.kill()
        process.wait(10)
        if process.stderr is not None:
            process.stderr.close()


def unwritable_cache() -> Row:
    with tempfile.NamedTemporaryFile() as file:
        return _started("cache folder that cannot be", "cannot be written", SKNET_CACHE_DIR=f"{file.name}/cache")


def full_disk() -> Row:
    """No file may grow beyond a megabyte, in the cache nor elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        return _started("full disk, no graph cached", "is not used", fsize=1_000_000, SKNET_CACHE_DIR=folder)


def _started(fault: str, text: str, fsize: int | None = None, **variables: str) -> Row:
    started = time.monotonic()
    with serve(wait=False, **variables) as server:
        if fsize is not None:
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (fsize, fsize))
        wait_for(lambda: classify(server) == 200, 5 * WITHIN_S)
        took = time.monotonic() - started
        status = classify(server)
        said = logged(server, text)[:160]
        engine = logged(server, "ready: ")[:90]
        return Row(
            fault,
            f"503 until ready after {took:.0f} s, then {status}; {engine}; logged: {said}",
            None,
            status == 200 and bool(said),
        )


def no_network_but_cached() -> Row:
    with tempfile.TemporaryDirectory() as name:
        made = Path(name) / "made"
        made.mkdir()
        write(made)
        files = {file: (made / file).read_bytes() for file in ("config.json", "model.safetensors")}
        with HubServer(ants__bees=Repository({"main": files})) as hub:
            client = Client(Path(name), hub.url)
            client.ask("hf-hub:ants/bees")
        gone = {key: value for key, value in client.environment().items() if key.startswith("HF_")}
        started = time.monotonic()
        with serve("--checkpoint", "hf-hub:ants/bees", "--engine", "eager", wait=False, **gone) as server:  # type: ignore[arg-type]
            wait_for(lambda: classify(server) == 200, 5 * WITHIN_S)
            return Row(
                "no network, weights cached",
                f"ready after {time.monotonic() - started:.0f} s, as with a network",
                None,
                classify(server) == 200,
            )


def no_network_nor_weights() -> Row:
    with tempfile.TemporaryDirectory() as name:
        gone = environment(HF_HOME=name, HF_ENDPOINT="http://127.0.0.1:9")
        started = time.monotonic()
        done = subprocess.run(
            command("serve", "--port", "0", "--checkpoint", "hf-hub:nobody/nothing"),
            capture_output=True, text=True, env=gone, timeout=5 * WITHIN_S, check=False,
        )  # fmt: skip
        last = done.stderr.splitlines()[-1]
        seen = f"exit {done.returncode} after {time.monotonic() - started:.0f} s of tries: {last}"
        return Row("no network, weights not cached", seen, None, done.returncode == 1 and last.startswith("Error: "))


def processor_s(pid: int) -> float:
    """Seconds of processor that a process has taken so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


FAULTS: list[Fault] = [
    sigterm_under_load, sigkill_of_a_worker, stopped, no_descriptors, jumping_clock, unread_log, full_disk_under_the_log,
    unwritable_cache, full_disk, no_network_but_cached, no_network_nor_weights,
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.faults", description=__doc__)
    parser.add_argument("--only", default="", help="faults whose function has this in its name")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    args = parser.parse_args()
    rows = []
    # Made of the parts of this file, so it can be imported only when that is whole.
    from benchmarks.soak.engine_faults import ENGINE_FAULTS

    for fault in [*FAULTS, *ENGINE_FAULTS]:
        if args.only in fault.__name__:
            rows.append(fault())
            print(rows[-1], flush=True)
    recovered = ["" if row.recovered_s is None else f"{row.recovered_s:.1f} s" for row in rows]
    cells = [(row.fault, row.seen, after, "yes" if row.held else "NO") for row, after in zip(rows, recovered, strict=True)]
    text = markdown([("fault", "what clients saw", "time to recover", "as documented"), *cells])
    publish("faults", "Faults", text, {"rows": [vars(row) for row in rows]}, args.output)
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
