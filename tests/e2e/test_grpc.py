"""`sknet serve` with its gRPC port, asked by Triton's client; calls under SIGTERM, two workers, a port that is taken."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from app.stubs import oip_pb2 as pb
from model.preprocess import normalise
from model.types import PreprocessSpec
from tests.app.calling import free_port, images
from tests.e2e.server import Server, command, environment, serve
from tests.images import encode, photograph
from tests.repo.readme import README

pytestmark = pytest.mark.e2e

SERVICE = "/inference.GRPCInferenceService/"
CHECK = "/grpc.health.v1.Health/Check"
NOT_SERVING = b"\x08\x02"
OWN = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own, instead of one for all channels of the process


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(port: int) -> Iterator[Server]:
    with serve(SKNET_GRPC_PORT=str(port), SKNET_OPEN_ADMIN="true") as running:
        yield running


@pytest.fixture
def client(server: Server, port: int) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as connected:
        yield connected


def tensor(name: str, array: np.ndarray[Any, Any], datatype: str) -> Any:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def encoded(*parts: bytes) -> Any:
    return tensor("image", np.array(parts, dtype=object), "BYTES")


@pytest.fixture(scope="module")
def picture() -> np.ndarray[Any, Any]:
    """Of the size that the network takes: nothing is resized on its way. (32, 32, 3)"""
    return np.asarray(photograph(size=(32, 32)))


@pytest.fixture(scope="module")
def expected(server: Server) -> dict[str, float]:
    """What the native route says of that picture."""
    with server.client() as http:
        answer = http.post("/classify?top_k=10", content=png(), headers={"Content-Type": "image/png"}).json()
    return {each["label"]: each["score"] for each in answer["predictions"]}


def png() -> bytes:
    return encode(photograph(size=(32, 32)))


def spec(server: Server) -> PreprocessSpec:
    with server.client() as http:
        told = http.get("/models/default").json()["preprocess"]
    return PreprocessSpec(size=tuple(told["size"]), mean=tuple(told["mean"]), std=tuple(told["std"]))


def test_what_the_server_and_the_model_say(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("default")
    assert client.is_model_ready("default", "1")
    assert client.get_server_metadata(as_json=True)["name"] == "sknet"
    told = client.get_model_metadata("default", as_json=True)
    assert [each["name"] for each in told["inputs"]] == ["image", "pixels", "input"]
    assert told["inputs"][2]["shape"] == ["-1", "3", "32", "32"]
    assert [each["name"] for each in told["outputs"]] == ["probabilities", "logits"]


def test_every_input_has_the_scores_of_the_native_route(
    server: Server, client: Any, picture: np.ndarray[Any, Any], expected: dict[str, float]
) -> None:
    ready = normalise(picture, spec(server))[None]
    for given, close in (  # what an engine makes of normalised numbers may differ by a rounding of its arithmetic
        (encoded(png()), 1e-6),
        (tensor("pixels", picture[None], "UINT8"), 1e-6),
        (tensor("input", ready, "FP32"), 0.02),
    ):
        answer = client.infer("default", [given], request_id="mine")
        assert answer.get_response().id == "mine"
        found = answer.as_numpy("probabilities")[0]
        assert sorted(found, reverse=True) == pytest.approx(list(expected.values()), abs=close), given.name()
        logits = answer.as_numpy("logits")[0]
        assert np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum() == pytest.approx(found, abs=1e-6)


def test_classification_of_several(client: Any, expected: dict[str, float]) -> None:
    asked = [triton.InferRequestedOutput("probabilities", class_count=2)]
    found = client.infer("default", [encoded(png(), png())], outputs=asked).as_numpy("probabilities")
    assert found.shape == (2, 2)
    for row in found:
        for text, (label, score) in zip(row, expected.items(), strict=False):
            value, index, name = text.decode().split(":")
            assert (name, int(index) in range(10)) == (label, True)
            assert float(value) == pytest.approx(score, abs=1e-6)


def test_errors(client: Any) -> None:
    for model, given, code in (
        ("other", encoded(png()), "NOT_FOUND"),
        ("default", encoded(b"no image"), "INVALID_ARGUMENT"),
        ("default", tensor("input", np.full((1, 3, 32, 32), 255, np.float32), "FP32"), "INVALID_ARGUMENT"),
    ):
        with pytest.raises(InferenceServerException) as refused:
            client.infer(model, [given])
        assert refused.value.status() == f"StatusCode.{code}"


def test_the_readme_s_example(server: Server, port: int, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = (each for each in re.findall(r"```py\n(.*?)```", README.read_text(), re.DOTALL) if "tritonclient.grpc" in each)
    (tmp_path / "photo.jpg").write_bytes(png())
    code = block.replace("127.0.0.1:8001", f"127.0.0.1:{port}").replace("photo.jpg", str(tmp_path / "photo.jpg"))
    assert str(port) in code
    exec(compile(code, "README.md", "exec"), {})
    assert re.fullmatch(r"\[\[(b'[\d.e-]+:\d:\w+' ?){3}\]\]\n", capsys.readouterr().out)


def test_the_repository(client: Any, server: Server) -> None:
    (entry,) = client.get_model_repository_index(as_json=True)["models"]
    assert (entry["name"], entry["state"]) == ("default", "READY")
    client.unload_model("default")
    assert not client.is_server_ready()
    with server.client() as http:
        assert http.get("/readyz").status_code == 503
    with pytest.raises(InferenceServerException, match="not ready"):
        client.infer("default", [encoded(png())])
    client.load_model("default")
    assert client.is_server_ready()
    assert client.infer("default", [encoded(png())]).as_numpy("logits").shape == (1, 10)


def test_sigterm_finishes_what_runs() -> None:
    """Ready no more at once, and all is answered within the grace; a call whose message comes after it is answered as well."""
    port, sent, message = free_port(), threading.Event(), images(png()).SerializeToString()

    def late() -> Iterator[bytes]:
        sent.wait(20)
        yield message

    with ExitStack() as stack:
        server = stack.enter_context(serve("--grace-s", "1", SKNET_GRPC_PORT=str(port)))
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}"))
        stack.callback(sent.set)  # a test that failed must not hang as well
        call = channel.stream_unary(f"{SERVICE}ModelInfer").future(late(), timeout=30)
        check, infer = channel.unary_unary(CHECK), channel.unary_unary(f"{SERVICE}ModelInfer")
        assert check(b"", timeout=5) == b"\x08\x01"
        server.process.send_signal(signal.SIGTERM)
        while check(b"", timeout=5) != NOT_SERVING:
            pass
        assert infer(message, timeout=5)  # the grace
        while connects(port):
            time.sleep(0.05)
        assert server.process.poll() is None
        sent.set()
        assert len(pb.ModelInferResponse.FromString(call.result(20)).outputs) == 2
        assert server.process.wait(15) == 0


def connects(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_two_workers_share_the_port() -> None:
    port, message = free_port(), images(png()).SerializeToString()
    with serve("--workers", "2", SKNET_GRPC_PORT=str(port)) as server:

        def served() -> set[object]:
            return {record["worker"] for record in server.records() if record.get("path") == f"{SERVICE}ModelInfer"}

        end = time.monotonic() + 60
        while served() != {0, 1}:
            assert time.monotonic() < end, served()
            with grpc.insecure_channel(f"127.0.0.1:{port}", options=OWN) as channel:
                assert channel.unary_unary(f"{SERVICE}ModelInfer")(message, timeout=10, wait_for_ready=True)
            time.sleep(0.05)
        with server.client() as http:
            metrics = http.get("/metrics").text
        answered = re.findall(rf'sknet_requests_total{{route="{SERVICE}ModelInfer",status="200"}} (\S+)', metrics)
        assert float(answered[0]) >= 2
        with pytest.raises(OSError, match="in use"), socket.socket() as other:
            other.bind(("127.0.0.1", port))
        assert server.stop() == 0


@contextmanager
def taken() -> Iterator[int]:
    """A port of another program, which would share it."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_ends_the_start_with_one_line(workers: str) -> None:
    with taken() as port:
        done = subprocess.run(
            command("serve", "--port", "0", "--workers", workers, "--grpc-port", str(port)),
            capture_output=True, text=True, timeout=60, env=environment(), check=False,
        )  # fmt: skip
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert said == [f"Error: cannot listen on 127.0.0.1, port {port} (gRPC): address already in use"]
