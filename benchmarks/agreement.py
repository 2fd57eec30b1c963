"""How far every engine and precision is from the reference, which is eager in float32: `python -m benchmarks.agreement`.

Two questions. Over labelled images and trained weights: how often the top-1 is the reference's, and how often it is right. Over
photographs and seeded weights, whose top-1 is nearly constant and says nothing: how far the logits are, relative to their size.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.bench.report import table
from benchmarks.machine import ROOT
from benchmarks.report import publish
from model.errors import ModelError
from model.manager import LoadRequest, load

REFERENCE = ("eager", "float32")
SIDES = (
    REFERENCE,
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
    ("compile", "float32"),
    ("compile", "bfloat16"),
)
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Labelled:
    """Encoded images and the index of each one's class in `classes`."""

    images: list[bytes]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]


def read(path: Path) -> Labelled:
    """A folder of folders named by class; an .npz with `images` (N, H, W, 3) uint8 and `labels` (N,); or the archive of
    training images, of which those are taken that training held out.

    Raises:
        SystemExit: none of these.
    """
    if path.is_dir():
        classes = tuple(sorted(folder.name for folder in path.iterdir() if folder.is_dir()))
        files = [(c, f) for c in classes for f in sorted((path / c).iterdir()) if f.suffix.lower() in SUFFIXES]
        return Labelled([f.read_bytes() for _, f in files], np.asarray([classes.index(c) for c, _ in files]), classes)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as saved:
            pixels, labels = saved["images"], saved["labels"].astype(np.int64)
        return Labelled([_png(image) for image in pixels], labels, _cifar_classes())
    if path.suffix == ".zip":
        from model.train.data import load_cifar
        from model.train.loop import Recipe

        with tempfile.TemporaryDirectory() as work:
            _, held = load_cifar(path, Path(work), seed=Recipe.seed)
        return Labelled([_png(image.transpose(1, 2, 0)) for image in held.pixels], held.labels, _cifar_classes())
    raise SystemExit(f"{path}: give a folder of folders named by class, an .npz of images and labels, or the training archive")


def _cifar_classes() -> tuple[str, ...]:
    from model.train.data import CLASSES

    return CLASSES


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def logits_of(
    checkpoint: str, side: tuple[str, str], images: Sequence[bytes], args: argparse.Namespace
) -> tuple[Logits, tuple[str, ...]]:
    """(logits (N, num_classes), the model's labels), through the same steps as a request.

    Raises:
        ModelError: the engine or precision is not to be had here.
    """
    model = load(
        LoadRequest(checkpoint=checkpoint, cache_dir=args.cache_dir, device=args.device, engine=side[0], precision=side[1])
    )
    try:
        if model.info.dtype.value != side[1] or model.info.engine.value != side[0]:
            raise ModelError(f"became {model.info.engine.value} {model.info.dtype.value}: {model.info.dtype.reason}")
        size, rows = max(1, model.info.batch_size), []
        for start in range(0, len(images), size):
            rows += [row.logits for row in model.run([model.prepare(data) for data in images[start : start + size]])]
        return np.stack(rows), tuple(label.name for label in model.info.labels)
    finally:
        model.close()


def deviation(logits: Logits, reference: Logits) -> tuple[float, float]:
    """Root mean square of the differences over that of the reference: over all, and of the worst image."""
    each = np.linalg.norm(logits - reference, axis=1) / np.linalg.norm(reference, axis=1)
    return float(np.linalg.norm(logits - reference) / np.linalg.norm(reference)), float(each.max())


