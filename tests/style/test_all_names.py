"""What each module offers is what its `__all__` says; the ways in are pinned."""

import ast
import inspect
from pathlib import Path

import pytest

import alto_exec
from alto_sim import simulate
from tests.style.sources import ROOT, parsed, product_files


def is_pinned(path: Path) -> bool:
    """Modules of an operation share names among themselves; its package is what it offers."""
    parts = path.relative_to(ROOT).parts
    if parts[0] == "kernels":
        return parts[1] == "alto_kernels" and len(parts) == 4 and path.name == "__init__.py"
    return parts[0] != "experiments"


MODULES = [
    pytest.param(path, id=str(path.relative_to(ROOT)))
    for path in product_files()
    if not all(isinstance(node, ast.Expr) for node in parsed(path).body) and is_pinned(path)
]


def offered(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = ast.literal_eval(node.value)
            assert isinstance(names, list)
            return names
    return None


def bound(tree: ast.Module) -> set[str]:
    """Every name that stands at the top of the module, imported ones too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.add(name)
            case ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.alias(name=name, asname=other):
                names.add(other or name)
    return names


@pytest.mark.parametrize("path", MODULES)
def test_all_names_what_is_public(path: Path) -> None:
    tree = parsed(path)
    names = offered(tree)
    assert names is not None, "a module says what is public"
    assert len(set(names)) == len(names)
    assert set(names) <= bound(tree)
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    assert {name for name in defined if not name.startswith("_")} <= set(names)


def test_nobody_imports_what_is_private() -> None:
    for path in product_files():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alto_"):
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert private == [], f"{path}: line {node.lineno}"


def test_the_ways_in() -> None:
    assert alto_exec.__all__ == ["tune"]
    assert list(inspect.signature(alto_exec.tune).parameters) == [
        "study",
        "out",
        "resume",
        "console",
        "cluster",
        "publish",
        "artifacts",
    ]
    assert simulate.__all__ == ["play", "simulate"]
    parameters = inspect.signature(simulate.simulate).parameters
    assert list(parameters)[:4] == ["workload", "settings", "gpus", "out"]
    assert all(
        one.kind is inspect.Parameter.KEYWORD_ONLY and one.default is not inspect.Parameter.empty
        for one in list(parameters.values())[4:]
    )
