"""A task of a study, ready to be trained: its model found, its data read, its jobs counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.compiling import compile_passes
from alto_exec.backbones.decoder import Decoder, can_be_written_out
from alto_exec.backbones.linears import check_targets
from alto_exec.backbones.quantized_layers import QuantizedLayers, quantizer
from alto_exec.backbones.transformers_model import Backbone
from alto_exec.data.dataset import Dataset, load_dataset
from alto_exec.executor import Executor
from alto_exec.host.machine import device_of, dtype_of
from alto_exec.host.process import (
    multiply_with,
    pin_ahead,
    pin_by_many_threads,
    spare_what_lives,
    take_back_what_is_spared,
)
from alto_exec.jobs.diary import diary_of
from alto_exec.jobs.metering import Meter
from alto_exec.jobs.seating import Space
from alto_exec.memory.counting import memory_model
from alto_exec.memory.measuring import measured_memory_model
from alto_exec.models.load import load_backbone, load_tokenizer, resolve_model
from alto_exec.passes.frozen_model import FrozenModel
from alto_policy.memory import MemoryModel
from alto_policy.types import Task, TokenCounts
from alto_runs.errors import UserError
from alto_runs.files.data_lengths import append_lengths
from alto_runs.files.directory import RunDirectory
from alto_runs.study import ExecutorSpec, Study, TaskSpec, expand, naming_task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["PreparedTask", "bank_of", "prepare"]


@dataclass(frozen=True, slots=True)
class PreparedTask:
    spec: TaskSpec
    task: Task
    model: Path
    tokenizer: "PreTrainedTokenizerFast"
    dataset: Dataset

    def on(self, num_gpus: int) -> "PreparedTask":
        """As an executor on so many GPUs trains it."""
        return replace(self, task=self.task.on(num_gpus))

    def kernels(self, executor: ExecutorSpec) -> str:
        """What computes: for the header of the log."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(
            self.model, local_files_only=True, trust_remote_code=False
        )
        backbone = "written out" if can_be_written_out(config) else "of transformers' modules"
        by_triton = executor.device == "cuda" and executor.dtype == "bfloat16"
        products = "Triton kernels where aligned" if by_triton else "PyTorch's products"
        return f"lora_linear by {products}, backbone {backbone}"

    def start(
        self,
        spec: ExecutorSpec,
        directory: RunDirectory,
        load: Callable[[ExecutorSpec], FrozenModel] | None = None,
        *,
        is_durable: bool = True,
    ) -> tuple[Executor, MemoryModel]:
        """An executor of the task, and what it may hold; in whichever process this is.

        Its backbone is a copy of its own, where `load` does not give it another.
        """
        assert spec.threads is not None
        multiply_with(spec.threads)
        if spec.device == "cuda":
            pin_by_many_threads()
        backbone = (load or self.load)(spec)
        spare_what_lives(backbone)  # before passes that compile, which makes objects
        bank = bank_of(backbone, spec)
        if isinstance(backbone, Decoder) and backbone.is_whole and backbone.runs_in_kernels:
            compile_passes(backbone, bank, self.task)
        if backbone.device.type == "cuda":
            pin_ahead(self._copied_bytes(backbone, bank, spec), backbone.device)
        memory = self.memory(backbone, bank, spec)
        space = Space(memory, self.task.max_length)
        diary = diary_of(directory)
        meter = Meter(self.task.id, diary.tell, diary.settle)
        executor = Executor(
            backbone,
            self.dataset,
            directory,
            bank=bank,
            space=space,
            is_durable=is_durable,
            meter=meter,
        )
        spare_what_lives(backbone)
        return executor, memory

    def tell_lengths(self, directory: RunDirectory) -> None:
        """For whoever simulates the run."""
        append_lengths(directory.lengths_path, self.task.id, self.dataset.lengths)

    def load(self, executor: ExecutorSpec) -> FrozenModel:
        """A copy of the backbone on the device, written out where its architecture allows it."""
        take_back_what_is_spared()
        device, kind = device_of(executor), executor.frozen_weights
        # What is to be packed comes to the device a layer at a time.
        first = device if kind == "plain" else torch.device("cpu")
        model = load_backbone(self.model, device=first, dtype=dtype_of(executor))
        if can_be_written_out(model.config):
            keeper = None if kind == "plain" else QuantizedLayers(kind, device)
            recompute = executor.recompute is True
            return Decoder(model, self.spec.targets, recompute=recompute, keeper=keeper)
        if kind != "plain":
            raise UserError(
                f"executor.frozen_weights: value {kind!r}: weights of this model's architecture "
                f"({model.config.model_type}) cannot be packed here; leave it out"
            )
        if executor.recompute:
            raise UserError(
                "executor.recompute: value true: activations of this model's architecture "
                f"({model.config.model_type}) cannot be recomputed here; leave it out"
            )
        return Backbone(model, self.spec.targets)

    def memory(
        self, backbone: FrozenModel, bank: AdapterBank, executor: ExecutorSpec
    ) -> MemoryModel:
        """Measured on a GPU, by passes over the longest samples; counted from shapes elsewhere."""
        capacity = _capacity(executor)
        if backbone.device.type == "cuda":
            model = measured_memory_model(
                backbone, bank, self.dataset.train, self.task, executor.recompute, capacity
            )
        else:
            model = memory_model(backbone, bank, capacity)
        model = replace(model, max_jobs=executor.max_jobs)
        backbone.activations.follow(model)
        return model

    def _copied_bytes(
        self, backbone: FrozenModel, bank: AdapterBank, executor: ExecutorSpec
    ) -> list[int]:
        """Of an adapter of each job, as many as train side by side by a count of memory."""
        counted, jobs = memory_model(backbone, bank, _capacity(executor)), self.task.jobs
        fitting = (counted.fits(jobs[:n], self.task.max_length) for n in range(1, len(jobs) + 1))
        count = sum(takewhile(bool, fitting))
        row = bank.value_RC.element_size() * bank.num_columns
        return [row * job.hyperparameters.rank for job in jobs[:count]]


