"""Adapters as PEFT keeps them: adapter_config.json beside adapter_model.safetensors."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank, AdapterState
from alto_exec.adapters.tensor_file import file_header
from alto_policy.types import Hyperparameters
from alto_runs.errors import UserError
from alto_runs.files.artifacts import Artifact
from alto_runs.outcomes.leaderboard import ADAPTER_CONFIG, ADAPTER_STEP, ADAPTER_WEIGHTS

__all__ = ["BaseModel", "StoredAdapter", "read_adapter", "write_adapter"]

_PREFIX = "base_model.model."
_MORE_THAN_LORA = (  # keys of PEFT's config under which the same weights mean something else
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """What an adapter says of the model it belongs to."""

    name: str  # folder or hub id
    target_modules: tuple[str, ...]
    is_transposed: bool  # keeps its weights as (inputs, outputs), as GPT-2 does


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """An adapter as found on disk: the bank's rows of it, and its scale."""

    value_rC: Tensor
    scale: float

    def state(self) -> AdapterState:
        """A state to join the bank with, as of an adapter never trained here."""
        return AdapterState(self.value_rC)


def write_adapter(
    folder: Artifact,
    bank: AdapterBank,
    weights_LN: NDArray[np.floating],
    hyperparameters: Hyperparameters,
    base_model: BaseModel,
    step: int,
) -> None:
    """Write a folder that PEFT and vLLM load, of weights in the order of files. Few keys: old PEFT
    versions reject new ones. The weights tell of the job's step that they are of, and come last.
    """
    rank = hyperparameters.rank
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model.name,
        "r": rank,
        "lora_alpha": hyperparameters.alpha,
        "lora_dropout": hyperparameters.dropout,
        "use_rslora": hyperparameters.rslora,
        "fan_in_fan_out": base_model.is_transposed,
        "bias": "none",
        "target_modules": list(base_model.target_modules),
        "inference_mode": True,
    }
    (folder / ADAPTER_CONFIG).write(json.dumps(config, indent=2) + "\n")
    shapes = (
        (key, bank.value_RC.dtype, size)
        for shape in bank.shapes
        for key, size in (
            (f"{_PREFIX}{shape.name}.lora_A.weight", (rank, shape.inputs)),
            (f"{_PREFIX}{shape.name}.lora_B.weight", (shape.outputs, rank)),
        )
    )
    header = file_header(shapes, {"format": "pt", ADAPTER_STEP: str(step)})
    parts = (header, weights_LN.data.cast("B"))
    (folder / ADAPTER_WEIGHTS).write(parts)


def read_adapter(folder: Path, bank: AdapterBank) -> StoredAdapter:
    """Read what `write_adapter` or PEFT wrote for the same linears.

    Raises UserError where a file is missing or damaged, or the adapter is for other linears.
    """
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text())
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        h = _hyperparameters(config)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: not a PEFT adapter, or damaged ({error})") from error
    value_rC = torch.zeros(h.rank, bank.num_columns)
    for name, a_rI, b_rO in bank.matrices(value_rC):
        for part, rows in (("lora_A", a_rI), ("lora_B", b_rO.T)):
            key = f"{_PREFIX}{name}.{part}.weight"
            found = tensors.pop(key, None)
            if found is None or found.shape != rows.shape:
                shape = "nothing" if found is None else tuple(found.shape)
                raise UserError(f"{folder}: {key} must be {tuple(rows.shape)}, found {shape}")
            rows.copy_(found)
    if tensors:
        raise UserError(f"{folder}: {min(tensors)} belongs to no adapted linear of this model")
    return StoredAdapter(value_rC, h.scale)


def _hyperparameters(config: dict[str, Any]) -> Hyperparameters:
    """Rank and scale of a plain LoRA adapter. Raises ValueError for anything else."""
    if config["peft_type"] != "LORA":
        raise ValueError(f"peft_type must be 'LORA', got {config['peft_type']!r}")
    if config.get("bias", "none") != "none":
        raise ValueError(f"bias must be 'none', got {config['bias']!r}")
    if unknown := [key for key in _MORE_THAN_LORA if config.get(key)]:
        raise ValueError(f"{unknown[0]} is not supported, got {config[unknown[0]]!r}")
    rank = config["r"]
    if not isinstance(rank, int):
        raise ValueError(f"r must be a whole number, got {rank!r}")
    return Hyperparameters(
        rank=rank, alpha=config["lora_alpha"], rslora=bool(config.get("use_rslora", False))
    )
