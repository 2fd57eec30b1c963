"""Hooks of schemathesis: wherever a body or a part of one is an image, something that is none, and a check that none is taken.

The rest of each request is as the document asks, so that the image alone is at fault.
"""

from __future__ import annotations

import base64
from typing import Any

import schemathesis
from hypothesis import strategies
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import RejectedPositiveData

from benchmarks.soak import contract_hooks
from benchmarks.soak.contract_hooks import after_call
from tests.images import SAMPLES, chunk, gif_bomb, png_of_pixels, quadrants

ALONE = ("/classify", "/explain", "/hf", "/invocations", "/vertex/predict")  # where one such image fails the request
WHOLE = [SAMPLES[name](quadrants()) for name in ("JPEG", "PNG", "WEBP")]
BROKEN = [
    b"this is a text and no image at all\n" * 20,
    b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    b"%PDF-1.4\n%%EOF\n",
    b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)),
    gif_bomb(),
    png_of_pixels(10_000, 6_000),
    *(data[: len(data) // 2] for data in WHOLE),
    *(data[:20] for data in WHOLE),
]

images = strategies.sampled_from(BROKEN) | strategies.binary(min_size=1, max_size=300)
schemathesis.openapi.format("binary", images)
for media_type in ("image/*", "application/octet-stream", "application/x-image"):
    schemathesis.openapi.media_type(media_type, images)
texts = images.map(lambda data: base64.b64encode(data).decode())
schemathesis.openapi.format("byte", texts | strategies.sampled_from(["@@@", "data:image/png,abc", "abc", "data:;base64,===="]))


@schemathesis.hook
def before_load_schema(context: HookContext, raw_schema: dict[str, Any]) -> None:
    """The document's own examples of images are real ones: none of them is sent."""
    contract_hooks.before_load_schema(context, raw_schema)
    schemas = raw_schema["components"]["schemas"]
    for name in ("ImageJson", "BatchJson", "OipInput", "HuggingFaceJson", "VertexJson", "VertexInstance", "VertexBytes"):
        for each in schemas.get(name, {}).get("properties", {}).values():  # a dialect may be switched off
            each.pop("examples", None)
    for methods in raw_schema["paths"].values():
        for media in methods.get("post", {}).get("requestBody", {}).get("content", {}).values():
            media.pop("example", None)


@schemathesis.check
def no_image_is_refused(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """One that comes alone gets 4xx, of a batch each."""
    if case.operation.method != "post" or response.status_code != 200:
        return
    if case.path in ALONE or case.path.endswith("/infer"):
        raise AssertionError("something that is no image was classified")
    if case.path == "/classify/batch":
        taken = [result["index"] for result in response.json()["results"] if result["status"] == 200]
        if taken:
            raise AssertionError(f"something that is no image was classified, at {taken}")


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """As for good images, but that those requests are refused is what should come: the check above sees to it."""
    wanted = isinstance(failure, RejectedPositiveData) and case.path.startswith(ALONE)
    return not wanted and bool(contract_hooks.filter_failure(context, failure, case, response))


__all__ = ["after_call"]
