"""Broken files by the thousand, each through every entrance: `python -m benchmarks.soak.corpus`.

Starts the service and sends all of `tests.corpus`, format by format, every file through each of the five entrances in rotation,
good images in between, and all of it three times: the table tells the last pass. Holds that nothing is answered with 5xx or
later than the deadline, that no connection breaks, that the same bytes are told the same at every entrance, that good images get
the answer that they got at first, and that neither memory nor descriptors rise above where they were in the passes before, each
looked at when nothing is under way. Exit status 1 where one of these fails.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.bench.client import Connection, post
from app.bench.process import PROC, Service, ServiceError
from benchmarks.ours import address, finish, serving, verdicts
from benchmarks.report import markdown, publish
from tests.corpus import Broken, Source, corpus, sources
from tests.corpus.entrances import ENTRANCES, Ranked, Told, ask, ranked, read

# Of memory at its highest once settled. The allocator keeps what a picture of 49 megapixels took, 200 MB, or gives it back, as
# it happens; a leak rises with every pass. At 19,000 requests a pass this allows some 3 KB of each.
FLAT = 1.10
SETTLED_S = 2.0  # the allocator gives back some time later
SPARE_FDS = 16  # descriptors more than before: connections come and go
EVERY = 5  # a good image on its own after so many files, besides the one in every batch


@dataclass
class Row:
    """What one format's files met. Memory in MiB of the whole process tree, seconds of the slowest answer with its file."""

    files: int = 0
    told: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "-")
    before: float = 0.0
    after: float = 0.0


@dataclass
class Seen:
    """Everything that was found wrong, by file, and how the service did meanwhile."""

    rows: defaultdict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    requests: int = 0
    good: int = 0
    broken: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # good images answered otherwise than at first
    samples: list[tuple[float, int]] = field(default_factory=list)  # MiB, open descriptors

    @property
    def highest(self) -> float:
        """MiB, once settled, behind the format that left most."""
        return max(row.after for row in self.rows.values())


class Client:
    """Sends files over one connection, and keeps what came back in `seen`; `expected` holds each good image's answer."""

    def __init__(self, service: Service, goods: Sequence[Source]) -> None:
        self.host, self.port = address(service)
        self.goods, self.seen = itertools.cycle(goods), Seen()
        self.expected: dict[bytes, Ranked] = {}
        self.connection = Connection(self.host, self.port)

    async def put(self, entrance: str, data: bytes, good: bytes) -> tuple[Told, Ranked | None, float]:
        """One request. A connection that breaks before the answer is told as status 0."""
        asked = ask(entrance, data, good)
        self.seen.requests += 1
        try:
            answer = await self.connection.ask(post(self.host, asked.path, asked.media, len(asked.body)), asked.body)
        except (OSError, EOFError, TimeoutError) as error:
            return Told(0, type(error).__name__), None, 0.0
        told, neighbour = read(entrance, int(answer.code), answer.body)
        if entrance == "raw" and answer.ok:
            neighbour = ranked(json.loads(answer.body))
        return told, neighbour, answer.seconds

    async def learn(self, goods: Sequence[Source]) -> None:
        """Each good image's answer, while nothing else is asked."""
        for good in goods:
            told, best, _ = await self.put("raw", good.data, b"")
            if best is None:
                raise ServiceError(f"the intact {good.format} {good.variant} is not answered: {told}")
            self.expected[good.data] = best

    async def send(self, file: Broken, turn: int) -> None:
        """One file through every entrance, beginning with another each time."""
        row, met = self.seen.rows[file.format], {}
        for i in range(len(ENTRANCES)):
            entrance, good = ENTRANCES[(turn + i) % len(ENTRANCES)], next(self.goods)
            told, neighbour, seconds = await self.put(entrance, file.data, good.data)
            row.told[str(told)] += 1
            row.slowest = max(row.slowest, (seconds, f"{file.name}, {entrance}"))
            met[entrance] = told
            if told.status == 0:
                self.seen.broken.append(f"{file.name}, {entrance}: {told.slug}")
            elif entrance == "batch":
                self._judge(good, neighbour, f"beside {file.name}")
        row.files += 1
        if len(set(met.values())) > 1:
            self.seen.differing.append(f"{file.name}: " + ", ".join(f"{name} {told}" for name, told in met.items()))
        if turn % EVERY == 0:
            good = next(self.goods)
            _, best, _ = await self.put("raw", good.data, b"")
            self._judge(good, best, f"after {file.name}")

    def _judge(self, good: Source, found: Ranked | None, where: str) -> None:
        self.seen.good += 1
        if not self.expected[good.data].agrees(found):
            self.seen.wrong.append(f"{good.format} {good.variant} {where}: {found}")


async def all_of(files: Iterable[Broken], clients: Sequence[Client]) -> None:
    """Every client takes the next file as soon as it is done with one."""
    waiting = enumerate(files)

    async def work(client: Client) -> None:
        for turn, file in waiting:
            await client.send(file, turn)

    await asyncio.gather(*(work(client) for client in clients))


def usage(service: Service) -> tuple[float, int]:
    """MiB resident and open descriptors of the process tree."""
    mib = service.usage().rss_bytes / 2**20
    return mib, sum(len(list((PROC / str(pid) / "fd").iterdir())) for pid in service.known if (PROC / str(pid) / "fd").exists())


