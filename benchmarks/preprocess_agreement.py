"""How far the fast path of the pixels is from the exact one, in levels of 255, in logits and in first answers; and its cost.

Besides the photographs as they are, it takes pieces of them (more first answers to compare), enlarges them by 4 and 8 (to be
decoded smaller), and lays 4x4 and 8x8 of them side by side (large pictures that are sharp down to the pixel: the hardest).

Deviation of logits is relative to the exact path's, as root mean squares. `seeded:VARIANT` is an untrained network with
randomised statistics: its first answer is nearly constant and says little, its deviation says something.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm import tqdm

from model.checkpoint import build_network, resolve
from model.errors import ImageError
from model.image import ImageLimits, decode, decode_reduced
from model.preprocess import least_size, normalise, pixels, quick_pixels
from model.sknet import SKNet, build
from model.types import PreprocessSpec

LIMITS = ImageLimits(max_pixels=200_000_000)
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".bmp", ".gif", ".tif", ".tiff"}
COLUMNS = {
    "images": "7d", "smaller": "8d", "levels_max": "10.0f", "levels_mean": "11.4f", "logits_max": "10.4f", "logits_rms": "10.5f",
    "relative": "9.5f", "top1": "7.4f", "exact_core_ms": "13.2f", "fast_core_ms": "12.2f",
}  # fmt: skip
Pixels = npt.NDArray[np.uint8]


def photographs(paths: Sequence[Path]) -> list[bytes]:
    """The files given, and the pictures in the folders given."""
    found = [
        [f for f in sorted(p.rglob("*")) if f.suffix.lower() in SUFFIXES and f.is_file()] if p.is_dir() else [p] for p in paths
    ]
    files = [file for files in found for file in files]
    sent = []
    for file in files:
        data = file.read_bytes()
        try:
            decode(data, LIMITS)
        except ImageError as error:
            print(f"{file} is left out: {error}", file=sys.stderr)
        else:
            sent.append(data)
    return sent or sys.exit(f"no photographs in {', '.join(map(str, paths))}")


def jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def piece(image: Image.Image, rng: np.random.Generator) -> bytes:
    share = rng.uniform(0.6, 1)
    width, height = max(1, int(image.width * share)), max(1, int(image.height * share))
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return jpeg(image.crop((left, top, left + width, top + height)))


def enlarged(image: Image.Image, times: int) -> bytes:
    """With sides that no divisor divides, so that the last row and column are not whole ones."""
    return jpeg(image.resize((image.width * times + 3, image.height * times + 5), Image.Resampling.BICUBIC))


def mosaic(images: Sequence[Image.Image], side: int, rng: np.random.Generator) -> bytes:
    sheet = Image.new("RGB", (500 * side, 375 * side))
    for i in range(side * side):
        tile = images[int(rng.integers(len(images)))].resize((500, 375), Image.Resampling.BICUBIC)
        sheet.paste(tile, (500 * (i % side), 375 * (i // side)))
    return jpeg(sheet)


def kinds(sent: list[bytes], pieces: int) -> Iterator[tuple[str, int, Callable[[int], bytes]]]:
    """Name, count and maker of the files of each kind; made one at a time, for together they are large."""
    images = [decode(data, LIMITS)[0] for data in sent]
    rng = np.random.default_rng(0)
    yield "as sent", len(sent), lambda i: sent[i]
    yield "pieces", pieces * len(images), lambda i: piece(images[i % len(images)], rng)
    yield "enlarged by 4", len(images), lambda i: enlarged(images[i], 4)
    yield "enlarged by 8", len(images), lambda i: enlarged(images[i], 8)
    yield "4x4 side by side", min(16, len(images)), lambda _: mosaic(images, 4, rng)
    yield "8x8 side by side", min(8, len(images)), lambda _: mosaic(images, 8, rng)


def exact(data: bytes, spec: PreprocessSpec) -> Pixels:
    return pixels(decode(data, LIMITS)[0], spec)


def fast(data: bytes, spec: PreprocessSpec) -> tuple[Pixels, bool]:
    """The pixels, and whether they were decoded smaller."""
    picture = decode_reduced(data, LIMITS, partial(least_size, spec=spec))
    size = (picture.info.width, picture.info.height)
    out = quick_pixels(picture.image, spec, size, picture.extent)
    return out, max(picture.image.size) < max(size)


def network(name: str) -> tuple[SKNet, PreprocessSpec]:
    """A checkpoint's network, or with `seeded:VARIANT` one with seeded weights and randomised statistics."""
    scheme, _, variant = name.partition(":")
    if scheme != "seeded":
        checkpoint = resolve(name)
        return build_network(checkpoint).eval(), checkpoint.preprocess
    torch.manual_seed(0)
    net = build(variant)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return net.eval(), PreprocessSpec()


