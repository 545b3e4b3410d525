"""A job trained as one would without ALTO: PEFT, torch.optim.AdamW, a schedule of transformers."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel, get_scheduler

from alto_exec.data.samples import Sample
from alto_exec.passes.dropping import step_key
from alto_kernels.lora_linear import Segment, keep_mask
from alto_policy.types import Hyperparameters, Job, Schedule
from alto_runs.sample_order import batch_indices
from tests.exec.comparing import Trajectory

__all__ = ["as_peft", "loaded_by_peft", "train_plainly"]

_SCHEDULES = {
    Schedule.CONSTANT: "constant_with_warmup",
    Schedule.LINEAR: "linear",
    Schedule.COSINE: "cosine",
}


class GivenDropout(nn.Module):
    """Drops what ALTO's mask drops: of one linear, for the tokens that a job's step comes to."""

    def __init__(self, h: Hyperparameters, number: int) -> None:
        super().__init__()
        self.p, self._h, self._number = h.dropout, h, number
        self.step = self.first_token = 0

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2:]
        assert x.numel() == rows * columns, "one sequence at a time"
        key = step_key(self._h, self.step)
        segment = Segment(0, rows, 0, 1, 1.0, self.p, key, self.first_token)
        return x * keep_mask(segment, self._number, columns, x.device) / (1 - self.p)


def as_peft(
    model: PreTrainedModel, h: Hyperparameters, adapter: Mapping[str, Tensor] | None = None
) -> PeftModel:
    """With the adapter given, or with a new one, on all linears."""
    config = LoraConfig(
        r=h.rank,
        lora_alpha=h.alpha,  # type: ignore[arg-type]  # annotated int, used as a factor
        lora_dropout=h.dropout,
        use_rslora=h.rslora,
        target_modules="all-linear",
        fan_in_fan_out=model.config.model_type == "gpt2",
        task_type="CAUSAL_LM",
    )
    with _old_names():
        peft = get_peft_model(model, config)
    if adapter is not None:
        loading = peft.load_state_dict(_named_as_parameters(adapter), strict=False)
        assert not loading.unexpected_keys
    return cast(PeftModel, peft)


def loaded_by_peft(model: PreTrainedModel, folder: Path) -> PeftModel:
    """In evaluation mode."""
    with _old_names():
        return PeftModel.from_pretrained(model, folder).eval()


def train_plainly(
    model: PreTrainedModel,
    job: Job,
    samples: Sequence[Sample],
    first: Mapping[str, Tensor],
    *,
    padded: bool = False,
) -> Trajectory:
    """Train the job on a model of its own, its adapter `first` at the beginning.

    The sequences of a batch pass one by one, or together and padded.
    """
    h = job.hyperparameters
    if model.config.model_type not in ("gemma2", "gpt_oss"):  # sdpa knows neither softcap nor sinks
        model.set_attn_implementation("sdpa")
    peft = as_peft(model, h, first)
    dropouts = _give_dropout(peft, h)
    trained = [p for p in peft.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained,
        lr=h.learning_rate,
        betas=(h.beta1, h.beta2),
        eps=h.epsilon,
        weight_decay=h.weight_decay,
    )
    rising = math.ceil(h.rise * job.steps)
    schedule = get_scheduler(_SCHEDULES[h.schedule], optimizer, rising, job.steps)
    width = h.batch_size if padded else 1
    losses = []
    for step in range(job.steps):
        drawn = [samples[i] for i in batch_indices(h.seed, step, h.samples_per_step, len(samples))]
        targets = sum(sum(sample.is_target) for sample in drawn)
        loss, tokens = 0.0, 0
        for start in range(0, len(drawn), width):
            batch = drawn[start : start + width]
            for dropout in dropouts:
                dropout.step, dropout.first_token = step, tokens
            part = _summed_loss(peft, batch) / targets
            part.backward()
            loss += part.item()
            tokens += sum(len(sample.tokens) for sample in batch)
        if h.clip is not None:
            nn.utils.clip_grad_norm_(trained, h.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss)
    adapter = {n: t.detach().clone() for n, t in get_peft_model_state_dict(peft).items()}
    return Trajectory(tuple(losses), adapter)


@contextmanager
def _old_names() -> Iterator[None]:
    """PEFT asks transformers by a name that is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _summed_loss(peft: PeftModel, batch: Sequence[Sample]) -> Tensor:
    """Over the target tokens of sequences padded at their ends."""
    length = max(len(sample.tokens) for sample in batch)
    tokens, labels = torch.zeros(len(batch), length, dtype=torch.long), []
    mask = torch.zeros_like(tokens)
    for row, sample in enumerate(batch):
        tokens[row, : len(sample.tokens)] = torch.tensor(sample.tokens)
        mask[row, : len(sample.tokens)] = 1
        own = [t if on else -100 for t, on in zip(sample.tokens, sample.is_target, strict=True)]
        labels.append(own + [-100] * (length - len(own)))
    logits = peft(input_ids=tokens, attention_mask=mask).logits
    return nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), torch.tensor(labels)[:, 1:].flatten(), reduction="sum"
    )


def _give_dropout(peft: PeftModel, h: Hyperparameters) -> list[GivenDropout]:
    if not h.dropout:
        return []
    given = []
    for number, layer in enumerate(m for m in peft.modules() if isinstance(m, LoraLayer)):
        given.append(GivenDropout(h, number))
        layers: Any = layer.lora_dropout
        layers["default"] = given[-1]
    return given


def _named_as_parameters(adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace(".weight", ".default.weight"): t for name, t in adapter.items()}
