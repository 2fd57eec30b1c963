"""What can be asked of `POST /invocations` beside the image. Answers are the service's own (`native`)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from app.schemas.wire import Score


class Attributes(BaseModel):
    """Custom attributes that mean something here. The header is the caller's: all others pass, such as ids of traces."""

    top_k: int | None = None
    min_score: Score = 0.0
    explain: Literal["kernel_attention"] | None = None
