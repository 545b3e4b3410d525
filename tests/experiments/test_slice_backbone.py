"""A slice is made of the model's own layers, a random backbone of a shape and a tokenizer."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from alto_exec.models.load import load_backbone, load_tokenizer, resolve_model
from alto_runs.errors import UserError
from experiments.backbones.random_weights import save_random
from experiments.backbones.slice_backbone import slice_backbone
from tests.exec.tiny_models import save_tiny, tiny_llama, tiny_qwen2, tiny_tokenizer

CPU = torch.device("cpu")


def loaded(folder: Path) -> Any:
    return load_backbone(resolve_model(str(folder)), device=CPU, dtype=torch.float32)


@pytest.mark.parametrize(("layers", "kept"), [(1, [0]), (3, [0, 1, 4]), (4, [0, 1, 3, 4])])
@pytest.mark.parametrize("family", [tiny_llama, tiny_qwen2])
def test_it_has_the_layers_of_both_ends_between_the_ends_of_the_model(
    family: Callable[..., tuple[nn.Module, object]], layers: int, kept: list[int], tmp_path: Path
) -> None:
    cast(PreTrainedModel, family(layers=5)[0]).save_pretrained(tmp_path / "whole")
    tiny_tokenizer().save_pretrained(tmp_path / "whole")
    slice_backbone(str(tmp_path / "whole"), layers, tmp_path / "slice")
    whole, part = loaded(tmp_path / "whole"), loaded(tmp_path / "slice")
    assert len(part.model.layers) == part.config.num_hidden_layers == layers
    theirs = dict(whole.named_parameters())
    for name, found in part.named_parameters():
        place = re.sub(r"layers\.(\d+)", lambda m: f"layers.{kept[int(m[1])]}", name)
        assert torch.equal(found, theirs[place]), name
    tokens = load_tokenizer(tmp_path / "slice")("say red").input_ids
    assert tokens == load_tokenizer(tmp_path / "whole")("say red").input_ids
    with torch.no_grad():
        assert torch.isfinite(part(torch.tensor([tokens])).logits).all()


@pytest.mark.parametrize("layers", [0, 2])
def test_all_layers_are_no_slice(layers: int, tmp_path: Path) -> None:
    save_tiny(tmp_path / "whole")
    with pytest.raises(UserError, match=f"^--layers: value {layers}: expected 1 to 1"):
        slice_backbone(str(tmp_path / "whole"), layers, tmp_path / "slice")
    assert not (tmp_path / "slice").exists()


def test_random_weights_have_a_shape_and_the_words_of_another_model(tmp_path: Path) -> None:
    tiny_llama(layers=3)[0].save_pretrained(tmp_path / "shape")
    save_tiny(tmp_path / "words")
    save_random(str(tmp_path / "shape"), str(tmp_path / "words"), tmp_path / "made")
    made, shape = loaded(tmp_path / "made"), loaded(tmp_path / "shape")
    assert [p.shape for p in made.parameters()] == [p.shape for p in shape.parameters()]
    assert not torch.equal(made.lm_head.weight, shape.lm_head.weight)
    words = load_tokenizer(tmp_path / "words")("say red").input_ids
    assert load_tokenizer(tmp_path / "made")("say red").input_ids == words
    with pytest.raises(UserError, match="is there already"):
        save_random(str(tmp_path / "shape"), str(tmp_path / "words"), tmp_path / "made")


def test_words_that_the_shape_does_not_have_are_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path / "words")
    tiny_llama(vocabulary_size=8)[0].save_pretrained(tmp_path / "shape")
    with pytest.raises(UserError, match=r"^--tokenizer: .* has 8$"):
        save_random(str(tmp_path / "shape"), str(tmp_path / "words"), tmp_path / "made")
    assert not (tmp_path / "made").exists()
