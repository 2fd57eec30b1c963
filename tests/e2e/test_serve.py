"""The service as its users meet it: start, first request, stop, and starts that must fail."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import skimage.data
from PIL import Image

from tests.e2e.bad_inputs import jpeg
from tests.e2e.server import Server, command, environment, serve

pytestmark = pytest.mark.e2e


def cat_photograph() -> bytes:
    """scikit-image's cat, Chelsea, as a JPEG."""
    out = io.BytesIO()
    Image.fromarray(skimage.data.chelsea()).save(out, "JPEG", quality=92)
    return out.getvalue()


def test_a_cat_is_a_cat(client: httpx.Client) -> None:
    answer = client.post("/classify", files={"file": ("chelsea.jpg", cat_photograph())})
    assert answer.status_code == 200
    body = answer.json()
    assert body["predictions"][0]["label"] == "cat"
    assert body["image"] == {"width": 451, "height": 300, "format": "JPEG"}
    assert len(body["predictions"]) == 5
    assert sum(p["score"] for p in body["predictions"]) <= 1 + 1e-6
    scores = [p["score"] for p in body["predictions"]]
    assert scores == sorted(scores, reverse=True)
    phases = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert set(phases) == {"queue", "prepare", "inference", "total"}
    assert float(phases["total"]) >= float(phases["inference"]) > 0


def test_every_form_gives_the_same_answer(client: httpx.Client) -> None:
    import base64

    data = cat_photograph()
    text = base64.b64encode(data).decode()
    answers = [
        client.post("/classify", files={"file": ("x", data)}),
        client.post("/classify", content=data, headers={"Content-Type": "image/jpeg"}),
        client.post("/classify", json={"image": text}),
        client.post("/classify", json={"image": f"data:image/jpeg;base64,{text}"}),
    ]
    assert [a.status_code for a in answers] == [200] * 4
    assert len({a.text for a in answers}) == 1
    batch = client.post("/classify/batch", files=[("files", ("a.jpg", data)), ("files", ("b.txt", b"no image"))]).json()
    assert [(r["index"], r["filename"], r["status"]) for r in batch["results"]] == [(0, "a.jpg", 200), (1, "b.txt", 422)]
    singly = answers[0].json()["predictions"]
    for one, other in zip(batch["results"][0]["predictions"], singly, strict=True):
        assert one["index"] == other["index"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-6)


def test_the_model_says_what_it_is_and_why(client: httpx.Client) -> None:
    model = client.get("/models/default").json()
    assert model["checkpoint"] == "bundled:cifar10"
    assert model["state"] == "ready"
    assert model["arguments"]["num_classes"] == len(model["labels"]) == 10
    assert model["arguments"]["kernel_sizes"] == [3, 5]
    assert all(model[choice]["reason"] for choice in ("engine", "device", "dtype", "memory_format", "threads"))
    assert client.get("/models").json() == {"models": [model]}


def test_many_at_once_all_get_their_own_answer(server: Server) -> None:
    sizes = [(64 + i, 48) for i in range(40)]

    def ask(size: tuple[int, int]) -> tuple[int, int]:
        with server.client() as client:
            body = client.post("/classify", files={"file": ("x", jpeg(*size))}).json()
        return body["image"]["width"], body["image"]["height"]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, sizes)) == sizes


def test_sigterm_finishes_what_was_accepted_and_exits_0() -> None:
    with serve() as server:
        with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), 10) as connection:
            data = jpeg()
            head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            connection.sendall(head.encode() + data[:100])
            time.sleep(0.3)  # the request is under way, its body is not
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            connection.sendall(data[100:])
            answer = connection.makefile("rb").read()
        assert b"200 OK" in answer.splitlines()[0]
        assert b'"predictions"' in answer
        assert server.process.wait(30) == 0


def test_a_download_that_never_comes_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        hub = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = {"SKNET_CHECKPOINT": "hf-hub:nobody/nothing", "SKNET_CACHE_DIR": str(tmp_path), "HF_ENDPOINT": hub}
        with serve(wait=False, **settings) as server, server.client() as client:
            assert client.get("/livez").status_code == 200  # never waits for the model
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["reasons"]) == (503, ["the model is being loaded"])
            assert client.post("/classify", content=jpeg(), headers={"Content-Type": "image/jpeg"}).status_code == 503
            assert client.get("/models").status_code == 503
            assert server.stop(within_s=20) == 0


