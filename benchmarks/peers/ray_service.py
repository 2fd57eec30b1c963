"""Ray Serve as its documentation's PyTorch tutorial builds it (`ImageModel` of doc_code/tutorial_pytorch.py): the raw body, one
image a call.

PEER_WORKERS replicas of one processor: as many as `num_replicas="auto"` of the documentation's ResNet-50 example has room for
on the machine, and kinder to Ray than the tutorial's single one.
"""

# mypy: ignore-errors
# The packages imported here live in the peer's environment alone.

from __future__ import annotations

import os
import signal
from io import BytesIO

import ray
from network import Network
from PIL import Image
from ray import serve
from starlette.requests import Request

WORKERS = int(os.environ["PEER_WORKERS"])


@serve.deployment(num_replicas=WORKERS, ray_actor_options={"num_cpus": 1})
class ImageModel:
    def __init__(self) -> None:
        self.network = Network()

    async def __call__(self, request: Request) -> dict:
        image = Image.open(BytesIO(await request.body()))
        return {"predictions": self.network.classify(self.network.prepare(image))[0]}


if __name__ == "__main__":
    ray.init(num_cpus=WORKERS, include_dashboard=False, _node_ip_address="127.0.0.1", _temp_dir=os.environ["PEER_TEMP"])
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
    serve.run(ImageModel.bind(), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
