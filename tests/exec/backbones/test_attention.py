"""Packed attention: each sequence attends to itself alone, as transformers' own attention does."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    Gemma2Config,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Lfm2Config,
    Lfm2ForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    MistralConfig,
    MistralForCausalLM,
)

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.attention import packed_attention, use_packed_attention
from alto_exec.backbones.transformers_model import Backbone
from alto_exec.data.samples import Sample
from alto_exec.passes.batch import Share, pack
from alto_kernels.varlen_attention import CumulativeLengths
from alto_runs.errors import UserError
from tests.exec.comparing import assert_close, assert_identical, assert_no_worse_than
from tests.exec.packed_loop import ragged_samples, tiny_model
from tests.exec.tiny_models import OTHER_MODELS, SIZES, TINY_MODELS, other_model, tiny_gpt2

SAMPLES = [
    Sample(s.tokens, (False, *[True] * (len(s.tokens) - 1))) for s in ragged_samples(6, longest=40)
]


def mistral() -> Any:
    """Every layer sees five tokens back."""
    torch.manual_seed(0)
    config = MistralConfig(
        **SIZES, intermediate_size=48, num_key_value_heads=2, head_dim=8, sliding_window=5
    )
    return MistralForCausalLM(config).eval()


def model_of(family: str) -> Any:
    if family == "gpt2":
        return tiny_gpt2()[0]
    if family in OTHER_MODELS:
        return other_model(family)
    return mistral() if family == "mistral" else tiny_model(family)


def packed_logits(family: str, samples: list[Sample]) -> list[Tensor]:
    """Of each sample, all of them in one row."""
    backbone = Backbone(model_of(family))
    batch = pack([Share(tuple(samples), slot=None)], backbone.device)
    with torch.no_grad():
        logits = backbone.target_logits(AdapterBank(backbone.shapes, backbone.device), batch)
    return list(logits.split([sum(s.is_target) for s in samples]))


@pytest.mark.parametrize("family", [*TINY_MODELS, *OTHER_MODELS, "mistral", "gpt2"])
def test_packed_sequences_meet_what_eager_attention_computes_of_each_alone(family: str) -> None:
    """Grouped heads, windows shorter than sequences, capped scores, sinks, learned positions."""
    model = model_of(family)
    model.set_attn_implementation("eager")
    for sample, found in zip(SAMPLES, packed_logits(family, SAMPLES), strict=True):
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([sample.tokens])).logits[0, :-1]
        assert_close(found, expected)


@pytest.mark.parametrize("family", [*TINY_MODELS, "mistral"])
@pytest.mark.parametrize("changed", [0, 3, 5])
def test_the_tokens_of_a_neighbour_change_not_one_bit(family: str, changed: int) -> None:
    # Which rows an expert multiplies together depends on all of them: there sums may be in another
    # order, by the processor.
    compare = assert_close if family == "gpt_oss" else assert_identical
    other = list(SAMPLES)
    shifted = tuple(3 + (token + 11) % 90 for token in SAMPLES[changed].tokens)
    other[changed] = replace(SAMPLES[changed], tokens=shifted)
    before, after = packed_logits(family, SAMPLES), packed_logits(family, other)
    for number, (one, two) in enumerate(zip(before, after, strict=True)):
        if number != changed:
            compare(two, one)
    assert not torch.equal(before[changed], after[changed])


def attend(lengths: tuple[int, ...], heads: int, key_heads: int, **options: Any) -> list[Tensor]:
    """The packed attention, and the queries, keys and values that went in."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, n, sum(lengths), 8, generator=generator)
        for n in (heads, key_heads, key_heads)
    )
    found, weights = packed_attention(
        None,
        query,
        key,
        value,
        None,
        sequence_lengths=CumulativeLengths.of(lengths, query.device),
        **options,
    )
    assert weights is None
    return [found, query, key, value]


