"""RFC 9457 problem document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """What went wrong, for programs (`type`) and for people (`title`, `detail`), with the numbers that matter."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "type": "/problems/image-too-large",
                "title": "The image has too many pixels",
                "status": 422,
                "detail": "the image has 10000 x 6000 = 60000000 pixels; at most 50000000 are allowed",
                "limit": 50000000,
                "value": 60000000,
            }
        },
    )

    type: str = Field(
        description="Stable address of this kind of problem; the service explains it there.",
        examples=["/problems/image-too-large"],
    )
    title: str = Field(
        description="The kind of problem, in a few words that never change.", examples=["The image has too many pixels"]
    )
    status: int = Field(description="The HTTP status.", examples=[422])
    detail: str = Field(
        description="What was given and what is allowed.",
        examples=["the image has 10000 x 6000 = 60000000 pixels; at most 50000000 are allowed"],
    )
    parameter: str | None = Field(None, description="The parameter or header in question.", examples=["top_k"])
    limit: Any = Field(None, description="What is allowed.", examples=[50000000])
    value: Any = Field(None, description="What was given.", examples=[60000000])
    allowed: list[str] | None = Field(
        None, description="The values that are allowed.", examples=[["image/*", "application/json"]]
    )
    reasons: list[str] | None = Field(None, description="Why the service is not ready.", examples=[["the model is being loaded"]])


class PlainError(BaseModel):
    """An error as some protocols of others want it."""

    error: str = Field(description="What is wrong, and what is allowed.", examples=["the body is empty"])
