"""Tensors of the Open Inference Protocol <-> images and scores. What its REST and its gRPC form share; knows neither.

Source: github.com/kserve/open-inference-protocol; Triton Inference Server, docs/protocol/extension_classification.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.errors import BodyTooLarge, InvalidParameter, MalformedRequest, ModelNotFound
from app.oip_binary import elements, packed
from app.sources import decode_base64
from model.errors import ImageError
from model.types import ModelInfo, ScoreFunction

if TYPE_CHECKING:
    from app.classifier import Classified, Classifier, Wanted
    from app.context import Deadline

MOST_ID = 1024  # characters of a request's own name, which comes back in the answer
VERSION = "1"  # of the model: whichever serves, since there is one at a time
EXTENSIONS = ("classification", "binary_tensor_data", "model_repository")
OUTPUTS: dict[str, ScoreFunction] = {"probabilities": "softmax", "logits": "none"}
_KINDS: dict[str, str] = {"UINT8": "|u1", "FP32": "<f4"}  # datatype -> of numpy, as the binary form has it
_SHARED_MEMORY = "shared_memory_region"

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Spec:
    """A tensor as the model's metadata names it; -1 stands for the number of images."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers that take time to read: how many they are, and what reads them, in the order of rows."""

    size: int
    read: Callable[[], Array]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input as it came.

    `data` is either in the binary form (bytes), or numbers in the order of rows, or the elements of BYTES: bytes, or texts of
    base64 where the wire has nothing but texts.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    data: bytes | memoryview | Array | Numbers | Sequence[bytes | str]


@dataclass(frozen=True, slots=True)
class Requested:
    """An output as it is asked for; with `classes` it is the best so many of each image, as texts."""

    name: str
    classes: int = 0
    binary: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """An output as it is answered: float32 (images, classes), or the texts of a classification, image by image."""

    name: str
    datatype: str
    shape: tuple[int, int]
    data: Array | list[str]
    binary: bool

    def raw(self) -> bytes:
        """In the binary form."""
        if isinstance(self.data, list):
            return packed(text.encode() for text in self.data)
        return self.data.astype("<f4", copy=False).tobytes()


def check_model(name: str, version: str, serving: str) -> None:
    """Raises ModelNotFound where it is not the model that serves, in its one version; no version is any."""
    if name != serving:
        raise ModelNotFound(name, [serving])
    if version not in ("", VERSION):
        raise ModelNotFound(f"{name}, version {version}", [f"{name}, version {VERSION}"])


def check_id(name: str) -> None:
    """Raises MalformedRequest where a request's own name is longer than what may come back."""
    if len(name) > MOST_ID:
        raise MalformedRequest(f"the id has {len(name)} characters; at most {MOST_ID} are allowed")


def platform(info: ModelInfo) -> str:
    """What the network runs on and what it is, as PROJECT_FORMAT."""
    return ("openvino" if info.engine.value == "openvino" else "pytorch") + "_sknet"


def inputs(size: tuple[int, int]) -> tuple[Spec, ...]:
    """The inputs of a model whose network takes images of (height, width); a request gives exactly one of them."""
    height, width = size
    return (
        Spec("image", "BYTES", (-1,)),
        Spec("pixels", "UINT8", (-1, height, width, 3)),
        Spec("input", "FP32", (-1, 3, height, width)),
    )


def outputs(num_classes: int) -> tuple[Spec, ...]:
    """The outputs of a model."""
    return tuple(Spec(name, "FP32", (-1, num_classes)) for name in OUTPUTS)


def tensors(info: ModelInfo) -> tuple[tuple[Spec, ...], tuple[Spec, ...]]:
    """The inputs and the outputs of a model."""
    return inputs(info.preprocess.size), outputs(info.num_classes)


