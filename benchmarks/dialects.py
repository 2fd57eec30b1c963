"""What each dialect costs against the native route: `python -m benchmarks.dialects`. One run, the sides in turns.

The same photograph in every form, over as many connections; each side's first answer is read, so that the table also shows that
all say the same. Tensors come prepared and save the service the decoding, which is a gain of theirs and no merit of the protocol.
The client is this process, on bare streams, and for gRPC that protocol's best known client, which takes more of the machine it
shares with the service: the table says how much. Each round begins with another side.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import statistics
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.bench.client import Connection, keep_busy, post
from app.bench.load import form
from app.bench.process import free_port
from benchmarks.ours import address, finish, serving
from benchmarks.photographs import photographs
from benchmarks.report import publish, table
from model.checkpoint import resolve
from model.image import DEFAULT_LIMITS, decode_reduced
from model.preprocess import least_size, normalise, quick_pixels

NATIVE = "POST /classify, raw"
Best = tuple[int | str, float]  # of an answer: the first class, by index or name, and its score
Load = Callable[[int, float], Awaitable[float]]  # (connections, seconds) -> requests a second


@dataclass(frozen=True)
class Side:
    """One way of asking: how to load it, and its first answer."""

    load: Load
    ask: Callable[[], Awaitable[Best]]
    request_bytes: int


def tensors(reference: str, cache_dir: Path | None, data: bytes) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What the service makes of an image: pixels uint8 (1, H, W, 3), and normalised float32 (1, 3, H, W)."""
    spec = resolve(reference, cache_dir=cache_dir).preprocess
    picture = decode_reduced(data, DEFAULT_LIMITS, partial(least_size, spec=spec))
    found = quick_pixels(picture.image, spec, (picture.info.width, picture.info.height), picture.extent)
    return found[None], normalise(found, spec)[None]


def infer_json(name: str, kind: str, shape: tuple[int, ...], data: list[Any]) -> bytes:
    """A request of the Open Inference Protocol in JSON that asks for probabilities."""
    inputs = [{"name": name, "datatype": kind, "shape": shape, "data": data}]
    return json.dumps({"inputs": inputs, "outputs": [{"name": "probabilities"}]}).encode()


