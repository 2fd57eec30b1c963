"""The five ways an image comes in by, and what came back for it: the same bytes must be told the same whichever they take."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

ENTRANCES = ("multipart", "raw", "base64", "data URI", "batch")
EDGE = b"--an-edge-that-no-file-holds-7f3a91c4d2"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: where it goes, its media type and its body."""

    path: str
    media: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """What came back: the status, and the problem's slug, which is empty where there is none."""

    status: int
    slug: str = ""

    def __str__(self) -> str:
        return f"{self.status} {self.slug}".strip()


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best class of an image and its score."""

    label: str
    score: float

    def agrees(self, other: Ranked | None) -> bool:
        """Whether both are the same but for the last digits, which hang on what an engine computes at the same time."""
        return other is not None and self.label == other.label and abs(self.score - other.score) < 0.01


def ask(entrance: str, data: bytes, good: bytes) -> Asked:
    """The request with these bytes as its image; in a batch they have the image `good` behind them."""
    if entrance == "raw":
        return Asked("/classify", "application/octet-stream", data)
    if entrance == "multipart":
        return Asked("/classify", f"multipart/form-data; boundary={EDGE[2:].decode()}", _form(data))
    text = base64.b64encode(data).decode()
    if entrance == "batch":
        return Asked(
            "/classify/batch", "application/json", json.dumps({"images": [text, base64.b64encode(good).decode()]}).encode()
        )
    start = "data:image/png;base64," if entrance == "data URI" else ""
    return Asked("/classify", "application/json", json.dumps({"image": start + text}).encode())


def read(entrance: str, status: int, body: bytes) -> tuple[Told, Ranked | None]:
    """What was told of the image itself, and of the good one behind it where it was in a batch."""
    answer: dict[str, Any] = json.loads(body)
    if entrance != "batch" or status != 200:
        return _told(status, answer), None
    mine, neighbour = answer["results"]
    told = _told(mine["status"], mine if mine["status"] == 200 else mine["problem"])
    return told, ranked(neighbour) if neighbour["status"] == 200 else None


def ranked(answer: dict[str, Any]) -> Ranked:
    """The best class of an answer, or of a batch's row."""
    return Ranked(answer["predictions"][0]["label"], answer["predictions"][0]["score"])


def _told(status: int, answer: dict[str, Any]) -> Told:
    return Told(status, "" if status == 200 else answer["type"].rpartition("/")[2])


def _form(data: bytes) -> bytes:
    head = b'\r\nContent-Disposition: form-data; name="file"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return EDGE + head + data + b"\r\n" + EDGE + b"--\r\n"
