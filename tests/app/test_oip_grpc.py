"""The protocol's methods: its messages in both forms, answers in the form of the question, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app import oip, oip_grpc
from app.errors import AppError
from app.stubs import oip_pb2 as pb
from tests.app.calling import calling, images, texts
from tests.fakes import LABELS, FakeModel, score

PROBABILITIES = [score((i - 3) % 7) for i in range(7)]  # of an image whose first byte is 3
SHAPES = {"UINT8": (224, 224, 3), "FP32": (3, 224, 224)}


def tensor(name: str, array: np.ndarray[Any, Any], datatype: str, *, raw: bool) -> Any:
    request = pb.ModelInferRequest(model_name="default")
    given = request.inputs.add(name=name, datatype=datatype, shape=array.shape)
    if raw:
        request.raw_input_contents.append(array.tobytes())
    elif datatype == "FP32":
        given.contents.fp32_contents.extend(array.ravel().tolist())
    else:
        given.contents.uint_contents.extend(array.ravel().tolist())
    return request


async def test_the_server_and_the_model_describe_themselves() -> None:
    async with calling(model_name="birds", open_admin=True) as service:
        server = await service.ask("ServerMetadata", b"")
        assert (server.name, "model_repository" in server.extensions) == ("sknet", True)
        model = await service.ask("ModelMetadata", pb.ModelMetadataRequest(name="birds", version="1"))
        assert (model.name, list(model.versions), model.platform) == ("birds", ["1"], "pytorch_sknet")
        assert [(each.name, each.datatype, list(each.shape)) for each in model.inputs] == [
            ("image", "BYTES", [-1]),
            ("pixels", "UINT8", [-1, 224, 224, 3]),
            ("input", "FP32", [-1, 3, 224, 224]),
        ]
        assert [(each.name, each.datatype, list(each.shape)) for each in model.outputs] == [
            ("probabilities", "FP32", [-1, 7]),
            ("logits", "FP32", [-1, 7]),
        ]
        assert (await service.ask("ModelReady", pb.ModelReadyRequest(name="birds"))).ready
        for method, request in (
            ("ModelReady", pb.ModelReadyRequest(name="default")),
            ("ModelMetadata", pb.ModelMetadataRequest(name="birds", version="2")),
            ("ModelInfer", images(b"\1", name="default")),
            ("ModelInfer", images(b"\1", name="birds", model_version="2")),
            ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="default")),
        ):
            refused = await service.refused(method, request)
            assert (refused.code, refused.trailers["problem"]) == ("NOT_FOUND", "/problems/model-not-found"), method


async def test_typed_questions_have_typed_answers() -> None:
    async with calling() as service:
        answer = await service.ask("ModelInfer", images(b"\3", b"\4", id="mine"))
        assert (answer.id, answer.model_name, answer.model_version) == ("mine", "default", "1")
        assert not answer.raw_output_contents
        assert [(each.name, each.datatype, list(each.shape)) for each in answer.outputs] == [
            ("probabilities", "FP32", [2, 7]),
            ("logits", "FP32", [2, 7]),
        ]
        assert list(answer.outputs[0].contents.fp32_contents[:7]) == pytest.approx(PROBABILITIES)


async def test_raw_questions_have_raw_answers() -> None:
    async with calling() as service:
        request = pb.ModelInferRequest(model_name="default", raw_input_contents=[b"\2\0\0\0\3x"])
        request.inputs.add(name="image", datatype="BYTES", shape=[1])
        request.outputs.add(name="logits")
        answer = await service.ask("ModelInfer", request)
        assert [each.name for each in answer.outputs] == ["logits"]
        assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [3.0 - (i - 3) % 7 for i in range(7)]
        assert service.service.model.prepared == [b"\3x"]


async def test_classification_comes_as_texts() -> None:
    async with calling() as service:
        for raw in (False, True):
            request = images(b"\3")
            if raw:
                del request.inputs[0].contents.bytes_contents[:]
                request.inputs[0].ClearField("contents")
                request.raw_input_contents.append(b"\1\0\0\0\3")
            request.outputs.add(name="probabilities").parameters["classification"].int64_param = 2
            answer = await service.ask("ModelInfer", request)
            (output,) = answer.outputs
            assert (output.datatype, list(output.shape)) == ("BYTES", [1, 2])
            expected = [f"{score(place)}:{index}:{LABELS[index].name}" for place, index in ((0, 3), (1, 4))]
            if raw:
                assert answer.raw_output_contents[0] == b"".join(len(t).to_bytes(4, "little") + t.encode() for t in expected)
            else:
                assert texts(output.contents.bytes_contents) == expected


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(("name", "datatype", "kind"), [("pixels", "UINT8", np.uint8), ("input", "FP32", np.float32)])
async def test_arrays(name: str, datatype: str, kind: Any, raw: bool) -> None:
    array = np.full((2, *SHAPES[datatype]), 3, kind)
    async with calling(max_images=2) as service:
        answer = await service.ask("ModelInfer", tensor(name, array, datatype, raw=raw))
        found = answer.raw_output_contents[0] if raw else np.array(answer.outputs[0].contents.fp32_contents, "<f4").tobytes()
        assert np.frombuffer(found, "<f4").reshape(2, 7).tolist() == [pytest.approx(PROBABILITIES)] * 2


def _both() -> Any:
    request = images(b"\1")
    request.raw_input_contents.append(b"\1\0\0\0\1")
    return request


def _short_raw() -> Any:
    request = images()
    request.inputs[0].ClearField("contents")
    request.inputs[0].shape[:] = [1]
    request.raw_input_contents.extend([b"\1\0\0\0\1"] * 2)
    return request


def _shared_memory() -> Any:
    request = images(b"\1")
    request.inputs[0].parameters["shared_memory_region"].string_param = "here"
    return request


def _classes(value: int) -> Any:
    request = images(b"\1")
    request.outputs.add(name="logits").parameters["classification"].int64_param = value
    return request


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (pb.ModelInferRequest(model_name="default"), "exactly one of the inputs"),
        (images(*[b"\1"] * 33), "1 to 32"),
        (images(), "1 to 32"),
        (images(b""), "image 0 is empty"),
        (_both(), "not in both"),
        (_short_raw(), "2 tensors for 1 inputs"),
        (_shared_memory(), "no shared memory"),
        (_classes(8), "from 1 to 7"),
        (tensor("input", np.full((1, 3, 224, 224), np.nan, np.float32), "FP32", raw=True), "nan"),
        (tensor("input", np.zeros((1, 3, 32, 32), np.float32), "FP32", raw=True), "the shape of input"),
    ],
)
async def test_what_cannot_be_read_is_the_clients_fault(request_: Any, words: str) -> None:
    async with calling() as service:
        refused = await service.refused("ModelInfer", request_)
        assert refused.code == "INVALID_ARGUMENT"
        assert words in refused.text


def test_numbers_are_not_read_before_shape_and_count_fit() -> None:
    request = tensor("input", np.zeros((1, 3, 32, 32), np.float32), "FP32", raw=False)
    (found,) = oip_grpc.tensors_of(request)
    assert isinstance(found.data, oip.Numbers)
    limits: Any = {"most_images": 2, "most_bytes": 1}
    unread = replace(found, data=oip.Numbers(found.data.size, lambda: pytest.fail("they were read")))
    for size, words in (((224, 224), "the shape of input"), ((32, 32), "has 3071 numbers")):
        given = unread if size[0] == 224 else replace(unread, data=replace(unread.data, size=3071))  # type: ignore[type-var]
        with pytest.raises(AppError, match=words):
            oip.images_of([given], size=size, **limits)
    assert len(oip.images_of([found], size=(32, 32), **limits)) == 1


@pytest.mark.parametrize("count", [0, 1, 65_536, 200_000])
def test_numbers_are_copied_in_slices(count: int) -> None:
    """Of which each holds the interpreter's lock."""

    class Slices(list[float]):
        most = 0

        def __getitem__(self, place: Any) -> Any:
            taken = super().__getitem__(place)
            self.most = max(self.most, len(taken))
            return taken

        def __iter__(self) -> Any:
            pytest.fail("they were copied at once")

    given = Slices(np.arange(count, dtype=np.float32).tolist())
    found = oip_grpc._copied(given, np.float32)
    assert np.array_equal(found, np.arange(count, dtype=np.float32))
    assert given.most == min(count, 65_536)


