"""What clients see when the engine fails, gives nonsense, hangs or loses its device, and when a checkpoint cannot serve.

Rows for `benchmarks.soak.faults`, which prints them beside those of the environment. The engine is that of `tests.e2e.faulty`,
which misbehaves on order; all else is the service that users start.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.soak.faults import CLIENTS, Row, clients, first_answer_after, wait_for, words
from tests.e2e.server import Server, serve

STUCK_S = 1.0
AT_ONCE_S = STUCK_S + 1.5  # the slowest answer while an engine hangs: noticed in time, and told then


@contextmanager
def faulty() -> Iterator[tuple[Server, Path]]:
    """A service, and the file that its engine takes orders from."""
    with tempfile.TemporaryDirectory() as folder:
        orders = Path(folder) / "orders"
        with serve(program=("tests.e2e.faulty", str(orders)), SKNET_STUCK_S=str(STUCK_S)) as server:
            yield server, orders


def ready(server: Server) -> bool:
    """Whether `/readyz` says so."""
    with server.client() as client:
        return client.get("/readyz").status_code == 200


def alive(server: Server) -> bool:
    """Whether `/livez` says so."""
    with server.client() as client:
        return client.get("/livez").status_code == 200


def fault(order: str, name: str, mended_after_s: float = 0.0) -> Callable[[], Row]:
    """One misbehaviour of the engine: given until readiness tells of it, and for so long after that."""

    def row() -> Row:
        with faulty() as (server, orders), clients(server) as good:
            time.sleep(1)
            orders.write_text(order)
            noticed_s = wait_for(lambda: not ready(server))
            lives = alive(server)
            time.sleep(mended_after_s)
            orders.write_text("")
            at = time.monotonic()
            wait_for(lambda: ready(server))
            time.sleep(1)
            recovered = first_answer_after(good, at)
            slowest = max((each.quantile(1) for each in good if each.seconds), default=0.0)
        seen = f"{words(good)}; not ready after {noticed_s:.1f} s, livez {'200' if lives else 'failed'}"
        held = lives and recovered is not None and slowest < AT_ONCE_S + CLIENTS
        return Row(name, seen, recovered, held)

    row.__name__ = f"engine_{order}"
    return row


def refused_checkpoint() -> Row:
    """Files that cannot serve, asked for under load."""
    with tempfile.TemporaryDirectory() as folder:
        bad = {"empty.safetensors": b"", "text.safetensors": b"no weights" * 1000, "cut.safetensors": b"\x10\0\0\0\0\0\0\0{"}
        for name, data in bad.items():
            (Path(folder) / name).write_bytes(data)
        with serve(SKNET_MODEL_DIR=folder, SKNET_OPEN_ADMIN="true") as server, clients(server) as good, server.client() as admin:
            time.sleep(0.5)
            names = (*bad, "missing.safetensors", "../etc/passwd", "bundled:none")
            statuses = [admin.post("/models/default/load", json={"checkpoint": name}).status_code for name in names]
            time.sleep(0.5)
            still = ready(server)
        failed = sum(len(each.faults) for each in good)
        seen = f"{words(good)}; {len(names)} loads answered {', '.join(map(str, sorted(set(statuses))))}; the old model serves on"
        return Row("checkpoints that cannot serve", seen, None, still and not failed and set(statuses) <= {403, 422})


ENGINE_FAULTS: list[Callable[[], Row]] = [
    fault("raise", "the engine raises at every call"),
    fault("nan", "the engine gives NaN"),
    fault("hang", "the engine hangs"),
    fault("gone", "the device is gone for 3 s", 3.0),
    refused_checkpoint,
]
