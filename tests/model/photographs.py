"""A folder of photographs: cuts out of those that scikit-image carries."""

from __future__ import annotations

from pathlib import Path

from tests.images import photograph


def write(folder: Path, count: int) -> Path:
    """`count` cuts of 96x80 pixels, each another one, in a folder for each photograph."""
    for i in range(count):
        name = ("chelsea", "astronaut", "coffee")[i % 3]
        left, top = 37 * (i // 3) % 300, 53 * (i // 3) % 200
        path = folder / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(name).crop((left, top, left + 96, top + 80)).save(path)
    return folder
