"""Frozen layers kept in 4 or 8 bits, and unpacked when it is their turn, by bitsandbytes.

What is computed with is what the codes stand for, in the backbone's dtype: NF4 in blocks of 64
(Dettmers et al. 2023, arXiv 2305.14314), or 8-bit dynamic codes in blocks of 256 (Dettmers et al.
2022, arXiv 2110.02861). Embeddings, norms, biases and the head stay as they are.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from alto_exec.backbones.layers import Layer
from alto_runs.errors import UserError

__all__ = ["Format", "QuantizedLayers", "quantizer"]

Format = Literal["int8", "nf4"]

_NF4_BLOCK, _INT8_BLOCK = 64, 256


@dataclass(frozen=True, slots=True)
class _Packed:
    codes: Tensor
    state: Any  # of bitsandbytes

    @property
    def num_bytes(self) -> int:
        return int(self.codes.nbytes + self.state.absmax.nbytes)


class QuantizedLayers:
    """A LayerKeeper: one layer is unpacked at a time, in the same memory. All layers have matrices
    of the same shapes."""

    def __init__(self, kind: Format, device: torch.device) -> None:
        """Raises UserError where bitsandbytes is not installed."""
        self.device = device
        self.travels = False
        self.can_be_recorded = False  # a layer that is at hand is not unpacked again
        self._kind = kind
        self._library = quantizer(kind)
        self._packed: list[tuple[_Packed, ...]] = []  # of each layer
        self._whole: list[Tensor] = []  # the matrices of the layer at hand
        self._held: int | None = None  # which that is
        self._turns = 0  # of the pass under way

    @property
    def num_bytes(self) -> int:
        """Of the codes and their scales."""
        return sum(packed.num_bytes for layer in self._packed for packed in layer)

    def keep(self, layer: Layer) -> Layer:
        weights = [group.weight_OI.to(self.device) for group in layer.groups]
        if not self._whole:
            # `data` counts the changes of the views apart: what a backward pass reads is what was
            # computed with, though the memory held other layers in between.
            self._whole = [torch.empty_like(weight).data for weight in weights]
        assert [w.shape for w in weights] == [whole.shape for whole in self._whole]
        self._packed.append(tuple(self._pack(weight) for weight in weights))
        return layer.over([whole.data for whole in self._whole])

    def start(self) -> None:
        self._turns = 0

    def turn(self) -> None:
        """Forward through the layers, then back again."""
        last = len(self._packed) - 1
        number = self._turns if self._turns <= last else 2 * last + 1 - self._turns
        self._turns += 1
        if self._held == number:
            return
        for whole, packed in zip(self._whole, self._packed[number], strict=True):
            whole.copy_(self._unpack(packed).view_as(whole))
        self._held = number

    def finish(self) -> None:
        """Nothing of the pass is left to be done."""

    def _pack(self, weight_OI: Tensor) -> _Packed:
        if self._kind == "nf4":
            # As one row: bitsandbytes 0.50 unpacks by rows on CPUs with AVX-512, and takes the
            # wrong scales where a block lies in two.
            row = weight_OI.flatten()
            found = self._library.quantize_4bit(row, blocksize=_NF4_BLOCK, quant_type="nf4")
        else:
            found = self._library.quantize_blockwise(weight_OI, blocksize=_INT8_BLOCK)
        return _Packed(*found)

    def _unpack(self, packed: _Packed) -> Tensor:
        """As it was packed, in one row perhaps."""
        if self._kind == "nf4":
            weight: Tensor = self._library.dequantize_4bit(packed.codes, packed.state)
        else:
            weight = self._library.dequantize_blockwise(packed.codes, packed.state)
        return weight


def quantizer(kind: Format) -> Any:
    """What packs and unpacks. Raises UserError where it is not installed."""
    try:
        from bitsandbytes import functional
    except ImportError as error:
        raise UserError(
            f"executor.frozen_weights: value {kind!r}: needs bitsandbytes, which is not installed "
            "here: pip install 'alto-lora[quantized]'"
        ) from error
    return functional
