"""How LoRAFusion and mLoRA are driven in whole steps; stubs stand for what is not here."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from alto_exec.profiling.correctness import Outcome, plain, random_adapter
from alto_exec.profiling.synthetic import random_model, random_samples
from experiments.steps import workers
from experiments.steps.by_lorafusion import LoRAFusion, with_one_linear_for_attention
from experiments.steps.by_mlora import MLoRA
from experiments.steps.workers import Case, Given, first_losses, multi_adapter

RANK, LENGTH = 16, 8
# As theirs: a manager who knows of one pass, of at most 4 adapters whose rows fill blocks of 8;
# one alone with dropout, several without.
LORAFUSION = {
    "ops/multi_lora.py": """
from collections import deque
from types import SimpleNamespace
from megatron.core import parallel_state

logger = SimpleNamespace(disable=lambda name: None)
PASSES = []

def get_lora_kernel_config(name):
    assert name == "fused_multi_lora_block_size_m"
    return 8

def prepare_multi_lora_batch_info(seq_len_list, lora_idx_list, lora_rank_list, dropout_p_list,
                                  alpha_list, block_size_m, allow_empty_micro_batch_info):
    assert len(seq_len_list) == len(lora_idx_list) <= 4 and not any(dropout_p_list)
    assert allow_empty_micro_batch_info and not any(n % block_size_m for n in seq_len_list)
    return SimpleNamespace(rows=seq_len_list, jobs=lora_idx_list, scales=alpha_list)

def init_multi_lora_manager(configs, stages, tokens, batches):
    global MANAGER
    MANAGER = Manager()
    return MANAGER

class Manager:
    def __init__(self):
        self.told = deque()
    def add_batch_info(self, info):
        assert not self.told
        PASSES.append(tuple(info.jobs))
        self.told.append(info)
    def pop_oldest_batch_info(self):
        self.told.popleft()
""",
    "patch/patch_lora.py": """
import torch
from peft.tuners.lora import Linear
from lorafusion.ops import multi_lora

def apply_lora(use_fused):
    assert use_fused
    def forward(self, x):
        (told,) = multi_lora.MANAGER.told
        assert x.shape[0] == 1 and self.training == (len(told.jobs) == 1)
        parts = []
        for rows, job, scale in zip(x[0].split(told.rows), told.jobs, told.scales):
            a, b = (of[f"lora_{job}"].weight for of in (self.lora_A, self.lora_B))
            parts.append(scale * (rows @ a.T @ b.T))
        return self.base_layer(x) + torch.cat(parts)[None]
    Linear.forward = forward
""",
    "patch/patch_transformers.py": """
from transformers.models.llama.modeling_llama import FlashAttentionKwargs

def merge_qkv_proj(model):
    return model
""",
}
# As theirs: rows of a batch by job; a result for each token in fp32.
MLORA = {
    "model/args.py": """
from dataclasses import dataclass
class LLMModelArgs:
    def __init__(self, config):
        self.pad_token_id_ = config.pad_token_id
@dataclass
class ModelDataConfig:
    adapter_name_: str
    adapter_type_: str
    batch_start_idx_: int
    batch_end_idx_: int
@dataclass
class ModelData:
    batch_tokens_: list
    batch_mask_: list
    data_config_: list
    enable_checkpoint_: bool
    random_id_: int
    task_name_: list
""",
    "model/llm/model_llama.py": """
