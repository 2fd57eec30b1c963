"""BentoML as its own example builds it (bentoml/BentoResnet, "Serving a ResNet model with BentoML"): a service class whose
batchable API takes a list of PIL images: what waits together runs together. PEER_WORKERS is `workers`, 1 by default there.
"""

# mypy: ignore-errors
# The packages imported here live in the peer's environment alone.

from __future__ import annotations

import os

import bentoml
import torch
from network import Network
from PIL.Image import Image


@bentoml.service(name="classifier", workers=int(os.environ["PEER_WORKERS"]), traffic={"timeout": 300, "concurrency": 256})
class Classifier:
    def __init__(self) -> None:
        self.network = Network()

    @bentoml.api(batchable=True)
    async def classify(self, images: list[Image]) -> list[dict]:
        rankings = self.network.classify(torch.cat([self.network.prepare(image) for image in images]))
        return [{"predictions": ranking} for ranking in rankings]
