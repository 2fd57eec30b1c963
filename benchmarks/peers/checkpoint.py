"""The weights that every side serves, and what they should answer: `python -m benchmarks.peers.checkpoint FOLDER FILE...`

Writes, once, a folder in the hub's layout by timm itself (seeded weights, randomised statistics) with the OpenVINO graph that
the peers run; prints timm's own log-scores of the photographs, (N, 1000), in float32, as a line of JSON. A process of its own:
torch and timm are no part of what measures.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image

VARIANT = "skresnet18"
SIZE = 224


def write(folder: Path) -> None:
    """Whole or not at all."""
    import openvino  # type: ignore[import-untyped]

    from model.checkpoint import build_network, resolve
    from tests.e2e.hub_folder import write as write_folder

    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    write_folder(unfinished, VARIANT)
    net = build_network(resolve(str(unfinished)))  # the four-dimensional unit, which this repository's graph is made of
    graph = openvino.convert_model(net, example_input=torch.zeros(1, 3, SIZE, SIZE), input=[1, 3, SIZE, SIZE])
    openvino.save_model(graph, unfinished / "graph.xml", compress_to_fp16=False)
    unfinished.rename(folder)


def log_scores(folder: Path, files: list[Path]) -> list[list[float]]:
    """timm's answers through timm's own pipeline."""
    import timm
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    model: Any = timm.create_model(VARIANT, checkpoint_path=str(folder / "model.safetensors")).eval()
    transform: Any = create_transform(**resolve_data_config(model=model), is_training=False)  # type: ignore[no-untyped-call]
    rows = []
    for path in files:
        with Image.open(io.BytesIO(path.read_bytes())) as image, torch.inference_mode():
            logits = model(transform(image.convert("RGB")).unsqueeze(0))[0]
        rows.append([float(value) for value in logits.log_softmax(0)])
    return rows


def main() -> None:
    folder, *files = map(Path, sys.argv[1:])
    if not (folder / "graph.xml").exists():
        shutil.rmtree(folder, ignore_errors=True)
        write(folder)
    print(json.dumps(log_scores(folder, files)))


if __name__ == "__main__":
    main()
