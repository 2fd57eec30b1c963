"""The invariants of the architecture, held over the source tree as it stands; each test names what it holds.

A new file needs a layer in `LAYERS`; whoever adds one decides what it may know.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repo import architecture
from tests.repo.architecture import ROOT, Import, Module, imports, modules

# Lower knows nothing of higher, and nothing of its own height. A folder is one row: its files may import each other,
# without a circle. Halves stand between two rows of the design.
LAYERS: dict[str, dict[str, float]] = {
    "model": {
        "": -1,
        "errors": 0,
        "folders": 0,
        "memory": 0,
        "types": 0,
        "jpeg": 0.5,
        "device": 1,
        "digest": 1,
        "image": 1,
        "labels": 1,
        "layers": 1,
        "postprocess": 1,
        "containers": 0.25,
        "frames": 0.5,
        "metadata": 0.5,
        "source": 0.5,
        "rgb": 0.5,
        "wire": 1.25,
        "child": 1.4,
        "guard": 1.5,
        "decoder": 1.5,
        "golden": 3.75,
        "preprocess": 1,
        "registry": 1,
        "card": 2,
        "complexity": 2,
        "explain": 2,
        "observed": 2.5,
        "crops": 1.5,
        "overlay": 2.2,
        "plot_folder": 2,
        "plots": 2.2,
        "figure": 2.4,
        "commission": 2.45,
        "draftsman": 2.5,
        "drawing": 2.6,
        "study": 4.5,
        "study_figure": 4.7,
        "classes": 1,
        "evaluate": 4.5,
        "confusion": 4.7,
        "hub": 2,
        "graphs": 2,
        "shapes": 2,
        "tensors": 1,
        "sknet": 2,
        "reference": 2.5,
        "checkpoint": 3,
        "engines": 3,
        "export": 3.25,
        "quantise": 3.5,
        "selection": 3.5,
        "manager": 4,
        "calibrate": 4.5,
        "train": 5,
    },
    "app": {
        "": -1,
        "accept": 0,
        "call": 0,
        "ceiling": 0,
        "errors": 0,
        "logs": 0,
        "metrics": 0,
        "netguard": 0,
        "schemas": 0,
        "settings": 0,
        "context": 1,
        "fetch": 1,
        "urls": 0.5,
        "dialler": 0.7,
        "exchange": 0.7,
        "pieces": 0,
        "room": 0.5,
        "handover": 1,
        "results": 1,
        "threads": 1,
        "stage": 1.2,
        "fingerprint": 1.4,
        "scheduler": 1.4,
        "easel": 1.5,
        "lane": 1.6,
        "lanes": 1.8,
        "hangup": 0,
        "control": 1,
        "swaps": 2.5,
        "conductor": 5,
        "forms": 1,
        "outcomes": 1.2,
        "explaining": 1.9,
        "classifier": 2,
        "sources": 2,
        "problems": 3,
        "rankings": 3.5,
        "services": 3,
        "acceptor": 1.2,
        "connections": 1,
        "descriptors": 1,
        "openapi": 3.5,
        "protocol": 3.5,
        "keys": 1,
        "exposure": 1.2,
        "rates": 1,
        "access": 4,
        "cors": 4,
        "references": 1,
        "resolver": 0.5,
        "watchdog": 0,
        "recovery": 2.5,
        "bodies": 4,
        "middleware": 4,
        "routes": 4,
        "main": 5,
        "server": 5,
        "process": 5.5,
        "workers": 5.5,
        "terminal": 5,
        "image_files": 0.5,
        "paths": 1,
        "labelled": 1.2,
        "answers": 1.2,
        "tables": 1.4,
        "evaluations": 1.6,
        "completion": 1,
        "program": 4.5,
        "client_errors": 4.5,
        "client_order": 4.6,
        "client_progress": 4.5,
        "client_results": 4.5,
        "client_images": 4.6,
        "client_retries": 4.6,
        "client_trace": 4.5,
        "client_failures": 4.7,
        "client_wire": 4.8,
        "client_async": 4.9,
        "client": 5,
        "local": 5.2,
        "remote": 5.2,
        "backends": 5.3,
        "cli_classify": 5.5,
        "cli_evaluate": 5.5,
        "cli_explain": 5.5,
        "cli_study": 5.4,
        "explainers": 5.3,
        "cli_completion": 5.5,
        "cli_keys": 5.5,
        "cli_models": 5.5,
        "bench": 5.5,
        "cli": 6,
        "ray_board": 0.5,
        "ray_proxy": 4,
        "ray_replica": 5.5,
        "ray_serve": 6,
        "collector": 1.2,
        "otlp_session": 1,
        "otlp_variables": 1,
        "spans": 1.4,
        "tracing": 1.6,
        "dialects": 2,
        "oip_binary": 1,
        "json_texts": 0.9,
        "oip_json": 1,
        "inflated": 1.2,
        "oip": 3,
        "grpc_port": 1.2,
        "grpc_turns": 1,
        "grpc_wire": 1,
        "grpc_calls": 4.2,
        "grpc_health": 4.4,
        "oip_grpc": 4.4,
        "oip_body": 3.2,
        "grpc_server": 4.5,
        "stubs": 0,
    },
}
MODEL_MAY_USE = {"torch", "torchvision", "PIL", "numpy", "safetensors", "tqdm"}
MODEL_MAY_USE_LAZILY = {
    "matplotlib",
    "huggingface_hub",
    "openvino",
    "nncf",
    "pillow_heif",
    "httpx2",
}  # the last: the hub library's errors
NO_TORCH_ON_IMPORT = ("errors", "types", "registry", "labels", "jpeg", "image", "preprocess", "postprocess", "guard", "decoder")
DECIDERS = {
    "create_app", "FastAPI", "Starlette", "Settings", "load_settings", "load", "load_model", "resolve", "build",
    "CollectorRegistry", "Metrics", "Counter", "Gauge", "Histogram", "Summary", "Info",
    "basicConfig", "dictConfig", "fileConfig", "configure", "Classifier", "Scheduler", "set_num_threads",
}  # fmt: skip

MODEL, APP = modules("model"), modules("app")
TREE = {**MODEL, **APP}


def imported(module: Module) -> list[Import]:
    return imports(module, set(TREE))


def top(target: str) -> str:
    return target.partition(".")[0]


def at(module: Module, line: int) -> str:
    return f"{module.name}:{line}"


# The rules, as functions of one file, so that each can be shown a file that breaks it.


def foreign_imports(module: Module) -> Iterator[str]:
    """Invariant 1, model's side."""
    for use in imported(module):
        name = top(use.target)
        allowed = {"model"} | MODEL_MAY_USE | (MODEL_MAY_USE_LAZILY if use.lazy or use.typing else set())
        if name not in allowed and name not in sys.stdlib_module_names:
            yield f"{at(module, use.line)} imports {use.target}"


