"""A checkpoint -> an exported graph, and the helper process that makes it, so that who serves never imports torch.

python -m model.export FOLDER     a line of JSON in: a checkpoint; a line of JSON out: the folder of the graph, or the error

The helper ends with whoever started it: its standard input stays open as long as that process lives.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
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
from model.graphs import Graph, Key, Known
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


def find(checkpoint: Checkpoint, precision: str, folders: Iterable[Path]) -> Graph | None:
    """The graph in the first of these folders that holds it whole; a folder is asked for when those before it have none."""
    return graphs.find(key_of(checkpoint, precision), folders)


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
    from model.engines.outputs import head_of
    from model.observed import Observed

    network = build_network(checkpoint)
    observed = Observed(network).eval()
    reference = proof.reference(observed, checkpoint.preprocess)
    known = Known(reference.logits, reference.attention, *head_of(network))
    size = checkpoint.preprocess.size
    parameters, gmacs = count_parameters(network), count_macs(network, size) / 1e9
    model = trace.trace(observed, size)
    key = key_of(checkpoint, "float32")
    return graphs.write(folder, key, known, parameters, gmacs, lambda xml: trace.save(model, xml), f"from {checkpoint}")


def export_beside(checkpoint: Checkpoint, folder: Path) -> Graph:
    """`export` in a helper process. This one stays without torch, and what it took is given back when it ends.

    Raises:
        ModelError: as `export`; a folder that cannot be written is a `GraphError`.
    """
    status, out, err = _helped(_to_json(checkpoint), folder)
    lines = out.splitlines()
    answer = _parsed(lines[-1]) if status in (0, 1) and lines else None
    if answer is None:
        logger.error("the export failed:\n%s", err[-4000:])
        raise GraphError(f"the helper process of the export ended with status {status}; the log has its last words")
    if "error" in answer:
        raise {e.__name__: e for e in _RAISED}.get(answer["error"], GraphError)(answer["text"])
    found = find(checkpoint, "float32", (folder,))
    if found is None:
        raise GraphError(f"the graph exported into {folder} cannot be read back")
    return found


def _helped(request: str, folder: Path) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of the helper process."""
    # -P: no module that lies in the current folder is taken for one of this program's or its libraries'.
    command = [sys.executable, "-P", "-m", "model.export", str(folder)]
    theirs, ours = os.pipe()  # not Popen's own: `communicate` would close that one at once
    try:
        process = subprocess.Popen(  # noqa: S603
            command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace"
        )
    except OSError as error:
        os.close(ours)
        raise GraphError(f"the helper process of the export cannot be started: {error.strerror or error}") from error
    finally:
        os.close(theirs)
    # More than a pipe holds, perhaps: a helper that does not read must not keep this thread past the limit.
    feeding = threading.Thread(target=_feed, args=(ours, request), name="export-request", daemon=True)
    feeding.start()
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise GraphError(f"the export did not end within {LIMIT_S} s") from error
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        feeding.join()
        os.close(ours)
    return process.returncode, out, err


def _feed(pipe: int, request: str) -> None:
    left = memoryview(request.encode() + b"\n")
    with suppress(OSError):  # a helper that died: its status and last words say more
        while left:
            left = left[os.write(pipe, left) :]


def _parsed(line: str) -> dict[str, str] | None:
    """What the helper answered; None for a line that is a library's."""
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and ("error" in answer or "graph" in answer) else None


def main() -> int:
    """The helper process."""
    request = sys.stdin.readline()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer = _answer(request, Path(sys.argv[1]))
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "error" in answer else 0


def _end_with_parent() -> None:
    """Wait for the end of standard input, which comes with the end of the process that holds the other side, however it ends."""
    # Not through sys.stdin: an interpreter that ends while a thread is in there aborts on its lock.
    while os.read(0, 4096):
        pass
    os._exit(1)


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
