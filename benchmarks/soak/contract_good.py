"""Hooks of schemathesis: wherever a body or a part of one is an image, a real image of one of the formats that are served."""

from __future__ import annotations

import base64

import schemathesis
from hypothesis import strategies

from benchmarks.soak.contract_hooks import after_call, before_load_schema, filter_failure
from tests.images import SAMPLES, quadrants

PLAIN = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # what every installation reads

images = strategies.sampled_from([SAMPLES[name](quadrants()) for name in PLAIN])
schemathesis.openapi.format("binary", images)
for media_type in ("image/*", "application/octet-stream", "application/x-image"):
    schemathesis.openapi.media_type(media_type, images)
texts = images.map(lambda data: base64.b64encode(data).decode())
schemathesis.openapi.format("byte", texts | texts.map(lambda text: f"data:image/any;base64,{text}"))

__all__ = ["after_call", "before_load_schema", "filter_failure"]