def infer_binary(name: str, kind: str, shape: tuple[int, ...], data: bytes) -> tuple[bytes, int]:
    """The same with the binary-data extension both ways; the body and the length of its JSON part."""
    inputs = [{"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(data)}}]
    head = json.dumps({"inputs": inputs, "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}).encode()
    return head + data, len(head)


def of_native(body: bytes, _: dict[str, str]) -> Best:
    best = json.loads(body)["predictions"][0]
    return best["index"], best["score"]


def of_names(body: bytes, _: dict[str, str]) -> Best:
    best = json.loads(body)[0]
    return best["label"], best["score"]


def of_vertex(body: bytes, _: dict[str, str]) -> Best:
    best = json.loads(body)["predictions"][0]
    best = best["predictions"][0] if isinstance(best, dict) and "predictions" in best else best[0]
    return best.get("index", best["label"]), best["score"]


def of_infer(body: bytes, headers: dict[str, str]) -> Best:
    length = int(headers.get("inference-header-content-length", len(body)))
    (output,) = json.loads(body[:length])["outputs"]
    values = np.frombuffer(body[length:], "<f4") if length < len(body) else np.array(output["data"], np.float32)
    return int(values.argmax()), float(values.max())


def over_http(
    where: tuple[str, int], path: str, media: str, body: bytes, best: Callable[[bytes, dict[str, str]], Best], *extra: str
) -> Side:
    """A side that is asked over HTTP."""
    head = post(where[0], path, media, len(body), *extra)

    async def load(connections: int, seconds: float) -> float:
        started = time.perf_counter()
        tally = await keep_busy(*where, [(head, body)], connections, seconds)
        if tally.refused or tally.broken:
            sys.exit(f"{path}, {media}: {tally.refused} refused, {tally.broken} broken")
        return len(tally.seconds) / (time.perf_counter() - started)

    async def ask() -> Best:
        connection = Connection(*where)
        answer = await connection.ask(head, body)
        connection.close()
        if not answer.ok:
            sys.exit(f"{path}, {media}: {answer.code} {answer.body[:300]!r}")
        return best(answer.body, answer.headers)

    return Side(load, ask, len(head) + len(body))


def over_grpc(port: int, name: str, kind: str, array: np.ndarray[Any, Any], size: int) -> Side:
    """A side that is asked over gRPC, with the protocol's best known client."""
    from tritonclient.grpc import InferInput, InferRequestedOutput
    from tritonclient.grpc.aio import InferenceServerClient

    given = InferInput(name, array.shape, kind)
    given.set_data_from_numpy(array)
    outputs = [InferRequestedOutput("probabilities")]

    async def one(client: Any) -> Best:
        answer = await client.infer("default", [given], outputs=outputs)
        values = answer.as_numpy("probabilities")[0]
        return int(values.argmax()), float(values.max())

    async def ask() -> Best:
        async with InferenceServerClient(f"127.0.0.1:{port}") as client:
            return await one(client)

    async def load(connections: int, seconds: float) -> float:
        own = [("grpc.use_local_subchannel_pool", 1)]  # else all clients of a process share one connection
        clients = [InferenceServerClient(f"127.0.0.1:{port}", channel_args=own) for _ in range(connections)]
        await asyncio.gather(*(one(client) for client in clients))  # connected before the clock starts
        count, started = 0, time.perf_counter()

        async def keep(client: Any) -> None:
            nonlocal count
            while time.perf_counter() < started + seconds:
                await one(client)
                count += 1

        await asyncio.gather(*map(keep, clients))
        rate = count / (time.perf_counter() - started)
        await asyncio.gather(*(client.close() for client in clients))
        return rate

    return Side(load, ask, size)


def sides_of(where: tuple[str, int], grpc_port: int, data: bytes, args: argparse.Namespace) -> dict[str, Side]:
    """Every way of asking for this image."""
    pixels, normalised = tensors(args.checkpoint, args.cache_dir, data)
    text = base64.b64encode(data).decode()
    content_type, multipart = form(data, "file")
    element = struct.pack("<I", len(data)) + data
    http = partial(over_http, where)
    infer = "/v2/models/default/infer"
    sides = {
        NATIVE: http("/classify", "image/jpeg", data, of_native),
        "POST /classify, multipart": http("/classify", content_type, multipart, of_native),
        "POST /classify, JSON": http("/classify", "application/json", json.dumps({"image": text}).encode(), of_native),
        "SageMaker, raw": http("/invocations", "image/jpeg", data, of_native),
        "Vertex AI, JSON": http(
            "/vertex/predict", "application/json", json.dumps({"instances": [{"b64": text}]}).encode(), of_vertex
        ),
        "Hugging Face, raw": http("/hf", "image/jpeg", data, of_names),
        "Hugging Face, JSON": http("/hf", "application/json", json.dumps({"inputs": text}).encode(), of_names),
        "v2 image, JSON": http(infer, "application/json", infer_json("image", "BYTES", (1,), [text]), of_infer),
    }
    binary = {
        "v2 image, binary": ("image", "BYTES", (1,), element),
        "v2 pixels, binary": ("pixels", "UINT8", pixels.shape, pixels.tobytes()),
        "v2 input, binary": ("input", "FP32", normalised.shape, normalised.astype("<f4").tobytes()),
    }
    for side, given in binary.items():
        body, length = infer_binary(*given)
        header = f"Inference-Header-Content-Length: {length}"
        sides[side] = http(infer, "application/octet-stream", body, of_infer, header)
    flat = normalised.astype(float).ravel().round(6).tolist()
    sides["v2 input, JSON"] = http(infer, "application/json", infer_json("input", "FP32", normalised.shape, flat), of_infer)
    grpc = partial(over_grpc, grpc_port)
    sides["gRPC image"] = grpc("image", "BYTES", np.array([data], np.object_), len(data))
    sides["gRPC pixels"] = grpc("pixels", "UINT8", pixels, pixels.nbytes)
    sides["gRPC input"] = grpc("input", "FP32", normalised, normalised.nbytes)
    return sides


@dataclass
class Found:
    """Of one side, a figure a round: requests a second, and milliseconds of this process's processor time a request."""

    requests_s: list[float] = field(default_factory=list)
    client_ms: list[float] = field(default_factory=list)


async def measure(sides: dict[str, Side], connections: int, rounds: int, seconds: float) -> dict[str, Found]:
    """Every side in turn, each round from another one on; the first round warms up."""
    names = list(sides)
    found = {name: Found() for name in names}
    for number in range(rounds + 1):
        first = number * len(names) // (rounds + 1)
        for name in names[first:] + names[:first]:
            before, started = time.process_time(), time.perf_counter()
            rate = await sides[name].load(connections, seconds if number else 0.5)
            spent = (time.process_time() - before) / (time.perf_counter() - started)
            if number:
                found[name].requests_s.append(rate)
                found[name].client_ms.append(spent / rate * 1e3)
    return found


async def run(args: argparse.Namespace) -> int:
    data = photographs(args.photographs).small[0]
    port = free_port()
    changes: dict[str, Any] = {"cache_dir": args.cache_dir, "grpc_port": port, "log_level": "warning"}
    with serving(args.checkpoint, **changes) as (service, _):
        sides = sides_of(address(service), port, data, args)
        answers = {name: await side.ask() for name, side in sides.items()}
        found = await measure(sides, args.connections, args.rounds, args.seconds)
    rows: list[tuple[str, ...]] = [("side", "request kB", "requests/s", "of native", "client's ms", "first class", "its score")]
    ratios = {}
    for name, side in sides.items():
        ratios[name] = statistics.median(np.divide(found[name].requests_s, found[NATIVE].requests_s))
        best, score = answers[name]
        rate, client = statistics.median(found[name].requests_s), statistics.median(found[name].client_ms)
        cells = (f"{side.request_bytes / 1e3:.0f}", f"{rate:.1f}", f"{ratios[name]:.3f}", f"{client:.2f}")
        rows.append((name, *cells, str(best), f"{score:.6f}"))
    figures: dict[str, object] = {
        "checkpoint": Path(args.checkpoint).name,  # the folder is this machine's own
        "connections": args.connections,
        "measured": {name: vars(each) for name, each in found.items()},
        "ratios": {name: float(ratio) for name, ratio in ratios.items()},
        "answers": answers,
    }
    publish(args.name, f"Cost of each dialect, {Path(args.checkpoint).name}", table(rows), figures, args.output)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dialects", description=__doc__)
    parser.add_argument("photographs", nargs="*", type=Path, help="files or folders; without, one that is made here")
    parser.add_argument("--checkpoint", default="bundled:cifar10", help="as SKNET_CHECKPOINT")
    parser.add_argument("--cache-dir", type=Path, help="as SKNET_CACHE_DIR")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--name", default="dialects", help="of the result's files")
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    running: Coroutine[None, None, int] = run(parser.parse_args())
    finish(running)


if __name__ == "__main__":
    main()
