"""The real executors: models, data, training, checkpoints."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alto_exec.tuning import tune

__all__ = ["tune"]


def __getattr__(name: str) -> Any:
    """Imported when it is asked for: what begins before torch is imported is in here as well."""
    if name in __all__:
        from alto_exec import tuning

        return getattr(tuning, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
