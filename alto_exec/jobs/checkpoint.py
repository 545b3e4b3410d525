"""What is kept of a job so that a killed process loses nothing."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from safetensors import SafetensorError, safe_open
from torch import Tensor

from alto_exec.adapters.bank import AdapterState
from alto_exec.adapters.tensor_file import file_parts
from alto_exec.jobs.residence import Losses, Progress
from alto_kernels.adamw import Moments
from alto_runs.errors import UserError
from alto_runs.files.artifacts import Artifact
from alto_runs.files.tensor_header import told_with

__all__ = ["Checkpoint", "kept_step", "read_checkpoint", "write_checkpoint"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    progress: Progress
    adapter: AdapterState


def write_checkpoint(file: Artifact, checkpoint: Checkpoint) -> None:
    """Replace the file at once: a reader finds the old state or the new one."""
    tensors = _tensors(checkpoint.adapter)
    metadata = {"progress": json.dumps(asdict(checkpoint.progress))}
    file.write(file_parts(tensors, metadata))


def read_checkpoint(file: Artifact, like: AdapterState) -> Checkpoint | None:
    """None where there is none. Raises UserError where the file is damaged or not of an adapter of
    these shapes and dtypes, which may be without memory."""
    expected = _tensors(like)
    try:
        with file.fetched() as path, safe_open(path, "pt") as opened:
            fields = json.loads(opened.metadata()["progress"])
            tensors = {name: opened.get_tensor(name) for name in expected}
        report = fields.pop("report")
        progress = Progress(**fields, report=Losses(**report) if report else None)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not a checkpoint of a job, or damaged ({error})") from error
    for name, tensor in tensors.items():
        if _kind(tensor) != _kind(expected[name]):
            needed = _kind(expected[name])
            raise UserError(f"{file}: {name} is {_kind(tensor)}, the job needs {needed}")
    return Checkpoint(progress, AdapterState(tensors.pop("value"), Moments(*tensors.values())))


def kept_step(file: Artifact) -> int:
    """Step of the job that is kept there; zero if none is, or it is damaged."""
    try:
        return int(json.loads(told_with(file)["progress"])["step"])
    except (ValueError, KeyError, TypeError):
        return 0


def _tensors(adapter: AdapterState) -> Mapping[str, Tensor]:
    assert adapter.moments is not None
    return {"value": adapter.value_rC, **adapter.moments.tensors}


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} in {str(tensor.dtype).removeprefix('torch.')}"
