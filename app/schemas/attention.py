"""Kernel attention in JSON."""

from __future__ import annotations

from pydantic import Field

from app.schemas.wire import Wire


class UnitJson(Wire):
    """What one selective-kernel unit chose: means over its channels, never rescaled."""

    unit: str = Field(description="The paper's name: SK_s_i, s the stage plus one, i the block from 1.", examples=["SK_3_4"])
    module: str = Field(description="Path of the unit in the network.", examples=["layer2.3.conv2"])
    kernel_sizes: list[int] = Field(description="Nominal kernel size of each branch.", examples=[[3, 5]])
    channels: int = Field(description="Channels that the means were taken over.", examples=[256])
    mean_attention: list[float] = Field(description="Share of each kernel, summing to 1.", examples=[[0.46, 0.54]])
    attention_difference: float = Field(
        description="Share of the last kernel less that of the first, -1 to 1: above 0 where the larger kernel is preferred.",
        examples=[0.08],
    )
    mean_kernel_size: float = Field(description="Sum of each kernel size times its share.", examples=[4.08])