@pytest.mark.parametrize("key_heads", [1, 2, 4], ids=lambda n: f"{n} key heads")
@pytest.mark.parametrize("window", [None, 1, 4, 9, 100], ids=lambda n: f"window {n}")
def test_blocks_of_a_whole_mask_say_the_same(key_heads: int, window: int | None) -> None:
    lengths = (9, 1, 4, 10)
    found, query, key, value = attend(lengths, 4, key_heads, sliding_window=window, scaling=0.3)
    sequence = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    place = torch.arange(sum(lengths))
    sees = (sequence[:, None] == sequence) & (place[:, None] >= place)
    if window is not None:
        sees &= place[:, None] - place < window
    expected = scaled_dot_product_attention(
        query, key, value, attn_mask=sees, scale=0.3, enable_gqa=True
    )
    assert_close(found, expected.transpose(1, 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("window", [None, 4, 100], ids=lambda n: f"window {n}")
@pytest.mark.parametrize(("key_heads", "size"), [(1, 64), (2, 96), (4, 256)])
def test_on_a_gpu_all_sequences_in_one_launch(
    key_heads: int, size: int, window: int | None
) -> None:
    """Values and gradients no worse than twice those of the product for each sequence."""
    lengths = CumulativeLengths.of((9, 1, 130, 10), torch.device("cuda"))
    shapes = [(1, heads, 150, size) for heads in (4, key_heads, key_heads, 4)]
    query, key, value, gradient = (
        torch.randn(s, device="cuda", dtype=torch.float64) for s in shapes
    )

    def run(dtype: torch.dtype, device: str) -> list[Tensor]:
        q, k, v = (t.to(device, dtype).requires_grad_() for t in (query, key, value))
        there = CumulativeLengths.of(lengths.lengths, torch.device(device))
        found, _ = packed_attention(
            None, q, k, v, None, sequence_lengths=there, scaling=0.1, sliding_window=window
        )
        given = gradient.transpose(1, 2).to(device, dtype)
        return [found.detach(), *torch.autograd.grad(found, (q, k, v), given)]

    for got, own, truth in zip(
        run(torch.bfloat16, "cuda"),
        run(torch.bfloat16, "cpu"),
        run(torch.float64, "cpu"),
        strict=True,
    ):
        assert_no_worse_than(got.cpu(), own, truth)


def test_a_cap_bounds_the_scores() -> None:
    """With a cap close to zero every position that is seen weighs the same."""
    found, _, _, value = attend((6, 5), 4, 2, softcap=1e-8)
    repeated = value.repeat_interleave(2, dim=1)
    counts = torch.arange(1.0, 7.0)[:, None]
    assert_close(found[:, :6], (repeated[:, :, :6].cumsum(2) / counts).transpose(1, 2))
    wide, *_ = attend((6, 5), 4, 2, softcap=1e6)
    assert_close(wide, attend((6, 5), 4, 2)[0])


def test_what_is_not_computed_is_refused() -> None:
    for name in ("position_bias", "indices", "block_indices", "sinks"):
        with pytest.raises(UserError, match=f"attention with {name} is not supported"):
            attend((4,), 2, 2, **{name: torch.zeros(2)})
    query, key, value = torch.zeros(3, 1, 2, 4, 8)
    with pytest.raises(UserError, match="its layers keep from attention where sequences end"):
        packed_attention(None, query, key, value, None)
    with pytest.raises(UserError, match="attention to tokens that come later is not supported"):
        attend((4,), 2, 2, is_causal=False)

    class Own:
        _supports_attention_backend = False

    with pytest.raises(UserError, match="Own computes attention by itself"):
        use_packed_attention(Own())


def test_a_model_that_mixes_tokens_outside_attention_is_refused() -> None:
    """Its short convolutions go over the whole row."""
    config = Lfm2Config(
        **SIZES, intermediate_size=48, num_key_value_heads=2, full_attn_idxs=[1], conv_L_cache=2
    )
    with pytest.raises(UserError, match="Lfm2ForCausalLM mixes tokens outside attention"):
        use_packed_attention(Lfm2ForCausalLM(config).eval())


def test_models_that_see_what_comes_later_or_chunks_are_refused() -> None:
    """As transformers' modules say it: Gemma's for embeddings, Llama 4's."""
    sizes = SIZES | {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
    embedding = Gemma3ForCausalLM(Gemma3TextConfig(**sizes, use_bidirectional_attention=True))
    with pytest.raises(UserError, match="attention to tokens that come later is not supported"):
        use_packed_attention(embedding)
    chunked = Llama4ForCausalLM(
        Llama4TextConfig(**sizes, intermediate_size_mlp=48, num_local_experts=2)
    )
    with pytest.raises(UserError, match="Llama4ForCausalLM attends in chunks"):
        use_packed_attention(chunked)


def test_weights_that_are_no_numbers_are_not_taken_for_a_mixture() -> None:
    model: Any = tiny_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[3] = torch.nan
    use_packed_attention(model)


def test_the_tiny_gemma2_has_a_window_and_a_cap() -> None:
    config = tiny_model("gemma2").config
    assert isinstance(config, Gemma2Config)
    assert config.sliding_window == 8 < max(len(s.tokens) for s in SAMPLES)
    assert config.attn_logit_softcapping is not None
