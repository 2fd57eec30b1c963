"""The client where a service refuses and is restarted: `python -m benchmarks.soak.client [--images 1000] [--restarts 6]`.

A service with room for few images, a client with many more under way, and the service ended in turn by SIGTERM and SIGKILL, and
started again on the same port, while images are asked for. What each image must be told is learnt first, one after the other.
Holds that every image got its own answer, in its place. With both clients, and with one process that serves and with two. Exit
status 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from app.bench import measure
from app.bench.process import Service, free_port, running
from app.client import AsyncClient, Classification, Client, ClientError
from benchmarks.ours import finish, verdicts
from benchmarks.report import publish, table
from tests.images import encode, photograph

DEADLINE_S = 120.0  # of an image, its retries included: longer than any restart
CLOSE = 2e-3  # how far a score may be from what it was when the image was alone: engines compute one image otherwise than several
PHOTOGRAPHS = ("chelsea", "coffee", "astronaut")
SIGNALS = (signal.SIGTERM, signal.SIGKILL)
Found = Sequence[Classification | ClientError]


def pictures(count: int) -> list[bytes]:
    """Parts of photographs, no two of the same width and height: an answer tells them, so that it tells the image."""
    whole = [photograph(name) for name in PHOTOGRAPHS]
    made = []
    for number in range(count):
        picture = whole[number % len(whole)]
        left, top = (number * 37) % (picture.width - 200), (number * 23) % (picture.height - 200)
        made.append(encode(picture.crop((left, top, left + 200, top + 200)).resize((48 + number % 50, 48 + number // 50))))
    return made


@dataclass
class Seen:
    """What came back for all requests of one run."""

    statuses: Counter[int] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)

    @property
    def sent(self) -> int:
        return self.statuses.total() + self.broken.total()


class Counting(httpx.HTTPTransport):
    """Counts what comes back, for the blocking client."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        try:
            answer = super().handle_request(request)
        except httpx.TransportError as error:
            self._seen.broken[type(error).__name__] += 1
            raise
        self._seen.statuses[answer.status_code] += 1
        return answer


