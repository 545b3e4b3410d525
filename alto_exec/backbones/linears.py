"""What both kinds of backbone ask of a transformers model: its linears, and how it ends."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from alto_runs.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ALL_LINEAR", "check_targets", "end_tokens_of", "short_names", "target_names"]

ALL_LINEAR = "all-linear"


def check_targets(folder: Path, targets: str | Sequence[str]) -> None:
    """Raises UserError for a name that no linear of the model bears; loads no weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        target_names(AutoModelForCausalLM.from_config(config), targets)


def target_names(model: "PreTrainedModel", targets: str | Sequence[str]) -> list[str]:
    """Paths of the linears that get adapters, in the order of the model.

    `all-linear` is every linear but the output head, as in PEFT; otherwise a linear is meant by
    its last name or by the end of its path. Raises UserError for a name that meets no linear.
    """
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    linears = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    ]
    if targets == ALL_LINEAR:
        return linears
    wanted = [targets] if isinstance(targets, str) else list(targets)
    for target in wanted:
        if not any(_meets(name, target) for name in linears):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linears}))
            raise UserError(f"targets: {target!r} is no linear layer of this model; it has {known}")
    return [name for name in linears if any(_meets(name, target) for target in wanted)]


def short_names(model: "PreTrainedModel", names: Sequence[str]) -> tuple[str, ...]:
    """The last parts of the paths where they mean these linears alone, else the paths."""
    short = sorted({name.rpartition(".")[2] for name in names})
    met = {n for n, _ in model.named_modules() if any(_meets(n, target) for target in short)}
    return tuple(short) if met == set(names) else tuple(names)


def _meets(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def end_tokens_of(model: "PreTrainedModel") -> frozenset[int]:
    """Tokens after which the model has said all it wants to say."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    return frozenset([ends] if isinstance(ends, int) else ends or ())