def _capacity(executor: ExecutorSpec) -> int | None:
    """Bytes, where the study sets them."""
    gigabytes = executor.memory_gb
    return None if gigabytes is None else int(gigabytes * 1e9)


def bank_of(backbone: FrozenModel, spec: ExecutorSpec) -> AdapterBank:
    """An empty one for the linears of the backbone."""
    return AdapterBank(
        backbone.shapes,
        backbone.device,
        rows=0,
        dtype=backbone.dtype,
        in_8_bits=spec.optimizer_states == "int8",
    )


def prepare(study: Study, whose: str = "") -> Sequence[PreparedTask]:
    """All tasks of the study.

    Whatever is wrong with one is found here, before anything trains. Raises UserError that begins
    with the task's name where there are several; so do warnings, after `whose` they are.
    """
    if study.executor.frozen_weights != "plain":
        quantizer(study.executor.frozen_weights)
    prepared = []
    for name, spec in study.tasks.items():
        with naming_task(name, study):
            of_task = f"{whose}tasks.{name}: " if len(study.tasks) > 1 else whose
            prepared.append(_prepare(name, spec, study.executor, of_task))
    return prepared


def _prepare(name: str, spec: TaskSpec, executor: ExecutorSpec, whose: str) -> PreparedTask:
    model = resolve_model(spec.model)
    check_targets(model, spec.targets)
    tokenizer = load_tokenizer(model)
    dataset = load_dataset(spec.data, tokenizer, spec.objective, whose=whose)
    longest = max(example.most_tokens for example in (*dataset.train, *dataset.validation))
    task = expand(name, spec, num_samples=len(dataset.train), max_length=longest)
    task = replace(
        task, num_gpus=executor.gpus or 1, widths=executor.widths, tokens=_counted(dataset)
    )
    return PreparedTask(spec, task, model, tokenizer, dataset)


def _counted(dataset: Dataset) -> TokenCounts:
    train, validation = (
        [example.num_tokens for example in part] for part in (dataset.train, dataset.validation)
    )
    return TokenCounts(per_sample=sum(train) / len(train), validation=sum(validation))
