"""The notebooks run as they stand, and are committed without outputs."""

import ast
import json
from pathlib import Path

import matplotlib as mpl
import pytest

NOTEBOOKS = sorted(Path("notebooks").glob("*.ipynb"))
TELL = {
    "calibrate_for_your_gpu": (
        "rows left out one at a time",
        "(estimated)",
        "believed to be",
        "off by 100%: mean completion",
    ),
    "first_look": ("samples trained in 70.4 s", "saved: underperformed", "0.981529"),
    "replay_and_what_if": ("all decided the same", "s on NVIDIA H100", "hyperband"),
    "write_your_own_policy": (
        "widest first",
        "shortest first",
        "report.html",
        "all decided the same",
        "underperformed",
    ),
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    names: dict[str, object] = {"__name__": path.stem}
    monkeypatch.chdir(path.parent)  # where Jupyter starts
    with mpl.rc_context({"backend": "agg"}):
        for number, cell in enumerate(notebook["cells"]):
            if cell["cell_type"] == "code":
                assert (cell["outputs"], cell["execution_count"]) == ([], None)
                exec(compile("".join(cell["source"]), f"{path}:{number}", "exec"), names)
    told = capsys.readouterr().out
    for what in TELL[path.stem]:
        assert what in told


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_defines_nothing(path: Path) -> None:
    """What is worth a name stands in a module, where it is tested."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    nodes = (node for source in code for node in ast.walk(ast.parse(source)))
    assert not [ast.unparse(node) for node in nodes if isinstance(node, definitions)]


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(TELL)
