"""Training images out of zip archives, as uint8 arrays in memory.

Two sources. CIFAR-10's training images (32x32, cropped tightly around the object) give all ten classes and the held-out
set. Tiny ImageNet (64x64, framed as people frame photographs) adds those of its classes that are one of the ten.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# WordNet ids whose photographs are one of the ten; vans count as trucks. Left out on purpose: school bus and trolleybus
# (CIFAR-10 has no buses), gazelle (no deer). A new folder must sort after the others, or the held-out photographs change.
WORDNET_TO_CLASS = {
    "n02814533": "automobile",  # beach wagon
    "n03100240": "automobile",  # convertible
    "n03670208": "automobile",  # limousine
    "n04285008": "automobile",  # sports car
    "n01855672": "bird",  # goose
    "n02002724": "bird",  # black stork
    "n02056570": "bird",  # king penguin
    "n02058221": "bird",  # albatross
    "n02123045": "cat",  # tabby
    "n02123394": "cat",  # Persian cat
    "n02124075": "cat",  # Egyptian cat
    "n02085620": "dog",  # Chihuahua
    "n02094433": "dog",  # Yorkshire terrier
    "n02099601": "dog",  # golden retriever
    "n02099712": "dog",  # Labrador retriever
    "n02106662": "dog",  # German shepherd
    "n02113799": "dog",  # standard poodle
    "n01641577": "frog",  # bullfrog
    "n01644900": "frog",  # tailed frog
    "n03447447": "ship",  # gondola
    "n03662601": "ship",  # lifeboat
    "n03796401": "truck",  # moving van
    "n03977966": "truck",  # police van
}

HELD_OUT_PER_CLASS = 500


@dataclass(frozen=True)
class Images:
    """`pixels` (N, 3, S, S) uint8 and `labels` (N,) int64."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def _read(archive: Path, wanted: dict[str, str], cache: Path) -> tuple[Images, list[str]]:
    """Every image whose folder is a key of `wanted`, in the order of their names; decoded once, then read from `cache`."""
    if cache.exists():
        with np.load(cache, allow_pickle=False) as saved:
            return Images(saved["pixels"], saved["labels"]), [str(name) for name in saved["names"]]
    with zipfile.ZipFile(archive) as zipped:
        names = sorted(n for n in zipped.namelist() if n.split("/")[0] in wanted and not n.endswith("/"))
        pixels, labels = [], []
        for name in tqdm(names, desc=f"reading {archive.name}", mininterval=1):
            with Image.open(io.BytesIO(zipped.read(name))) as image:
                pixels.append(np.asarray(image.convert("RGB"), dtype=np.uint8).transpose(2, 0, 1))
            labels.append(CLASSES.index(wanted[name.split("/")[0]]))
    images = Images(np.stack(pixels), np.asarray(labels, dtype=np.int64))
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.savez(cache, pixels=images.pixels, labels=images.labels, names=np.asarray(names))
    return images, names


def load_cifar(archive: Path, work: Path, *, seed: int) -> tuple[Images, Images]:
    """(training, held out): `HELD_OUT_PER_CLASS` images of each class, chosen by `seed`, that training never sees."""
    images, _ = _read(archive, {name: name for name in CLASSES}, work / "cifar.npz")
    rng = np.random.default_rng(seed)
    held = np.zeros(len(images.labels), dtype=bool)
    for index in range(len(CLASSES)):
        members = np.flatnonzero(images.labels == index)
        held[rng.permutation(members)[:HELD_OUT_PER_CLASS]] = True
    return Images(images.pixels[~held], images.labels[~held]), Images(images.pixels[held], images.labels[held])


def load_photographs(archive: Path, work: Path, *, seed: int, held_out: int = 25) -> tuple[Images, Images]:
    """(training, held out): `held_out` photographs of each WordNet id are kept apart to judge ordinary framing."""
    images, names = _read(archive, WORDNET_TO_CLASS, work / "photographs.npz")
    folders = np.asarray([name.split("/")[0] for name in names])
    rng = np.random.default_rng(seed)
    held = np.zeros(len(images.labels), dtype=bool)
    for folder in sorted(WORDNET_TO_CLASS):
        held[rng.permutation(np.flatnonzero(folders == folder))[:held_out]] = True
    return Images(images.pixels[~held], images.labels[~held]), Images(images.pixels[held], images.labels[held])
