"""What is kept of a job on disk so that a killed process loses nothing."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from alto_exec.bank import AdapterState
from alto_exec.residence import Losses, Progress
from alto_exec.tensor_file import file_parts
from alto_runs.directory import write_atomically
from alto_runs.errors import UserError

__all__ = ["Checkpoint", "read_checkpoint", "write_checkpoint"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    progress: Progress
    adapter: AdapterState


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file at once: a reader finds the old state or the new one."""
    adapter = checkpoint.adapter
    tensors = {"value": adapter.value_rC, "mean": adapter.mean_rC, "square": adapter.square_rC}
    metadata = {"progress": json.dumps(asdict(checkpoint.progress))}
    write_atomically(path, file_parts(tensors, metadata))


def read_checkpoint(path: Path, shape: tuple[int, int]) -> Checkpoint:
    """Raises UserError where the file is damaged or not of an adapter of (rank, columns)."""
    try:
        with safe_open(path, "pt") as file:
            fields = json.loads(file.metadata()["progress"])
            tensors = [file.get_tensor(name) for name in ("value", "mean", "square")]
        report = fields.pop("report")
        progress = Progress(**fields, report=Losses(**report) if report else None)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a checkpoint of a job, or damaged ({error})") from error
    if any(tuple(t.shape) != shape for t in tensors):
        raise UserError(f"{path}: holds {tuple(tensors[0].shape)}, the job needs {shape}")
    return Checkpoint(progress, AdapterState(*tensors))
