"""Scores become outputs, with what the model that told them has, whichever the request was checked against."""

from __future__ import annotations

import numpy as np
import pytest

from app.classifier import Classified
from app.context import Timings
from app.errors import InvalidParameter
from app.oip import Requested, outputs_of
from tests.fakes import FakeItem, fake_info


def told(classes: int) -> Classified:
    """What became of an image whose model has so many classes; the last one is the best."""
    scores = np.arange(classes, dtype=np.float32)
    return Classified((), FakeItem(b"").image, fake_info(), Timings(0, 0, 0), scores={"softmax": scores})


def test_a_model_of_fewer_classes_came_after_the_request_was_checked() -> None:
    (output,) = outputs_of([told(5)], [Requested("probabilities", 5)])
    assert output.shape == (1, 5)
    assert len(output.data) == 5
    with pytest.raises(InvalidParameter, match="classification is '6': it may be a whole number from 1 to 5"):
        outputs_of([told(5)], [Requested("probabilities", 6)])
