"""The machine whose times and memory a simulation has, as a user names it."""

from pathlib import Path

from alto_runs.costs.gpus import sheet_of
from alto_runs.costs.step_profile import StepProfile
from alto_runs.errors import UserError
from alto_runs.profile import read_profile, shipped_profile

__all__ = ["measured"]


def measured(profile: Path | None, gpu: str | None) -> StepProfile:
    """As in `--profile`, or the shipped one; carried over to the kind of `--gpu`, if one is named.

    Raises UserError.
    """
    path = profile or shipped_profile()
    rows = read_profile(path)
    if gpu is not None and all(row.machine.gpu != gpu for row in rows):
        try:
            sheet_of(gpu)
        except UserError as error:
            raise UserError(f"--{error}") from error
    try:
        return StepProfile(rows, gpu=gpu)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
