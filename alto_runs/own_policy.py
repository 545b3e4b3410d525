"""A policy of the user's own, by the file that holds it."""

import hashlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from types import ModuleType

from alto_policy.ledger.transitions import IllegalDecisionError
from alto_policy.policies import Settings
from alto_policy.policies.own import GIVEN, OwnSettings
from alto_runs.errors import UserError
from alto_runs.fields import FieldError
from alto_runs.own_hooks import misfit
from alto_runs.study_fields.policy_settings import parse_settings

__all__ = ["blaming", "check_loaded", "named_policy", "own_policy", "source_of"]


def named_policy(text: str) -> Settings:
    """Of a name, or of a user's file: FILE.py or FILE.py:CLASS. Raises UserError."""
    file, _, kind = text.rpartition(":") if ".py:" in text else (text, "", "")
    if file.endswith(".py"):
        return own_policy(file, kind or None)
    try:
        return parse_settings(text)
    except FieldError as error:
        raise UserError(f"--policy: value {text!r}: {error.what}, or FILE.py") from error


def own_policy(path: str | Path, name: str | None = None) -> OwnSettings:
    """That of the class, or of the only one in the file that has `observe`; the file is run.

    It is made anew for each run, with what its parameters `estimate` (a `DurationEstimate`) and
    `place` (a `Placement`, or None) ask for. Raises UserError.
    """
    path = Path(path)
    digest, module = _loaded(path)
    kinds = {
        kind.__name__: kind
        for kind in vars(module).values()
        if inspect.isclass(kind) and kind.__module__ == module.__name__ and hasattr(kind, "observe")
    }
    if name is None and len(kinds) == 1:
        (name,) = kinds
    if name is None or name not in kinds:
        which = " or ".join(f"{path}:{each}" for each in kinds)
        raise UserError(
            f"{path}: no policy {name!r} in it, expected {which}"
            if which and name is not None
            else f"{path}: expected {which or 'a class with the method observe'}"
        )
    for parameter in inspect.signature(kinds[name]).parameters.values():
        has_value = parameter.default is not parameter.empty or parameter.name in GIVEN
        if not has_value and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise UserError(
                f"{path}: {name}: parameter {parameter.name!r}: expected a default, for only "
                f"{' and '.join(GIVEN)} are given"
            )
    if (told := misfit(kinds[name])) is not None:
        raise UserError(f"{path}: {name}: {told}")
    return OwnSettings(file=path.name, policy=name, digest=digest)


def source_of(settings: Settings | None) -> tuple[Path, str] | None:
    """As `own_policy` was asked for it, if it is a user's own: for other processes."""
    if not isinstance(settings, OwnSettings):
        return None
    file = sys.modules[settings.module].__file__
    assert file is not None
    return Path(file), settings.policy


def check_loaded(settings: Settings, where: object) -> None:
    """Raises UserError for a user's own policy whose file has not been named."""
    if isinstance(settings, OwnSettings) and not settings.is_loaded:
        raise UserError(
            f"{where}: decided by {settings.policy} of {settings.file}, expected that file as it "
            f"was (SHA-256 {settings.digest[:12]}...) with --policy"
        )


@contextmanager
def blaming(settings: Settings) -> Iterator[None]:
    """What a user's policy may not decide, or stumbles over, is a mistake of whoever wrote it."""
    try:
        yield
    except IllegalDecisionError as error:
        if not isinstance(settings, OwnSettings):
            raise
        raise UserError(f"{settings.file}: {settings.policy}: {error}") from error
    except UserError:
        raise
    except Exception as error:
        source = source_of(settings)
        place = None if source is None else _place_of(source[0], source[1], error)
        if place is None:
            raise
        raise UserError(f"{place}: {type(error).__name__}: {error}") from error


def _place_of(path: Path, name: str, error: Exception) -> str | None:
    """Where in the user's file; or what made nothing of the answer of a method of theirs."""
    if lines := _lines_of(path, error):
        return f"{path.name}: line {lines[-1]}: {name}"
    frames = extract_tb(error.__traceback__)
    if not any(frame.name == "observe" for frame in frames):
        return None
    return f"{path.name}: {name}: at {frames[-1].line!r} of {Path(frames[-1].filename).name}"


def _lines_of(path: Path, error: Exception) -> list[int | None]:
    """Lines of a file through which an error came, the innermost last."""
    frames = extract_tb(error.__traceback__)
    return [frame.lineno for frame in frames if Path(frame.filename).absolute() == path]


def _loaded(path: Path) -> tuple[str, ModuleType]:
    """SHA-256 of the file, and its module. Raises UserError."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read this policy: {error.strerror}") from error
    digest = hashlib.sha256(source).hexdigest()
    name = OwnSettings(file=path.name, policy="", digest=digest).module
    if name in sys.modules:
        return digest, sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path.absolute())
    sys.modules[name] = module  # dataclasses look for theirs there
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except Exception as error:
        del sys.modules[name]
        lines = _lines_of(path.absolute(), error) or [1]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1]
        what = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
        raise UserError(f"{path}: line {line}: {what}") from error
    return digest, module
