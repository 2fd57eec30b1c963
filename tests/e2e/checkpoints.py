"""Small checkpoints whose labels and scores are known, and damaged ones; their graphs are made ahead, for quick starts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from model.checkpoint import resolve
from model.export import export
from tests.model.small import ARGUMENTS, tiny

SIZE = (16, 16)  # of the networks' input


def state(scores: dict[str, float]) -> dict[str, Tensor]:
    """Weights that give about these scores to every image: the last layer's bias decides, the image moves it a little."""
    made = tiny().state_dict()
    width = made["fc.weight"].shape[1]
    weight = torch.sin(torch.arange(len(scores) * width).reshape(len(scores), width).float())
    bias = torch.tensor([math.log(score) for score in scores.values()])
    return {**made, "fc.weight": 1e-3 * weight, "fc.bias": bias}


def write(folder: Path, name: str, scores: dict[str, float], **changes: Any) -> Path:
    """A checkpoint of these classes, as a weights file with its card."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.safetensors"
    save_file(state(scores), file)
    card = {
        "variant": name,
        "arguments": {**ARGUMENTS, "num_classes": len(scores)},
        "labels": list(scores),
        "preprocess": {"size": SIZE},
        **changes,
    }
    file.with_suffix(".json").write_text(json.dumps(card))
    return file


def export_into(cache: Path, *files: Path) -> None:
    """Make the graphs that a service with this cache would make at its first load of these."""
    for file in files:
        export(resolve(str(file)), cache / "graphs")


def damage(folder: Path, like: Path) -> dict[str, str]:
    """Checkpoints that cannot serve, made from a good one: file name -> what the refusal says of it."""
    good, card = like.read_bytes(), json.loads(like.with_suffix(".json").read_text())
    tensors = state({label: 1 / len(card["labels"]) for label in card["labels"]})

    def put(name: str, content: bytes | dict[str, Tensor], **changes: Any) -> str:
        file = folder / name
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            save_file(content, file)
        file.with_suffix(".json").write_text(json.dumps({**card, **changes}))
        return name

    torch.save({"weights": Evil()}, folder / "pickle.pth")
    (folder / "pickle.json").write_text(json.dumps(card))
    golden = {"image": PNG, "index": 0, "label": card["labels"][0], "score": 0.01, "tolerance": 0.005}
    return {
        put("cut.safetensors", good[:-100]): "damaged",
        put("shapes.safetensors", {**tensors, "fc.weight": torch.ones(len(card["labels"]), 5)}): "do not fit",
        put("nan.safetensors", {**tensors, "fc.bias": torch.full((len(card["labels"]),), math.nan)}): "NaN",
        put("zeros.safetensors", {name: torch.zeros_like(each) for name, each in tensors.items()}): "the same to every image",
        put("golden.safetensors", good, golden=golden): "the golden image comes out",
        put("labels.safetensors", good, labels=["one"]): "1 labels for",
        put("noise.safetensors", b"\x00" * 1000): "damaged",
        put("empty.safetensors", b""): "empty",
        "pickle.pth": "refused",
        "missing.safetensors": "neither a file or folder",
    }


class Evil:
    """What no weights file may hold: unpickled, it would leave a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("unpickled"),))


PNG = (  # 4 x 4 pixels
    "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAIAAAAmkwkpAAAAFElEQVR42mM8UaHBAANMDEgANwcAR/QBcPbvf+MAAAAASUVORK5CYII="
)
