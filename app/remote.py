"""Many images through a running service, by the client: several requests at once, told in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping

from app.answers import Answer, Gone
from app.client import Client
from app.client_errors import ClientError, NotAllowed, NotFound, Unauthorised, UnexpectedAnswer, Unreachable
from app.client_results import Classification, ModelDocument
from app.image_files import Source, Unreadable
from model.types import ImageInfo, KernelAttention, Label, Prediction, UnitAttention

TIMEOUT_S = 60.0  # of one image, its tries and the pauses between them included
NO_USE = (Unreachable, Unauthorised, NotAllowed, NotFound, UnexpectedAnswer)  # the next image would get the same


class Remote:
    """A service as a `Backend`; it is asked what it serves at once.

    Raises:
        ValueError: an address or a key that cannot be used.
        Gone: it does not answer, serves nothing, or lets nobody in.
    """

    def __init__(self, server: str, key: str | None) -> None:
        self._server = server
        self._client = Client(server, key=key, timeout_s=TIMEOUT_S)
        try:
            self._model = self._serving()
        except BaseException:
            self._client.close()
            raise

    def _serving(self) -> ModelDocument:
        try:
            ready = self._client.ready()  # asked once: who has misspelt the address is not kept waiting
            models = self._client.models() if ready else []
        except ClientError as error:
            raise Gone(str(error)) from error
        if not models:
            raise Gone(f"the service at {self._server} is not ready: {'; '.join(ready.reasons) or 'it has no model'}")
        return models[0]

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def labels(self) -> tuple[Label, ...]:
        """The model's classes by index."""
        return tuple(Label(each.label, each.wnid) for each in self._model.labels)

    @property
    def about(self) -> Mapping[str, str]:
        """As `Backend.about`."""
        model = self._model
        runs = f"at {self._server}: {model.engine.value}, {model.dtype.value}, {model.device.value}"
        return {"checkpoint": model.checkpoint, "variant": model.variant, "digest": model.digest, "runs": runs}

    def classify(self, sources: Iterable[Source], *, k: int, attention: bool = False) -> Generator[Answer]:
        """As `Backend.classify`. A failure that concerns one image is its answer; one that concerns all of them is `Gone`."""
        begun: deque[tuple[str, str | None]] = deque()  # (name, why it was not sent), in order

        def images() -> Iterator[bytes]:
            for source in sources:
                try:
                    data = source.read()
                    why = None if data else "the image is empty: 0 bytes"
                except Unreadable as error:
                    data, why = b"", str(error)
                begun.append((source.name, why))
                if why is None:
                    yield data

        def not_sent() -> Iterator[Answer]:
            while begun and begun[0][1] is not None:
                name, why = begun.popleft()
                yield Answer(name, error=why)

        k = min(k, len(self._model.labels))
        for _, found in self._client.iter_classify(images(), top_k=k, explain=attention):
            yield from not_sent()
            yield _answer(begun.popleft()[0], found)
        yield from not_sent()


def _answer(name: str, found: Classification | ClientError) -> Answer:
    if isinstance(found, NO_USE):
        raise Gone(str(found)) from found
    if isinstance(found, ClientError):
        return Answer(name, error=str(found))
    predictions = tuple(Prediction(p.index, p.label, p.score, p.wnid) for p in found.predictions)
    return Answer(name, predictions, ImageInfo(found.image.width, found.image.height, found.image.format), _attention(found))


def _attention(found: Classification) -> KernelAttention | None:
    if found.kernel_attention is None:
        return None
    units = tuple(
        UnitAttention(
            unit.unit,
            unit.module,
            tuple(unit.kernel_sizes),
            unit.channels,
            tuple(unit.mean_attention),
            unit.attention_difference,
            unit.mean_kernel_size,
        )
        for unit in found.kernel_attention
    )
    return KernelAttention(units, bool(found.comparable_to_paper), found.comparable_reason or "")
