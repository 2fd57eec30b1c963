"""The methods of the Open Inference Protocol over gRPC: its messages to what `app.oip` reads, and back. Knows no server.

Source: the definition that `app/stubs/oip_pb2.py` is generated from, and the texts that `app.oip` names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from app import oip, threads
from app.classifier import Classified
from app.context import RequestContext
from app.errors import MalformedRequest
from app.grpc_calls import Method
from app.grpc_wire import FIELDS, Bounds
from app.references import MAX_LENGTH, allowed
from app.services import Services
from app.stubs import oip_pb2 as pb
from model.types import ModelInfo

SERVICE = "inference.GRPCInferenceService"
_STATES = {"ready": "READY", "loading": "LOADING"}  # of ours; any other is UNAVAILABLE
_MANY = 10_000  # numbers that came one by one: to copy more of them would hold the loop
_SLICE = 65_536  # of them that are copied in one call, which no other thread can interrupt
_MOST_DIMENSIONS = 16  # of a shape, before it is looked at
_FIELDS = {"UINT8": ("uint_contents", np.uint32), "FP32": ("fp32_contents", np.float32)}  # of numbers that came so


class Inference:
    """What each method answers."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._name = services.settings.model_name

    def methods(self) -> list[Method]:
        """Every method, and whom it is for, in the words that `app.access` has for HTTP."""
        name = self._name
        rows: dict[str, tuple[tuple[str, str], Any, Any]] = {
            "ServerLive": (("GET", "/v2/health/live"), pb.ServerLiveRequest, self._live),
            "ServerReady": (("GET", "/v2/health/ready"), pb.ServerReadyRequest, self._ready),
            "ServerMetadata": (("GET", "/v2"), pb.ServerMetadataRequest, self._server),
            "ModelReady": (("GET", f"/v2/models/{name}/ready"), pb.ModelReadyRequest, self._model_ready),
            "ModelMetadata": (("GET", f"/v2/models/{name}"), pb.ModelMetadataRequest, self._model),
            "ModelInfer": (("POST", f"/v2/models/{name}/infer"), pb.ModelInferRequest, self._infer),
            "RepositoryIndex": (("POST", "/v2/repository/index"), pb.RepositoryIndexRequest, self._index),
            "RepositoryModelLoad": (
                ("POST", f"/v2/repository/models/{name}/load"), pb.RepositoryModelLoadRequest, self._load
            ),
            "RepositoryModelUnload": (
                ("POST", f"/v2/repository/models/{name}/unload"), pb.RepositoryModelUnloadRequest, self._unload
            ),
        }  # fmt: skip
        return [
            Method(f"/{SERVICE}/{method}", like, request, work, images=True, bounds=self._bounds)
            if method == "ModelInfer"
            else Method(f"/{SERVICE}/{method}", like, request, work)
            for method, (like, request, work) in rows.items()
        ]

    def _bounds(self) -> Bounds:
        most = self._services.settings.max_images
        height, width = self._services.classifier.model.info.preprocess.size
        return Bounds(fields=FIELDS + most, numbers=_MOST_DIMENSIONS + most * height * width * 3)

    async def _live(self, _: Any, __: RequestContext) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def _ready(self, _: Any, __: RequestContext) -> Any:
        return pb.ServerReadyResponse(ready=not self._services.classifier.reasons)

    async def _server(self, _: Any, __: RequestContext) -> Any:
        return pb.ServerMetadataResponse(name="sknet", version=version("sknet-serve"), extensions=oip.EXTENSIONS)

    async def _model_ready(self, request: Any, _: RequestContext) -> Any:
        oip.check_model(request.name, request.version, self._name)
        return pb.ModelReadyResponse(ready=not self._services.classifier.reasons)

    async def _model(self, request: Any, _: RequestContext) -> Any:
        oip.check_model(request.name, request.version, self._name)
        info = self._services.classifier.model.info
        return pb.ModelMetadataResponse(
            name=self._name,
            versions=[oip.VERSION],
            platform=oip.platform(info),
            inputs=_described(oip.inputs(info.preprocess.size)),
            outputs=_described(oip.outputs(info.num_classes)),
        )

    async def _infer(self, request: Any, context: RequestContext) -> Any:
        classifier = self._services.classifier
        oip.check_model(request.model_name, request.model_version, self._name)
        oip.check_parameters(request.parameters)
        oip.check_id(request.id)
        info, name = classifier.model.info, request.id
        asked = [(each.name, _parameters(each.parameters)) for each in request.outputs]
        requested = oip.requested_of(asked, info.num_classes, binary=True)
        raw = bool(request.raw_input_contents)
        images = await asyncio.to_thread(self._images, request, info) if _slow(request) else self._images(request, info)
        del request  # they are copies, and the message may be large
        results = await oip.infer(classifier, images, requested, context.deadline)
        context.timings += [result.timings for result in results]
        values = oip.values_of(results, requested) if raw else len(results) * info.num_classes * len(requested)
        return await threads.written(partial(self._answer, name, results, requested, raw), values)

    def _answer(self, name: str, results: Sequence[Classified], requested: Sequence[oip.Requested], raw: bool) -> Any:
        response = pb.ModelInferResponse(model_name=self._name, model_version=oip.VERSION, id=name)
        # In the form in which the tensors came: a client that sends numbers one by one reads them so as well.
        _fill(response, oip.outputs_of(results, requested), raw=raw)
        return response

    def _images(self, request: Any, info: ModelInfo) -> Sequence[Any]:
        settings = self._services.settings
        most_images = min(settings.max_images, settings.max_queue)
        tensors = tensors_of(request)
        return oip.images_of(tensors, size=info.preprocess.size, most_images=most_images, most_bytes=settings.max_body_bytes)

    async def _index(self, request: Any, _: RequestContext) -> Any:
        classifier = self._services.classifier
        reasons = classifier.reasons
        if request.ready and reasons:
            return pb.RepositoryIndexResponse()
        state = _STATES.get(classifier.state, "UNAVAILABLE")
        entry = {"name": self._name, "version": oip.VERSION, "state": state, "reason": "; ".join(reasons)}
        return pb.RepositoryIndexResponse(models=[entry])

    async def _load(self, request: Any, _: RequestContext) -> Any:
        oip.check_model(request.model_name, "", self._name)
        reference = _reference(_parameters(request.parameters))
        folder = self._services.settings.model_dir
        await self._services.swaps.load(None if reference is None else allowed(reference, folder))
        return pb.RepositoryModelLoadResponse()

    async def _unload(self, request: Any, _: RequestContext) -> Any:
        oip.check_model(request.model_name, "", self._name)
        await self._services.swaps.unload()
        return pb.RepositoryModelUnloadResponse()


