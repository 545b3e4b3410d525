"""What the documents promise is there."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from alto_policy.exits import ExitRules
from alto_policy.policies import SETTINGS
from alto_policy.tenants import Tenant
from alto_policy.types import Hyperparameters
from alto_runs.study import Budget, DataSpec, ExecutorSpec, Study, TaskSpec
from tests.style.sources import ROOT

MANUAL = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *MANUAL]
FOR_USERS = [ROOT / "README.md", *MANUAL]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
VERBS = {
    verb
    for name in ("alto_cli.py", *(f"alto_{part}/verbs.py" for part in ("runs", "service", "sim")))
    for verb in re.findall(r'add_parser\(\s*"([a-z]+)"', (ROOT / name).read_text())
}
MADE = ("runs/", "report.html", "leaderboard.json", "metrics.json", "run.jsonl", "best/", "jobs/")
PATH = re.compile(r"[\w.-]+(?:/[\w.<>*-]+)+/?|[\w-]+\.(?:py|md|toml|txt|yaml|jsonl)")
_NOT_YET_INDEXED, _LINES_OF_INDEX = 10, 60


def spans(text: str) -> list[str]:
    """What stands in code blocks, line by line, and between backticks."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    return [line for block in blocks for line in block.splitlines()] + inline


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_are_there(document: Path) -> None:
    commands = spans(document.read_text(encoding="utf-8"))
    made = [target for line in commands for target in re.findall(r"\bmake ([a-z-]+)", line)]
    verbs = [verb for line in commands for verb in re.findall(r"(?:^|[\s/$])alto ([a-z]+)\b", line)]
    assert made or document in MANUAL, "a reader is told how to begin"
    assert set(made) <= TARGETS
    assert set(verbs) <= VERBS


def test_files_are_there() -> None:
    text = "".join(document.read_text(encoding="utf-8") for document in FOR_USERS)
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []
    named = [name for span in spans(text) for name in PATH.findall(span) if " " not in name]
    ours = {path.name for path in ROOT.iterdir()}
    missing = [
        name
        for name in named
        if name.split("/")[0] in ours
        and not name.startswith(MADE)
        and not re.search(r"[<>*]", name)
        and not (ROOT / name).exists()
    ]
    assert missing == []


def test_the_readme_leads_to_each_page_of_the_manual() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert MANUAL
    assert [page.name for page in MANUAL if f"(docs/{page.name})" not in readme] == []


def test_every_field_of_a_study_is_explained() -> None:
    page = (ROOT / "docs/study.md").read_text(encoding="utf-8")
    specs = (Study, TaskSpec, DataSpec, Budget, ExecutorSpec)
    fields = {name for spec in specs for name in spec.model_fields}
    kinds = (Hyperparameters, ExitRules, Tenant, *SETTINGS.values())
    fields |= {field.name for kind in kinds for field in dataclasses.fields(kind)}
    explained = set(re.findall(r"`([a-z_0-9+]+)`", page))
    assert fields - explained == set()
    assert set(SETTINGS) - explained == set()


def test_the_packages_that_contributing_lists_are_those_that_there_are() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in (
        "alto_policy/",
        "alto_runs/",
        "alto_sim/",
        "alto_exec/",
        "alto_service/",
        "alto_cli.py",
    ):
        assert f"`{name}`" in text
        assert (ROOT / name).exists()
    rooms = {f"`{path.parent.name}/`" for path in (ROOT / "alto_exec").glob("*/__init__.py")}
    assert {room for room in rooms if room not in text} == set()


def test_the_metadata_points_to_what_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"alto": "alto_cli:main"}
    assert all((ROOT / name).is_file() for name in project["license-files"])
    pinned = (ROOT / "constraints.txt").read_text().lower()
    for requirement in (*project["dependencies"], *project["optional-dependencies"]["dev"]):
        name = re.split(r"[<>=~ ]", requirement)[0].lower()
        assert re.search(rf"^{name}==", pinned, re.MULTILINE), f"{name} has no pinned version"


def test_the_index_of_the_log_leads_to_its_sections() -> None:
    """All but the newest: whoever writes a section has others beside who write one as well."""
    log = (ROOT / "experiments/LOG.md").read_text(encoding="utf-8")
    index = log[log.index("## Index") : log.index("\n## 2026-11-25")]
    titles = re.findall(r"^## (\d{4}-\d\d-\d\d: .+)$", log, re.MULTILINE)
    found: set[str] = set()
    for day, words in re.findall(r'(?:^|[.,:*] )(\d\d) "([^"]+)"', index, re.MULTILINE):
        meant = {title for title in titles if f"-{day}: " in title and words in title}
        assert meant, (day, words)
        found |= meant
    assert [title for title in titles[:-_NOT_YET_INDEXED] if title not in found] == []
    assert log[: log.index("\n## 2026-11-25")].count("\n") <= _LINES_OF_INDEX


def test_tests_that_kill_mutations_are_there() -> None:
    """Named by their files, or by folders before them; a star stands for the rest of a name."""
    text = (ROOT / "tests" / "MUTATIONS.md").read_text()
    killers = re.findall(r"`((?:[\w-]+/)*test_\w+\.py)(?:::(\w+\*?))?", text)
    tests = {f"/{path}": path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    missing = []
    for name, test in killers:
        begun = f"def {test}(".removesuffix("*(") if test else ""
        if not any(path.endswith(f"/{name}") and begun in code for path, code in tests.items()):
            missing.append(f"{name}::{test}")
    assert killers
    assert missing == []
