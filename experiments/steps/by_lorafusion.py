"""Whole training steps by LoRAFusion (arXiv 2510.00206), from a folder with its code: none is here.

As its own scripts train: PEFT's linears with its fused kernels in them, queries, keys and values in
one linear, Liger's kernels for norms, rotations and gates, an AdamW of PyTorch's for each adapter.
A pass takes 4 adapters at most, so more go in several passes before the optimizers step; one alone
takes its kernels for one. It has no loss of its own, so Liger's is taken, fused with the head.
Sequences of one length are kept apart by PyTorch's FlashAttention, in place of flash-attn's.
Dropout is off for several, since with it the forward and backward passes of its kernels are not of
one function, and as small as makes no difference for one, whose kernels do not run without it.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad, scaled_dot_product_attention

from alto_exec.data.samples import Sample
from alto_exec.profiling.correctness import SCALE, Adapter, Outcome
from bench.lorafusion import MOST_ADAPTERS, load
from experiments.steps.peers import Step

__all__ = ["LoRAFusion", "with_one_linear_for_attention"]

_ROOM = 256  # rows and columns past a matrix's end, which their kernels read and make no use of
_DROPOUT = 1e-6  # of an adapter alone
_IGNORED = -100  # a label that is no target
_LEARNING_RATE = 1e-4


def with_one_linear_for_attention(folder: Path, model: Any, length: int) -> Any:
    """Queries, keys and values come of one linear; tokens are of sequences of this length."""
    from transformers import AttentionInterface
    from transformers.models.llama import modeling_llama

    theirs: Any = modeling_llama
    if not hasattr(theirs, "FlashAttentionKwargs"):  # which they look up there, to annotate
        theirs.FlashAttentionKwargs = theirs.TransformersKwargs

    def sequences(x: Tensor) -> Tensor:  # of (1, heads, tokens, head size)
        _, heads, _, size = x.shape
        return x.transpose(1, 2).reshape(-1, length, heads, size).transpose(1, 2)

    def apart(
        module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: None, **rest: Any
    ) -> tuple[Tensor, None]:
        y = scaled_dot_product_attention(
            sequences(q),
            sequences(k),
            sequences(v),
            is_causal=True,
            scale=rest["scaling"],
            enable_gqa=True,
        )
        return y.transpose(1, 2).reshape(1, -1, q.shape[1], q.shape[3]), None

    AttentionInterface.register("apart", apart)
    model.set_attn_implementation("apart")
    patches: Any = load(folder, "lorafusion.patch.patch_transformers")
    with model.device:
        return patches.merge_qkv_proj(model)


@dataclass(frozen=True, slots=True)
class _Pass:
    """Of four jobs at most."""

    told: Any  # to their linears: whose rows are which
    inputs: dict[str, Tensor]
    jobs: int


class LoRAFusion:
    """So many adapters in the linears of a model whose attention has one linear."""

    def __init__(self, folder: Path, model: Any, jobs: int, rank: int) -> None:
        self._kernels: Any = load(folder, "lorafusion.ops.multi_lora")
        from liger_kernel.transformers import apply_liger_kernel_to_llama
        from peft import LoraConfig, get_peft_model
        from peft.tuners.lora import LoraLayer

        settings = LoraConfig(
            r=rank,
            lora_alpha=int(SCALE * rank),
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        get_peft_model(model, settings, adapter_name=_name(0))
        self._model, self._rank = model.train(), rank  # Liger's loss is fused while training alone
        self._linears: dict[str, Any] = {
            name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)
        }
        for linear in self._linears.values():
            _give_adapters(linear, jobs)
        self._kernels.logger.disable("lorafusion")  # it warns in each pass of sizes that are odd
        self._manager = self._kernels.init_multi_lora_manager(
            [settings] * jobs, 1, None, [1] * jobs
        )
        load(folder, "lorafusion.patch.patch_lora").apply_lora(use_fused=True)
        apply_liger_kernel_to_llama(model=model)
        fused = model.device.type == "cuda"
        self._optimizers = [
            torch.optim.AdamW(
                [matrix for linear in self._linears.values() for matrix in _matrices(linear, job)],
                lr=_LEARNING_RATE,
                weight_decay=0.0,
                fused=fused,
            )
            for job in range(jobs)
        ]

    def begin_anew(self) -> None:
        """Adapters that do nothing, optimizers that know of no step."""
        with torch.no_grad():
            for linear in self._linears.values():
                for job in range(len(self._optimizers)):
                    _matrices(linear, job)[1].zero_()
        for optimizer in self._optimizers:
            optimizer.state.clear()

    def launch(self, tokens_JbL: Tensor) -> None:
        """All kernels of a step but the optimizers'."""
        for one in self._passes(tokens_JbL):
            self._train(one)
        self._drop_gradients()

    def step_of(self, tokens_JbL: Tensor) -> Step:
        """Of the first jobs, each with a batch of its own."""
        passes = self._passes(tokens_JbL)
        optimizers = self._optimizers[: len(tokens_JbL)]

        def step() -> Tensor:
            losses = [self._train(one) for one in passes]
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            return torch.stack(losses).sum() / len(tokens_JbL)

        return step

    def outcomes(self, adapters: Sequence[Adapter], samples: Sequence[Sample]) -> list[Outcome]:
        """Four adapters at most, one sample each, in one pass."""
        rows = torch.tensor([sample.tokens for sample in samples], device=self._model.device)
        with torch.no_grad():
            for job, adapter in enumerate(adapters):
                for name, (a_rI, b_rO) in adapter.items():
                    a, b = _matrices(self._linears[name], job)
                    a.copy_(a_rI)
                    b.copy_(b_rO.T)
        (one,) = self._passes(rows[:, None])
        inputs = {name: value for name, value in one.inputs.items() if name != "labels"}
        self._begin(one)
        logits = self._model(**inputs).logits[0].float().split(rows.shape[1])
        losses = [cross_entropy(y[:-1], row[1:]) for y, row in zip(logits, rows, strict=True)]
        torch.stack(losses).sum().backward()
        self._manager.pop_oldest_batch_info()
        found = [
            Outcome(float(loss.detach()), self._gradients(job)) for job, loss in enumerate(losses)
        ]
        self._drop_gradients()
        return found

    def _gradients(self, job: int) -> Adapter:
        found = {}
        for name, linear in self._linears.items():
            a, b = _matrices(linear, job)
            assert a.grad is not None
            assert b.grad is not None
            found[name] = (a.grad.clone(), b.grad.T.clone())
        return found

    def _drop_gradients(self) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad()

    def _train(self, one: _Pass) -> Tensor:
        """The sum of the jobs' losses."""
        self._begin(one)
        loss: Tensor = self._model(**one.inputs).loss * one.jobs
        loss.backward()
        self._manager.pop_oldest_batch_info()
        return loss.detach()

    def _begin(self, one: _Pass) -> None:
        self._manager.add_batch_info(one.told)
        for linear in self._linears.values():
            linear.training = one.jobs == 1  # whether its kernels apply dropout

    def _passes(self, tokens_JbL: Tensor) -> list[_Pass]:
        numbers = torch.arange(len(tokens_JbL)).split(MOST_ADAPTERS)
        return [self._pass([int(n) for n in few], tokens_JbL[few]) for few in numbers]

    def _pass(self, jobs: Sequence[int], tokens_JbL: Tensor) -> _Pass:
        _, batch_size, length = tokens_JbL.shape
        block = self._kernels.get_lora_kernel_config("fused_multi_lora_block_size_m")
        if batch_size * length % block:
            raise SystemExit(
                f"lorafusion: {batch_size} x {length} tokens fill no blocks of {block}"
            )
        told = self._kernels.prepare_multi_lora_batch_info(
            seq_len_list=[batch_size * length] * len(jobs),
            lora_idx_list=list(jobs),
            lora_rank_list=[self._rank] * len(jobs),
            dropout_p_list=[0.0] * len(jobs),
            alpha_list=[SCALE] * len(jobs),
            block_size_m=block,
            allow_empty_micro_batch_info=True,
        )
        rows = tokens_JbL.flatten(0, 1)
        places = torch.arange(length, device=rows.device).repeat(len(rows))
        inputs = {
            "input_ids": rows.reshape(1, -1),
            "position_ids": places[None],
            "labels": pad(rows[:, 1:], (1, 0), value=_IGNORED).reshape(1, -1),
        }
        return _Pass(told, inputs, len(jobs))


