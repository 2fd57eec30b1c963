"""The parts of README.md that are made from the code. `python -m tests.repo.readme` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

from app.settings import PREFIX, Settings, allowed

README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"(<!-- settings:begin -->\n).*?(<!-- settings:end -->)", re.DOTALL)


def settings_table() -> str:
    """Every setting as a row: variable, default, what it may hold, what it is for."""
    rows = ["| variable | default | may be | what it is for |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {allowed(name)} | {field.description} |")
    return "\n".join(rows) + "\n"


def python_blocks(text: str) -> tuple[list[str], list[str]]:
    """The blocks of Python that run by themselves, and those that ask a running service."""
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    asking = [block for block in blocks if "from app.client import" in block]
    return [block for block in blocks if block not in asking], asking


def client_example() -> str:
    """The one block that asks a running service."""
    (example,) = python_blocks(README.read_text())[1]
    return example


def with_settings(text: str) -> str:
    """The README's text with its table of settings made anew."""
    return _BLOCK.sub(lambda found: found[1] + settings_table() + found[2], text)


if __name__ == "__main__":
    README.write_text(with_settings(README.read_text()))