def logits(net: SKNet, spec: PreprocessSpec, images: list[Pixels]) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        parts = [torch.from_numpy(np.stack([normalise(i, spec) for i in images[k : k + 16]])) for k in range(0, len(images), 16)]
        return np.concatenate([net(part).numpy() for part in parts])


def compare(net: SKNet, spec: PreprocessSpec, count: int, make: Callable[[int], bytes], bar: tqdm[Any]) -> dict[str, float]:
    """One line of the table."""
    ours: list[Pixels] = []
    reference: list[Pixels] = []
    smaller, clock = 0, [0.0, 0.0]
    for i in range(count):
        data = make(i)
        started = time.process_time()
        reference.append(exact(data, spec))
        between = time.process_time()
        out, is_smaller = fast(data, spec)
        clock[0] += between - started
        clock[1] += time.process_time() - between
        ours.append(out)
        smaller += is_smaller
        bar.update()
    levels = np.abs(np.subtract(ours, reference, dtype=np.int16))
    rows, expected = logits(net, spec, ours), logits(net, spec, reference)
    off = rows - expected
    return {
        "images": count,
        "smaller": smaller,
        "levels_max": float(levels.max()),
        "levels_mean": float(levels.mean()),
        "logits_max": float(np.abs(off).max()),
        "logits_rms": float(np.sqrt((off**2).mean())),
        "relative": float(np.linalg.norm(off) / np.linalg.norm(expected)),
        "top1": float((rows.argmax(1) == expected.argmax(1)).mean()),
        "exact_core_ms": clock[0] / count * 1e3,
        "fast_core_ms": clock[1] / count * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preprocess_agreement", description=__doc__)
    parser.add_argument("photographs", nargs="+", type=Path, metavar="PHOTO", help="files, or folders of them")
    parser.add_argument("--checkpoint", action="append", help="default: bundled:cifar10 and seeded:skresnet18")
    parser.add_argument("--pieces", type=int, default=10, help="pieces of each photograph")
    args = parser.parse_args()
    sent = photographs(args.photographs)
    report: dict[str, dict[str, dict[str, float]]] = {}
    for name in args.checkpoint or ["bundled:cifar10", "seeded:skresnet18"]:
        net, spec = network(name)
        lines = report[name] = {}
        sets = list(kinds(sent, args.pieces))
        with tqdm(total=sum(count for _, count, _ in sets), desc=name, unit="image", disable=not sys.stderr.isatty()) as bar:
            for kind, count, make in sets:
                lines[kind] = compare(net, spec, count, make, bar)
        print(f"\n{name}, input {spec.size[1]}x{spec.size[0]}, {spec.interpolation}, {spec.crop_mode}")
        print(" " * 18 + " ".join(f"{column:>{form.split('.')[0].rstrip('d')}}" for column, form in COLUMNS.items()))
        for kind, line in lines.items():
            print(f"{kind:18}" + " ".join(f"{line[column]:{form}}" for column, form in COLUMNS.items()))
    rounded = {n: {k: {c: round(v, 6) for c, v in line.items()} for k, line in lines.items()} for n, lines in report.items()}
    print(json.dumps({"photographs": len(sent), "agreement": rounded}))


if __name__ == "__main__":
    main()
