"""What can go wrong between a caller and a service, sorted by what the caller does about it.

    ClientError
    ├── UnusableImage          nothing was sent: no such file, an array of another kind; give another image
    ├── Unreachable            no answer came: refused, closed, reset, no such host
    ├── DeadlinePassed         the answer did not come in time
    ├── UnexpectedAnswer       what answered is not this service; look at the address
    └── ProblemError           the service, or a proxy before it, answered with a problem
        ├── Unauthorised       no key, or one that is not known there; give another
        ├── NotAllowed         the key may not do this
        ├── NotFound           no such model, no such route
        ├── InvalidRequest     a parameter out of range, or anything else to be put right in the calling code
        ├── BadImage           the image cannot be classified; leave it out
        │   └── TooLarge       too many bytes or pixels; send a smaller one
        ├── CheckpointRefused  the weights cannot serve; what served before still does
        ├── Overloaded         too much at once; come back later
        ├── NotReady           no model serves at present; come back later
        ├── DeadlineProblem    the service had not enough time; also a DeadlinePassed
        └── ServerFault        a fault of the service, in its log under `request_id`

No status codes (`app.client_failures` has them) and nothing of the HTTP library. Texts are one line and hold no key. All of
them can be pickled.
"""

from __future__ import annotations

from typing import Any


class ClientError(Exception):
    """Base of everything that the client raises on purpose."""

    temporary: bool = False  # the same request may well succeed a little later
    tries: int = 0  # requests that were sent for it
    request_id: str | None = None  # what to look for in the service's log; the same for all tries


class UnusableImage(ClientError):
    """What was given cannot be sent as an image."""


class Unreachable(ClientError):
    """No answer came."""

    temporary = True
    sent: bool = True  # the request may have reached the service


class DeadlinePassed(ClientError):
    """The answer did not come in time. `__cause__` is the failure of the try before, where there was one."""


class UnexpectedAnswer(ClientError):
    """What answered is not this service."""


class ProblemError(ClientError):
    """An answer that is a problem, as RFC 9457, section 3.1 names its parts.

    From a proxy, whose answer is no problem document, `type` is `about:blank` and the title that of the status. Members that have
    no name here are in `extensions`.
    """

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    detail: str = ""
    parameter: str | None = None
    limit: Any = None
    value: Any = None
    allowed: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    retry_after_s: float | None = None  # seconds from when the answer came, where it said so

    def __init__(self, text: str = "", *, extensions: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.extensions = extensions or {}


class Unauthorised(ProblemError):
    """No key, or one that is not known there."""


class NotAllowed(ProblemError):
    """The key may not do this, or nobody may."""


class NotFound(ProblemError):
    """No such model, or no such route: an older service, or another one."""


class InvalidRequest(ProblemError):
    """A parameter out of range, or anything else that the calling code has to put right."""


class BadImage(ProblemError):
    """The image cannot be classified, however often it is sent."""


class TooLarge(BadImage):
    """Too many bytes or pixels. `limit` is what is allowed, `value` what was given."""


class CheckpointRefused(ProblemError):
    """The weights cannot serve; what served before still does."""


class Overloaded(ProblemError):
    """Too much at once, or too often."""

    temporary = True


class NotReady(ProblemError):
    """No model serves at present, or a proxy finds no service."""

    temporary = True


class DeadlineProblem(ProblemError, DeadlinePassed):
    """The service, or a proxy before it, had not enough time."""

    temporary = True


class ServerFault(ProblemError):
    """A fault of the service. It is not tried again: an image that breaks it would break it once more."""