def tensors_of(request: Any) -> list[oip.Tensor]:
    """The inputs of a request, out of its binary part or of the contents of each.

    Raises:
        MalformedRequest: in neither form alone.
    """
    inputs, raw = request.inputs, request.raw_input_contents
    if raw and len(raw) != len(inputs):
        raise MalformedRequest(f"raw_input_contents has {len(raw)} tensors for {len(inputs)} inputs")
    found = []
    for place, each in enumerate(inputs):
        oip.check_parameters(each.parameters)
        if raw and each.HasField("contents"):
            raise MalformedRequest("give the data of the inputs in raw_input_contents or in their contents, not in both")
        if len(each.shape) > _MOST_DIMENSIONS:
            raise MalformedRequest(f"a shape has {len(each.shape)} dimensions; at most {_MOST_DIMENSIONS} are looked at")
        found.append(oip.Tensor(each.name, each.datatype, tuple(each.shape), raw[place] if raw else _contents(each)))
    return found


def _contents(tensor: Any) -> Any:
    if tensor.datatype not in _FIELDS:
        return list(tensor.contents.bytes_contents)
    name, kind = _FIELDS[tensor.datatype]
    numbers = getattr(tensor.contents, name)
    return oip.Numbers(len(numbers), partial(_copied, numbers, kind))


def _copied(numbers: Sequence[float], kind: Any) -> oip.Array:
    found = np.empty(len(numbers), kind)
    for begin in range(0, len(numbers), _SLICE):
        found[begin : begin + _SLICE] = numbers[begin : begin + _SLICE]
    return found


def _slow(request: Any) -> bool:
    return any(len(each.contents.fp32_contents) + len(each.contents.uint_contents) > _MANY for each in request.inputs)


def _parameters(given: Mapping[str, Any]) -> dict[str, object]:
    """The values of parameters, of whichever kind they are; None of one without any."""
    return {name: getattr(each, each.WhichOneof("parameter_choice") or "", None) for name, each in given.items()}


def _reference(parameters: Mapping[str, object]) -> str | None:
    """Which checkpoint is to be loaded; None for the one of the settings."""
    foreign = next((name for name in parameters if name == "config" or name.startswith("file:")), None)
    if foreign is not None:
        raise MalformedRequest(f"the parameter {foreign[:50]} is not taken here: name a checkpoint that the service can reach")
    reference = parameters.get("checkpoint")
    if reference is not None and not (isinstance(reference, str) and 1 <= len(reference) <= MAX_LENGTH):
        raise MalformedRequest(f"the parameter checkpoint should be text of 1 to {MAX_LENGTH} characters")
    return reference


def _described(specs: Sequence[oip.Spec]) -> list[dict[str, Any]]:
    return [{"name": spec.name, "datatype": spec.datatype, "shape": spec.shape} for spec in specs]


def _fill(response: Any, outputs: Sequence[oip.Output], *, raw: bool) -> None:
    for output in outputs:
        tensor = response.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        if raw:
            response.raw_output_contents.append(output.raw())
        elif isinstance(output.data, list):
            tensor.contents.bytes_contents.extend(text.encode() for text in output.data)
        else:
            tensor.contents.fp32_contents.extend(output.data.ravel().tolist())
