"""What 60 jobs take one after another with PEFT, on each data set, by sampled steps.

    python -m experiments.speed.peft_one_by_one --data DIR --sets ropes cosmosqa --steps 10

Each rank at each batch size trains a few steps on the data of the search. A line for each set, in
JSON: what it takes at least, with every step as long as one of the fastest kind, and by each kind's
own steps; validation is in neither.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from alto_exec.models.load import load_backbone
from alto_exec.preparation import prepare
from alto_runs.versions import versions
from experiments.recordings.catalogue import (
    COMBINED_FACT,
    COSMOSQA,
    QUESTION_GENERATION,
    ROPES,
    Policy,
    Recording,
)
from experiments.recordings.commands import MODEL, Site, commands
from experiments.speed.search import (
    one_by_one_seconds,
    options_of,
    own_steps_seconds,
    sampled_kinds,
    study_of,
)

SETS = {one.name: one for one in (COMBINED_FACT, QUESTION_GENERATION, COSMOSQA, ROPES)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder for each data set")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--sets", nargs="+", choices=sorted(SETS), default=list(SETS))
    parser.add_argument("--steps", type=int, default=10, help="of each kind of job")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    site = Site(options.data.resolve(), Path("runs").resolve(), model=options.model)
    for name in options.sets:
        recording = Recording(data=SETS[name], policy=Policy.ALTO, makespan=0.0)
        first, *_ = commands(recording, site, site.out / name)
        (prepared,) = prepare(study_of(options_of(first[2:])))
        model = load_backbone(prepared.model, device=device, dtype=dtype)
        kinds = sampled_kinds(model, prepared.dataset, prepared.task.jobs, options.steps)
        found = {
            "set": name,
            "steps": sum(kind.steps for kind in kinds),
            "at_least_seconds": one_by_one_seconds(kinds),
            "by_own_steps_seconds": own_steps_seconds(kinds),
            "kinds": [asdict(kind) for kind in kinds],
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            **versions("torch", "transformers", "peft"),
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
