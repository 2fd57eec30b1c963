"""A hub folder written by timm itself, and timm's own answer to a photograph.

`python -m tests.e2e.hub_folder PHOTOGRAPH...` serves such a folder and prints how far the service is from timm.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from timm.models import save_for_hf


def write(folder: Path, architecture: str = "skresnet18") -> Any:
    """Write a folder in the hub's layout with random weights and randomised statistics; return timm's model."""
    torch.manual_seed(0)
    model: Any = timm.create_model(architecture).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    # As initialised, every class would score 0.001, and any pipeline would agree with any other.
    torch.nn.init.normal_(model.get_classifier().weight, 0, 1)
    save_for_hf(model, str(folder), model_config={}, safe_serialization=True)
    return model


def timm_top5(model: Any, data: bytes) -> list[tuple[int, float]]:
    """(index, score) of timm's five best classes for an encoded photograph, through timm's own pipeline."""
    transform = create_transform(
        **resolve_data_config(model=model),  # type: ignore[no-untyped-call]
        is_training=False,
    )
    with Image.open(io.BytesIO(data)) as image, torch.inference_mode():
        scores = model(transform(image.convert("RGB")).unsqueeze(0)).softmax(1)[0]
    best = scores.topk(5)
    return [(int(i), float(s)) for i, s in zip(best.indices, best.values, strict=True)]


def main() -> None:
    from tests.e2e.server import serve

    with tempfile.TemporaryDirectory() as folder:
        model = write(Path(folder))
        with serve("--checkpoint", folder, "--engine", "eager", "--preprocess", "exact") as server, server.client() as client:
            for path in map(Path, sys.argv[1:]):
                data = path.read_bytes()
                ours = client.post("/classify", files={"file": (path.name, data)}).json()["predictions"]
                theirs = timm_top5(model, data)
                same = [p["index"] for p in ours] == [i for i, _ in theirs]
                off = max(abs(p["score"] - s) for p, (_, s) in zip(ours, theirs, strict=True))
                print(f"{path.name:40} {'same top-5' if same else 'ANOTHER top-5'}  scores differ by at most {off:.1e}")


if __name__ == "__main__":
    main()
