"""The OpenAPI document against the service: `python -m benchmarks.soak.schema [--cases 2000]`.

schemathesis makes requests out of the document, in order and out of order, with real images and with what is none, in all of its
phases, and holds each answer against the document with all of its checks. Exit status 1 where one fails.

What is switched off, with its reason, stands in `contract.toml` and in the hooks beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from benchmarks.machine import ROOT
from benchmarks.ours import serving, verdicts
from benchmarks.report import publish, table

CONFIG = Path(__file__).parent / "contract.toml"
BODIES = ("good", "bad")
QUICK = {"good": ("examples", "coverage", "fuzzing", "stateful"), "bad": ("fuzzing",)}  # what a short run does with each
QUICK_CASES, QUICK_EXAMPLES = 150, 4
CHECKS_LEAST = 10  # fewer, and most of them were switched off


@dataclass
class Tried:
    """What was sent and held, of all runs so far."""

    documented: frozenset[str]
    cases: Counter[tuple[str, str]] = field(default_factory=Counter)  # operation, first digit of the status
    phases: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    filtered: int = 0
    failed: list[str] = field(default_factory=list)  # what the library printed of runs in which something failed

    def add(self, report: dict[str, Any], events: Sequence[dict[str, Any]]) -> None:
        self.filtered += report["filtered"]
        for event in events:
            finished = event.get("ScenarioFinished")
            if finished is None:
                continue
            recorder = finished["recorder"]
            for name, case in recorder.get("cases", {}).items():  # a part that is empty is left out
                response = recorder.get("interactions", {}).get(name, {}).get("response") or {}
                self.cases[self._operation(case["value"]), str(response.get("status_code", "none"))[0]] += 1
                self.phases[finished["phase"]] += 1
            for results in recorder.get("checks", {}).values():
                self.checks.update(result["name"] for result in results)

    def _operation(self, case: dict[str, Any]) -> str:
        name = f"{case['method']} {case['path']}"
        return name if name in self.documented else "(methods that are not served)"


def documented(url: str) -> frozenset[str]:
    """Every operation of the document, as `GET /path`."""
    paths = httpx.get(f"{url}/openapi.json", timeout=30, trust_env=False).json()["paths"]
    return frozenset(f"{method.upper()} {path}" for path, methods in paths.items() for method in methods)


def run_once(url: str, bodies: str, examples: int, seed: int, phases: Sequence[str], tried: Tried) -> None:
    """One run of the library, in a process of its own, since what it is told is kept in its modules."""
    with TemporaryDirectory() as folder:
        report, events = Path(folder) / "report.json", Path(folder) / "events.ndjson"
        files = ["--report", "json,ndjson", "--report-json-path", str(report), "--report-ndjson-path", str(events)]
        how = ["--phases", ",".join(phases), "--max-examples", str(examples), "--seed", str(seed)]
        program = [sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(CONFIG)]
        done = subprocess.run(
            [*program, "run", f"{url}/openapi.json", *how, *files],
            cwd=folder,  # it leaves files where it runs
            env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": f"benchmarks.soak.contract_{bodies}"},
            capture_output=True,
            text=True,
            timeout=3600,
            check=False,
        )
        said = done.stdout + done.stderr
        if not report.exists():
            sys.exit(f"schemathesis ended with {done.returncode}:\n{said[-4000:]}")
        found = json.loads(report.read_text())
        tried.add(found, [json.loads(line) for line in events.read_text().splitlines()])
    if done.returncode or found["operations"]["tested"] != len(tried.documented) or found["test_cases"]["without_checks"]:
        tried.failed.append(said)


def report_of(tried: Tried, least: int, seed: int, output: Path | None) -> int:
    """Print and publish; the exit status."""
    sent = sum(tried.cases.values())
    operations = sorted({operation for operation, _ in tried.cases})
    rows: list[tuple[str, ...]] = [("operation", "cases", "2xx", "4xx", "5xx", "no answer")]
    for operation in operations:
        by_digit = [tried.cases[operation, digit] for digit in "245n"]
        rows.append((operation, str(sum(v for k, v in tried.cases.items() if k[0] == operation)), *map(str, by_digit)))
    held = {
        f"{sent} cases of {least} asked for": sent >= least,
        f"{len(tried.checks)} checks, {sum(tried.checks.values())} times": len(tried.checks) >= CHECKS_LEAST,
        "no failure": not tried.failed,
    }
    phases = "phases: " + ", ".join(f"{name} {count}" for name, count in sorted(tried.phases.items()))
    checks = table([("check", "times"), *((name, str(count)) for name, count in sorted(tried.checks.items()))])
    text = "\n\n".join([table(rows), checks, phases, verdicts(held)])
    figures: dict[str, object] = {
        "seed": seed,
        "cases": sent,
        "operations": len(operations),
        "checks": dict(tried.checks),
        "phases": dict(tried.phases),
        "filtered": tried.filtered,
        "held": all(held.values()),
    }
    for said in tried.failed:
        print(said)
    publish("schema", "The OpenAPI document against the service", text, figures, output)
    return 0 if all(held.values()) else 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.schema", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="least number of generated requests")
    parser.add_argument("--examples", type=int, default=50, help="most of each operation, phase and run")
    parser.add_argument("--quick", action="store_true", help=f"one short run of each, of {QUICK_CASES} cases or more together")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; each further one takes the next")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    args = parser.parse_args()
    cases, examples = (QUICK_CASES, QUICK_EXAMPLES) if args.quick else (args.cases, args.examples)
    with serving(None, open_admin=True) as (service, _):
        tried, runs = Tried(documented(service.url)), 0
        # Good and bad bodies in turn, and both at least once.
        while not tried.failed and (runs < len(BODIES) or runs % len(BODIES) or sum(tried.cases.values()) < cases):
            bodies = BODIES[runs % len(BODIES)]
            run_once(service.url, bodies, examples, args.seed + runs, QUICK[bodies] if args.quick else QUICK["good"], tried)
            runs += 1
            print(f"run {runs}: {sum(tried.cases.values())} cases so far", file=sys.stderr, flush=True)
            service.check()
    sys.exit(report_of(tried, cases, args.seed, args.output))


if __name__ == "__main__":
    main()