async def settled(service: Service) -> tuple[float, int]:
    """The same once nothing is under way."""
    await asyncio.sleep(SETTLED_S)
    return await asyncio.to_thread(usage, service)


async def trial(service: Service, files: Sequence[Broken], connections: int, passes: int) -> list[Seen]:
    """Send everything so many times, format by format, memory and descriptors sampled throughout; what each pass met."""
    goods = sources()
    clients = [Client(service, [*goods[i:], *goods[:i]]) for i in range(connections)]
    await clients[0].learn(goods)
    for client in clients:
        client.expected = clients[0].expected
    found = []
    for number in range(passes):
        print(f"pass {number + 1} of {passes}", file=sys.stderr, flush=True)
        found.append(await one_pass(service, files, clients))
    return found


async def one_pass(service: Service, files: Sequence[Broken], clients: Sequence[Client]) -> Seen:
    seen = Seen()
    for client in clients:
        client.seen = seen

    async def watch() -> None:
        while True:
            seen.samples.append(await asyncio.to_thread(usage, service))
            await asyncio.sleep(0.5)

    now = before = await settled(service)
    watching = asyncio.create_task(watch())
    for name in sorted({file.format for file in files}):
        seen.rows[name].before = now[0]
        await all_of([file for file in files if file.format == name], clients)
        now = await settled(service)
        seen.rows[name].after = now[0]
    watching.cancel()
    seen.samples = [before, *seen.samples, now]
    return seen


def rendered(seen: Seen) -> str:
    """The table of formats, as Markdown."""
    rows = [("format", "files", "answers", "slowest", "MiB before", "MiB after")]
    for name, row in seen.rows.items():
        told = ", ".join(f"{what}: {count}" for what, count in sorted(row.told.items()))
        slowest = f"{row.slowest[0]:.2f} s ({row.slowest[1]})"
        rows.append((name, str(row.files), told, slowest, f"{row.before:.0f}", f"{row.after:.0f}"))
    return markdown(rows)


def checks_of(passes: Sequence[Seen], deadline_s: float) -> dict[str, bool]:
    """What must hold: of answers in every pass, of memory and descriptors in the last one against those before."""
    rows = [row for seen in passes for row in seen.rows.values()]
    *earlier, last = passes
    return {
        "no answer is a 5xx": not any(told.startswith("5") for row in rows for told in row.told),
        "no connection broke": not any(seen.broken for seen in passes),
        f"every answer within the deadline of {deadline_s:g} s": max(row.slowest[0] for row in rows) <= deadline_s,
        "the same bytes are told the same at every entrance": not any(seen.differing for seen in passes),
        f"each of {sum(seen.good for seen in passes)} good images in between is answered as at first": not any(
            seen.wrong for seen in passes
        ),
        f"memory within {FLAT:g} of its highest in the passes before": last.highest <= FLAT * max(s.highest for s in earlier),
        f"no more than {SPARE_FDS} descriptors more at the end": last.samples[-1][1] <= last.samples[0][1] + SPARE_FDS,
    }


async def run(args: argparse.Namespace) -> int:
    files, started = corpus(args.files, args.seed), time.perf_counter()
    with serving(args.checkpoint) as (service, settings):
        passes = await trial(service, files, args.connections, args.passes)
        service.check()
    seen, checks = passes[-1], checks_of(passes, settings.deadline_s)
    memory = [mib for mib, _ in seen.samples]
    faults = [fault for each in passes for fault in (*each.broken, *each.differing, *each.wrong)]
    head = (
        f"{len(files)} files, seed {args.seed}, {seen.requests} requests over {args.connections} connections; pass {args.passes}:"
    )
    curve = "MiB over time: " + " ".join(f"{mib:.0f}" for mib in memory[:: max(1, len(memory) // 20)])
    levels = ", ".join(f"{each.samples[0][0]:.0f} / {each.highest:.0f} / {each.samples[-1][0]:.0f}" for each in passes)
    ends = f"MiB of each pass, at its start / highest once settled / at its end: {levels}"
    fds = (
        f"descriptors: {seen.samples[0][1]} at first, {max(n for _, n in seen.samples)} at most, {seen.samples[-1][1]} at the end"
    )
    lines = "\n".join([curve, ends, fds])
    text = "\n\n".join([head, rendered(seen), lines, *(["\n".join(faults[:50])] if faults else []), verdicts(checks)])
    figures: dict[str, object] = {
        "files": len(files),
        "seed": args.seed,
        "requests": sum(each.requests for each in passes),
        "formats": {n: {"files": r.files, "answers": r.told, "slowest_s": round(r.slowest[0], 3)} for n, r in seen.rows.items()},
        "mib": {"before": round(memory[0]), "most": round(max(memory)), "after": round(memory[-1])},
        "highest_mib": [round(each.highest) for each in passes],
        "seconds": round(time.perf_counter() - started),
        "held": all(checks.values()),
    }
    publish("corpus", "Broken files", text, figures, args.output)
    return 0 if all(checks.values()) else 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.corpus", description=__doc__)
    parser.add_argument("--checkpoint", help="as SKNET_CHECKPOINT, which with the other settings counts here as well")
    parser.add_argument("--files", type=int, help="how many; all that there are by default, some 3,700")
    parser.add_argument("--seed", type=int, default=0, help="another one makes other damage")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--passes", type=int, default=3, help="at least 2; the last is judged by what the others left")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    finish(run(parser.parse_args()))


if __name__ == "__main__":
    main()
