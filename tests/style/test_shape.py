"""The budgets of the code's shape, and the words that may not stand in it."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.style.sources import ROOT, functions, parsed, product_files, project_files

MOST_LINES, MOST_LINES_OF_FUNCTION, MOST_LINES_OF_KERNEL = 400, 60, 80
MOST_METHODS, MOST_PARAMETERS = 12, 8
GROWN = {"Records": 14}  # past the budget, one method for each question: not one more

# Names of files that stand in two packages, each the same idea at another level. One more is a
# choice to make, not an accident: a rule that is written twice drifts apart.
SHARED_NAMES = {
    "attention.py": "the operation, and its way into a model",
    "rigid.py": "jobs of a cluster's trace: as a workload, and on their GPUs",
    "backend.py": "simulated and real",
    "samples.py": "tokens, and a figure of the report",
    "verbs.py": "of the command line, in the package that carries them out",
}

FILES = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in product_files()]


def is_kernel(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Compiled by Triton, which takes each pointer, size and stride by itself."""
    decorators = (ast.unparse(decorator) for decorator in function.decorator_list)
    return any("triton.jit" in text or "gluon.jit" in text for text in decorators)


def is_launcher(path: Path) -> bool:
    """In a kernel's file; what stands there takes what the kernel takes."""
    return "alto_kernels" in path.parts and "kernel" in (path.stem, path.parent.name)


def height(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, its docstring left out."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return ((body[-1].end_lineno or 0) - body[0].lineno + 1) if body else 0


def faults(path: Path) -> Iterator[str]:
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    if num_lines > MOST_LINES:
        yield f"{num_lines} lines"
    for function in functions(path):
        limit = MOST_LINES_OF_KERNEL if is_kernel(function) else MOST_LINES_OF_FUNCTION
        if height(function) > limit:
            yield f"line {function.lineno}: {function.name} has {height(function)} lines"
        parameters = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        names = [one.arg for one in parameters if one.arg not in ("self", "cls")]
        is_called_by_others = function.args.kwarg is not None  # who decides on its parameters
        is_free = is_kernel(function) or is_launcher(path) or is_called_by_others
        if len(names) > MOST_PARAMETERS and not is_free:
            yield f"line {function.lineno}: {function.name} has {len(names)} parameters"
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ClassDef):
            num_methods = sum(1 for _ in methods_of(node))
            if num_methods > GROWN.get(node.name, MOST_METHODS):
                yield f"line {node.lineno}: {node.name} has {num_methods} methods"


def methods_of(node: ast.ClassDef) -> Iterator[str]:
    """What the class does: no properties, nothing that Python itself calls."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = [ast.unparse(decorator) for decorator in part.decorator_list]
            is_property = any(text.endswith("property") for text in decorators)
            if not is_property and not part.name.startswith("__"):
                yield part.name


@pytest.mark.parametrize("path", FILES)
def test_budgets(path: Path) -> None:
    assert list(faults(path)) == []


def test_tests_are_not_longer_than_what_they_test() -> None:
    tests = sorted((ROOT / "tests").rglob("*.py"))
    lengths = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in tests}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_the_policy_does_not_know_which_world_it_is_in() -> None:
    asks = re.compile(r"simulat|is_sim|is_real|dry.?run", re.IGNORECASE)
    for path in product_files():
        if "alto_policy" in path.parts:
            assert not asks.search(path.read_text(encoding="utf-8")), path


def test_no_signature_tells_the_worlds_apart() -> None:
    asks = re.compile(r"is_sim|is_real|simulated|simulating|dry_run")
    for path in product_files():
        for function in functions(path):
            arguments = (one.arg for one in ast.walk(function.args) if isinstance(one, ast.arg))
            named = [name for name in (function.name, *arguments) if asks.search(name)]
            assert named == [], f"{path}: line {function.lineno}"


def test_nothing_imports_the_command_line() -> None:
    """It is a module and no package, so that the import contracts cannot say it."""
    for path in product_files():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom):
                assert node.module != "alto_cli", path
            if isinstance(node, ast.Import):
                assert "alto_cli" not in [alias.name for alias in node.names], path


def test_files_of_one_name_are_meant_to_be_two() -> None:
    names = Counter(
        path.name
        for path in product_files()
        if path.name != "__init__.py" and "experiments" not in path.parts
    )
    twice = {name for name, count in names.items() if count > 1}
    in_operations = {"reference.py", "plan.py", "kernel.py", "autograd.py"}
    assert twice - in_operations <= set(SHARED_NAMES)


def test_files_of_tests_have_names_of_their_own() -> None:
    """They are modules without a package: pytest takes two of one name for one."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_ghosts() -> None:
    ghost = re.compile(r"(^|_)(old|new|copy|backup|fix|v\d+|utils?|helpers?|manager|misc)(_|\.|$)")
    assert [path for path in product_files() if ghost.search(path.name)] == []


def test_no_word_of_the_machine_it_was_written_on() -> None:
    """Paths of a machine, and hosts of package registries."""
    folders = "|".join(("work", "root", "home/[a-z]+", "Users"))
    hosts = "|".join(("index-url", "artifactory", "jfrog", "nexus", r"\.internal\b", "/simple/"))
    machine = re.compile(rf"(?<![\w.~/$}}])/({folders})/|{hosts}")
    for path in project_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if path != Path(__file__) and path.suffix != ".json":
                assert not machine.search(line), f"{path}: line {number}: {line}"


def test_importing_changes_nothing() -> None:
    """No module sets up logging, warnings or the environment on the way."""
    effects = ("logging.basicConfig", "warnings.filterwarnings", "os.environ", "torch.manual_seed")
    for path in product_files():
        for node in parsed(path).body:
            if isinstance(node, ast.Expr | ast.Assign | ast.AugAssign):
                assert not ast.unparse(node).startswith(effects), f"{path}: line {node.lineno}"