def images_of(
    tensors: Sequence[Tensor], *, size: tuple[int, int], most_images: int, most_bytes: int
) -> list[bytes | NDArray[Any]]:
    """The images of a request: encoded ones, or arrays as `Model.prepare_array` takes them, which share the request's memory.

    Of numbers it takes time in proportion to their count, of texts to their length.

    Args:
        size: (height, width) that the network takes.
        most_images: how many a request may have.
        most_bytes: how many an encoded image may have.

    Raises:
        MalformedRequest, InvalidParameter, BodyTooLarge: it is not exactly one input as the metadata describe it.
    """
    tensor, spec = _only(tensors, size)
    count = _count(tensor, spec, most_images)
    if spec.datatype == "BYTES":
        return [*_encoded(tensor, count, most_bytes)]
    shape = (count, *spec.shape[1:])
    array = _numbers(tensor, _KINDS[spec.datatype], math.prod(shape))
    return [*array.reshape(shape)]


def requested_of(
    asked: Sequence[tuple[str, Mapping[str, object]]], num_classes: int, *, binary: bool = False
) -> tuple[Requested, ...]:
    """The outputs that a request asks for by name and parameters; every one where it names none.

    Args:
        binary: whether they come in the binary form where their own `binary_data` does not say.

    Raises:
        MalformedRequest, InvalidParameter: there is no such output, or not in that way.
    """
    if not asked:
        return tuple(Requested(name, 0, binary) for name in OUTPUTS)
    names = [name for name, _ in asked]
    if len(set(names)) < len(names):
        raise MalformedRequest(f"an output is asked for more than once: {', '.join(map(repr, names))[:100]}")
    return tuple(_requested(name, parameters, num_classes, binary) for name, parameters in asked)


def wanted_of(requested: Sequence[Requested]) -> Wanted:
    """What the classifier must tell for that."""
    from app.classifier import Wanted  # here, since reading and writing tensors needs none of what a classifier does

    return Wanted(top_k=1, scores=tuple(OUTPUTS[each.name] for each in requested))


async def infer(
    classifier: Classifier, images: Sequence[bytes | Array], requested: Sequence[Requested], deadline: Deadline
) -> list[Classified]:
    """What became of each image. The protocol knows no errors of single images: the first one is the request's.

    Raises:
        AppError, ModelError: as `Classifier.tell`; of several images the text says which one it was.
    """
    wanted = wanted_of(requested)
    if len(images) == 1:
        return [await classifier.tell(images[0], wanted, deadline)]
    _, results = await classifier.tell_many(images, wanted, deadline)
    found = []
    for place, result in enumerate(results):
        if isinstance(result, Exception):
            raise _placed(result, place)
        found.append(result)
    return found


def outputs_of(results: Sequence[Classified], requested: Sequence[Requested]) -> list[Output]:
    """The outputs that were asked for, of all images together.

    Raises:
        InvalidParameter: more classes than there are, since another model came after the request was checked.
    """
    return [_output(results, each) for each in requested]


def values_of(results: Sequence[Classified], requested: Sequence[Requested]) -> int:
    """How many numbers or texts those outputs hold that are not in the binary form, where a number takes no time."""
    listed = [each for each in requested if each.classes or not each.binary]
    return sum(each.classes or result.info.num_classes for each in listed for result in results)


def check_parameters(parameters: Mapping[str, object]) -> None:
    """Raises MalformedRequest where a tensor is to come or go another way than with the request; other words are let pass."""
    if _SHARED_MEMORY in parameters:
        raise MalformedRequest("there is no shared memory here: send and take tensors with the request and its answer")


def _only(tensors: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Spec]:
    specs = {spec.name: spec for spec in inputs(size)}
    if len(tensors) != 1:
        given = ", ".join(repr(tensor.name[:50]) for tensor in tensors[:5]) or "none"
        raise MalformedRequest(f"give exactly one of the inputs {', '.join(specs)}; given: {given}")
    (tensor,) = tensors
    if tensor.name not in specs:
        raise InvalidParameter("the name of the input", tensor.name, " or ".join(specs))
    spec = specs[tensor.name]
    if tensor.datatype != spec.datatype:
        raise InvalidParameter(f"the datatype of {spec.name}", tensor.datatype, spec.datatype)
    return tensor, spec


def _count(tensor: Tensor, spec: Spec, most_images: int) -> int:
    given = tuple(tensor.shape)
    if len(given) != len(spec.shape) or given[1:] != spec.shape[1:]:
        shape = ", ".join(("N", *map(str, spec.shape[1:])))
        raise InvalidParameter(f"the shape of {spec.name}", list(given[:10]), f"[{shape}] with N images")
    if not 1 <= given[0] <= most_images:
        raise InvalidParameter("number of images", given[0], f"a whole number from 1 to {most_images}", most_images)
    return given[0]


