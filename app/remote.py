"""Many images through a running service, by the client: several requests at once, told in order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping

from app.answers import Answer, Gone
from app.client import Client
from app.client_errors import ClientError, NotAllowed, NotFound, Unauthorised, UnexpectedAnswer, Unreachable, UnusableImage
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
        """As `Backend.classify`. A failure that concerns one image is its answer; one that concerns all of them is `Gone`;
        so is another model in the place of the one that was asked about."""
        k = min(k, len(self._model.labels))
        for image, found in self._client.iter_classify(map(_AtItsTurn, sources), top_k=k, explain=attention):
            answer = _answer(image.name, found)
            if isinstance(found, Classification) and found.model.digest != self._model.digest:
                raise Gone(f"the service at {self._server} serves another model now")  # whose classes may be others
            yield answer


class _AtItsTurn:
    """An image for the client, which takes many ahead: none is in memory before it is sent."""

    def __init__(self, source: Source) -> None:
        self.name = source.name
        self._source = source

    def read(self) -> bytes:
        """The encoded image.

        Raises:
            UnusableImage: there is nothing to send; the text does not name it.
        """
        try:
            data, why = self._source.read(), "the image is empty: 0 bytes"
        except Unreadable as error:
            data, why = b"", str(error)
        if not data:
            raise UnusableImage(why)  # outside, so that it holds on to nothing of the other
        return data


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
