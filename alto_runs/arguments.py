"""Numbers on a command line."""

import math
from argparse import ArgumentTypeError

__all__ = ["above_0", "at_least_0", "count", "seed"]


def count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"value {text!r}: expected a whole number above 0")
    return int(text)


def seed(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ArgumentTypeError(f"value {text!r}: expected a whole number, at least 0")
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
