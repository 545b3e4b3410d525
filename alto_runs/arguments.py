"""What a command line is made of: a parser, and numbers."""

import math
import sys
from argparse import Action, ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any, NoReturn

from alto_runs.errors import UserError

__all__ = [
    "OneLineParser",
    "Version",
    "above_0",
    "at_least_0",
    "check_new_file",
    "count",
    "named",
    "named_path",
    "seed",
    "whole",
]


class OneLineParser(ArgumentParser):
    """Tells a mistake in one line; a flag may not be cut short, lest a new one change its sense."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help tells more\n")


class Version(Action):
    """Looks the version up when it is asked for."""

    def __call__(self, parser: ArgumentParser, *_: object) -> NoReturn:
        from alto_runs.versions import own_version

        sys.stdout.write(f"alto {own_version()}\n")
        parser.exit()


def check_new_file(out: Path) -> None:
    """Before the work whose result is written there. Raises UserError."""
    if out.exists():
        raise UserError(f"--out: {out} is there already, expected a new file")
    if not out.parent.is_dir():
        raise UserError(f"--out: value {str(out)!r}: there is no folder {str(out.parent)!r}")


def named_path(text: str) -> Path:
    """What a shell makes of a variable that is not set is the folder where one stands."""
    return Path(named(text))


def named(text: str) -> str:
    if not text.strip():
        raise ArgumentTypeError(f"value {text!r}: expected one that is not empty")
    return text


def count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"value {text!r}: expected a whole number above 0")
    return int(text)


def seed(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ArgumentTypeError(f"value {text!r}: expected a whole number, at least 0")
    return int(text)


def whole(text: str) -> int:
    if not text.isascii() or not text.removeprefix("-").isdigit():
        raise ArgumentTypeError(f"value {text!r}: expected a whole number")
    return int(text)


def at_least_0(text: str) -> float:
    value = _number(text)
    if not 0 <= value < math.inf:
        raise ArgumentTypeError(f"value {text!r}: expected a number, at least 0")
    return value


def above_0(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"value {text!r}: expected a number above 0")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