def compare(
    checkpoint: str, images: Sequence[bytes], labelled: Labelled | None, args: argparse.Namespace
) -> list[dict[str, object]]:
    """A row of figures for every engine and precision."""
    rows: list[dict[str, object]] = []
    reference: Logits | None = None
    for side in SIDES:
        row: dict[str, object] = {"engine": side[0], "precision": side[1]}
        rows.append(row)
        print(f"{checkpoint}: {' '.join(side)}", file=sys.stderr, flush=True)
        try:
            logits, names = logits_of(checkpoint, side, images, args)
        except ModelError as error:
            row["missing"] = str(error).splitlines()[0][:160]
            continue
        if reference is None:
            if side != REFERENCE:
                raise SystemExit("the reference itself could not be run")
            reference = logits
        row["deviation"], row["deviation_worst"] = deviation(logits, reference)
        row["top1_same"] = float((logits.argmax(1) == reference.argmax(1)).mean())
        if labelled is not None:
            wanted = np.asarray([names.index(name) if name in names else -1 for name in labelled.classes])[labelled.labels]
            row["top1_right"] = float((logits.argmax(1) == wanted).mean())
    return rows


def shown(rows: Sequence[dict[str, object]]) -> str:
    """As a table."""
    lines: list[tuple[str, ...]] = [("", "top-1 as reference %", "top-1 right %", "deviation", "worst image")]
    for row in rows:
        name = f"{row['engine']} {row['precision']}"
        if "missing" in row:
            lines.append((name, "-", "-", "-", "-"))
            continue
        right = f"{100 * float(str(row['top1_right'])):.2f}" if "top1_right" in row else "-"
        off = [f"{float(str(row[key])):.2e}" for key in ("deviation", "deviation_worst")]
        lines.append((name, f"{100 * float(str(row['top1_same'])):.2f}", right, *off))
    missing = [f"{row['engine']} {row['precision']}: {row['missing']}" for row in rows if "missing" in row]
    return "\n".join([table(lines), *missing])


def seeded(folder: Path) -> str:
    """The checkpoint of `benchmarks.peers`: skresnet18, seeded weights, randomised statistics; written where it is not there."""
    subprocess.run(
        [sys.executable, "-m", "benchmarks.peers.checkpoint", str(folder)], cwd=ROOT, stdout=subprocess.DEVNULL, check=True
    )
    return str(folder)


def photographs_in(path: Path) -> list[bytes]:
    """Every image below a folder, in the order of their names."""
    return [file.read_bytes() for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES]


def main() -> None:
    state = Path.home() / ".cache" / "sknet-benchmarks"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__)
    parser.add_argument("--images", type=Path, help="labelled: a folder of folders, an .npz, or the archive that training read")
    parser.add_argument("--checkpoint", default="bundled:cifar10", help="trained weights, for the labelled images")
    parser.add_argument("--limit", type=int, default=0, help="about so many of the labelled images")
    parser.add_argument("--photographs", type=Path, help="folder of photographs, with or without folders in it")
    parser.add_argument("--seeded", type=Path, default=state / "checkpoint", help="where the seeded weights are kept")
    parser.add_argument("--cache-dir", type=Path, help="as SKNET_CACHE_DIR")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    args = parser.parse_args()
    if args.images is None and args.photographs is None:
        parser.error("give --images, --photographs or both")
    parts: list[str] = []
    figures: dict[str, object] = {}
    if args.images is not None:
        found = read(args.images)
        every = max(1, len(found.images) // args.limit) if args.limit else 1  # spread over the classes, which come in turn
        found = Labelled(found.images[::every], found.labels[::every], found.classes)
        rows = compare(args.checkpoint, found.images, found, args)
        parts.append(f"{args.checkpoint} over {len(found.images)} labelled images\n{shown(rows)}")
        figures["labelled"] = {"checkpoint": args.checkpoint, "count": len(found.images), "rows": rows}
    if args.photographs is not None:
        images = photographs_in(args.photographs)
        rows = compare(seeded(args.seeded), images, None, args)
        parts.append(f"skresnet18 with seeded weights over {len(images)} photographs\n{shown(rows)}")
        figures["photographs"] = {"count": len(images), "rows": rows}
    publish("agreement", "Agreement with float32 eager", "\n\n".join(parts), figures, args.output)


if __name__ == "__main__":
    main()
