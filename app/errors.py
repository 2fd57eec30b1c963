"""What can go wrong between the socket and the model.

    AppError
    ├── MalformedRequest      the request cannot be read
    ├── InvalidParameter      a parameter or header out of range
    ├── InstanceUnusable      one of several images that are answered together or not at all
    ├── BodyTooLarge          refused from Content-Length, or by counting
    ├── BodyTimeout           the body did not arrive in time
    ├── UnsupportedMedia      a media type that is not accepted
    ├── NotAcceptable         an answer in a form that this service cannot make
    ├── Unauthorised          no key, or one that is not known
    ├── ScopeForbidden        a key that may do other things, or admin calls where nothing opened them
    ├── ReferenceForbidden    weights from where the settings allow none
    ├── CheckpointRefused     weights that were asked for and cannot serve
    ├── SourceForbidden       an image from where the settings allow none
    ├── SourceUnreachable     an image that could not be fetched
    ├── RouteNotFound         a path that no route has
    ├── ModelNotFound         no model of that name
    ├── Overloaded            no room; come back in `retry_after` seconds
    ├── RateLimited           too many requests of one key; come back in `retry_after` seconds
    ├── NotReady              no model serves yet, or no longer; or who should load one ended
    └── DeadlinePassed        the answer would come too late

As in `model.errors`: numbers as attributes, no status codes (`app.problems` has them), texts that are safe to show.
"""

from __future__ import annotations

from collections.abc import Sequence


class AppError(Exception):
    """Base of everything this package raises on purpose."""


def _in_time(text: str, limit_s: float, none_left: str) -> str:
    """A text with a time in it, to 0.1 ms; where less is left, the text without: of a call over gRPC no more is known by then."""
    seconds = f"{limit_s:.4f}".rstrip("0").rstrip(".")
    return none_left if limit_s < 0.00005 else text.format(f"{seconds} seconds")


class MalformedRequest(AppError):
    """The request cannot be read; the text says how it should look."""


class InvalidParameter(AppError):
    """A parameter or header out of range."""

    def __init__(self, name: str, value: object, allowed: str, limit: float | None = None) -> None:
        super().__init__(f"{name} is {str(value)[:100]!r}: it may be {allowed}")
        self.name = name
        self.value = value if isinstance(value, int) else str(value)[:100]
        self.limit = limit


class InstanceUnusable(AppError):
    """One of several images, in a protocol that has no place for an error of its own. `name` says which one it is."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(f"instances[{index}]: {why}")
        self.name = f"instances[{index}]"


class BodyTooLarge(AppError):
    """More bytes than allowed. `value` is what was announced or, where nothing was, counted until it was refused."""

    def __init__(self, limit: int, value: int) -> None:
        super().__init__(f"the body has {value} bytes or more; at most {limit} are allowed")
        self.limit = limit
        self.value = value


class BodyTimeout(AppError):
    """The body did not arrive in time."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(_in_time("the body did not arrive within {}", limit_s, "the deadline passed before the body arrived"))
        self.limit = limit_s


class UnsupportedMedia(AppError):
    """A media type, or a coding of the body, that is not accepted. `header` says which of them it is."""

    def __init__(self, given: str, allowed: Sequence[str], header: str = "Content-Type") -> None:
        super().__init__(f"the {header} {given[:100]!r} is not accepted; send {', '.join(allowed)}")
        self.value = given[:100]
        self.allowed = tuple(allowed)


class Unauthorised(AppError):
    """No key, or one that is not known; the text never tells which keys there are. `given`: there was one."""

    def __init__(self, *, given: bool) -> None:
        super().__init__(
            "this key is not known here" if given else "send a key in the header authorization: Bearer KEY, or x-api-key: KEY"
        )
        self.given = given


class ScopeForbidden(AppError):
    """A key without the scope that the call needs, or an admin call where neither keys nor the settings opened it."""

    def __init__(self, message: str, needed: str) -> None:
        super().__init__(message)
        self.allowed = (needed,)


class ReferenceForbidden(AppError):
    """Weights from a place that may not be named over HTTP."""

    def __init__(self, given: str, allowed: Sequence[str]) -> None:
        super().__init__(f"the checkpoint {given[:100]!r} may not be loaded over HTTP; allowed: {', '.join(allowed)}")
        self.value = given[:100]
        self.allowed = tuple(allowed)


class CheckpointRefused(AppError):
    """Weights that were asked for and cannot serve: what served before still does. The text is a `ModelError`'s."""


class SourceForbidden(AppError):
    """An image from a place that the settings do not allow."""


class SourceUnreachable(AppError):
    """An image that could not be fetched from where it should come from."""


class NotAcceptable(AppError):
    """An answer in a form that this service cannot make. `allowed` are media types that it can."""

    def __init__(self, text: str, allowed: Sequence[str]) -> None:
        super().__init__(text)
        self.allowed = tuple(allowed)


class RouteNotFound(AppError):
    """A path that no route has."""

    def __init__(self, path: str) -> None:
        super().__init__(f"There is no route {repr(path[:200])[1:-1]}.")


class ModelNotFound(AppError):
    """No model of that name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"there is no model {name[:100]!r}; there is {', '.join(known)}")
        self.value = name[:100]


class Overloaded(AppError):
    """No room at present. `retry_after` in seconds."""

    def __init__(self, what: str, limit: int, retry_after: int) -> None:
        super().__init__(f"the service is at its limit of {limit} {what}; try again in {retry_after} s")
        self.limit = limit
        self.retry_after = retry_after


class RateLimited(AppError):
    """Too many requests of one key or client. `limit` in requests a second, `retry_after` in seconds."""

    def __init__(self, limit: float, retry_after: int) -> None:
        super().__init__(f"more than {limit:g} requests a second; try again in {retry_after} s")
        self.limit = limit
        self.retry_after = retry_after


class NotReady(AppError):
    """No model serves yet, or no longer, or a worker ended that should load one. `retry_after` in seconds."""

    def __init__(self, reasons: Sequence[str], retry_after: int = 1) -> None:
        super().__init__("the service is not ready: " + "; ".join(reasons))
        self.reasons = tuple(reasons)
        self.retry_after = retry_after


class DeadlinePassed(AppError):
    """The answer would come too late."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(_in_time("the deadline of {} passed", limit_s, "the deadline passed"))
        self.limit = limit_s