import torch
AGAIN = []
class LlamaModel:
    def convert_model_from_huggingface(model, told):
        made = LlamaModel()
        made.model, made.device_, made.adapters = model, told.device_, []
        assert told.dtype_ == model.dtype and told.pad_token_id_ is not None
        return made
    def linears_info(self):
        return {n.removeprefix("model."): m for n, m in self.model.named_modules()
                if isinstance(m, torch.nn.Linear) and n != "lm_head"}
    def load_adapter(self, adapters):
        self.adapters.append(adapters)
    def forward(self, data):
        AGAIN.append(data.enable_checkpoint_)
        assert not any(map(any, data.batch_mask_))
        assert data.data_config_[-1].batch_end_idx_ == len(data.batch_tokens_)
        handles = []
        for name, linear in self.linears_info().items():
            def hook(module, given, y, name=name):
                y = y.clone()
                for one in data.data_config_:
                    own = slice(one.batch_start_idx_, one.batch_end_idx_)
                    (lora,) = (a[name] for a in self.adapters if a[name].name == one.adapter_name_)
                    y[own] += lora.scale * (given[0][own] @ lora.lora_a_.T @ lora.lora_b_.T)
                return y
            handles.append(linear.register_forward_hook(hook))
        logits = self.model(input_ids=torch.tensor(data.batch_tokens_)).logits.float()
        for handle in handles:
            handle.remove()
        return logits
""",
    "config/adapter.py": """
class LoRAConfig:
    def __init__(self, told):
        assert told["dropout"] > 0
        self.told = told
""",
    "executor/context.py": """
from datasets import load_dataset
import torch
class LoRA:
    def __init__(self, told, linear):
        self.name, self.scale = told["name"], told["alpha"] / told["r"]
        rows, columns = linear.weight.shape
        self.lora_a_ = torch.randn(told["r"], columns).requires_grad_()
        self.lora_b_ = torch.zeros(rows, told["r"]).requires_grad_()
    def init_weight(self, a, b):
        with torch.no_grad():
            self.lora_a_.copy_(a)
            self.lora_b_.copy_(b)
class TrainLoRAContext:
    def __init__(self, config, linears):
        assert all(config.told["target_modules"][n.split(".")[3]] for n in linears)
        self.own = {n: LoRA(config.told, linear) for n, linear in linears.items()}
        flat = [m for lora in self.own.values() for m in (lora.lora_a_, lora.lora_b_)]
        self.optimizer_ = torch.optim.AdamW(flat, lr=config.told["lr"])
        self.loss_fn_ = torch.nn.CrossEntropyLoss()
    def switch_device(self, device):
        assert device == "cpu"
    def adapter_model(self):
        return self.own
    def step(self):
        self.optimizer_.step()
        self.optimizer_.zero_grad()
""",
}


def written(folder: Path, package: str, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with both; what they change of other packages is as before at the end."""
    from peft.tuners.lora import Linear

    monkeypatch.setattr(Linear, "forward", Linear.forward)
    liger: Any = ModuleType("liger_kernel.transformers")
    liger.apply_liger_kernel_to_llama = lambda model: None
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, liger.__name__, liger)
    for name in ("datasets", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)  # cannot be imported
    monkeypatch.setattr(workers, "_DTYPE", torch.float32)
    before = set(sys.modules)
    yield written(written(tmp_path, "lorafusion", LORAFUSION), "mlora", MLORA)
    for name in set(sys.modules) - before:
        if name.startswith(("lorafusion", "megatron", "mlora")):
            del sys.modules[name]


def tiny_model() -> Any:
    from transformers import LlamaConfig

    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        vocab_size=32,
    )
    return random_model(config, torch.device("cpu"), torch.float32)


def made(kind: str, folder: Path, model: Any, jobs: int) -> LoRAFusion | MLoRA:
    if kind == "mlora":
        return MLoRA(folder, model, jobs, RANK)
    return LoRAFusion(folder, model, jobs, RANK)


def batches(jobs: int, batch_size: int) -> Tensor:
    samples = random_samples(jobs * batch_size, LENGTH, 32)
    return torch.tensor([sample.tokens for sample in samples]).view(jobs, batch_size, LENGTH)


