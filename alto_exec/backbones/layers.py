"""A layer of the written-out decoder, and how it is taken out of a transformers model.

Linears that share their input stand below one another as one. Suffixes: H hidden, O outputs, I
inputs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from alto_exec.adapters.bank import LinearShape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["FrozenLinear", "HeadNorms", "Layer", "Split", "Travel", "layer_of", "shapes_of"]

Travel = Callable[[Tensor, int], Tensor]  # a product, from x and the number of outputs
_ATTENTION, _MLP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")


@dataclass(frozen=True, slots=True)
class FrozenLinear:
    """Linears that share their input, below one another: adapted ones, or none of them."""

    weight_OI: Tensor
    bias_O: Tensor | None
    outputs: tuple[int, ...]
    number: int | None  # of the first one among the adapted linears of the model
    # What multiplies in passes in which tokens travel to the weight; `weight_OI` is not read there.
    travel: Travel | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """All linears of one input: the groups they are computed in, and the order to hand them on."""

    groups: tuple[FrozenLinear, ...]
    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """What each head's queries and keys are weighed with, once they are normed."""

    query_d: Tensor
    key_d: Tensor

    def to(self, device: torch.device) -> "HeadNorms":
        return HeadNorms(self.query_d.to(device), self.key_d.to(device))


@dataclass(frozen=True, slots=True)
class Layer:
    attention_norm_H: Tensor
    qkv: Split
    head_norms: HeadNorms | None
    turns: bool  # whether queries and keys by their positions; every fourth of SmolLM 3 does not
    out: Split
    mlp_norm_H: Tensor
    gate_up: Split
    down: Split

    @property
    def num_normed(self) -> int:
        """Numbers of a row's queries and keys that are there twice: normed, and as they were."""
        outputs = [width for group in self.qkv.groups for width in group.outputs]
        return 0 if self.head_norms is None else sum(outputs[i] for i in self.qkv.order[:2])

    @property
    def weights(self) -> Iterator[Tensor]:
        yield from (self.attention_norm_H, self.mlp_norm_H)
        if self.head_norms is not None:
            yield from (self.head_norms.query_d, self.head_norms.key_d)
        for group in self.groups:
            yield from (t for t in (group.weight_OI, group.bias_O) if t is not None)

    @property
    def splits(self) -> tuple[Split, ...]:
        return self.qkv, self.out, self.gate_up, self.down

    @property
    def groups(self) -> tuple[FrozenLinear, ...]:
        return tuple(group for split in self.splits for group in split.groups)

    def over(self, weights: Sequence[Tensor], travels: Sequence[Travel] = ()) -> "Layer":
        """With these weights for the groups, in their order, on the device where they are."""
        following, roads, device = iter(weights), iter(travels), weights[0].device

        def of(split: Split) -> Split:
            groups = tuple(
                replace(
                    group,
                    weight_OI=next(following),
                    bias_O=None if group.bias_O is None else group.bias_O.to(device),
                    travel=next(roads, None),
                )
                for group in split.groups
            )
            return replace(split, groups=groups)

        return Layer(
            attention_norm_H=self.attention_norm_H.to(device),
            qkv=of(self.qkv),
            head_norms=None if self.head_norms is None else self.head_norms.to(device),
            turns=self.turns,
            out=of(self.out),
            mlp_norm_H=self.mlp_norm_H.to(device),
            gate_up=of(self.gate_up),
            down=of(self.down),
        )


def layer_of(layer: Any, path: str, numbers: dict[str, int]) -> Layer:
    """From a module of transformers, which gives up its linears; `numbers` are those of the adapted
    ones."""
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        attention_norm_H=layer.input_layernorm.weight.detach(),
        qkv=_split(attention, _ATTENTION, f"{path}self_attn.", numbers),
        head_norms=_head_norms(attention),
        turns=bool(getattr(attention, "use_rope", True)),
        out=_split(attention, ("o_proj",), f"{path}self_attn.", numbers),
        mlp_norm_H=layer.post_attention_layernorm.weight.detach(),
        gate_up=_split(mlp, _MLP, f"{path}mlp.", numbers),
        down=_split(mlp, ("down_proj",), f"{path}mlp.", numbers),
    )


def _head_norms(attention: Any) -> HeadNorms | None:
    if not hasattr(attention, "q_norm"):
        return None
    return HeadNorms(attention.q_norm.weight.detach(), attention.k_norm.weight.detach())


def _split(parent: Any, children: Sequence[str], path: str, numbers: dict[str, int]) -> Split:
    """The adapted children in one group, the others in another; each gives up its own weights."""
    adapted = [child for child in children if f"{path}{child}" in numbers]
    plain = [child for child in children if child not in adapted]
    groups = []
    for members in (adapted, plain):
        if members:
            linears = [getattr(parent, member) for member in members]
            number = numbers.get(f"{path}{members[0]}")
            groups.append(_frozen(linears, number))
            for member in members:
                setattr(parent, member, nn.Identity())
    together = [*adapted, *plain]
    return Split(tuple(groups), tuple(together.index(child) for child in children))


def _frozen(linears: Sequence[nn.Linear], number: int | None) -> FrozenLinear:
    weights = [linear.weight.detach() for linear in linears]
    biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
    assert len(biases) in (0, len(linears))
    return FrozenLinear(
        weight_OI=torch.cat(weights) if len(weights) > 1 else weights[0],
        bias_O=torch.cat(biases) if biases else None,
        outputs=tuple(linear.out_features for linear in linears),
        number=number,
    )


def shapes_of(model: "PreTrainedModel", names: Sequence[str]) -> Iterator[LinearShape]:
    """In the order of the model, in which those of one group follow one another."""
    before = ""
    for name in names:
        linear = cast(nn.Linear, model.get_submodule(name))
        parent, _, child = name.rpartition(".")
        siblings = next((g for g in (_ATTENTION, _MLP) if child in g), ())
        joins = before.rpartition(".")[0] == parent and before.rpartition(".")[2] in siblings
        yield LinearShape(name, linear.in_features, linear.out_features, joins)
        before = name
