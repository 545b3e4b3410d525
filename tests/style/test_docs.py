"""What the documents promise is there."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.style.sources import ROOT

DOCUMENTS = [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if path.exists()]
README = [path for path in DOCUMENTS if path.name == "README.md"]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
VERBS = {
    verb
    for name in ("alto_cli.py", "alto_service/verbs.py")
    for verb in re.findall(r'add_parser\(\s*"([a-z]+)"', (ROOT / name).read_text())
}
MADE = ("runs/", "report.html", "leaderboard.json", "metrics.json", "run.jsonl", "best/", "jobs/")
PATH = re.compile(r"[\w.-]+(?:/[\w.<>*-]+)+/?|[\w-]+\.(?:py|md|toml|txt|yaml|jsonl)")


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
    assert made, "a reader is told how to begin"
    assert set(made) <= TARGETS
    assert set(verbs) <= VERBS


def test_files_are_there() -> None:
    text = "".join(document.read_text(encoding="utf-8") for document in README)
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


def test_the_metadata_points_to_what_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"alto": "alto_cli:main"}
    assert all((ROOT / name).is_file() for name in project["license-files"])
    pinned = (ROOT / "constraints.txt").read_text().lower()
    for requirement in (*project["dependencies"], *project["optional-dependencies"]["dev"]):
        name = re.split(r"[<>=~ ]", requirement)[0].lower()
        assert re.search(rf"^{name}==", pinned, re.MULTILINE), f"{name} has no pinned version"
