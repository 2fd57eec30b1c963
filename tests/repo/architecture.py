"""Reads the source tree as syntax: modules, what they import and when, and where guarded things are touched.

Knows no rule; the rules are in `test_architecture`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ERROR_STATUSES = {status.value for status in HTTPStatus if status.value >= 400}


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name and its syntax tree."""

    name: str
    source: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def row(self) -> str:
        """Its row in the layer table: the first name below the package, "" for the package itself."""
        return self.name.split(".")[1] if "." in self.name else ""


@dataclass(frozen=True)
class Import:
    """One imported module. `lazy`: inside a function. `typing`: for the type checker only, nothing at run time."""

    target: str
    line: int
    lazy: bool
    typing: bool


def modules(package: str) -> dict[str, Module]:
    """Every source file of a top-level package by dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found[name] = Module(name, path.read_text(), is_package)
    return found


def imports(module: Module, known: set[str]) -> list[Import]:
    """What a file imports; `from a import b` means the module a.b where `known` has one of that name."""
    return [
        Import(target, node.lineno, lazy, typing)
        for node, lazy, typing in _import_nodes(module.tree, lazy=False, typing=False)
        for target in _targets(node, module, known)
    ]


def _import_nodes(node: ast.AST, *, lazy: bool, typing: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, lazy, typing
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _import_nodes(ast.Module(child.body, []), lazy=lazy, typing=True)
            yield from _import_nodes(ast.Module(child.orelse, []), lazy=lazy, typing=typing)
        else:
            inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _import_nodes(child, lazy=inside, typing=typing)


def _targets(node: ast.Import | ast.ImportFrom, module: Module, known: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        parts = module.name.split(".")
        above = parts[: len(parts) - node.level + module.is_package]
        base = ".".join([*above, *([base] if base else [])])
    yield from dict.fromkeys(full if (full := f"{base}.{alias.name}") in known else base for alias in node.names)


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that is executed when the file is imported: not the bodies of functions, nor what only `python -m` runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            arguments = child.args
            early: list[ast.expr] = [*arguments.defaults, *(d for d in arguments.kw_defaults if d)]
            if not isinstance(child, ast.Lambda):
                early += child.decorator_list
            for expression in early:
                yield expression
                yield from run_at_import(expression)
        elif not (isinstance(child, ast.If) and "__main__" in ast.unparse(child.test)):
            yield child
            yield from run_at_import(child)


def calls_at_import(module: Module) -> Iterator[tuple[str, int]]:
    """(name of what is called, line) for each call made on import."""
    for node in run_at_import(module.tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func).rpartition(".")[2], node.lineno


def torch_loads(module: Module) -> Iterator[tuple[int, bool]]:
    """(line, whether it is a call with weights_only=True) of each mention of `torch.load`, by whatever name."""
    names = {"torch"}
    safe = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname for alias in node.names if alias.name == "torch" and alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module in {"torch", "torch.serialization"}:
            yield from ((node.lineno, False) for alias in node.names if alias.name == "load")
        elif isinstance(node, ast.Call):
            flags = [word.value for word in node.keywords if word.arg == "weights_only"]
            if len(flags) == 1 and isinstance(flags[0], ast.Constant) and flags[0].value is True:
                safe.add(id(node.func))
        if isinstance(node, ast.Attribute) and node.attr == "load" and ast.unparse(node.value) in names:
            yield node.lineno, id(node) in safe


def environment_reads(module: Module) -> Iterator[int]:
    """Lines that touch the process's environment."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv", "putenv"}:
            yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (node.lineno for alias in node.names if alias.name in {"environ", "environb", "getenv", "putenv"})


def status_codes(module: Module) -> Iterator[int]:
    """Lines that name an HTTP status: an error's number anywhere, any number beside the word "status", an enumeration.

    Slices and the examples of wire shapes are none.
    """
    skipped: set[int] = set()
    for node in ast.walk(module.tree):
        for part in _exempt(node):
            skipped |= {id(inner) for inner in ast.walk(part)}
    for node in ast.walk(module.tree):
        if id(node) not in skipped and _names_status(node):
            yield getattr(node, "lineno", 0) or node.value.lineno  # type: ignore[attr-defined]  # a keyword has its value's


def _exempt(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Slice) or (isinstance(node, ast.keyword) and node.arg in {"example", "examples"}):
        yield node
    elif isinstance(node, ast.Dict):
        yield from (v for k, v in zip(node.keys, node.values, strict=True) if _is_text(k, {"example", "examples"}))


def _names_status(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return type(node.value) is int and node.value in ERROR_STATUSES
    if isinstance(node, ast.keyword):
        return node.arg in {"status", "status_code"} and _is_number(node.value)
    if isinstance(node, ast.Compare):
        return "status" in ast.unparse(node).lower() and any(_is_number(side) for side in (node.left, *node.comparators))
    if isinstance(node, ast.Dict):
        return any(_is_text(k, {"status"}) and _is_number(v) for k, v in zip(node.keys, node.values, strict=True))
    if isinstance(node, ast.ImportFrom):
        return node.module in {"http", "fastapi", "starlette"} and any(a.name in {"HTTPStatus", "status"} for a in node.names)
    return False


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def _is_text(node: ast.AST | None, texts: set[str]) -> bool:
    return isinstance(node, ast.Constant) and node.value in texts


def strings(module: Module) -> Iterator[tuple[str, int]]:
    """(text, line) of each string that is no docstring."""
    documentation = {id(node.value) for node in ast.walk(module.tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value, node.lineno
