"""What the winners of a run have learnt, against the untuned model."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from alto_exec.adapters.bank import AdapterBank
from alto_exec.adapters.peft_format import read_adapter
from alto_exec.data.samples import Pair, encode_prompt
from alto_exec.passes.evaluation import (
    FROZEN,
    Adapter,
    generate,
    preference_margins,
    validation_losses,
)
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.passes.objective import References
from alto_exec.preparation import PreparedTask
from alto_policy.types import TaskId
from alto_runs.outcomes.comparison import Answer, Comparison
from alto_runs.result import Best
from alto_runs.study import Study

__all__ = ["compare"]

_MAX_NEW_TOKENS = 32


def compare(
    study: Study,
    prepared: Sequence[PreparedTask],
    best_of: Callable[[TaskId], Best | None],
    load: Callable[[PreparedTask], FrozenModel] | None = None,
) -> tuple[Comparison, ...]:
    """One for each task that has a winner: its adapter is read back.

    The backbone is a copy in this process, where `load` does not give another.
    """
    comparisons = []
    for one in prepared:
        best = best_of(one.task.id)
        if best is not None and best.adapter is not None:
            backbone = one.load(study.executor) if load is None else load(one)
            comparisons.append(_compare(study, one, best, backbone))
    return tuple(comparisons)


def _compare(study: Study, prepared: PreparedTask, best: Best, backbone: FrozenModel) -> Comparison:
    assert best.adapter is not None
    bank = AdapterBank(backbone.shapes, backbone.device, dtype=backbone.dtype)
    stored = read_adapter(best.adapter, bank)
    hyperparameters = best.standing.hyperparameters
    tuned = Adapter(bank.join(stored.state()), stored.scale, hyperparameters.dpo_beta)
    validation, references = prepared.dataset.validation, References()
    untuned_loss, tuned_loss = validation_losses(
        backbone, bank, validation, [replace(FROZEN, dpo_beta=tuned.dpo_beta), tuned], references
    )
    preferred = None
    if pairs := [example for example in validation if isinstance(example, Pair)]:
        (margins_P,) = preference_margins(backbone, bank, pairs, [tuned], references)
        preferred = float((margins_P > 0).double().mean())
    return Comparison(
        task=prepared.task.id,
        job=best.standing.job,
        untuned_val_loss=untuned_loss,
        val_loss=tuned_loss,
        preferred=preferred,
        answers=tuple(_answer(prompt, prepared, backbone, bank, tuned) for prompt in study.prompts),
    )


def _answer(
    prompt: str,
    prepared: PreparedTask,
    backbone: FrozenModel,
    bank: AdapterBank,
    tuned: Adapter,
) -> Answer:
    tokenizer = prepared.tokenizer
    answers = generate(
        backbone,
        bank,
        encode_prompt(prompt, tokenizer),
        [FROZEN, tuned],
        end_tokens=backbone.end_tokens | {tokenizer.eos_token_id},
        max_new_tokens=_MAX_NEW_TOKENS,
    )
    decode = tokenizer.decode
    return Answer(prompt, *(str(decode(list(t))).strip() for t in answers))
