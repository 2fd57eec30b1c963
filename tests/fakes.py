"""A model without a framework: what the bytes begin with decides what becomes of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from model.errors import EngineError, ImageTooLarge, ImageUndecodable, ImageUnsupported
from model.types import Choice, ImageInfo, Label, ModelInfo, Prediction, PreprocessSpec

LABELS = tuple(
    Label(name, f"n0000000{i}" if i == 1 else None) for i, name in enumerate(("ant", "bee", "cat", "dog", "elk", "fox", "gnu"))
)
SECRET = "a secret of the inside"  # the text of every fault that no client may ever see


def fake_info(*, streams: int = 1, batch_size: int = 8, digest: str = "0" * 64) -> ModelInfo:
    choice = Choice("fake", "a test said so")
    return ModelInfo(
        variant="skfake", arguments={"block": "basic", "layers": [1, 1]}, labels=LABELS, preprocess=PreprocessSpec(),
        parameters=7, gmacs=0.5, checkpoint="bundled:fake", digest="sha256:" + digest,
        engine=choice, device=choice, dtype=choice, memory_format=choice, threads=choice,
        streams=Choice(str(streams), "a test said so"), batch_size=batch_size,
        accuracy={"top1": 50.0}, load_seconds=0.25,
    )  # fmt: skip


@dataclass(frozen=True)
class FakeItem:
    data: bytes
    image: ImageInfo = field(default_factory=lambda: ImageInfo(40, 30, "PNG"))


@dataclass
class FakeModel:
    """Ranks the class first whose position is the first byte of an image, modulo the number of classes."""

    prepare_s: float = 0.0
    run_s: float = 0.0
    gate: threading.Event | None = None  # every run waits for it
    info: ModelInfo = field(default_factory=fake_info)
    preprocess_sentence: str = "nothing is done to it"
    prepared: list[bytes] = field(default_factory=list)
    batches: list[list[bytes]] = field(default_factory=list)  # of the calls of `run`
    entered: threading.Event = field(default_factory=threading.Event)  # a run has begun
    closed: bool = False
    apart: int = 0  # preparations that are done elsewhere

    def prepare(self, data: bytes) -> FakeItem:
        self.prepared.append(data)
        time.sleep(self.prepare_s)
        faults: dict[bytes, Exception] = {
            b"bad": ImageUndecodable("the bytes are no image"),
            b"huge": ImageTooLarge(10_000, 6_000, 50_000_000),
            b"exotic": ImageUnsupported("PSD", ("JPEG", "PNG")),
            b"bug": RuntimeError(SECRET),
        }
        for start, fault in faults.items():
            if data.startswith(start):
                raise fault
        return FakeItem(data)

    def run(self, items: Sequence[Any]) -> Sequence[Any]:
        self.batches.append([item.data for item in items])
        self.entered.set()
        if self.gate is not None and not self.gate.wait(10):
            raise TimeoutError("nobody opened the gate")
        time.sleep(self.run_s)
        if any(item.data.startswith(b"poison") for item in items):
            raise EngineError(SECRET)
        return [item.data for item in items]

    def top_k(self, row: Any, k: int) -> tuple[Prediction, ...]:
        order = [(row[0] + i) % len(LABELS) for i in range(k)]
        return tuple(Prediction(i, LABELS[i].name, 0.5 ** (n + 1), LABELS[i].wnid) for n, i in enumerate(order))

    def close(self) -> None:
        self.closed = True
