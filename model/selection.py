"""Which engine runs a checkpoint: the first candidate that works and proves itself. Knows nothing of images or predictions."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from model import engines, export
from model.checkpoint import Checkpoint, build_network
from model.engines import proof
from model.engines.base import Engine, Plan, joined
from model.engines.candidates import Candidate, candidates
from model.errors import CheckpointCorrupt, EngineError, GraphError
from model.graphs import Graph
from model.types import Choice

ROOM_BYTES = 4_000_000  # of a graph beside its weights

logger = logging.getLogger("sknet.model")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How a checkpoint should run: "auto" and 0 leave it to what the machine has.

    `cache_dir` is where downloads and exported graphs are kept: the hub's own cache and ~/.cache/sknet where it is None.
    `sha256` pins the weights file; graphs that lie beside the file are not pinned with it, so they do not count then.
    `graphs` is the only folder to look into for graphs, where it is given.
    """

    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    streams: int = 0
    batch_size: int = 0
    cache_dir: Path | None = None
    sha256: str | None = None
    graphs: Path | None = None


@dataclass(frozen=True)
class Selected:
    """An engine that proved itself. `deviation` is how far its answers are from the reference's; None: it is the reference."""

    engine: Engine
    choice: Choice
    deviation: float | None


def select(checkpoint: Checkpoint, wish: Wish) -> Selected:
    """Make the engine.

    Raises:
        CheckpointError: weights that cannot be used.
        DeviceError: a device or precision that this machine does not have.
        EngineError: the engine failed, or is too far from the reference; where "auto" chose, every engine did.
    """
    left = candidates(wish.engine, wish.device, wish.precision, wish.threads)
    refused: list[str] = []
    while True:
        candidate = left.pop(0)
        try:
            engine = engines.make(candidate.engine, _plan(checkpoint, wish, candidate))
            deviation = _prove(engine, checkpoint)
        except EngineError as error:
            if isinstance(error, GraphError):  # what failed once would take as long to fail again
                left = [other for other in left if other.engine != candidate.engine]
            if not left:
                raise
            logger.warning("engine %s is not used: %s", candidate, error)
            refused.append(str(candidate))
            continue
        reason = "; not used: ".join(filter(None, (candidate.reason, ", ".join(refused))))
        return Selected(engine, Choice(candidate.engine, reason), deviation)


def graph_folder(cache_dir: Path | None) -> Path:
    """Where exported graphs are kept; where there is no home folder either, one for the life of this process.

    Raises:
        GraphError: not even that can be made.
    """
    if cache_dir is not None:
        return cache_dir / "graphs"
    try:
        return Path.home() / ".cache" / "sknet" / "graphs"
    except RuntimeError:  # no HOME, and a user id without an entry
        return _passing("this user has no home folder to keep graphs in")


def graph_folders(checkpoint: Checkpoint, wish: Wish) -> Iterator[Path]:
    """Where a graph of the checkpoint may lie, in the order of search. The last is where a new one goes.

    What is bundled came with this program, graphs included. Beside another file lies what anybody put there, and it is proved
    by answers that lie there as well: who pins the file asks for more.

    Raises:
        GraphError: as `graph_folder`, when it comes to the last.
    """
    if wish.graphs is not None:
        yield wish.graphs
        return
    if wish.sha256 is None or checkpoint.reference.startswith("bundled:"):
        yield checkpoint.path.parent / export.BESIDE
    yield graph_folder(wish.cache_dir)


def _plan(checkpoint: Checkpoint, wish: Wish, candidate: Candidate) -> Plan:
    return Plan(
        network=partial(build_network, checkpoint),
        graph=partial(_graph, checkpoint, candidate.placement.dtype.value, wish),
        spec=checkpoint.preprocess,
        placement=candidate.placement,
        streams=wish.streams,
        batch_size=wish.batch_size,
    )


def _graph(checkpoint: Checkpoint, dtype: str, wish: Wish) -> Graph:
    """The exported graph; made now if there is none, but for int8, which needs photographs."""
    precision = "int8" if dtype == "int8" else "float32"
    found = export.find(checkpoint, precision, graph_folders(checkpoint, wish))
    if found is not None:
        return found
    if precision == "int8":
        raise GraphError(f"there is no int8 graph of {checkpoint.reference}: make one with `sknet calibrate --images DIR`")
    folder = _writable(graph_folder(wish.cache_dir), checkpoint.path.stat().st_size + ROOM_BYTES)
    logger.info("exporting %s for the engine, once; the graph is kept in %s", checkpoint.reference, folder)
    return export.export_beside(checkpoint, folder)


def _writable(folder: Path, room_bytes: int) -> Path:
    """The folder, or where so much cannot be written into it one for the life of this process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is found now, not after half a minute of exporting
                os.posix_fallocate(file.fileno(), 0, room_bytes)
            return folder
    except OSError as error:
        return _passing(f"{folder} cannot be written ({error.strerror})")


@cache  # one a process, so that the next candidate does not export again
def _passing_folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="sknet-graphs-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def _passing(because: str) -> Path:
    try:
        folder = _passing_folder()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise GraphError(f"{because}, and no temporary folder can be made ({reason})") from error
    logger.warning("%s: the exported graph will not outlive this process", because)
    return folder


def _prove(engine: Engine, checkpoint: Checkpoint) -> float | None:
    """Run before serving: what would fail fails now, nobody's first request pays for allocations, and the answers are right.

    An engine that does not prove itself is closed.
    """
    try:
        images = proof.images(checkpoint.preprocess.size)
        engine.run(images[:1], alone=True)  # another way through the engine than the others take
        found = joined([engine.run(image[None]) for image in images])
        logits = found.logits
        if logits.shape[-1] != len(checkpoint.labels):
            raise EngineError(f"the network gives {logits.shape[-1]} outputs for {len(checkpoint.labels)} labels")
        if engine.reference is None and not proof.finite(logits):
            raise CheckpointCorrupt(proof.NOT_FINITE)
        deviation, bound = None, proof.BOUNDS[engine.placement.dtype.value]
        if engine.reference is not None:
            deviation = proof.deviation(logits, engine.reference.logits)
            if deviation > bound:
                raise EngineError(
                    f"its answers deviate by {deviation:.3g} from the float32 reference's; accepted is up to {bound:g}"
                )
            apart = proof.attention_deviation(found.attention, engine.reference.attention)
            if apart > (bound := proof.ATTENTION_BOUNDS[engine.placement.dtype.value]):
                raise EngineError(
                    f"its attention deviates by {apart:.3g} from the float32 reference's; accepted is up to {bound:g}"
                )
        if not proof.differs(logits):
            raise CheckpointCorrupt(proof.ALL_THE_SAME)
    except BaseException:
        engine.close()
        raise
    return deviation
