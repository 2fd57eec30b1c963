"""What is asked of a service: each call as a request, and how its answer is read. It sends nothing.

A service that is newer may add fields to its answers. Its shapes forbid what they do not describe, which is right for what is
written to it; here the same shapes are read with everything else left out.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from app.client_errors import UnexpectedAnswer
from app.client_failures import Answer
from app.client_results import Classification, Explanation, ModelDocument, Readiness, Unloaded
from app.client_retries import Attempts
from app.client_trace import trace_headers
from app.schemas.native import ModelsAnswer, Ready

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)
_KEY = re.compile(r"[\x21-\x7e]+")  # what a header can hold; which of them are keys the service decides
PNG = "image/png"
MOST_BYTES = 32_000_000  # of an answer, unpacked: the labels of a hundred thousand classes have room
MOST_PICTURE_BYTES = 512_000_000  # of a picture: what the service takes at most is 150 MB of pixels by default
# Shorter than the service keeps an idle connection, so that no request meets one that is just being closed. How many there are
# is bounded by who asks.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=3.0)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One thing asked of a service. The id is the same for all tries: it names what was asked for, so that one search in the
    service's log finds everything that became of it; tries are told apart by their times.
    """

    method: str
    path: str
    read: Callable[[Answer], T]
    params: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    idempotent: bool = True
    most_bytes: int = MOST_BYTES
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    trace: Mapping[str, str] = field(default_factory=trace_headers)  # of who asks, for all tries


@dataclass(frozen=True, slots=True)
class Service:
    """Where a service is, and how it is asked.

    Raises:
        ValueError: an address, a key or a number that cannot be used; the text never holds the key.
    """

    address: str
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 10.0
    retries: int | None = None
    concurrency: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", _address(self.address))
        if self.key is not None and not _KEY.fullmatch(self.key):
            raise ValueError("the key is empty or holds white space or characters that are not ASCII; is a line end behind it?")
        if not 0 < self.timeout_s < float("inf"):
            raise ValueError(f"timeout_s is {self.timeout_s!r}: it may be a number of seconds above 0")
        if self.retries is not None and self.retries < 0:
            raise ValueError(f"retries is {self.retries!r}: it may be 0 or more, or None for as many as the time allows")
        self.at_once(self.concurrency)

    def request(self, call: Call[T], left_s: float, bounded: Callable[[bytes], Iterator[bytes]] | None = None) -> httpx.Request:
        """The HTTP request of one try, which has so many seconds; `bounded` gives its body in pieces while there is time."""
        headers = {
            "User-Agent": "sknet-client",
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",  # what every httpx can read
            "X-Request-ID": call.id,
            "X-Timeout-Ms": str(max(1, int(left_s * 1000))),
            **call.trace,
            **call.headers,
        }
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"  # RFC 6750, section 2.1
        timeout = httpx.Timeout(left_s).as_dict()
        content: bytes | Iterator[bytes] | None = call.content
        if bounded and call.content:
            content, headers["Content-Length"] = bounded(call.content), str(len(call.content))
        return httpx.Request(
            call.method,
            self.address + call.path,
            params=dict(call.params) or None,
            headers=headers,
            content=content,
            extensions={"timeout": timeout},
        )

    def at_once(self, concurrency: int | None) -> int:
        """How many images may be under way. Raises ValueError where nothing would ever be sent."""
        count = self.concurrency if concurrency is None else concurrency
        if count < 1:
            raise ValueError(f"concurrency is {count!r}: it may be a whole number from 1 up")
        return count

    def attempts(self, call: Call[T], timeout_s: float | None = None) -> Attempts:
        """The tries of a call, of which the time begins now. What may take longer is not tried for longer."""
        return Attempts(timeout_s or self.timeout_s, most=self.retries, idempotent=call.idempotent, again_s=self.timeout_s)


