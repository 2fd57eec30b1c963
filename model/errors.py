"""What can go wrong below HTTP.

    ModelError
    ├── ArchitectureError      constructor arguments that make no network
    ├── UnknownVariant         no such name in the registry
    ├── CheckpointError        weights that cannot be used
    │   ├── CheckpointNotFound     nothing where the reference points
    │   ├── CheckpointUnsafe       a pickle that asks for more than tensors
    │   ├── CheckpointMismatch     tensors that do not fit the network
    │   └── CheckpointCorrupt      damaged file, wrong hash, unreadable configuration
    ├── DeviceError            a device or precision this machine does not have
    ├── EngineError            the engine failed on inputs that were in order
    │   ├── GraphError             no exported graph, and none can be made
    │   └── OutOfMemory            a batch larger than the device's memory holds
    ├── DecoderUnavailable     no process to decode in; come back in `retry_after` seconds
    ├── FiguresUnavailable     the plotting library is not installed
    ├── DrawingFailed          a figure that should have been drawn was not
    ├── DrawingUnavailable     no process to draw in, or it did not finish; come back in `retry_after` seconds
    └── ImageError             bytes that are no usable image
        ├── ImageUndecodable       not an image, or truncated
        ├── ImageUnsupported       an image, of a format that is not accepted
        ├── ImageTooLarge          more pixels than allowed
        ├── TensorUnusable         numbers that are no input of the network
        └── ImageOverLimit         more of anything else: sides, frames, metadata, time or memory of decoding

Errors carry their numbers as attributes and know nothing of status codes: `app.problems` has the one table of those.
The text of a `ModelError` is written for people and safe to show; the text of anything else is not.
"""

from __future__ import annotations


class ModelError(Exception):
    """Base of everything this package raises on purpose."""


class ArchitectureError(ModelError, ValueError):
    """Constructor arguments that describe no valid network."""


class UnknownVariant(ModelError, LookupError):
    """A variant, weights or bundled name that the registry does not know."""

    def __init__(self, kind: str, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown {kind} {name!r}: known are {', '.join(known)}")
        self.kind = kind
        self.name = name
        self.known = known


class CheckpointError(ModelError):
    """Weights that cannot be used."""


class CheckpointNotFound(CheckpointError):
    """Nothing where the reference points."""


class CheckpointUnsafe(CheckpointError):
    """A pickle that asks for more than tensors and plain containers."""


class CheckpointMismatch(CheckpointError):
    """Tensors that do not fit the network they were meant for."""


class CheckpointCorrupt(CheckpointError):
    """A damaged file, a wrong hash, or a configuration that cannot be read."""


class DeviceError(ModelError):
    """A device or precision that this machine does not have."""


class EngineError(ModelError):
    """The engine failed although its inputs were in order."""


class GraphError(EngineError):
    """There is no exported graph of a checkpoint, and none can be made here."""


class OutOfMemory(EngineError):
    """The device had no memory for a batch: a smaller one may run."""


class DecoderUnavailable(ModelError):
    """The image may be in order, but there is no process to decode it in. `retry_after` in seconds."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class FiguresUnavailable(ModelError):
    """Figures are drawn by a library that is not installed here."""

    def __init__(self) -> None:
        super().__init__("figures need the extra that draws them: pip install 'sknet-serve[figures]'")


class DrawingFailed(ModelError):
    """A figure could not be drawn although everything it needs was there."""


class DrawingUnavailable(ModelError):
    """There is no process to draw a figure in at present, or it did not finish in time. `retry_after` in seconds."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ImageError(ModelError, ValueError):
    """Bytes that are no usable image."""


class ImageUndecodable(ImageError):
    """Not an image at all, or a damaged one."""


class ImageUnsupported(ImageError):
    """An image in a format that is not on the allow-list."""

    def __init__(self, given: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"the image format {given} is not supported; allowed are {', '.join(allowed)}")
        self.given = given
        self.allowed = allowed


class ImageTooLarge(ImageError):
    """More pixels than allowed, read from the header before decoding."""

    def __init__(self, width: int, height: int, limit: int) -> None:
        super().__init__(f"the image has {width} x {height} = {width * height} pixels; at most {limit} are allowed")
        self.width = width
        self.height = height
        self.value = width * height
        self.limit = limit


class TensorUnusable(ImageError):
    """An array that is no input of the network: its kind, its shape, or a number in it."""


class ImageOverLimit(ImageError):
    """More of something than allowed; `value` where it is known, at least as far as it was counted."""

    def __init__(self, message: str, limit: float, value: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.value = value