def test_endless_headers_are_cut_off(server: Server, client: httpx.Client) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), 10) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nA: ")
        sent = 0
        with contextlib.suppress(ConnectionError):  # being cut off is what should come
            while sent < 50_000_000:
                sent += connection.send(bytes(100_000))
        assert sent < 10_000_000
    assert client.get("/livez").status_code == 200


def test_an_upgrade_that_is_not_taken_keeps_the_body(client: httpx.Client) -> None:
    offer = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    }
    answer = client.post("/classify", content=jpeg(), headers={"Content-Type": "image/jpeg", **offer})
    assert answer.status_code == 200


def test_silent_clients_that_announce_bodies_keep_nobody_out(server: Server, client: httpx.Client) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    head = b"POST /classify/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)).sendall(head)
        time.sleep(0.3)
        assert client.post("/classify", content=jpeg(), headers={"Content-Type": "image/jpeg"}).status_code == 200


def test_a_refused_upload_of_25_mb_still_gets_its_answer(client: httpx.Client) -> None:
    answer = client.post("/classify", content=bytes(25_000_000), headers={"Content-Type": "image/jpeg"})
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--checkpoint", "bundled:nope"], 1, "cifar10"),
        (["--checkpoint", "/nowhere/weights.safetensors"], 1, "/nowhere/weights.safetensors"),
        (["--checkpoint-sha256", "0" * 64], 1, "0" * 64),
        (["--device", "cuda:7"], 1, "cuda:7"),
        (["--top-k", "many"], 2, "--top-k is 'many': it may be a whole number from 1 to 100000"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_start_that_cannot_work_says_why_and_ends(arguments: list[str], status: int, says: str) -> None:
    done = subprocess.run(
        command("serve", "--port", "0", *arguments), capture_output=True, text=True, timeout=90, env=environment(), check=False
    )
    assert done.returncode == status
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_truncated_weights_do_not_start(tmp_path: Path) -> None:
    weights = tmp_path / "cut.safetensors"
    bundled = Path(__file__).parents[2] / "model" / "checkpoints" / "cifar10.safetensors"
    weights.write_bytes(bundled.read_bytes()[:100_000])
    done = subprocess.run(
        command("serve", "--port", "0", "--checkpoint", str(weights)),
        capture_output=True,
        text=True,
        timeout=90,
        env=environment(),
        check=False,
    )
    assert done.returncode == 1
    assert "cut.safetensors" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_variables_set_what_flags_set_and_typos_are_told() -> None:
    with serve(SKNET_TOP_K="2", SKNET_MODEL_NAME="ten", SKNET_TOPK="3") as server, server.client() as client:
        assert len(client.post("/classify", files={"file": ("x", jpeg())}).json()["predictions"]) == 2
        assert client.get("/models/ten").status_code == 200
        assert any("SKNET_TOPK is no setting" in str(record["message"]) for record in server.records())


def test_a_log_line_a_request_with_its_id(server: Server, client: httpx.Client) -> None:
    client.get("/livez", headers={"X-Request-ID": "find-me-7"})
    deadline = time.monotonic() + 5
    found: list[dict[str, object]] = []
    while not found and time.monotonic() < deadline:
        found = [r for r in server.records() if r.get("request_id") == "find-me-7"]
    assert found[0]["path"] == "/livez"
    assert found[0]["status"] == 200


def test_health_command_follows_the_service(server: Server) -> None:
    up = subprocess.run(
        command("health", "--url", server.url), capture_output=True, text=True, timeout=60, env=environment(), check=False
    )
    assert (up.returncode, up.stdout.strip()) == (0, "ready")
    down = subprocess.run(
        command("health", "--url", "http://127.0.0.1:9"),
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=False,
    )
    assert down.returncode == 1
    assert down.stderr.strip() == "Error: no SKNet service answers at http://127.0.0.1:9"