class AsyncCounting(httpx.AsyncHTTPTransport):
    """The same for the other one."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            answer = await super().handle_async_request(request)
        except httpx.TransportError as error:
            self._seen.broken[type(error).__name__] += 1
            raise
        self._seen.statuses[answer.status_code] += 1
        return answer


class Instance:
    """One service on a port of its own that lives several times."""

    def __init__(self, folder: Path, room: int, workers: int) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        flags = {"--port": self.url.rpartition(":")[2], "--max-queue": room, "--workers": workers, "--log-level": "warning"}
        self._command = [sys.executable, "-P", "-m", "app.cli", "serve", *(str(word) for pair in flags.items() for word in pair)]
        self._folder = folder
        self._life = ExitStack()
        self._service: Service | None = None

    def start(self) -> float:
        """Start it; the seconds until it was ready."""
        log = self._folder / f"{time.monotonic_ns()}.log"
        self._service = self._life.enter_context(running(self._command, self.url, log))
        return self._service.wait_until_ready(measure.READY, measure.START_S)

    def end(self, number: int) -> None:
        """Signal its first process, and wait for all of it to be gone."""
        assert self._service is not None
        self._service.process.send_signal(number)
        self._service.process.wait(60)
        self._life.close()

    def close(self) -> None:
        """End it, whatever it does."""
        self._life.close()


async def ask(kind: str, url: str, images: Sequence[bytes], at_once: int, seen: Seen) -> Found:
    """All images, by one of the clients."""
    if kind == "Client":
        with Client(url, timeout_s=DEADLINE_S, transport=Counting(seen)) as client:
            return await asyncio.to_thread(client.classify_many, images, concurrency=at_once)
    async with AsyncClient(url, timeout_s=DEADLINE_S, transport=AsyncCounting(seen)) as other:
        return await other.classify_many(images, concurrency=at_once)


async def restart(instance: Instance, count: int, images: int, seen: Seen, asking: asyncio.Task[Found]) -> list[str]:
    """Restarts, spread over the work by how many images are answered; the name of each signal."""
    done = []
    for number in range(count):
        while seen.statuses[200] < images * (number + 1) // (count + 1) and not asking.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # what is waited for has no event of its own
        if asking.done():
            break
        which = SIGNALS[number % len(SIGNALS)]
        await asyncio.to_thread(instance.end, which)
        ready_s = await asyncio.to_thread(instance.start)
        done.append(signal.Signals(which).name)
        print(f"{done[-1]} after {seen.statuses[200]} answers; ready in {ready_s:.1f} s", file=sys.stderr, flush=True)
    return done


@dataclass(frozen=True)
class Run:
    """One run: how it was, and how many images went wrong. `rankings`: how many different ones there were to tell."""

    client: str
    workers: int
    images: int
    restarts: int
    killed: int
    seconds: float
    requests: int
    too_many: int
    unavailable: int
    refused: int
    cut: int
    lost: int
    misplaced: int
    otherwise: int
    rankings: int


def judge(found: Found, expected: Sequence[Classification]) -> tuple[int, int, int]:
    """(images without a ranking, with that of another image, with another ranking than when it was alone)."""
    lost, misplaced, otherwise = len(expected) - len(found), 0, 0
    for one, alone in zip(found, expected, strict=False):
        if not isinstance(one, Classification):
            print(f"lost: {one!r}", file=sys.stderr)
            lost += 1
        elif one.image != alone.image:
            misplaced += 1
        elif any(abs(score - alone.scores.get(index, 0.0)) > CLOSE for index, score in one.scores.items()):
            otherwise += 1
    return lost, misplaced, otherwise


async def one_run(kind: str, workers: int, args: argparse.Namespace, images: Sequence[bytes], folder: Path) -> Run:
    """A service, what it says of each image alone, and then all of them at once amid restarts."""
    instance, seen = Instance(folder, args.room, workers), Seen()
    try:
        await asyncio.to_thread(instance.start)
        with Client(instance.url) as client:
            alone = [await asyncio.to_thread(client.classify, image, top_k=10) for image in images]
        assert len({(each.image.width, each.image.height) for each in alone}) == len(images)
        started = time.monotonic()
        asking = asyncio.create_task(ask(kind, instance.url, images, args.at_once, seen))
        done = await restart(instance, args.restarts, len(images), seen, asking)
        found = await asking
        seconds = time.monotonic() - started
    finally:
        instance.close()
    counts = seen.statuses
    cut = seen.broken.total() - seen.broken["ConnectError"]
    faults = judge(found, alone)
    ended = len(done), done.count("SIGKILL")
    numbers = seen.sent, counts[429], counts[503], seen.broken["ConnectError"], cut
    rankings = len({tuple((p.index, round(p.score, 4)) for p in each.predictions) for each in alone})
    return Run(kind, workers, len(images), *ended, round(seconds, 1), *numbers, *faults, rankings)


async def run(args: argparse.Namespace) -> int:
    images, runs = pictures(args.images), []
    with TemporaryDirectory(prefix="sknet-client-") as folder:
        for workers in (1, 2):
            for kind in ("Client", "AsyncClient"):
                runs.append(await one_run(kind, workers, args, images, Path(folder)))
                print(runs[-1], file=sys.stderr, flush=True)
    return report(runs, args)


def report(runs: Sequence[Run], args: argparse.Namespace) -> int:
    """Print and publish; the exit status."""
    head = (
        "client",
        "workers",
        "restarts",
        "by SIGKILL",
        "seconds",
        "requests",
        "429",
        "503",
        "refused",
        "cut off",
        "lost",
        "misplaced",
    )
    rows: list[tuple[str, ...]] = [head]
    for each in runs:
        numbers = (each.workers, each.restarts, each.killed, each.seconds, each.requests, each.too_many, each.unavailable)
        rows.append((each.client, *map(str, (*numbers, each.refused, each.cut, each.lost, each.misplaced))))
    total = sum(each.images for each in runs)
    checks = {
        f"{sum(each.lost for each in runs)} of {total} images lost": not any(each.lost for each in runs),
        f"{sum(each.misplaced for each in runs)} answers in the place of another": not any(each.misplaced for each in runs),
        f"{sum(each.otherwise for each in runs)} rankings other than when the image was alone": not any(
            e.otherwise for e in runs
        ),
        f"{sum(each.restarts for each in runs)} restarts of {args.restarts * len(runs)}": all(
            each.restarts == args.restarts for each in runs
        ),
        "each run met 429, 503 and refused connections": all(e.too_many and e.unavailable and e.refused for e in runs),
    }
    how = f"{args.images} images a run, {args.at_once} under way at once, room for {args.room} in each process that serves; "
    how += f"{min(each.rankings for each in runs)} different rankings to tell"
    figures: dict[str, object] = {
        "room": args.room,
        "at_once": args.at_once,
        "runs": [asdict(each) for each in runs],
        "held": all(checks.values()),
    }
    publish("client", "The client amid restarts", "\n\n".join([how, table(rows), verdicts(checks)]), figures, args.output)
    return 0 if all(checks.values()) else 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.client", description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--restarts", type=int, default=6, help="in each of the four runs")
    parser.add_argument("--room", type=int, default=4, help="SKNET_MAX_QUEUE")
    parser.add_argument("--at-once", type=int, default=64, help="images that the client has under way")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    finish(run(parser.parse_args()))


if __name__ == "__main__":
    main()
