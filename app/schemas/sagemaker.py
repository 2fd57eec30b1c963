"""What can be asked of `POST /invocations` beside the image. Answers are the service's own (`native`)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Attributes(BaseModel):
    """Custom attributes that mean something here. The header is the caller's: all others pass, such as ids of traces."""

    top_k: int | None = None
    min_score: float = Field(0.0, ge=0, le=1)
    explain: Literal["kernel_attention"] | None = None
