"""Explanations made up for what the bundled model cannot show: many units, three kernels, a map that is known point by point."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from playwright.sync_api import Route

from app.schemas.explain import ExplainAnswer
from tests.browser.visit import Visit

STAGES = {"SK_2": 3, "SK_3": 4, "SK_4": 6, "SK_5": 3}  # of a network of 50 layers
CAT = {"index": 3, "label": "cat", "score": 0.9, "wnid": None}


def units(sizes: Sequence[int], shift: float) -> list[dict[str, Any]]:
    """Differences rise by a hundredth a unit, from `shift`."""
    made = []
    for i, name in enumerate(f"{stage}_{n}" for stage, count in STAGES.items() for n in range(1, count + 1)):
        difference = shift + i / 100
        rest = (1 - 0.4) / (len(sizes) - 2) if len(sizes) > 2 else 0.0
        pair = 0.4 if len(sizes) > 2 else 1.0
        shares = [(pair - difference) / 2, *([rest] * (len(sizes) - 2)), (pair + difference) / 2]
        made.append(
            {
                "unit": name, "module": f"stage.{i}", "kernel_sizes": list(sizes), "channels": 64, "mean_attention": shares,
                "attention_difference": difference, "mean_kernel_size": sum(k * a for k, a in zip(sizes, shares, strict=True)),
            }
        )  # fmt: skip
    return made


def explanation(
    *,
    sizes: Sequence[int] = (3, 5),
    values: Sequence[Sequence[float]] = ((1.0, 2.0), (3.0, 2.0)),
    box: tuple[float, float, float, float] = (0, 0, 400, 300),
    comparable: bool = True,
    shift: float = -0.05,
) -> dict[str, Any]:
    """An answer of POST /explain for an image of 400 x 300 pixels."""
    area = dict(zip(("left", "top", "right", "bottom"), box, strict=True))
    sweep = [
        {"scale": scale, "predictions": [CAT], "kernel_attention": units(sizes, shift + n / 50), "box": area}
        for n, scale in enumerate((1.0, 1.5, 2.0))
    ]
    mean = sum(map(sum, values)) / (len(values) * len(values[0]))
    return {
        "predictions": [CAT],
        "model": {"name": "default", "variant": "sknet50", "digest": "sha256:0"},
        "image": {"width": 400, "height": 300, "format": "PNG"},
        "kernel_attention": sweep[0]["kernel_attention"],
        "comparable_to_paper": comparable,
        "comparable_reason": "each branch sees other channels" if not comparable else "every branch sees the whole input",
        "scale_sweep": sweep,
        "class_activation": {**CAT, "logit": mean + 0.5, "bias": 0.5, "map": [list(row) for row in values], "box": area},
    }


def answer_with(visit: Visit, made: dict[str, Any]) -> None:
    """Let the service's address answer this."""
    ExplainAnswer.model_validate(made)  # the contract holds for what is made up as well

    def fulfil(route: Route) -> None:
        route.fulfill(status=200, content_type="application/json", body=json.dumps(made))

    visit.page.route("**/explain*", fulfil)