async def test_a_long_shape_or_id_is_not_looked_at() -> None:
    async with calling() as service:
        request = images(b"\1")
        request.inputs[0].shape[:] = [1] * 1000
        assert (await service.refused("ModelInfer", request)).text == "a shape has 1000 dimensions; at most 16 are looked at"
        assert (await service.ask("ModelInfer", images(b"\1", id="é" * 1024))).id == "é" * 1024
        refused = await service.refused("ModelInfer", images(b"\1", id="x" * 1025))
        assert refused.text == "the id has 1025 characters; at most 1024 are allowed"


async def test_one_bad_image_is_named() -> None:
    async with calling() as service:
        refused = await service.refused("ModelInfer", images(b"\1", b"bad"))
        assert (refused.code, refused.text[:30]) == ("INVALID_ARGUMENT", "image 1, counted from 0: the b")


async def test_the_repository() -> None:
    loaded = FakeModel()
    async with calling(loaded, open_admin=True) as service:
        (entry,) = (await service.ask("RepositoryIndex", b"")).models
        assert (entry.name, entry.version, entry.state, entry.reason) == ("default", "1", "READY", "")
        await service.ask("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="default"))
        assert not (await service.ask("ServerReady", b"")).ready
        assert (await service.ask("ServerLive", b"")).live
        (entry,) = (await service.ask("RepositoryIndex", b"")).models
        assert (entry.state, entry.reason) == ("UNAVAILABLE", "the model was unloaded")
        assert not (await service.ask("RepositoryIndex", pb.RepositoryIndexRequest(ready=True))).models
        refused = await service.refused("ModelInfer", images(b"\1"))
        assert (refused.code, refused.trailers["problem"]) == ("UNAVAILABLE", "/problems/not-ready")
        assert refused.trailers["retry-after"] == "1"
        request = pb.RepositoryModelLoadRequest(model_name="default")
        await service.ask("RepositoryModelLoad", request)
        assert (await service.ask("ServerReady", b"")).ready
        request.parameters["checkpoint"].string_param = "bundled:cifar10"
        await service.ask("RepositoryModelLoad", request)
        request.parameters["checkpoint"].string_param = "/etc/passwd"
        refused = await service.refused("RepositoryModelLoad", request)
        assert (refused.code, refused.trailers["problem"]) == ("PERMISSION_DENIED", "/problems/reference-forbidden")
        for name in ("config", "file:1/model.pt"):
            request.parameters[name].string_param = "{}"
            assert (await service.refused("RepositoryModelLoad", request)).code == "INVALID_ARGUMENT"
            del request.parameters[name]
        request.parameters["checkpoint"].int64_param = 3
        assert "should be text" in (await service.refused("RepositoryModelLoad", request)).text


async def test_admin_calls_are_closed_without_keys() -> None:
    async with calling() as service:
        for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
            request = getattr(pb, f"{method}Request")(model_name="default")
            assert (await service.refused(method, request)).code == "PERMISSION_DENIED"
        assert (await service.ask("ServerReady", b"")).ready
