"""Public names are those of `__all__`, and each is there."""

import ast
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest

import alto_policy
import alto_sim

MODULES = [
    module.name
    for package in (alto_policy, alto_sim)
    for module in pkgutil.walk_packages(package.__path__, prefix=f"{package.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_all_names_what_is_public(name: str) -> None:
    module = import_module(name)
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    assert all(hasattr(module, public) for public in module.__all__)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    assert {each for each in defined if not each.startswith("_")} <= set(module.__all__)
