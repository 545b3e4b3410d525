"""Whole training steps by mLoRA (arXiv 2312.02515), from a folder with its code: none is here.

Its model, its adapters in fp32 with an AdamW each, and the order of its executor: one forward pass
over the batches of all jobs, a loss for each, one backward pass of their sum, a step of each
optimizer. What it writes into logs is left out. Its dropout must be above zero, and its backward
pass does without the mask, so it is as small as makes no difference. Its executor computes all
activations again; here that may be left out.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from alto_exec.data.samples import Sample
from alto_exec.profiling.correctness import SCALE, Adapter, Outcome
from experiments.steps.peers import Step

__all__ = ["MLoRA"]

_DROPOUT = 1e-6
_LEARNING_RATE = 1e-4
_NO_PADDING = -1
_PREFIX = "model."  # of a linear's name, which they leave out
# Looked up when their packages are imported, and not used here.
_UNUSED = {"datasets": "load_dataset", "torch.utils.tensorboard": "SummaryWriter"}


class MLoRA:
    """So many adapters on all linears of a Llama, whose weights its layers take over."""

    def __init__(self, folder: Path, model: Any, jobs: int, rank: int) -> None:
        self.recompute = True
        self._arguments: Any = _load(folder, "mlora.model.args")
        told = self._arguments.LLMModelArgs(model.config)
        told.device_, told.dtype_ = str(model.device), model.dtype
        if told.pad_token_id_ is None:
            told.pad_token_id_ = _NO_PADDING
        llama: Any = _load(folder, "mlora.model.llm.model_llama")
        self._model = llama.LlamaModel.convert_model_from_huggingface(model, told)
        self._contexts = [self._context(folder, job, rank) for job in range(jobs)]

    def begin_anew(self) -> None:
        """Adapters that do nothing, optimizers that know of no step."""
        for context in self._contexts:
            for lora in context.adapter_model().values():
                lora.init_weight(lora.lora_a_, torch.zeros_like(lora.lora_b_))
            context.optimizer_.state.clear()

    def step_of(self, tokens_JbL: Tensor) -> Step:
        """Of the first jobs, each with a batch of its own."""
        rows = tokens_JbL.flatten(0, 1)
        batch_size, labels = tokens_JbL.shape[1], rows[:, 1:]
        data = self._data(rows, batch_size)
        contexts = self._contexts[: len(tokens_JbL)]

        def step() -> Tensor:
            logits = self._model.forward(data)
            total: Tensor = logits.new_zeros(())
            for job, context in enumerate(contexts):
                own = slice(job * batch_size, (job + 1) * batch_size)
                total = total + context.loss_fn_(
                    logits[own, :-1].flatten(0, 1), labels[own].flatten()
                )
            total.backward()
            for context in contexts:
                context.step()
            return total.detach() / len(contexts)

        return step

    def outcomes(self, adapters: Sequence[Adapter], samples: Sequence[Sample]) -> list[Outcome]:
        """One sample each."""
        for context, adapter in zip(self._contexts, adapters, strict=False):
            for name, (a_rI, b_rO) in adapter.items():
                own = context.adapter_model()[name.removeprefix(_PREFIX)]
                own.init_weight(a_rI, b_rO.T)
        contexts = self._contexts[: len(adapters)]
        rows = torch.tensor([sample.tokens for sample in samples])
        logits = self._model.forward(self._data(rows, 1))
        losses = [
            cross_entropy(y[:-1], row[1:])
            for y, row in zip(logits, rows.to(logits.device), strict=True)
        ]
        torch.stack(losses).sum().backward()
        found = [
            Outcome(
                float(loss.detach()),
                {
                    _PREFIX + name: (lora.lora_a_.grad.clone(), lora.lora_b_.grad.T.clone())
                    for name, lora in context.adapter_model().items()
                },
            )
            for loss, context in zip(losses, contexts, strict=True)
        ]
        for context in contexts:
            context.optimizer_.zero_grad()
        return found

    def _data(self, rows: Tensor, batch_size: int) -> Any:
        configs = [
            self._arguments.ModelDataConfig(_name(job), "lora", first, first + batch_size)
            for job, first in enumerate(range(0, len(rows), batch_size))
        ]
        return self._arguments.ModelData(
            batch_tokens_=rows.tolist(),
            batch_mask_=torch.zeros(rows.shape, dtype=torch.bool).tolist(),
            data_config_=configs,
            enable_checkpoint_=self.recompute,
            random_id_=0,
            task_name_=[_name(job) for job in range(len(configs))],
        )

    def _context(self, folder: Path, job: int, rank: int) -> Any:
        """A job's adapter in the model's linears, and its optimizer."""
        linears = self._model.linears_info()
        settings = {
            "type": "lora",
            "name": _name(job),
            "path": _name(job),
            "optimizer": "adamw",
            "lr": _LEARNING_RATE,
            "r": rank,
            "alpha": int(SCALE * rank),
            "dropout": _DROPOUT,
            "target_modules": {name.rpartition(".")[2]: True for name in linears},
        }
        config = _load(folder, "mlora.config.adapter").LoRAConfig(settings)
        context = _load(folder, "mlora.executor.context").TrainLoRAContext(config, linears)
        context.switch_device(self._model.device_)
        self._model.load_adapter(context.adapter_model())
        return context


def _load(folder: Path, module: str) -> Any:
    """Raises SystemExit where the folder does not hold their package."""
    if not (folder / "mlora" / "model" / "args.py").is_file():
        raise SystemExit(f"--mlora: {folder} has no mlora/model/args.py")
    for name, member in _UNUSED.items():
        try:
            import_module(name)
        except ImportError:
            sys.modules[name] = ModuleType(name)
            setattr(sys.modules[name], member, object)
    theirs: Any = torch
    if not hasattr(theirs, "List"):  # which they look up there, to annotate
        theirs.List = list
    sys.path.insert(0, str(folder))
    try:
        return import_module(module)
    finally:
        sys.path.remove(str(folder))


def _name(job: int) -> str:
    return f"job_{job}"