def frameworks(module: Module) -> Iterator[str]:
    """Invariant 1, app's side: not even lazily, for types or by a string."""
    for use in imported(module):
        if top(use.target) in {"torch", "torchvision"}:
            yield f"{at(module, use.line)} imports {use.target}"
    for text, line in architecture.strings(module):
        if text in {"torch", "torchvision"}:
            yield f"{at(module, line)} names {text}"


def upward_imports(module: Module) -> Iterator[str]:
    """Invariant 2. What the type checker alone imports binds nothing and is not counted."""
    package = top(module.name)
    own = LAYERS[package].get(module.row)
    if own is None:
        yield f"{module.name}: give it a layer"
        return
    for use in imported(module):
        target = TREE.get(use.target)
        if use.typing or target is None or top(target.name) != package or target.row == module.row:
            continue
        other = LAYERS[package].get(target.row)
        if other is not None and other >= own:
            yield f"{at(module, use.line)} of layer {own} imports {use.target} of layer {other}"


def forbidden_on_import(module: Module) -> Iterator[str]:
    """Invariant 4."""
    for name, line in architecture.calls_at_import(module):
        if name in DECIDERS:
            yield f"{at(module, line)} calls {name}()"


def all_of(rule: object, files: dict[str, Module]) -> list[str]:
    assert callable(rule)
    return [found for module in files.values() for found in rule(module)]


def test_1_model_imports_neither_app_nor_a_web_package() -> None:
    assert len(MODEL) > 10
    assert all_of(foreign_imports, MODEL) == []


def test_1_app_never_imports_torch() -> None:
    assert all_of(frameworks, APP) == []


def test_2_a_file_imports_only_from_lower_layers() -> None:
    assert all_of(upward_imports, TREE) == []


