"""A client of the service, for programs: typed answers, typed errors, retries within a deadline.

    from app.client import Client

    with Client("http://127.0.0.1:8000") as client:
        print(client.classify("photo.jpg").best.label)

`AsyncClient` is the same with `await`. Neither knows anything of models: torch is never imported, nor is the web framework.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

import httpx

from app import client_wire as wire
from app.client_async import AsyncClient
from app.client_errors import (
    BadImage,
    CheckpointRefused,
    ClientError,
    DeadlinePassed,
    DeadlineProblem,
    InvalidRequest,
    NotAllowed,
    NotFound,
    NotReady,
    Overloaded,
    ProblemError,
    ServerFault,
    TooLarge,
    Unauthorised,
    UnexpectedAnswer,
    Unreachable,
    UnusableImage,
)
from app.client_failures import BROKEN_OFF, Answer, failure_of, hold, keep_here, no_answer
from app.client_images import ImageLike, encoded
from app.client_order import in_order
from app.client_progress import Progress, shown
from app.client_results import Classification, Explanation, ModelDocument, Prediction, Readiness, Unloaded
from app.client_retries import POLL_S, Attempts
from app.client_trace import continuing

T = TypeVar("T")
ImageT = TypeVar("ImageT", bound=ImageLike)


class Client:
    """A service, asked from any number of threads.

    Args:
        base_url: where the service is, with the path before its own where a proxy adds one.
        key: sent as `Authorization: Bearer`, to that address only: redirects are not followed.
        timeout_s: deadline of one image or question with all its retries; each try tells the service what is left. A service
            that sends the head of its answer in drops can exceed it; with `AsyncClient` nothing can.
        retries: most retries of one image; None for as many as the deadline has room for.
        concurrency: images under way at once in `classify_many`.
        transport: of httpx, for tests, or for certificates and proxies of one's own.
        trust_env: whether the environment's proxies are used.

    Raises:
        ValueError: an argument that cannot be used.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: float = 10.0,
        retries: int | None = None,
        concurrency: int = 8,
        transport: httpx.BaseTransport | None = None,
        trust_env: bool = False,
    ) -> None:
        self._service = wire.Service(base_url, key, timeout_s, retries, concurrency)
        hooks = {"response": [keep_here]}
        self._http = httpx.Client(transport=transport, trust_env=trust_env, limits=wire.LIMITS, event_hooks=hooks)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._service.address!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Nothing can be asked afterwards."""
        self._http.close()

    def classify(
        self, image: ImageLike, *, top_k: int | None = None, min_score: float | None = None, explain: bool = False
    ) -> Classification:
        """The best classes of one image.

        Args:
            image: a path, the bytes of a file, an open file, a Pillow image, or a numpy array of uint8 (H, W, 3) or (H, W).
            top_k: how many classes; what the service's settings say where None.
            min_score: leave out classes below it, 0 to 1.
            explain: with kernel attention.

        Raises:
            ClientError: one of its kinds.
        """
        return self._send(wire.classify(encoded(image), top_k=top_k, min_score=min_score, explain=explain))

    def iter_classify(
        self,
        images: Iterable[ImageT],
        *,
        top_k: int | None = None,
        min_score: float | None = None,
        explain: bool = False,
        concurrency: int | None = None,
    ) -> Iterator[tuple[ImageT, Classification | ClientError]]:
        """Each image with its ranking or its error, in the order of the images, as they become known.

        The images are taken from `images` little by little, and files are read when their turn comes. Leaving the loop stops the
        rest; images under way are waited for.
        """

        def ask(image: ImageT, left: threading.Event) -> Classification:
            call = wire.classify(encoded(image), top_k=top_k, min_score=min_score, explain=explain)
            return self._send(call, left=left)

        return in_order(images, ask, self._service.at_once(concurrency))

    def classify_many(
        self,
        images: Iterable[ImageLike],
        *,
        top_k: int | None = None,
        min_score: float | None = None,
        explain: bool = False,
        concurrency: int | None = None,
        progress: Progress = False,
    ) -> list[Classification | ClientError]:
        """The ranking or the error of every image, in their order.

        Args:
            concurrency: images under way at once; what the client was made with where None.
            progress: True for a bar on standard error, or a function of (images done, of how many or None).
        """
        found = []
        with shown(progress, images) as count:
            each = self.iter_classify(images, top_k=top_k, min_score=min_score, explain=explain, concurrency=concurrency)
            for _, result in each:
                found.append(result)
                count()
        return found

    def explain(self, image: ImageLike, *, class_index: int | None = None, top_k: int | None = None) -> Explanation:
        """Kernel attention, scale sweep and class activation map, for a class or the best one."""
        return self._send(wire.explanation(encoded(image), class_index=class_index, top_k=top_k))

    def figure(self, image: ImageLike, *, class_index: int | None = None, top_k: int | None = None) -> bytes:
        """The same drawn, as a PNG."""
        return self._send(wire.picture(encoded(image), class_index=class_index, top_k=top_k))

    def overlay(self, image: ImageLike, *, class_index: int | None = None) -> bytes:
        """The image under its class activation map, as a PNG of its own size."""
        return self._send(wire.picture(encoded(image), class_index=class_index, overlay=True))

    def models(self) -> list[ModelDocument]:
        """Every model of the service."""
        return self._send(wire.models())

    def model(self, name: str) -> ModelDocument:
        """One of them. Raises NotFound where there is none of that name."""
        return self._send(wire.model(name))

    def ready(self) -> Readiness:
        """Whether the service answers now, asked once.

        Raises:
            Unreachable, UnexpectedAnswer: there is no such service.
        """
        try:
            return self._send(wire.readiness(), attempts=Attempts(self._service.timeout_s, most=0))
        except NotReady as error:
            return Readiness(False, error.reasons or (str(error),))

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return once the service is ready.

        Raises:
            NotReady, Unreachable, DeadlinePassed: it was not within that time.
        """
        self._send(wire.readiness(), attempts=Attempts(timeout_s, longest_s=POLL_S))

    def load(self, name: str, checkpoint: str | None = None, *, timeout_s: float = 300.0) -> ModelDocument:
        """Put another checkpoint in the place of what serves; without one, what the service's settings name. Needs an admin key.

        Raises:
            CheckpointRefused: it cannot serve, and nothing changed.
            DeadlinePassed: the service goes on loading.
        """
        return self._send(wire.load(name, checkpoint), timeout_s=timeout_s)

    def unload(self, name: str, *, timeout_s: float = 60.0) -> Unloaded:
        """Serve nothing until something is loaded. Needs an admin key."""
        return self._send(wire.unload(name), timeout_s=timeout_s)

    def _send(
        self,
        call: wire.Call[T],
        *,
        timeout_s: float | None = None,
        attempts: Attempts | None = None,
        left: threading.Event | None = None,
    ) -> T:
        """Try until there is an answer. Once `left` is set, nothing is tried again."""
        tries = attempts or self._service.attempts(call, timeout_s)
        left = left or threading.Event()
        while True:
            try:
                answer = self._ask(call, tries)
                failure = failure_of(answer)
            except BROKEN_OFF as error:
                failure = no_answer(error, self._service.address, tries.timeout_s)
            if failure is None:
                return call.read(answer)
            failure.request_id = call.id
            if left.wait(tries.pause_after(failure)):
                raise failure

    def _ask(self, call: wire.Call[T], tries: Attempts) -> Answer:
        """One try. httpx bounds each write and read, not all of them together: the time is looked at in between."""
        request = self._service.request(call, tries.begin(), tries.bounded)
        response = self._http.send(request, stream=True)
        try:
            body = bytearray()
            for piece in response.iter_bytes():
                body += piece
                hold(len(body), call.most_bytes, self._service.address)
                if not tries.left_s:
                    raise TimeoutError("the deadline passed while the answer came")
            return Answer(response.status_code, response.headers, bytes(body))
        finally:
            response.close()


__all__ = [
    "AsyncClient",
    "BadImage",
    "CheckpointRefused",
    "Classification",
    "Client",
    "ClientError",
    "DeadlinePassed",
    "DeadlineProblem",
    "Explanation",
    "InvalidRequest",
    "ModelDocument",
    "NotAllowed",
    "NotFound",
    "NotReady",
    "Overloaded",
    "Prediction",
    "ProblemError",
    "Readiness",
    "ServerFault",
    "TooLarge",
    "Unauthorised",
    "UnexpectedAnswer",
    "Unloaded",
    "Unreachable",
    "UnusableImage",
    "continuing",
]
