"""Which code ran: our own version and commit, and the versions of libraries."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["own_version", "versions"]

_DISTRIBUTION = "alto-lora"


def own_version() -> str:
    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        return "source"


def versions(*libraries: str) -> dict[str, str]:
    """Of ALTO, its commit where it runs from a checkout, Python, and the libraries named."""
    found = {"alto": own_version(), "python": platform.python_version()}
    if commit := _commit():
        found["commit"] = commit
    for library in libraries:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "absent"
    return found


def _commit() -> str | None:
    """Abbreviated commit of the checkout that this file lies in; marked if files were changed."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
