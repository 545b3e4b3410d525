"""What a safetensors file tells of itself, from its first bytes: nothing else of it is read."""

import json
from collections.abc import Mapping

from alto_runs.files.artifacts import Artifact

__all__ = ["told_with"]

_MOST_BYTES = 1 << 24  # of a header; the library itself reads up to 100 MB
_LENGTH_BYTES = 8


def told_with(file: Artifact) -> Mapping[str, str]:
    """What was written beside the tensors; nothing if the file is not there, or damaged."""
    try:
        length = int.from_bytes(file.beginning(_LENGTH_BYTES), "little")
        if length > _MOST_BYTES:
            return {}
        header = json.loads(file.beginning(_LENGTH_BYTES + length)[_LENGTH_BYTES:])
        return {name: str(value) for name, value in header["__metadata__"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
