"""What comes from elsewhere: pinned with its hashes, and never unpickled."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.repo.architecture import ROOT, Module, imports, modules

UNPICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def unpickling(module: Module) -> list[str]:
    """Calls that make objects of bytes by running what the bytes say."""
    found = [use.target for use in imports(module, set()) if use.target.split(".")[0] in UNPICKLES]
    calls = r"\b(?:pickle|marshal|shelve|dill|joblib)\.(?:loads?|open|Unpickler)\b|allow_pickle=(?!False)|\bread_pickle\("
    return found + re.findall(calls, module.source)


def test_nothing_unpickles() -> None:
    found = {name: unpickling(module) for name, module in {**modules("app"), **modules("model")}.items()}
    # The reader of weights knows the error that torch raises instead of unpickling; what it reads is tested beside it.
    assert found.pop("model.checkpoint") == ["pickle"]
    assert {name: uses for name, uses in found.items() if uses} == {}


@pytest.mark.parametrize(
    "source", ["import pickle", "from joblib import load", "np.load(f, allow_pickle=True)", "pandas.read_pickle(f)"]
)
def test_the_check_sees_what_unpickles(source: str) -> None:
    assert unpickling(Module("m", source))


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_every_dependency_is_pinned_with_its_hashes(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(entries) > 30
    unpinned = [line for line in entries if not re.match(r"[a-z0-9][a-z0-9._-]*==\S+ .*--hash=sha256:[0-9a-f]{64}", line)]
    assert unpinned == []


def test_every_install_checks_the_hashes() -> None:
    makefile = Path(ROOT / "Makefile").read_text(encoding="utf-8")
    installs = [line for line in makefile.splitlines() if "pip install" in line and "--no-deps" not in line]
    assert installs
    assert [line for line in installs if "--require-hashes" not in line] == []
    (audit,) = [line for line in makefile.splitlines() if "pip-audit" in line and line.startswith("\t")]
    assert "--strict" in audit  # what was not asked about is no pass
    assert "requirements.lock" in audit
