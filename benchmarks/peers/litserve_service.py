"""LitServe with the four methods of a `LitAPI`, as its README has them, one image a call.

An upload arrives as a file of a form; `request["content"].file` is how published LitServe services read it. PEER_WORKERS is
`workers_per_device`, 1 by default there.
"""

# mypy: ignore-errors
# The packages imported here live in the peer's environment alone.

from __future__ import annotations

import os

import litserve as ls
from network import Network
from PIL import Image


class ImageClassifier(ls.LitAPI):
    def setup(self, device):
        self.network = Network()

    def decode_request(self, request):
        return self.network.prepare(Image.open(request["content"].file))

    def predict(self, tensor):
        return self.network.classify(tensor)[0]

    def encode_response(self, ranking):
        return {"predictions": ranking}


if __name__ == "__main__":
    server = ls.LitServer(ImageClassifier(), accelerator="cpu", workers_per_device=int(os.environ["PEER_WORKERS"]))
    server.run(host="127.0.0.1", port=int(os.environ["PEER_PORT"]), generate_client_file=False)