def _address(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError(f"the address cannot be read: {error}") from None
    if url.userinfo:
        raise ValueError("the address holds a user or a password; give the key as `key`")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment or (url.port or 0) > 65_535:
        raise ValueError(f"the address is {text!r}: it may be like http://127.0.0.1:8000 or https://example.org/classifier")
    return str(url).rstrip("/")


def classify(
    data: bytes, *, top_k: int | None = None, min_score: float | None = None, explain: bool = False
) -> Call[Classification]:
    """`POST /classify` with the bytes as they are."""
    asked = {"top_k": top_k, "min_score": min_score, "explain": "kernel_attention" if explain else None}
    return _image("/classify", data, asked, lambda answer: _parse(Classification, answer))


def explanation(data: bytes, *, class_index: int | None = None, top_k: int | None = None) -> Call[Explanation]:
    """`POST /explain` in JSON."""
    asked = {"class_index": class_index, "top_k": top_k}
    return _image("/explain", data, asked, lambda answer: _parse(Explanation, answer))


def picture(data: bytes, *, class_index: int | None = None, top_k: int | None = None, overlay: bool = False) -> Call[bytes]:
    """`POST /explain` as a PNG: the figure, or the image with the activation map over it."""
    asked = {"class_index": class_index, "top_k": top_k, "picture": "overlay" if overlay else None}
    return _image("/explain", data, asked, _png, accept=PNG, most_bytes=MOST_PICTURE_BYTES)


def models() -> Call[list[ModelDocument]]:
    """`GET /models`."""
    return Call("GET", "/models", lambda answer: _parse(ModelsAnswer, answer).models)


def model(name: str) -> Call[ModelDocument]:
    """`GET /models/{name}`."""
    return Call("GET", _path(name), lambda answer: _parse(ModelDocument, answer))


def readiness() -> Call[Readiness]:
    """`GET /readyz`; an answer that says no is a NotReady."""

    def read(answer: Answer) -> Readiness:
        said = _parse(Ready, answer)
        return Readiness(said.ready, tuple(said.reasons))

    return Call("GET", "/readyz", read)


def load(name: str, checkpoint: str | None) -> Call[ModelDocument]:
    """`POST /models/{name}/load`. Sent again only while it has not arrived: a load that broke off may go on there."""
    asked = {} if checkpoint is None else {"checkpoint": checkpoint}
    return Call(
        "POST",
        f"{_path(name)}/load",
        lambda answer: _parse(ModelDocument, answer),
        content=json.dumps(asked).encode(),
        headers={"Content-Type": "application/json"},
        idempotent=False,
    )


def unload(name: str) -> Call[Unloaded]:
    """`POST /models/{name}/unload`, as `load`."""
    return Call("POST", f"{_path(name)}/unload", lambda answer: _parse(Unloaded, answer), content=b"", idempotent=False)


def _path(name: str) -> str:
    return f"/models/{quote(name, safe='')}"


def _image(
    path: str,
    data: bytes,
    asked: Mapping[str, object],
    read: Callable[[Answer], T],
    *,
    accept: str = "application/json",
    most_bytes: int = MOST_BYTES,
) -> Call[T]:
    headers = {"Content-Type": "application/octet-stream", "Accept": accept}
    params = {name: str(value) for name, value in asked.items() if value is not None}
    return Call("POST", path, read, params, data, headers, most_bytes=most_bytes)


def _parse(shape: type[ModelT], answer: Answer) -> ModelT:
    try:
        return shape.model_validate_json(answer.body, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        media = answer.headers.get("content-type", "no Content-Type")[:100]
    raise UnexpectedAnswer(f"the answer ({media}) is not what this service sends: {where}: {first['msg']}")


def _png(answer: Answer) -> bytes:
    if not answer.body.startswith(b"\x89PNG\r\n\x1a\n"):
        raise UnexpectedAnswer(f"the answer ({answer.headers.get('content-type', 'no Content-Type')[:100]}) is no PNG")
    return answer.body
