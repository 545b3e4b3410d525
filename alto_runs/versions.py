"""Which code ran: our own version and commit, and the versions of libraries."""

import hashlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

__all__ = ["TRAINING_CODE", "own_version", "source_digest", "versions"]

TRAINING_CODE = "training code"  # the fact of a log's header

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


def source_digest(*packages: str) -> str:
    """Of their Python files and those files' names: runs of one digest are of one code, whatever
    else their commits changed."""
    digest = hashlib.sha256()
    for package in packages:
        found = find_spec(package)
        for folder in (found and found.submodule_search_locations) or ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(f"{package}/{path.relative_to(folder)}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


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
