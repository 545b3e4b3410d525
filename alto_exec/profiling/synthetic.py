"""Models, data and jobs made up for measuring: what they cost does not depend on their values."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from alto_exec.adapters.bank import AdapterBank, random_state
from alto_exec.data.samples import Sample
from alto_exec.jobs.residence import Progress, Resident
from alto_exec.models.load import resolve_model
from alto_policy.types import Hyperparameters, Job, JobId
from alto_runs.costs.shapes import KNOWN_SHAPES
from alto_runs.errors import UserError
from alto_runs.profile import ModelShape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["config_of", "equal_jobs", "random_model", "random_samples", "residents", "shape_of"]

_SEED = 0
_LONGEST = 131_072


def config_of(model: str) -> Any:
    """transformers' config of a shape that is known by name, or of a model that is here.

    A folder needs no more than its config.json: weights are random. Raises UserError.
    """
    known = {shape.name.lower(): shape for shape in KNOWN_SHAPES}
    folder = Path(model).expanduser()
    if model.lower() in known and not folder.is_dir():
        return _llama(known[model.lower()])
    if not folder.is_dir() and not folder.is_file() and "/" not in model:
        names = ", ".join(shape.name for shape in KNOWN_SHAPES)
        raise UserError(f"--model: value {model!r}: expected a folder, a hub id or one of {names}")
    from transformers import AutoConfig

    try:
        path = folder if (folder / "config.json").is_file() else resolve_model(model)
    except UserError as error:
        raise UserError(f"--{error}") from error
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--model: value {model!r}: cannot read its config: {reason}") from error


def shape_of(config: Any, name: str) -> ModelShape:
    """Raises UserError for a config that is no decoder of gated blocks."""
    try:
        heads = config.num_attention_heads
        return ModelShape(
            name=name,
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads=heads,
            key_value_heads=config.num_key_value_heads,
            head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
            vocabulary=config.vocab_size,
            tied=config.tie_word_embeddings,
        )
    except AttributeError as error:
        raise UserError(
            f"--model: value {name!r}: a {config.model_type} has no {error.name}, expected a "
            "decoder of gated blocks such as Llama's"
        ) from error


def random_model(config: Any, device: torch.device, dtype: torch.dtype) -> "PreTrainedModel":
    """Frozen, the same weights each time."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(_SEED)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.config.use_cache = False
    return cast("PreTrainedModel", model.requires_grad_(False).eval())


def random_samples(count: int, length: int, vocabulary: int) -> list[Sample]:
    """All tokens are targets but the first of each sequence."""
    dice = torch.Generator().manual_seed(_SEED)
    tokens = torch.randint(vocabulary, (count, length), generator=dice).tolist()
    is_target = (False, *(True,) * (length - 1))
    return [Sample(tuple(row), is_target) for row in tokens]


def equal_jobs(count: int, *, rank: int, batch_size: int) -> tuple[Job, ...]:
    return tuple(
        Job(
            id=JobId(f"job-{number}"),
            hyperparameters=Hyperparameters(
                rank=rank, alpha=2 * rank, batch_size=batch_size, seed=number
            ),
            steps=1_000_000,
            reports=1,
        )
        for number in range(count)
    )


def residents(jobs: Sequence[Job], bank: AdapterBank) -> list[Resident]:
    """Each with random adapters in the bank."""
    slots = [bank.join(random_state(bank, job.hyperparameters.rank)) for job in jobs]
    return [Resident(job, slot, Progress()) for job, slot in zip(jobs, slots, strict=True)]


def _llama(shape: ModelShape) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_size,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=_LONGEST,
        rms_norm_eps=1e-5,
    )
