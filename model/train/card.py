"""The finished checkpoint: float16 weights in safetensors, and a JSON card that says what they are and how they were made."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

from model.sknet import SKNet
from model.train import augment
from model.train.data import CLASSES, Images
from model.train.loop import Recipe, arguments, probabilities

VARIANT = "skresnet14_cifar"  # two plain weights layers a block, stem and classifier: 14 deep

TOLERANCE = 0.05  # of the golden image's score: bfloat16 moves it by a few thousandths, int8 by a few hundredths

DESCRIPTION = "SKNet of three unsplit stages, trained on CIFAR-10"
WITH_PHOTOGRAPHS = " and Tiny ImageNet photographs of the same ten classes"


def halved(net: SKNet) -> dict[str, torch.Tensor]:
    """Weights in float16 but for the statistics of normalisation, whose small variances half precision would cut off."""
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    return {k: (v if "running_" in k else v.half()).contiguous().cpu() for k, v in state.items()}


def golden(net: SKNet, images: Images, size: int, device: torch.device) -> dict[str, Any]:
    """Of these images the one that is known best, as a card has it: what it shows comes out first by the widest margin."""
    scores = probabilities(net, images, size, device)
    right = scores[torch.arange(len(scores)), torch.from_numpy(images.labels)]
    best = int(right.argmax())
    index, buffer = int(images.labels[best]), io.BytesIO()
    Image.fromarray(images.pixels[best].transpose(1, 2, 0)).save(buffer, "PNG", optimize=True)
    return {
        "image": base64.b64encode(buffer.getvalue()).decode(),
        "index": index,
        "label": CLASSES[index],
        "score": round(float(right[best]), 4),
        "tolerance": TOLERANCE,
    }


def write(
    path: Path,
    net: SKNet,
    recipe: Recipe,
    *,
    accuracy: dict[str, float],
    training: dict[str, Any],
    photographs: bool,
    golden: dict[str, Any] | None = None,
) -> None:
    """Write `path`.safetensors and `path`.json.

    Args:
        accuracy: figures in percent, measured on what is written.
        training: data, command, time taken and the like; the recipe, seed included, is added to it.
        photographs: whether it was trained on Tiny ImageNet as well.
        golden: an image whose answer is known; see `model.golden`.
    """
    weights = path.with_suffix(".safetensors")
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_file(halved(net), weights, {"format": "pt"})
    card = {
        "name": path.name,
        "variant": VARIANT,
        "arguments": {"block": "basic", "layers": recipe.layers, **arguments(recipe)},
        "preprocess": {
            "size": [recipe.size, recipe.size],
            "crop_pct": 1.0,
            "crop_mode": "center",
            "interpolation": "bicubic",
            "mean": augment.MEAN,
            "std": augment.STD,
        },
        "labels": CLASSES,
        "accuracy": accuracy,
        "licence": "MIT",
        "description": DESCRIPTION + (WITH_PHOTOGRAPHS if photographs else ""),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "training": {**training, "recipe": asdict(recipe)},
        **({"golden": golden} if golden else {}),
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
