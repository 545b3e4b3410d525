"""The order in which a pass needs the weights of its layers: forward, in training back again."""

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from alto_exec.backbones.layers import Layer

__all__ = ["LayerKeeper", "cross"]


class LayerKeeper(Protocol):
    """Keeps the weights of all layers, and has those at hand that are computed with."""

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        ...

    def keep(self, layer: "Layer") -> "Layer":
        """Take over the weights of the next layer; what is handed back holds them in its turn."""
        ...

    @property
    def travels(self) -> bool:
        """Whether in this pass tokens travel to the weights, and these stay where they are."""
        ...

    @property
    def can_be_recorded(self) -> bool:
        """Whether all it does in a pass is launched on the device, each time alike."""
        ...

    @property
    def num_bytes(self) -> int:
        """Of what it keeps beside the layers that are at hand."""
        ...

    def start(self) -> None:
        """A pass begins."""
        ...

    def turn(self) -> None:
        """The next layer of the pass is about to be computed, or differentiated."""
        ...

    def finish(self) -> None:
        """Nothing more is computed in this pass."""
        ...


def cross(
    keeper: LayerKeeper, h_TH: Tensor, delta_TH: Tensor | None, *, is_last: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Go from one layer to the next; the backward pass comes by here as well.

    Behind the last layer, `is_last`, there is no other to be computed.
    """
    if delta_TH is None:  # before the first layer
        keeper.start()
        keeper.turn()
        return h_TH, delta_TH
    if not is_last:
        keeper.turn()
    crossed: tuple[Tensor, Tensor] = _Crossing.apply(h_TH, delta_TH, keeper)  # type: ignore[no-untyped-call]
    return crossed


class _Crossing(torch.autograd.Function):
    """What is behind has been differentiated as a whole when its gradients come by."""

    @staticmethod
    def forward(
        ctx: Any, h_TH: Tensor, delta_TH: Tensor, keeper: LayerKeeper
    ) -> tuple[Tensor, Tensor]:
        ctx.keeper = keeper
        return h_TH.view_as(h_TH), delta_TH.view_as(delta_TH)

    @staticmethod
    def backward(ctx: Any, dh_TH: Tensor, ddelta_TH: Tensor) -> tuple[Tensor, Tensor, None]:
        ctx.keeper.turn()
        return dh_TH, ddelta_TH, None