def test_2_no_circle_inside_a_folder() -> None:
    def below(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle of imports: {' -> '.join((*path, name))}"
        module = TREE[name]
        for use in imported(module):
            target = TREE.get(use.target)
            same = target and top(use.target) == top(name) and target.row == module.row
            if same and not use.typing and use.target != name:
                below(use.target, (*path, name))

    for name in TREE:
        below(name, ())


def test_2_nobody_imports_the_training() -> None:
    users = {m.name for m in TREE.values() for use in imported(m) if use.target.startswith("model.train")}
    assert {name for name in users if not name.startswith("model.train")} == set()


def test_3_torch_load_only_in_checkpoint_and_only_for_weights() -> None:
    found = [(module.name, safe) for module in TREE.values() for _, safe in architecture.torch_loads(module)]
    assert {name for name, _ in found} <= {"model.checkpoint"}
    assert all(safe for _, safe in found)


def test_3_the_environment_is_read_only_in_settings() -> None:
    # model/hub.py reads nothing: it writes two switches of the hub's library before it is imported.
    source = (ROOT / "model" / "hub.py").read_text()
    assert source.count("environ") == source.count('os.environ.setdefault("HF_HUB_DISABLE_') == 2
    # So does model/plots.py: where the plotting library keeps its files.
    source = (ROOT / "model" / "plots.py").read_text()
    assert source.count("environ") == source.count('os.environ.setdefault("MPLCONFIGDIR"') == 1
    others = [module for name, module in TREE.items() if name not in {"model.hub", "model.plots"}]
    found = [at(module, line) for module in others for line in architecture.environment_reads(module)]
    assert [place for place in found if not place.startswith("app.settings:")] == []


def test_3_status_codes_only_in_problems_and_routes() -> None:
    # app/exchange.py, app/client_failures.py and app/ray_proxy.py hold those of other people's servers.
    exempt = {"app.problems", "app.exchange", "app.client_failures", "app.ray_proxy"}
    others = [m for m in TREE.values() if m.name not in exempt and not (m.name.startswith("app.") and m.row == "routes")]
    found = [at(module, line) for module in others for line in architecture.status_codes(module) if module.name.startswith("app")]
    assert found == []


def test_3_metric_names_only_in_metrics() -> None:
    found = [(m.name, text) for m in APP.values() for text, _ in architecture.strings(m) if "sknet_" in text]
    assert [place for place in found if place[0] != "app.metrics"] == []


def test_4_nothing_is_decided_at_import() -> None:
    assert all_of(forbidden_on_import, TREE) == []


@pytest.mark.parametrize("start", [*(f"model.{name}" for name in NO_TORCH_ON_IMPORT), *APP])
def test_7_importing_reaches_no_torch(start: str) -> None:
    seen, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in TREE:
            continue
        seen.add(name)
        uses = [use.target for use in imported(TREE[name]) if not (use.lazy or use.typing)]
        assert not [target for target in uses if top(target) in {"torch", "torchvision"}], f"{start} reaches torch through {name}"
        waiting += [".".join(target.split(".")[:n]) for target in uses for n in range(1, target.count(".") + 2)]


def test_7_a_fresh_interpreter_imports_all_of_app_without_torch() -> None:
    names = [*APP, *(f"model.{name}" for name in NO_TORCH_ON_IMPORT)]
    code = (
        "import sys, importlib\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(sorted({'torch', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_every_module_says_what_it_is() -> None:
    everything = {**TREE, **modules("tests")}
    assert [name for name, module in everything.items() if not ast.get_docstring(module.tree)] == []


def test_no_module_is_named_after_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "misc"}
    names = {**TREE, **modules("tests")}
    assert [name for name in names if empty & set(name.rpartition(".")[2].split("_"))] == []


def test_route_files_are_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in Path(ROOT / "app" / "routes").glob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines >= 150} == {}


def test_the_layer_table_names_only_what_is_there() -> None:
    """A row whose file has gone is a hole for the next file of that name."""
    for package, rows in LAYERS.items():
        assert set(rows) <= {module.row for name, module in TREE.items() if top(name) == package}


BROKEN = [
    (foreign_imports, "model.image", "import fastapi"),
    (foreign_imports, "model.image", "def f():\n    from app.settings import Settings"),
    (foreign_imports, "model.image", "import huggingface_hub"),
    (frameworks, "app.classifier", "def f():\n    import torch.nn"),
    (frameworks, "app.classifier", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor"),
    (frameworks, "app.classifier", "import_module('torch')"),
    (upward_imports, "model.image", "from model.checkpoint import resolve"),
    (upward_imports, "model.image", "def f():\n    from model import labels"),
    (upward_imports, "model.image", "from .labels import read_labels"),
    (upward_imports, "model.novelty", ""),
    (forbidden_on_import, "app.main", "app = create_app()"),
    (forbidden_on_import, "app.main", "class A:\n    settings = settings_module.Settings()"),
    (forbidden_on_import, "app.main", "def f(s=Settings()): ..."),
]


@pytest.mark.parametrize(("rule", "name", "source"), BROKEN)
def test_each_rule_sees_the_file_that_breaks_it(rule: object, name: str, source: str) -> None:
    assert callable(rule)
    assert len(list(rule(Module(name, source)))) == 1


def test_the_readers_see_what_they_look_for() -> None:
    loads = Module(
        "m", "import torch as t\nt.load(p)\nt.load(p, weights_only=True)\nfrom torch import load\ntorch.load(p, weights_only=w)"
    )
    assert sorted(architecture.torch_loads(loads)) == [(2, False), (3, True), (4, False), (5, False)]
    reads = Module("m", "os.environ['A']\nos.getenv('A')\nfrom os import environ\nos.environ.get('A')\nos.path")
    assert sorted(architecture.environment_reads(reads)) == [1, 2, 3, 4]
    codes = Module(
        "m", "x = 404\nf(status_code=200)\nif r.status != 200: ...\nd = {'status': 201}\ns[:500]\nf(examples=[404])\nn = 200"
    )
    assert sorted(set(architecture.status_codes(codes))) == [1, 2, 3, 4]
    assert list(architecture.strings(Module("m", "'''sknet_doc'''\na = 'sknet_a'"))) == [("sknet_a", 2)]
    main = Module("m", "def f():\n    create_app()\nif __name__ == '__main__':\n    create_app()\n@deco(1)\ndef g(): ...")
    assert list(architecture.calls_at_import(main)) == [("deco", 5)]
