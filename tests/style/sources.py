"""The project's own files, without what tools and runs have left."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

__all__ = ["ROOT", "functions", "parsed", "product_files", "project_files"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "alto_policy",
    "alto_runs",
    "alto_sim",
    "alto_exec",
    "alto_service",
    "kernels",
    "experiments",
)
_TEXT = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".j2", ".sh", ".cfg", ".ipynb", ".json"}
_MADE_BY_RUNNING = {"runs", "dist", "build", "__pycache__"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def product_files() -> list[Path]:
    """Python of the packages, kernels and experiments, and the command line."""
    inside = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return [ROOT / "alto_cli.py", *inside]


def project_files() -> Iterator[Path]:
    """Every text file that belongs to the project."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        is_ours = not any(
            part in _MADE_BY_RUNNING or part.endswith(".egg-info") or part.startswith(".")
            for part in parts
            if part not in (".ci", ".gitignore")
        )
        is_text = path.suffix in _TEXT or path.name in ("Makefile", "LICENSE", ".gitignore", "run")
        if is_ours and is_text and path.is_file():
            yield path


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(parsed(path)) if isinstance(node, Function))