def _give_adapters(linear: Any, jobs: int) -> None:
    """Those after the first are copies of it, in the backbone's type, which is faster than PEFT."""
    _give_room(linear.base_layer.weight)
    first = _name(0)
    for job in range(jobs):
        name = _name(job)
        linear.scaling[name], linear.lora_dropout[name] = SCALE, nn.Dropout(_DROPOUT)
        for adapters in (linear.lora_A, linear.lora_B):
            adapters[name] = deepcopy(adapters[first]).to(linear.base_layer.weight.dtype)
            _give_room(adapters[name].weight.requires_grad_())


def _matrices(linear: Any, job: int) -> tuple[nn.Parameter, nn.Parameter]:
    """A (r, inputs) and B (outputs, r)."""
    return linear.lora_A[_name(job)].weight, linear.lora_B[_name(job)].weight


def _give_room(parameter: nn.Parameter) -> None:
    """Memory behind it, if it ends within one of their blocks."""
    rows, columns = parameter.shape
    if rows % _ROOM or columns % _ROOM:
        roomy = parameter.new_zeros((rows + _ROOM) * columns + _ROOM)
        parameter.data = roomy[: rows * columns].view(rows, columns).copy_(parameter.data)


def _name(job: int) -> str:
    return f"lora_{job}"
