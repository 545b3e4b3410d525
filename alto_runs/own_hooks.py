"""Whether what a user's policy defines is what the class that it derives from asks for."""

import inspect
from collections.abc import Mapping
from types import FunctionType

from alto_policy.dispatch import Dispatch

__all__ = ["misfit"]

_ASKED = ("gangs",)  # by subclasses, and of no use to override


def misfit(kind: type) -> str | None:
    """What no policy can mean: a misnamed hook, one of other parameters, a setting of another
    type, or methods none of which anybody asks.

    Helpers are the user's own affair as long as anything is overridden.
    """
    if missing := sorted(getattr(kind, "__abstractmethods__", ())):
        return f"expected the method {missing[0]!r}, which {_base(kind)} asks"
    own = {name: value for base in reversed(_own(kind)) for name, value in vars(base).items()}
    inherited = _inherited(kind)
    hooks = {name: value for name, value in inherited.items() if _is_hook(name, value)}
    for name, value in own.items():
        if name in hooks:
            told = _unlike(name, value, hooks[name], kind)
        else:
            told = None if name in inherited else _misnamed(name, hooks, own, kind)
        if told is not None:
            return told
    methods = [value for name, value in own.items() if _is_method(name, value)]
    if not methods or not issubclass(kind, Dispatch) or own.keys() & inherited.keys():
        return None
    functions = [value for value in own.values() if isinstance(value, FunctionType)]
    if any(name in hooks for each in functions for name in each.__code__.co_names):
        return None  # `__init__` sets one, or a method asks what it does
    asked = " or ".join(name for name, value in hooks.items() if callable(value))
    name = methods[0].__name__
    return f"overrides nothing, for {_base(kind)} asks no {name!r}, expected {asked}"


def _own(kind: type) -> list[type]:
    """Classes of the user, that of the policy first."""
    theirs = "alto_policy", "abc", "builtins", "typing"
    return [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in theirs]


def _ours(kind: type) -> list[type]:
    """Classes of ALTO that it derives from, the nearest first."""
    return [base for base in kind.__mro__ if base.__module__.partition(".")[0] == "alto_policy"]


def _base(kind: type) -> str:
    return next((base.__name__ for base in _ours(kind)), "the loop")


def _inherited(kind: type) -> dict[str, object]:
    """What it would be without the user; of a class that derives from none of ours what all are."""
    found = {name: value for base in reversed(_ours(kind)) for name, value in vars(base).items()}
    found = {name: value for name, value in found.items() if not name.startswith("__")}
    return found or {"observe": Dispatch.observe}


def _is_hook(name: str, value: object) -> bool:
    return not (name.startswith("_") or isinstance(value, property) or name in _ASKED)


def _unlike(name: str, value: object, hook: object, kind: type) -> str | None:
    """How it is no such hook or setting."""
    if not isinstance(hook, FunctionType):
        return _no_setting(name, value, kind)
    method = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    if not callable(method):
        return f"{name}: value {value!r}, expected a method {_written(name, hook)}"
    if inspect.iscoroutinefunction(method):
        return f"{name}: is asynchronous, expected a plain method {_written(name, hook)}"
    count = len(inspect.signature(hook).parameters) - isinstance(value, staticmethod)
    try:
        inspect.signature(method).bind(*range(count))
    except TypeError:
        return f"{_written(name, method)}: expected {_written(name, hook)}"
    return None


def _no_setting(name: str, value: object, kind: type) -> str | None:
    if isinstance(value, property):
        return None
    known = [inspect.get_annotations(base) for base in _ours(kind)]
    is_switch = next(each[name] for each in known if name in each) is bool
    if is_switch:
        return (
            None if isinstance(value, bool) else f"{name}: value {value!r}, expected True or False"
        )
    if value is None or (type(value) is int and value >= 1):
        return None
    return f"{name}: value {value!r}, expected a whole number of at least 1, or None"


def _misnamed(
    name: str, hooks: Mapping[str, object], own: Mapping[str, object], kind: type
) -> str | None:
    """Whose name is a slip away from that of a hook which is not overridden."""
    if name.startswith("_"):
        return None
    meant = next((hook for hook in hooks if hook not in own and _is_slip(name, hook)), None)
    if meant is None:
        return None
    hook = hooks[meant]
    right = _written(meant, hook) if callable(hook) else meant
    return f"{name}: {_base(kind)} asks no such thing, expected {right}, or _{name} for a helper"


def _is_slip(name: str, meant: str) -> bool:
    """One letter more, less or other, or two in turn; capitals and underscores do not count."""
    a, b = (text.casefold().replace("_", "") for text in (name, meant))
    while a and b and a[0] == b[0]:
        a, b = a[1:], b[1:]
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    return max(len(a), len(b)) <= 1 or (len(a) == 2 and a == b[::-1])


def _is_method(name: str, value: object) -> bool:
    return isinstance(value, FunctionType) and not name.startswith("__")


def _written(name: str, method: object) -> str:
    assert callable(method)
    return f"{name}({', '.join(inspect.signature(method).parameters)})"
