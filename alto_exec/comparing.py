"""What the winners of a run have learnt, against the untuned model."""

from collections.abc import Callable, Sequence

from alto_exec.bank import AdapterBank, Slot
from alto_exec.data.samples import encode_prompt
from alto_exec.evaluate import generate, validation_loss
from alto_exec.frozen_model import FrozenModel
from alto_exec.peft_format import read_adapter
from alto_exec.preparation import PreparedTask
from alto_runs.comparison import Answer, Comparison
from alto_runs.result import Best, Result
from alto_runs.study import Study

__all__ = ["compare"]

_MAX_NEW_TOKENS = 32


def compare(
    study: Study,
    prepared: Sequence[PreparedTask],
    result: Result,
    load: Callable[[PreparedTask], FrozenModel] | None = None,
) -> tuple[Comparison, ...]:
    """One for each task that has a winner: its adapter is read back from the run directory.

    The backbone is a copy in this process, where `load` does not give another.
    """
    comparisons = []
    for one in prepared:
        best = result.best(one.task.id)
        if best is not None and best.adapter is not None:
            backbone = one.load(study.executor) if load is None else load(one)
            comparisons.append(_compare(study, one, best, backbone))
    return tuple(comparisons)


def _compare(study: Study, prepared: PreparedTask, best: Best, backbone: FrozenModel) -> Comparison:
    assert best.adapter is not None
    bank = AdapterBank(backbone.shapes, backbone.device, dtype=backbone.dtype)
    stored = read_adapter(best.adapter, bank)
    slot = bank.join(stored.state())
    validation = prepared.dataset.validation
    return Comparison(
        task=prepared.task.id,
        job=best.standing.job,
        untuned_val_loss=validation_loss(backbone, bank, validation, None),
        val_loss=validation_loss(backbone, bank, validation, slot, stored.scale),
        answers=tuple(
            _answer(prompt, prepared, backbone, bank, (slot, stored.scale))
            for prompt in study.prompts
        ),
    )


def _answer(
    prompt: str,
    prepared: PreparedTask,
    backbone: FrozenModel,
    bank: AdapterBank,
    adapter: tuple[Slot, float],
) -> Answer:
    tokenizer = prepared.tokenizer
    untuned, tuned = generate(
        backbone,
        bank,
        encode_prompt(prompt, tokenizer),
        [(None, 1.0), adapter],
        end_tokens=backbone.end_tokens | {tokenizer.eos_token_id},
        max_new_tokens=_MAX_NEW_TOKENS,
    )
    decode = tokenizer.decode
    return Answer(prompt, *(str(decode(list(t))).strip() for t in (untuned, tuned)))
