"""What shells are offered: commands, flags, values of settings; and that asking imports nothing heavy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import CompletionItem

from app.cli import main
from app.completion import values_of
from app.settings import Settings
from model.reference import bundled_names
from model.registry import VARIANTS, WEIGHTS

CONTEXT, PARAMETER = click.Context(main), click.Option(["--any"])
HEAVY = ("torch", "openvino", "numpy", "fastapi", "uvicorn", "httpx", "PIL", "matplotlib")


def offered(field: str, begun: str = "") -> list[CompletionItem[Any]]:
    return values_of(field)(CONTEXT, PARAMETER, begun)


def words(field: str, begun: str = "") -> list[str]:
    return [item.value for item in offered(field, begun) if item.type == "plain"]


def test_checkpoints_are_offered_by_name_and_as_files() -> None:
    assert words("checkpoint") == [*(f"bundled:{name}" for name in bundled_names()), *WEIGHTS, "hf-hub:"]
    assert words("checkpoint", "skresnet3") == ["skresnet34.ra_in1k"]
    assert [item.type for item in offered("checkpoint", "./we")] == ["file"]


def test_choices_paths_and_nothing() -> None:
    assert words("engine") == ["auto", "openvino", "compile", "eager"]
    assert words("precision", "b") == ["bfloat16"]
    assert words("device", "c") == ["cpu", "cuda"]
    assert set(VARIANTS) <= set(words("variant"))
    assert words("open_admin") == ["true", "false"]
    assert [item.type for item in offered("labels_file")] == ["file"]
    assert [item.type for item in offered("cache_dir")] == ["dir"]
    assert offered("threads") == []


def test_every_setting_can_be_asked() -> None:
    for field in Settings.model_fields:
        for item in offered(field):
            assert item.type in ("plain", "file", "dir")


def asked(line: str) -> tuple[list[str], str]:
    """What a bash is answered at the end of a line, and which heavy modules that took."""
    code = (
        "import sys\n"
        "from app.cli import main\n"
        "try:\n    main(prog_name='sknet')\n"
        f"finally:\n    print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    variables = {"_SKNET_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.split(), done.stderr.strip()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sknet ev", ["plain,evaluate"]),
        ("sknet serve --eng", ["plain,--engine"]),
        ("sknet classify --engine ea", ["plain,eager"]),
        ("sknet evaluate --checkpoint bun", ["plain,bundled:cifar10"]),
        ("sknet evaluate --checkpoint ./bun", ["file,./bun"]),
        ("sknet completion ", ["plain,bash", "plain,zsh", "plain,fish"]),
    ],
)
def test_completing_takes_no_heavy_import(line: str, expected: list[str]) -> None:
    assert asked(line) == (expected, "[]")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "completion", shell], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert f"_SKNET_COMPLETE={shell}_complete" in done.stdout.replace("'", "")
    script = tmp_path / "script"
    script.write_text(done.stdout)
    if (program := shutil.which(shell)) is not None:  # bash is everywhere; the others are read where they are installed
        assert subprocess.run([program, "-n", str(script)], timeout=60, check=False).returncode == 0


def test_a_real_bash_completes(tmp_path: Path) -> None:
    program = tmp_path / "sknet"
    start = "import sys; sys.argv[0] = 'sknet'; from app.cli import main; main()"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{start}" "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(sknet completion bash)"\n'
        "COMP_WORDS=(sknet classify --checkpoint bun); COMP_CWORD=3; _sknet_completion sknet; echo ${COMPREPLY[@]}\n"
        "COMPREPLY=(); COMP_WORDS=(sknet ev); COMP_CWORD=1; _sknet_completion sknet; echo ${COMPREPLY[@]}\n"
    )
    variables = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["bundled:cifar10", "evaluate"], done.stderr
