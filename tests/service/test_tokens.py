"""Files of secrets, and what they may say."""

from pathlib import Path

import pytest

from alto_runs.errors import UserError
from alto_service.tokens import Caller, Tokens, read_secret
from tests.service.cases import token_file

TOKEN = "a-token-of-16-or-more"


def test_a_token_tells_for_whom(tmp_path: Path) -> None:
    lines = f"team {TOKEN}\n\n* {TOKEN}2\n"
    tokens = Tokens(token_file(tmp_path / "tokens", lines))
    assert tokens.caller(TOKEN) == Caller("team")
    assert tokens.caller(TOKEN + "2") == Caller(None)
    for wrong in ("", TOKEN[:-1], TOKEN + "3", TOKEN.upper(), "\udcff"):
        assert tokens.caller(wrong) is None


def test_every_token_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that it takes does not tell how far down a match stands."""
    tokens = Tokens(token_file(tmp_path / "tokens", f"a {TOKEN}1\nb {TOKEN}2\nc {TOKEN}3\n"))
    compared = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append((len(known), len(given)))
        return known == given

    monkeypatch.setattr("hmac.compare_digest", compare)
    for token in (TOKEN + "1", "no"):
        compared.clear()
        tokens.caller(token)
        assert compared == [(32, 32)] * 3


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ("", "expected a line with a tenant and a token"),
        ("team", "line 1: expected the name of a tenant and a token"),
        (f"team {TOKEN} more", "line 1: expected the name of a tenant and a token"),
        (f"\n../x {TOKEN}", "line 2: expected the name of a tenant and a token"),
        ("team short", "line 1: expected 16 to 256 printable characters without a blank"),
    ],
)
def test_what_is_no_token_file(lines: str, what: str, tmp_path: Path) -> None:
    path = token_file(tmp_path / "tokens", lines)
    with pytest.raises(UserError, match=what):
        Tokens(path)


def test_a_token_is_of_one_tenant_who_may_have_several(tmp_path: Path) -> None:
    """Who has a token of two would be whoever stands last."""
    one, other = "0123456789abcdef", "fedcba9876543210"
    path = token_file(tmp_path / "tokens", f"ann {one}\nann {other}\nann {one}\n")
    assert Tokens(path).caller(other) == Tokens(path).caller(one) == Caller("ann")
    with pytest.raises(UserError, match="line 2: another tenant has this token already"):
        Tokens(token_file(tmp_path / "shared", f"ann {one}\nbob {one}\n"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_others_may_not_read_a_secret(mode: int, tmp_path: Path) -> None:
    path = token_file(tmp_path / "token", TOKEN)
    assert read_secret(path) == TOKEN
    path.chmod(mode)
    with pytest.raises(UserError, match="others may read this file, expected mode 0600"):
        read_secret(path)


def test_a_secret_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read this file: No such file"):
        read_secret(tmp_path / "none")