@pytest.mark.parametrize("kind", ["lorafusion", "mlora"])
def test_their_losses_and_gradients_are_those_of_each_job_alone(theirs: Path, kind: str) -> None:
    model, samples = tiny_model(), random_samples(3, LENGTH, 32)
    if kind == "lorafusion":
        with_one_linear_for_attention(theirs, model, LENGTH)
    adapters = [random_adapter(model, seed, RANK) for seed in range(3)]
    right = [plain(model, a, sample) for a, sample in zip(adapters, samples, strict=True)]
    found = made(kind, theirs, model, 5).outcomes(adapters, samples)
    for one, other in zip(found, right, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert_near(one, other)


@pytest.mark.parametrize("kind", ["lorafusion", "mlora"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_step_is_that_of_each_job_alone(theirs: Path, kind: str, batch_size: int) -> None:
    """Of five jobs: the mean of their losses, and what AdamW then makes of each alone."""
    tokens = batches(5, batch_size)
    losses = []
    for chosen in (range(5), *([job] for job in range(5))):
        model = tiny_model()
        if kind == "lorafusion":
            with_one_linear_for_attention(theirs, model, LENGTH)
        torch.manual_seed(0)  # adapters of equal values
        trainer = made(kind, theirs, model, 1) if len(chosen) == 1 else made(kind, theirs, model, 5)
        if kind == "mlora":
            alike(trainer)
        right = first_losses(tiny_model(), tokens[list(chosen)].flatten(0, 1)).mean()
        step = trainer.step_of(tokens[list(chosen)])
        losses.append([float(step()) for _ in range(3)])
        assert losses[-1][0] == pytest.approx(float(right), rel=1e-5), "adapters begin as nothing"
        trainer.begin_anew()
        assert [float(step()) for _ in range(2)] == pytest.approx(losses[-1][:2], rel=1e-5)
    packed, alone = losses[0], losses[1:]
    assert packed[2] < packed[1] < packed[0]
    for number in range(3):
        assert packed[number] == pytest.approx(sum(one[number] for one in alone) / 5, rel=1e-5)


def alike(trainer: Any) -> None:
    """All adapters begin as the first one does."""
    first = trainer._contexts[0].adapter_model()
    for context in trainer._contexts[1:]:
        for name, lora in context.adapter_model().items():
            lora.init_weight(first[name].lora_a_, first[name].lora_b_)


def test_four_adapters_at_most_are_in_a_pass(theirs: Path) -> None:
    model = tiny_model()
    with_one_linear_for_attention(theirs, model, LENGTH)
    made("lorafusion", theirs, model, 6).step_of(batches(6, 1))()
    assert sys.modules["lorafusion.ops.multi_lora"].PASSES == [(0, 1, 2, 3), (4, 5)]


def test_what_is_wrong_is_not_timed(
    theirs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = theirs / "model"
    tiny_model().config.save_pretrained(folder)
    given = Given(str(folder), (Case(3, 1, LENGTH),), theirs, theirs / "rows.jsonl")

    def make(model: Any) -> MLoRA:
        return MLoRA(theirs, model, 3, RANK)

    multi_adapter(given, "mlora", make, None, torch.device("cpu"))
    assert "mlora: 3 jobs of 1 x 8 tokens" in capsys.readouterr().out
    assert len(given.rows.read_text().splitlines()) == 1
    outcomes = MLoRA.outcomes
    monkeypatch.setattr(MLoRA, "outcomes", lambda self, a, s: outcomes(self, a[::-1], s))
    with pytest.raises(Exception, match=r"times as far from torch\.float64 as plain"):
        multi_adapter(given, "mlora", make, None, torch.device("cpu"))
    assert len(given.rows.read_text().splitlines()) == 1


@pytest.mark.parametrize("kind", ["lorafusion", "mlora"])
def test_a_folder_without_their_package_is_told(tmp_path: Path, kind: str) -> None:
    with pytest.raises(SystemExit, match=f"--{kind}: .* has no {kind}/"):
        made(kind, tmp_path, tiny_model(), 2)


def assert_near(found: Outcome, expected: Outcome) -> None:
    assert found.gradients.keys() == expected.gradients.keys()
    for name, pair in expected.gradients.items():
        for one, other in zip(found.gradients[name], pair, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
