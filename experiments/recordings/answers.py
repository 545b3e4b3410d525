"""How many validation answers each adapter of a run gives word for word, and prefers.

    python experiments/recordings/answers.py RUN

Reads the run directory of `alto tune`, its data and its backbone, on the run's device. A sample is
right where greedy decoding gives the whole known answer; a pair, where the adapter prefers the
chosen answer by more than the untuned model does, of which so much is not asked. The untuned model
comes first. It is all written to `answers.jsonl` in the run directory.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from alto_exec.adapters.bank import AdapterBank
from alto_exec.adapters.peft_format import read_adapter
from alto_exec.data.samples import Pair, Sample
from alto_exec.passes.evaluation import FROZEN, Adapter, accuracies, preference_margins
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.passes.objective import References
from alto_exec.preparation import PreparedTask, prepare
from alto_runs.outcomes.leaderboard import Standing
from alto_runs.result import Result
from alto_runs.study import load_study
from experiments.grids.scores import ANSWERS, Answers

__all__ = ["answers_of", "write_answers"]

_AT_ONCE = 20  # adapters in the bank


def answers_of(prepared: PreparedTask, backbone: FrozenModel, result: Result) -> Iterator[Answers]:
    """Of the untuned model and of each adapter in the run directory."""
    standings = iter(
        standing
        for standing in result.leaderboard
        if standing.task == prepared.task.id and standing.adapter is not None
    )
    yield from _judged(prepared, backbone, result, [None])
    while some := list(islice(standings, _AT_ONCE)):
        yield from _judged(prepared, backbone, result, some)


def _judged(
    prepared: PreparedTask,
    backbone: FrozenModel,
    result: Result,
    standings: Sequence[Standing | None],
) -> Iterator[Answers]:
    bank = AdapterBank(backbone.shapes, backbone.device, dtype=backbone.dtype)
    adapters = [_adapter(bank, result, standing) for standing in standings]
    examples = prepared.dataset.validation
    samples = [example for example in examples if isinstance(example, Sample)]
    pairs = [example for example in examples if isinstance(example, Pair)]
    names = [None if standing is None else str(standing.job) for standing in standings]
    if samples:
        for name, found in zip(names, accuracies(backbone, bank, samples, adapters), strict=True):
            yield Answers(task=prepared.task.id, job=name, **asdict(found))
    if pairs:
        margins = preference_margins(backbone, bank, pairs, adapters, References())
        for name, margins_P in zip(names, margins, strict=True):
            share = None if name is None else float((margins_P > 0).double().mean())
            yield Answers(task=prepared.task.id, job=name, preferred=share)


def _adapter(bank: AdapterBank, result: Result, standing: Standing | None) -> Adapter:
    if standing is None:
        return FROZEN
    assert standing.adapter is not None
    stored = read_adapter(result.directory.path / standing.adapter, bank)
    slot = bank.join(stored.state())
    return Adapter(slot, stored.scale, standing.hyperparameters.dpo_beta)


def write_answers(result: Result) -> None:
    study = load_study(result.directory.study_path)
    rows = [
        json.dumps(asdict(row))
        for one in prepare(study)
        for row in answers_of(one, one.load(study.executor), result)
    ]
    (result.directory.path / ANSWERS).write_text("".join(f"{row}\n" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    write_answers(Result(parser.parse_args().run))


if __name__ == "__main__":
    main()
