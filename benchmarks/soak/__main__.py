"""Half an hour with every kind of client: `python -m benchmarks.soak [--minutes 30] [--load 0.8]`.

A service with the bundled model, as much load as it can take for a moment, then 80 % of that as a mix of good, bad, invalid,
slow, leaving and oversized requests, while its model is loaded anew every 30 seconds. Holds that no request that was sent stays
without an answer, that none gets a 5xx or another status than it must, that good images keep their class, that every model is
loaded, that memory and descriptors stay flat, and that the service ends with status 0. Exit status 1 where one of these fails.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from app.bench.client import Connection, post
from app.bench.process import Service
from benchmarks.ours import address, finish, metrics, serving, total, verdicts
from benchmarks.report import markdown, publish, table
from benchmarks.soak.clients import Clients, Tally, learn
from benchmarks.soak.forms import BODY_LIMIT, bad, good, invalid, oversized
from benchmarks.soak.load import Pace, put, sustainable
from benchmarks.soak.picture import Panel, picture
from benchmarks.soak.watch import Sample, floor, sample, watch

CHECKPOINT = "bundled:cifar10"
SWAP_EVERY_S = 30.0
SETTLED_S = 7.0  # after the last request: idle connections are closed by then
FLAT_MINUTES = 5.0  # of less, nothing is held: pools and arenas still fill
FLAT = 1.1  # the floor of the last quarter over that of the second one
FLAT_MIB, FLAT_COUNT = 16.0, 8.0  # and what may come on top
LAG_S = 0.25  # the 99th percentile of a load generator that keeps up, unless told otherwise


@dataclass
class Swaps:
    """Models loaded anew, and those that were not, in words."""

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


async def swap(host: str, port: int, model: str, swaps: Swaps, every_s: float) -> None:
    """Load the model again and again, until cancelled."""
    body = f'{{"checkpoint": "{CHECKPOINT}"}}'.encode()
    head = post(host, f"/models/{model}/load", "application/json", len(body))
    while True:
        await asyncio.sleep(every_s)
        connection = Connection(host, port)
        try:
            answer = await connection.ask(head, body)
        except (OSError, EOFError, TimeoutError) as error:
            swaps.failed.append(type(error).__name__)
            continue
        finally:
            connection.close()
        if answer.ok:
            swaps.seconds.append(answer.seconds)
        else:
            swaps.failed.append(f"{answer.code} {answer.body[:200].decode(errors='replace')}")


@dataclass
class Soak:
    """What one soak saw."""

    minutes: float
    swapped: bool
    most_lag_s: float
    sustainable_s: float = 0.0
    tallies: dict[str, Tally] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)
    swaps: Swaps = field(default_factory=Swaps)
    samples: list[Sample] = field(default_factory=list)
    before: Sample | None = None
    after: Sample | None = None
    queue: float = 0.0
    status: int | None = None

    def checks(self) -> dict[str, bool]:
        """What is held, in words, and whether it is so."""
        every = self.tallies.values()
        lost, errors = sum(t.lost for t in every), sum(t.server_errors for t in every)
        unlooked = sum(sum(t.unlooked.values()) for t in every)
        wrong = sum(t.wrong for t in every)
        lag_s = quantile(self.pace.lags, 0.99)
        held = {
            f"{lost} of {sum(t.sent for t in every)} requests lost": lost == 0,
            f"{errors} answers with 5xx": errors == 0,
            f"{unlooked} answers of another status than must come": unlooked == 0,
            f"{wrong} good images with another class than before": wrong == 0,
            f"every kind was sent and answered ({', '.join(self.tallies)})": all(
                t.sent and (t.codes or kind == "leaving") for kind, t in self.tallies.items()
            ),
            f"the load kept its pace: {lag_s * 1e3:.1f} ms late at the 99th percentile": lag_s <= self.most_lag_s
            and not self.pace.skipped,
            f"the queue was empty at the end ({self.queue:g})": self.queue == 0,
            f"exit status {self.status}": self.status == 0,
        }
        if self.swapped:
            held[f"{len(self.swaps.seconds)} models loaded, {len(self.swaps.failed)} failed"] = not self.swaps.failed and bool(
                self.swaps.seconds
            )
        if self.minutes >= FLAT_MINUTES:
            for name, unit, spare in (("rss_mib", "MiB", FLAT_MIB), ("descriptors", "descriptors", FLAT_COUNT)):
                early, late = (floor(self.samples, first, first + 0.25, name) for first in (0.25, 0.75))
                held[f"flat: {early:.0f} {unit} in the second quarter, {late:.0f} in the last"] = late <= FLAT * early + spare
        if self.before is not None and self.after is not None:
            words = f"{self.before.descriptors} descriptors before, {self.after.descriptors} after"
            held[words] = self.after.descriptors <= self.before.descriptors + FLAT_COUNT
        return held


def quantile(values: list[float], q: float) -> float:
    """0 where there are none."""
    return sorted(values)[min(int(len(values) * q), len(values) - 1)] if values else 0.0


def rows_of(soak: Soak) -> list[tuple[str, ...]]:
    """The table, a row a kind of client."""
    rows: list[tuple[str, ...]] = [
        ("clients", "sent", "as must be", "refused", "other", "5xx", "lost", "wrong", "p50 ms", "p99 ms")
    ]
    for kind, t in soak.tallies.items():
        counts = (t.sent, len(t.seconds), t.refused, sum(t.unlooked.values()), t.server_errors, t.lost, t.wrong)
        times = (quantile(t.seconds, q) * 1e3 for q in (0.5, 0.99))
        rows.append((kind, *map(str, counts), *(f"{ms:.1f}" if ms else "" for ms in times)))
    return rows


def curve(soak: Soak) -> str:
    """Memory and descriptors over the time."""
    lines = {name: [float(getattr(s, name)) for s in soak.samples] for name in ("rss_mib", "descriptors", "threads", "processes")}
    panels = [
        Panel("Memory, resident, children included", "MiB", {"memory": lines.pop("rss_mib")}),
        Panel("Descriptors, threads, processes", "number", dict(lines)),
    ]
    title = f"{soak.minutes:g} minutes of mixed load" + (f", {len(soak.swaps.seconds)} models loaded" if soak.swapped else "")
    return picture(title, [s.at_s / 60 for s in soak.samples], panels)


async def measure(service: Service, model: str, args: argparse.Namespace) -> Soak:
    """The whole of it, on a service that is ready; ends the service."""
    host, port = address(service)
    soak = Soak(args.minutes, not args.no_swaps, args.lag)
    known = await learn(host, port, good())
    soak.sustainable_s = await sustainable(host, port, known, args.calibrate)
    await asyncio.sleep(args.settle)
    pid = service.process.pid
    soak.before = sample(pid, time.monotonic())
    forms = {"good": known, "bad": bad(), "invalid": invalid(), "slow": known, "leaving": known, "oversized": oversized()}
    clients = Clients(host, port, forms)
    soak.tallies = clients.tallies
    beside = [asyncio.create_task(watch(pid, soak.samples))]
    if soak.swapped:
        beside.append(asyncio.create_task(swap(host, port, model, soak.swaps, args.swap_every)))
    try:
        soak.pace = await put(clients, soak.sustainable_s * args.load, args.minutes * 60)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        clients.close()
    await learn(host, port, [form for form in good() if form.name.startswith("chelsea")])  # and it is a cat as before
    await asyncio.sleep(args.settle)
    soak.after = sample(pid, time.monotonic())
    soak.queue = total(await asyncio.to_thread(metrics, service), "sknet_queue_size")
    service.check()
    service.process.terminate()
    soak.status = await asyncio.to_thread(service.process.wait, 60)
    return soak


def report(soak: Soak, args: argparse.Namespace) -> int:
    """Print and publish; the exit status."""
    checks = soak.checks()
    notes = [
        f"{kind}: {name}, {count} times" for kind, t in soak.tallies.items() for name, count in (t.unlooked + t.faults).items()
    ]
    notes += [f"not loaded: {why}" for why in sorted(set(soak.swaps.failed))]
    lag = ", ".join(f"p{q * 100:g} {quantile(soak.pace.lags, q) * 1e3:.1f} ms" for q in (0.5, 0.99, 1))
    head = (
        f"{soak.minutes:g} minutes at {args.load:.0%} of {soak.sustainable_s:.0f} good requests/s; requests were late by {lag}\n"
        f"models loaded anew: {len(soak.swaps.seconds)}, p99 {quantile(soak.swaps.seconds, 0.99):.2f} s"
    )
    rss = [s.rss_mib for s in soak.samples]
    memory = f"resident: {rss[0]:.0f} MiB at first, {max(rss):.0f} at most, {rss[-1]:.0f} at last"
    rows = rows_of(soak)
    text = "\n\n".join([head, table(rows), "\n".join([memory, *notes]), verdicts(checks)])
    figures: dict[str, object] = {
        "minutes": soak.minutes,
        "load": args.load,
        "sustainable_s": round(soak.sustainable_s, 1),
        "kinds": {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[1:]},
        "codes": {kind: dict(t.codes) for kind, t in soak.tallies.items()},
        "lag_p99_s": round(quantile(soak.pace.lags, 0.99), 4),
        "swaps": len(soak.swaps.seconds),
        "swap_p99_s": round(quantile(soak.swaps.seconds, 0.99), 3),
        "rss_mib": [round(v) for v in (rss[0], max(rss), rss[-1])],
        "descriptors": [s.descriptors for s in (soak.before, soak.after) if s is not None],
        "held": all(checks.values()),
    }
    publish("soak", "Soak", text, figures, args.output)
    if args.output is not None:
        draw(soak, args.output, rows)
    return 0 if all(checks.values()) else 1


def draw(soak: Soak, output: Path, rows: list[tuple[str, ...]]) -> None:
    """The curves beside the newest result, which shows them above its text."""
    newest = max(output.glob("*-soak.md"))
    svg = newest.with_suffix(".svg")
    svg.write_text(curve(soak))
    title, _, rest = newest.read_text().partition("\n")
    newest.write_text(f"{title}\n\n![Memory and descriptors over time]({svg.name})\n\n{markdown(rows)}\n{rest}")


async def run(args: argparse.Namespace) -> int:
    with serving(CHECKPOINT, max_body_bytes=BODY_LIMIT, max_batch_body_bytes=2 * BODY_LIMIT, open_admin=True, workers=1) as (
        service,
        settings,
    ):
        soak = await measure(service, settings.model_name, args)
    return report(soak, args)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--load", type=float, default=0.8, help="part of the sustainable load")
    parser.add_argument("--calibrate", type=float, default=20, help="seconds in which the sustainable load is measured")
    parser.add_argument("--lag", type=float, default=LAG_S, help="most seconds that requests may be late, 99th percentile")
    parser.add_argument("--settle", type=float, default=SETTLED_S, help="seconds before descriptors are counted")
    parser.add_argument("--swap-every", type=float, default=SWAP_EVERY_S, help="seconds between two models")
    parser.add_argument("--no-swaps", action="store_true", help="load no model anew")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    finish(run(parser.parse_args()))


if __name__ == "__main__":
    main()
