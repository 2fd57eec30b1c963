"""The fuzzers' checks without a fuzzer: over their seeds, over damaged seeds, and each sees what it is there for."""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from app import sources
from model import image, rgb
from tests.corpus.damage import cut, double, flip_many, overwrite, swap
from tests.fuzz import fuzz_base64, fuzz_data_uri, fuzz_form, fuzz_image, fuzz_json
from tests.fuzz.__main__ import TARGETS, Slow, timed
from tests.images import tiff

WAYS = (cut, flip_many, overwrite, double, swap)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_pass_whole_and_damaged(name: str) -> None:
    target, rng = importlib.import_module(f"tests.fuzz.fuzz_{name}"), random.Random(0)
    seeds = list(target.seeds())
    assert len(set(seeds)) >= 10
    for seed in seeds:
        target.check(seed)
        for way in WAYS:
            if len(seed) > 16:
                target.check(way(seed, rng))


def test_the_slow_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.__main__.SLOW_S", 0.01)

    def busy(data: bytes) -> None:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    with pytest.raises(Slow):
        timed(busy)(b"")


# Each check against a fault of the kind that it looks for.


def test_an_image_refused_at_one_size_only_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(data: bytes, divisor: int) -> image.Picture | None:
        return None if divisor > 1 else whole(data, divisor)

    whole = fuzz_image._decoded
    monkeypatch.setattr(fuzz_image, "_decoded", decoded)
    with pytest.raises(AssertionError, match="one size only"):
        fuzz_image.check(next(fuzz_image.seeds()))


def test_arithmetic_that_overflows_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def overflowing(found: Any) -> Any:
        np.float32(3e38) * np.ones(2, np.float32) * np.float32(10)
        return np.zeros((1, 2), np.uint8)

    monkeypatch.setattr(rgb, "_eight_bits", overflowing)
    with pytest.raises(AssertionError, match="overflow"):
        fuzz_image.check(tiff(np.array([[0.5, 1.0]], dtype=np.float32)))


def test_a_form_that_hangs_on_its_pieces_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    read = fuzz_form.read
    monkeypatch.setattr(fuzz_form, "read", lambda media, chunks: None if len(chunks) > 5 else read(media, chunks))
    with pytest.raises(AssertionError, match="pieces"):
        fuzz_form.check(next(fuzz_form.seeds()))


@pytest.mark.parametrize(
    ("check", "data"),
    [
        (fuzz_base64.check, b"\0QUJD"),
        (fuzz_data_uri.check, b"data:image/png;base64,QUJD"),
        (fuzz_json.check, b'{"image": "QUJD"}'),
    ],
)
def test_other_bytes_than_were_sent_are_found(
    check: Callable[[bytes], None], data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.sources._not_empty", lambda found, what="image": found if what == "body" else found[::-1])
    if check is fuzz_json.check:
        monkeypatch.setattr(fuzz_json, "ours", lambda text: b"ABC")
    with pytest.raises(AssertionError):
        check(data)


def test_more_bytes_than_allowed_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = sources.decode_base64
    monkeypatch.setattr(sources, "decode_base64", lambda text, max_bytes=0.0: decode(text))
    with pytest.raises(AssertionError, match="let through"):
        fuzz_base64.check(b"\0QUJD")
