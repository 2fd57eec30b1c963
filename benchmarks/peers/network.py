"""The network as a peer's service holds it: timm's own code, or the OpenVINO graph that this repository serves.

Runs in the peers' environments: it imports nothing of this repository. Preprocessing is timm's, PIL and torchvision's transforms,
as the peers' documentations have it.
"""

# mypy: ignore-errors
# The packages imported here live in the peers' environments.

from __future__ import annotations

import json
import os
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config


class Network:
    """Images in, the five best classes out, with what PEER_FOLDER, PEER_ENGINE and PEER_THREADS in the environment say.

    `eager` is float32, operator by operator, and takes batches; `openvino` is bf16 and one image a call.
    """

    def __init__(self) -> None:
        folder = Path(os.environ["PEER_FOLDER"])
        self.engine = os.environ["PEER_ENGINE"]
        threads = int(os.environ["PEER_THREADS"])
        torch.set_num_threads(threads)
        architecture = json.loads((folder / "config.json").read_text())["architecture"]
        self.model = timm.create_model(architecture, checkpoint_path=str(folder / "model.safetensors")).eval()
        self.transform = create_transform(**resolve_data_config(model=self.model), is_training=False)
        if self.engine == "openvino":
            import openvino

            # What ours sets: the precision, and threads that together are the machine's.
            options = {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": os.environ["PEER_PRECISION"],
            }
            self.compiled = openvino.Core().compile_model(str(folder / "graph.xml"), "CPU", options)
            self.compiled(torch.zeros(1, 3, *self.transform_size()).numpy())  # one inference in one thread before serving

    def transform_size(self) -> tuple[int, int]:
        height, width = resolve_data_config(model=self.model)["input_size"][1:]
        return height, width

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """(1, 3, H, W)."""
        return self.transform(image.convert("RGB")).unsqueeze(0)

    def classify(self, batch: torch.Tensor) -> list[list[dict[str, float]]]:
        """The five best of each image of (B, 3, H, W)."""
        with torch.no_grad():
            if self.engine == "openvino":
                logits = torch.cat([torch.from_numpy(self.compiled(image[None].numpy())[0].copy()) for image in batch])
            else:
                logits = self.model(batch)
            best = logits.softmax(1).topk(5)
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [[{"index": i, "score": s} for i, s in zip(*row, strict=True)] for row in rows]
