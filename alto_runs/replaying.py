"""Decides a logged run again."""

from pathlib import Path

from alto_policy.controller import Controller, Difference, replay
from alto_policy.ledger.cluster import Cluster, IllegalDecisionError, ImpossibleEventError
from alto_policy.policies import Settings, build
from alto_policy.policies.own import OwnSettings
from alto_policy.runlog import Entry, RunLog, dump_entry
from alto_policy.view import Policy
from alto_runs.errors import UserError
from alto_runs.files.directory import RunDirectory, read_run_log
from alto_runs.own_policy import blaming, check_loaded

__all__ = ["BELIEF", "catch_up", "describe", "follow_log", "replay_run"]


BELIEF = "belief"  # of a header's facts: the policy knew more than is in the log


def replay_run(path: Path, own: Settings | None = None) -> tuple[int, Difference | None]:
    """Number of entries, and the first one that is decided differently now. Raises UserError.

    `own` is the user's policy that decided, be it as it was or not.
    """
    log_path = RunDirectory.open(path).log_path
    log = read_run_log(log_path)
    if log.header is None:
        raise UserError(f"{log_path}: line 1: no header, which names the policy that decided")
    if (belief := log.header.facts.get(BELIEF)) is not None:
        raise UserError(
            f"{log_path}: decided by {belief}, which the log does not hold; simulate it again"
        )
    policy = log.header.policy
    if own is not None:
        if not (isinstance(policy, OwnSettings) and isinstance(own, OwnSettings)):
            raise UserError(
                "--policy: expected none, or the file of a policy that decided this run"
            )
        policy = own
    check_loaded(policy, log_path)
    with blaming(policy):
        controller = Controller(build(policy), Cluster(log.header.gpus))
        return len(log.entries), follow_log(log, controller, log_path)


def follow_log(log: RunLog, controller: Controller, path: Path) -> Difference | None:
    """Let the controller decide all entries again. Raises UserError for an impossible log."""
    try:
        return replay(log.entries, controller)
    except (IllegalDecisionError, ImpossibleEventError) as error:
        raise UserError(f"{path}: this log cannot have happened: {error}") from error


def catch_up(log: RunLog, policy: Policy, cluster: Cluster, path: Path) -> None:
    """Bring policy and ledger to where the log ends. Raises UserError if they cannot follow it."""
    difference = follow_log(log, Controller(policy, cluster), path)
    if difference is not None:
        raise UserError(
            f"{path}: entry {difference.index + 1} is decided differently now; go on "
            "with the version of ALTO that began this run"
        )


def describe(difference: Difference) -> str:
    """The entry as it was logged, and as it is decided now."""
    return "\n".join(
        (
            f"entry {difference.index + 1} is decided differently",
            f"logged:  {dump_entry(Entry(difference.event, difference.logged))}",
            f"decided: {dump_entry(Entry(difference.event, difference.decided))}",
        )
    )
