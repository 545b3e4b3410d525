"""Who may speak for whom."""

import hashlib
import hmac
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alto_runs.errors import UserError
from alto_runs.files.directory import is_plain_name

__all__ = ["EVERYBODY", "Caller", "Tokens", "read_secret"]

_ALL = "*"
_TOKEN = re.compile(r"[\x21-\x7e]{16,256}")
_EXPECTED = "expected 16 to 256 printable characters without a blank"


@dataclass(frozen=True, slots=True)
class Caller:
    tenant: str | None  # None may act for every tenant


EVERYBODY = Caller(None)


class Tokens:
    """Lines of `TENANT TOKEN`; the tenant `*` is the operator, who may act for all."""

    def __init__(self, path: Path) -> None:
        """Raises UserError, also for a file that others than its owner may read."""
        known: dict[bytes, Caller] = {}
        for number, line in enumerate(read_secret(path).splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            if len(words) != 2 or not (words[0] == _ALL or is_plain_name(words[0])):
                raise UserError(f"{path}: line {number}: expected the name of a tenant and a token")
            if not _TOKEN.fullmatch(words[1]):
                raise UserError(f"{path}: line {number}: {_EXPECTED} as the token")
            caller = Caller(None if words[0] == _ALL else words[0])
            if known.setdefault(_digest(words[1]), caller) != caller:
                raise UserError(f"{path}: line {number}: another tenant has this token already")
        if not known:
            raise UserError(f"{path}: expected a line with a tenant and a token")
        self._known: Sequence[tuple[bytes, Caller]] = tuple(known.items())

    def caller(self, token: str) -> Caller | None:
        """In a time that tells nothing: every token is compared, whole and by its digest."""
        digest, found = _digest(token), None
        for known, caller in self._known:
            if hmac.compare_digest(known, digest):
                found = caller
        return found


def read_secret(path: Path) -> str:
    """Text of a file for its owner's eyes alone; raises UserError."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise UserError(f"{path}: others may read this file, expected mode 0600")
            return file.read(1 << 20).decode("ascii")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected plain ASCII text") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read this file: {error.strerror}") from error


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
