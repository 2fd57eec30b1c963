"""Tables for people, one line of JSON last, and both as files with the machine's description."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path

from app.bench.report import table
from benchmarks import machine


def publish(what: str, title: str, text: str, figures: dict[str, object], output: Path | None) -> None:
    """Print `text` and `figures`; with `output`, also write <date>-<what>.md and .json there."""
    where = machine.describe()
    result = {"what": what, "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "machine": where, **figures}
    print(text)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        base = output / f"{result['date']}-{what}"
        rows = [("", "")] + [(name, _words(value)) for name, value in where.items()]
        base.with_suffix(".md").write_text(f"# {title}, {result['date']}\n\n```text\n{text}\n```\n\n{markdown(rows)}\n")
        base.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        print(f"written: {base}.md, {base}.json")
    print(json.dumps(result))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items() if version)
    return ", ".join(value) if isinstance(value, list) else str(value)


__all__ = ["markdown", "publish", "table"]
