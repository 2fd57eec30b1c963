"""A model without a framework: what the bytes begin with decides what becomes of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import EngineError, FiguresUnavailable, ImageTooLarge, ImageUndecodable, ImageUnsupported
from model.tensors import checked
from model.types import (
    Box,
    Choice,
    ClassActivation,
    Explanation,
    ImageInfo,
    KernelAttention,
    Label,
    ModelInfo,
    Prediction,
    PreprocessSpec,
    ScaleAttention,
    ScoreFunction,
    UnitAttention,
)

LABELS = tuple(
    Label(name, f"n0000000{i}" if i == 1 else None) for i, name in enumerate(("ant", "bee", "cat", "dog", "elk", "fox", "gnu"))
)
SCALES = (1.0, 1.5, 2.0)
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


def score(place: int, function: ScoreFunction = "softmax") -> float:
    """Of the class at a place of the ranking, 0 for the first."""
    return {"softmax": 0.5 ** (place + 1), "sigmoid": 0.9 ** (place + 1), "none": 3.0 - place}[function]


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
    figures: bool = True  # the library that draws is there
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

    def prepare_array(self, array: Any) -> FakeItem:
        """The first number decides, as the first byte of an image does."""
        first = int(checked(array, self.info.preprocess).flat[0])
        return FakeItem(bytes([first % 256]), ImageInfo(224, 224, f"{array.dtype} array"))

    def run(self, items: Sequence[Any]) -> Sequence[Any]:
        self.batches.append([item.data for item in items])
        self.entered.set()
        if self.gate is not None and not self.gate.wait(10):
            raise TimeoutError("nobody opened the gate")
        time.sleep(self.run_s)
        if any(item.data.startswith(b"poison") for item in items):
            raise EngineError(SECRET)
        return [item.data for item in items]

    def top_k(self, row: Any, k: int, function: ScoreFunction = "softmax") -> tuple[Prediction, ...]:
        order = [(row[0] + i) % len(LABELS) for i in range(k)]
        return tuple(Prediction(i, LABELS[i].name, score(n, function), LABELS[i].wnid) for n, i in enumerate(order))

    def scores(self, row: Any, function: ScoreFunction) -> NDArray[np.float32]:
        values = [score((i - row[0]) % len(LABELS), function) for i in range(len(LABELS))]
        return np.array(values, np.float32)

    def attention(self, row: Any) -> KernelAttention:
        """Two units of two kernels; the share of the larger grows with the first byte."""
        share = 0.5 + (row[0] % 10) / 100
        units = tuple(
            UnitAttention(name, module, (3, 5), 64, (1 - share, share), 2 * share - 1, 3 * (1 - share) + 5 * share)
            for name, module in (("SK_2_1", "layer1.0.conv1"), ("SK_3_1", "layer2.0.conv1"))
        )
        return KernelAttention(units, True, "a test said so")

    def explain_items(self, data: bytes) -> tuple[FakeItem, ...]:
        return tuple(self.prepare(data) for _ in SCALES)

    def explanation(self, items: Sequence[Any], rows: Sequence[Any], *, k: int, class_index: int | None) -> Explanation:
        predictions = self.top_k(rows[0], k)
        index = predictions[0].index if class_index is None else class_index
        chosen = next(p for p in self.top_k(rows[0], len(LABELS)) if p.index == index)
        box = Box(0.0, 0.0, 40.0, 30.0)
        return Explanation(
            image=items[0].image,
            predictions=predictions,
            attention=self.attention(rows[0]),
            scales=tuple(
                ScaleAttention(scale, self.top_k(row, k), self.attention(row).units, box)
                for scale, row in zip(SCALES, rows, strict=True)
            ),
            activation=ClassActivation(chosen, 2.5, 0.5, ((1.0, 2.0), (3.0, 2.0)), box),
        )

    def check_figures(self) -> None:
        if not self.figures:
            raise FiguresUnavailable

    def figure(self, data: bytes, explanation: Explanation, form: str = "png") -> bytes:
        self.check_figures()
        start = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml", "pdf": b"%PDF"}[form]
        return start + b" figure " + explanation.activation.prediction.label.encode()

    def overlay(self, data: bytes, explanation: Explanation) -> bytes:
        return b"\x89PNG\r\n\x1a\n overlay " + explanation.activation.prediction.label.encode()

    def close(self) -> None:
        self.closed = True
