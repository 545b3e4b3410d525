"""A study file is plain YAML data: what is more, or less, is refused with its line."""

from pathlib import Path

import pytest

from alto_runs.errors import UserError
from alto_runs.study import load_study
from tests.runs.faulty import WHOLE, mistake


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "expected fields such as 'name:', found nothing"),
        ("# only a comment", "expected fields such as 'name:', found nothing"),
        ("[1]", "expected fields such as 'name:', found a list"),
        ("hello", "expected fields such as 'name:', found text"),
        ("3", "expected fields such as 'name:', found a value"),
        (f"{WHOLE}name: t", "line 4: the key 'name' stands twice"),
        ("a: 1\nb: {c: 1, d: 2, c: 3}", "line 2: the key 'c' stands twice"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]", "line 2: tags (!) are not allowed here"),
        ("a: !!str 1", "line 1: tags (!) are not allowed here"),
        ("a: &x [1]", "line 1: anchors (&) and aliases (*) are not allowed here"),
        ("a: *x", "line 1: anchors (&) and aliases (*) are not allowed here"),
        (f"a: {'[' * 21}{']' * 21}", "line 1: nested deeper than 20 levels"),
        ("? [a]\n: b", "line 1: found unhashable key"),
        (f"{WHOLE}---\nname: t", "line 4: but found another document"),
        ("a: 2024-99-99", "not YAML: month must be in 1..12"),
    ],
)
def test_what_is_no_plain_data(text: str, line: str, tmp_path: Path) -> None:
    assert mistake(text, tmp_path) == line


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        pytest.param("name: [", "line ", id="a list without its end"),
        pytest.param("\tname: s", "line 1: ", id="a tab"),
        pytest.param("a: 1\n b: 2", "line 2: ", id="indented by chance"),
        pytest.param("a:\n- 1\n" + "[" * 5000, "line 3: ", id="bottomless"),
        *(
            pytest.param(f"a: {number}", "line 1: a number has 100 digits at most", id=name)
            for name, number in (
                ("decimal", "9" * 5000),
                ("hexadecimal", f"0x{'f' * 50_000}"),
                ("to base 60", "1:" * 400_000 + "1"),
                ("a fraction to base 60", "1:" * 300 + "1.5"),
            )
        ),
        pytest.param("a: \x01", "not YAML: ", id="a control character"),
        pytest.param('prompts: ["\\ud800"]', "line 1: ", id="half of a surrogate pair"),
    ],
)
def test_what_is_no_yaml(text: str, beginning: str, tmp_path: Path) -> None:
    assert mistake(text, tmp_path).startswith(beginning)


def test_a_bomb_of_anchors_is_not_lit(tmp_path: Path) -> None:
    layers = (
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    text = "a: &a [lol]\n" + "\n".join(layers)
    assert "anchors (&) and aliases (*) are not allowed here" in mistake(text, tmp_path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        pytest.param(b"name: \xff", "not UTF-8 text: invalid start byte", id="latin-1"),
        pytest.param(
            b"#" * 4_000_001, "larger than 4000000 bytes, expected a study file", id="huge"
        ),
    ],
)
def test_files_that_hold_no_study(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_study(path)
    assert str(caught.value) == f"{path}: {what}"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("nothing.yaml", "No such file or directory", id="missing"),
        pytest.param(".", "Is a directory", id="a folder"),
        pytest.param("y" * 300, "File name too long", id="name too long"),
    ],
)
def test_files_that_cannot_be_read(name: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(UserError) as caught:
        load_study(path)
    assert str(caught.value) == f"{path}: cannot read this file: {reason}"
