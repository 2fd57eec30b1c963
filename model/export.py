"""A checkpoint -> an exported graph, and the helper process that makes it, so that who serves never imports torch.

python -m model.export < a checkpoint as JSON     writes the graph; prints one line of JSON: the folder, or the error
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from model import graphs
from model.checkpoint import Checkpoint, build_network
from model.engines.runtime import openvino_version
from model.errors import (
    ArchitectureError,
    CheckpointCorrupt,
    CheckpointMismatch,
    CheckpointNotFound,
    CheckpointUnsafe,
    GraphError,
    ModelError,
)
from model.graphs import Graph, Key
from model.types import Label, PreprocessSpec

logger = logging.getLogger("sknet.model")

BESIDE = "graphs"  # the folder beside a checkpoint's file that holds what was made of it on purpose
LIMIT_S = 900
# What the helper process may have raised, by name; anything else is a `GraphError`.
_RAISED = (ArchitectureError, CheckpointCorrupt, CheckpointMismatch, CheckpointNotFound, CheckpointUnsafe)


def key_of(checkpoint: Checkpoint, precision: str) -> Key:
    """The key of a checkpoint's graph for the OpenVINO installed here; `precision` is float32 or int8.

    Raises:
        GraphError: OpenVINO is not installed.
    """
    version = openvino_version()
    if version is None:
        raise GraphError("OpenVINO is not installed here")
    network = graphs.network_digest(checkpoint.arguments, checkpoint.preprocess)
    return Key(checkpoint.digest, network, f"openvino-{version}", precision)


def find(checkpoint: Checkpoint, precision: str, folder: Path) -> Graph | None:
    """The graph beside the checkpoint, or else in `folder`."""
    return graphs.find(key_of(checkpoint, precision), (checkpoint.path.parent / BESIDE, folder))


def export(checkpoint: Checkpoint, folder: Path) -> Graph:
    """Build, trace and write the float32 graph, in this process: imports torch.

    Raises:
        CheckpointError: weights that cannot be used.
        GraphError: a network that cannot be exported, or gives no finite answers.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)  # what cannot be written is said before torch is imported
    from model.complexity import count_macs, count_parameters
    from model.engines import proof, trace

    network = build_network(checkpoint)
    reference = proof.reference(network, checkpoint.preprocess)
    size = checkpoint.preprocess.size
    parameters, gmacs = count_parameters(network), count_macs(network, size) / 1e9
    model = trace.trace(network, size)
    key = key_of(checkpoint, "float32")
    return graphs.write(folder, key, reference, parameters, gmacs, lambda xml: trace.save(model, xml), f"from {checkpoint}")


def export_beside(checkpoint: Checkpoint, folder: Path) -> Graph:
    """`export` in a helper process. This one stays without torch, and what it took is given back when it ends.

    Raises:
        ModelError: as `export`; a folder that cannot be written is a `GraphError`.
    """
    command = [sys.executable, "-m", "model.export", str(folder)]
    try:
        done = subprocess.run(command, input=_to_json(checkpoint), capture_output=True, text=True, timeout=LIMIT_S)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise GraphError(f"the export did not end within {LIMIT_S} s") from error
    lines = done.stdout.splitlines()
    if done.returncode not in (0, 1) or not lines:
        logger.error("the export failed:\n%s", done.stderr[-4000:])
        raise GraphError(f"the helper process of the export ended with status {done.returncode}; the log has its last words")
    answer = json.loads(lines[-1])
    if "error" in answer:
        raise {e.__name__: e for e in _RAISED}.get(answer["error"], GraphError)(answer["text"])
    found = find(checkpoint, "float32", folder)
    if found is None:
        raise GraphError(f"the graph exported into {folder} cannot be read back")
    return found


def main() -> int:
    """The helper process."""
    answer = _answer(sys.stdin.read(), Path(sys.argv[1]))
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "error" in answer else 0


def _answer(request: str, folder: Path) -> dict[str, str]:
    try:
        return {"graph": str(export(_from_json(request), folder).path)}
    except ModelError as error:
        return {"error": type(error).__name__, "text": str(error)}
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return {"error": "GraphError", "text": f"the exported graph cannot be written to {folder}: {reason}"}
    except ImportError as error:
        return {"error": "GraphError", "text": f"exporting needs {error.name}, which is not installed here"}


def _to_json(checkpoint: Checkpoint) -> str:
    plain = replace(checkpoint, accuracy={}, card={})  # what the export does not read, and may be of any type
    return json.dumps({**asdict(plain), "path": str(checkpoint.path)})


def _from_json(text: str) -> Checkpoint:
    fields: dict[str, Any] = json.loads(text)
    fields["path"] = Path(fields["path"])
    fields["labels"] = tuple(Label(**label) for label in fields["labels"])
    spec: dict[str, Any] = fields["preprocess"]
    fields["preprocess"] = PreprocessSpec(**{**spec, **{name: tuple(spec[name]) for name in ("size", "mean", "std")}})
    return Checkpoint(**fields)


if __name__ == "__main__":
    sys.exit(main())