def _encoded(tensor: Tensor, count: int, most_bytes: int) -> list[bytes]:
    data = tensor.data
    if isinstance(data, np.ndarray | Numbers):
        raise MalformedRequest("the data of image should be encoded images; it holds numbers")
    if isinstance(data, bytes | memoryview):
        data = elements(data, count, most_bytes)
    if len(data) != count:
        raise MalformedRequest(f"the data of image has {len(data)} elements; its shape announces {count}")
    found = [decode_base64(each, most_bytes) if isinstance(each, str) else each for each in data]
    for place, each in enumerate(found):
        if not each:
            raise MalformedRequest(f"image {place} is empty")
        if len(each) > most_bytes:
            raise BodyTooLarge(most_bytes, len(each))
    return found


def _numbers(tensor: Tensor, kind: str, count: int) -> Array:
    data = tensor.data
    if isinstance(data, bytes | memoryview):
        dtype = np.dtype(kind)
        if len(data) != count * dtype.itemsize:
            raise MalformedRequest(f"the data of {tensor.name} has {len(data)} bytes; its shape takes {count * dtype.itemsize}")
        return np.frombuffer(data, dtype)
    if not isinstance(data, np.ndarray | Numbers):
        held = "texts" if data else "nothing"
        raise MalformedRequest(f"the data of {tensor.name} should be numbers; it holds {held}")
    if data.size != count:
        raise MalformedRequest(f"the data of {tensor.name} has {data.size} numbers; its shape takes {count}")
    if isinstance(data, Numbers):
        data = data.read()
    if kind == "|u1" and data.dtype != np.uint8 and not ((data >= 0) & (data <= 255) & (data == np.floor(data))).all():
        raise MalformedRequest(f"the data of {tensor.name} should be whole numbers from 0 to 255")
    return data.astype(kind, copy=False)


def _requested(name: str, parameters: Mapping[str, object], num_classes: int, binary: bool) -> Requested:
    if name not in OUTPUTS:
        raise InvalidParameter("the name of an output", name, " or ".join(OUTPUTS))
    check_parameters(parameters)
    classes = parameters.get("classification", 0)
    if isinstance(classes, str):
        raise InvalidParameter("classification", classes, f"a whole number from 1 to {num_classes}, and no text")
    if "classification" in parameters and (type(classes) is not int or not 1 <= classes <= num_classes):
        raise _too_many(classes, num_classes)
    binary = parameters.get("binary_data", binary)  # type: ignore[assignment]  # checked by the next line
    if not isinstance(binary, bool):
        raise InvalidParameter("binary_data", binary, "true or false")
    return Requested(name, classes if isinstance(classes, int) else 0, binary)


def _too_many(classes: object, num_classes: int) -> InvalidParameter:
    return InvalidParameter("classification", classes, f"a whole number from 1 to {num_classes}", num_classes)


def _output(results: Sequence[Classified], asked: Requested) -> Output:
    function = OUTPUTS[asked.name]
    rows = [result.scores[function] for result in results]
    if not asked.classes:
        return Output(asked.name, "FP32", (len(rows), len(rows[0])), np.stack(rows), asked.binary)
    if asked.classes > len(rows[0]):
        raise _too_many(asked.classes, len(rows[0]))
    texts = [text for row, result in zip(rows, results, strict=True) for text in _best(row, asked.classes, result.info)]
    return Output(asked.name, "BYTES", (len(rows), asked.classes), texts, asked.binary)


def _best(row: NDArray[np.float32], count: int, info: ModelInfo) -> list[str]:
    """VALUE:INDEX:LABEL of the highest values, equal ones by index."""
    order = np.argsort(-row, kind="stable")[:count].tolist()
    return [f"{row[i]!s}:{i}:{info.labels[i].name}" for i in order]


def _placed(error: Exception, place: int) -> Exception:
    """An error of what one image holds, with its place; any other as it is."""
    text = f"image {place}, counted from 0: {error}"
    if isinstance(error, ImageError):
        return ImageError(text)
    return MalformedRequest(text) if isinstance(error, MalformedRequest) else error
