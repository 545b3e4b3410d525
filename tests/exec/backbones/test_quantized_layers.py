"""A backbone packed in few bits computes with what its codes stand for, in their memory."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.decoder import Decoder
from alto_exec.backbones.quantized_layers import Format, QuantizedLayers, quantizer
from alto_exec.passes.batch import Share, pack
from alto_exec.passes.weighing import FixedWeights
from alto_exec.preparation import prepare
from alto_runs.errors import UserError
from alto_runs.study import load_study
from tests.exec.comparing import assert_identical
from tests.exec.packed_loop import ragged_samples
from tests.exec.tiny_models import tiny_llama, tiny_qwen3, tiny_smollm3
from tests.tune.small_study import STUDY, write_study

CPU = torch.device("cpu")
FORMATS = [pytest.param("int8", id="int8"), pytest.param("nf4", id="nf4")]
KEPT = ("embed_tokens", "lm_head")  # as they are


def unpacked_model(kind: Format, make: Callable[[], Any] = tiny_llama) -> Any:
    """transformers' model with the values that the codes stand for; those of one group together."""
    model, library = make()[0], quantizer(kind)
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for linears in (
            (attention.q_proj, attention.k_proj, attention.v_proj),
            (attention.o_proj,),
            (mlp.gate_proj, mlp.up_proj),
            (mlp.down_proj,),
        ):
            whole = torch.cat([linear.weight.detach() for linear in linears])
            if kind == "nf4":
                row = whole.flatten()
                codes, state = library.quantize_4bit(row, blocksize=64, quant_type="nf4")
                found = library.dequantize_4bit(codes, state).view_as(whole)
            else:
                found = library.dequantize_blockwise(
                    *library.quantize_blockwise(whole, blocksize=256)
                )
            assert 0 < (found - whole).norm() < 0.12 * whole.norm()
            sizes = [linear.out_features for linear in linears]
            for linear, part in zip(linears, found.split(sizes), strict=True):
                linear.weight.data = part.clone()
    return model


def passes(model: Decoder) -> list[Tensor]:
    """Losses of an evaluation, of two trained passes, of another evaluation; then gradients."""
    bank = AdapterBank(model.shapes, CPU, rows=0)
    slots = [bank.join(bank.fresh(rank, seed=rank)) for rank in (3, 5)]
    samples = ragged_samples(6)
    shares = [Share(tuple(samples[i::2]), slot, 2.0) for i, slot in enumerate(slots)]
    batch = pack(shares, CPU)
    weights = FixedWeights(torch.rand(len(batch.targets_N), generator=torch.manual_seed(0)))
    before = model.loss_sums(bank, batch)
    trained = [model.train(bank, batch, weights).clone() for _ in range(2)]
    return [before, *trained, model.loss_sums(bank, batch), bank.grad_RC]


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen3, tiny_smollm3])
def test_it_trains_as_the_unpacked_model(
    make: Callable[[], Any], kind: Format, recompute: bool
) -> None:
    packed = Decoder(make()[0], recompute=recompute, keeper=QuantizedLayers(kind, CPU))
    plain = Decoder(unpacked_model(kind, make), recompute=recompute)
    for found, expected in zip(passes(packed), passes(plain), strict=True):
        assert_identical(found, expected)
        assert expected.any()


@pytest.mark.parametrize(("kind", "share"), [("int8", 0.27), ("nf4", 0.15)])
def test_its_memory_is_that_of_the_codes(kind: Format, share: float) -> None:
    """Of fp32 a quarter or an eighth, with the scales; one layer is whole, and the ends are."""
    keeper, model = QuantizedLayers(kind, CPU), tiny_llama()[0]
    layers = sum(p.nbytes for n, p in model.model.layers.named_parameters() if p.ndim == 2)
    one = layers // len(model.model.layers)
    rest = sum(p.nbytes for p in model.parameters()) - layers
    packed = Decoder(model, keeper=keeper)
    assert 0.12 * layers < keeper.num_bytes < share * layers
    assert packed.num_bytes == keeper.num_bytes + one + rest


def test_a_pass_that_is_given_up_leaves_the_next_one_right() -> None:
    packed = Decoder(tiny_llama()[0], keeper=QuantizedLayers("int8", CPU))
    expected = passes(Decoder(unpacked_model("int8")))

    class Failing(FixedWeights):
        def __call__(self, losses_N: Tensor) -> Tensor:
            raise torch.OutOfMemoryError

    bank = AdapterBank(packed.shapes, CPU, rows=0)
    batch = pack([Share(tuple(ragged_samples(2)), bank.join(bank.fresh(2, 0)), 1.0)], CPU)
    with pytest.raises(torch.OutOfMemoryError):
        packed.train(bank, batch, Failing(torch.empty(0)))
    for found, right in zip(passes(packed), expected, strict=True):
        assert_identical(found, right)


def asking(kind: str) -> str:
    return STUDY.replace("executor: {{", f"executor: {{{{dtype: float32, frozen_weights: {kind}, ")


def test_a_study_asks_for_it(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, asking("nf4")))
    (prepared,) = prepare(study)
    plain = study.executor.model_copy(update={"frozen_weights": "plain"})
    assert prepared.load(study.executor).num_bytes < prepared.load(plain).num_bytes


def test_without_the_library_it_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    study = load_study(write_study(tmp_path, asking("int8")))
    with pytest.raises(UserError, match=r"frozen_weights: value 'int8': needs bitsandbytes"):
        prepare(study)
