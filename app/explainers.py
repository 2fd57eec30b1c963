"""Who explains an image to the command line: a model loaded here, or a service. Knows no command and prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.client import Client, ClientError
from app.schemas.explain import ExplainAnswer
from model.classes import AmbiguousClass, Classes, UnknownClass
from model.errors import ModelError
from model.types import Label

if TYPE_CHECKING:
    from app.settings import Settings


class NotExplained(Exception):
    """No answer; the text is one line that says why."""


@dataclass(frozen=True)
class Wanted:
    """Which parts of an explanation: of which class, in which form the figure if there is to be one, whether the overlay.

    With `top_k` None it is the settings' number of classes, or the service's.
    """

    top_k: int | None = None
    class_name: str | None = None
    figure: str | None = None
    overlay: bool = False


@dataclass(frozen=True)
class Told:
    """An explanation as the service tells it, and the pictures that were wanted."""

    answer: ExplainAnswer
    figure: bytes = b""
    overlay: bytes = b""


def here(settings: Settings, data: bytes, wanted: Wanted) -> Told:
    """Explain an encoded image by a model that is loaded for it.

    Raises:
        NotExplained: no model, no image, no such class, or no plotting library.
    """
    from app.main import load_model
    from app.routes.explain import answer_of

    try:
        with closing(load_model(settings)) as model:
            if wanted.figure:
                model.check_figures()  # said before the work
            index = None if wanted.class_name is None else _index(model.info.labels, wanted.class_name)
            items, size = model.explain_items(data), max(1, model.info.batch_size)
            rows = [row for start in range(0, len(items), size) for row in model.run(items[start : start + size])]
            k = min(wanted.top_k or settings.top_k, model.info.num_classes)
            explanation = model.explanation(items, rows, k=k, class_index=index)
            answer = ExplainAnswer.model_validate(answer_of(explanation, model.info, settings.model_name))
            figure = model.figure(data, explanation, wanted.figure) if wanted.figure else b""
            return Told(answer, figure, model.overlay(data, explanation) if wanted.overlay else b"")
    except ModelError as error:
        raise NotExplained(str(error)) from None


def there(make: Callable[[], Client], data: bytes, wanted: Wanted) -> Told:
    """Have a service explain an encoded image. A picture is asked for by itself: the service explains the image once more for it.

    Raises:
        NotExplained: it cannot be reached, says no, or has no such class.
    """
    try:
        with make() as client:
            ready = client.ready()  # asked once: who waits at a terminal had better know
            if not ready:
                raise NotExplained(f"the service is not ready: {'; '.join(ready.reasons)}")
            index = None
            if wanted.class_name is not None:
                (model, *_) = client.models()
                index = _index([Label(each.label, each.wnid) for each in model.labels], wanted.class_name)
            answer = client.explain(data, class_index=index, top_k=wanted.top_k)
            figure = client.figure(data, class_index=index, top_k=wanted.top_k) if wanted.figure else b""
            return Told(answer, figure, client.overlay(data, class_index=index) if wanted.overlay else b"")
    except ClientError as error:
        raise NotExplained(str(error)) from None


def _index(labels: Sequence[Label], name: str) -> int:
    try:
        return Classes(labels).index_of(name)
    except (AmbiguousClass, UnknownClass) as error:
        raise NotExplained(str(error)) from None
