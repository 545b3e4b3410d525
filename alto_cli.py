"""The command line: its verbs are those of the packages, and `tune` and `profile` here, which need
both the real executor and the simulator's times."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import alto_runs.verbs
import alto_service.verbs
import alto_sim.verbs
from alto_runs.arguments import OneLineParser, Version, named, named_path
from alto_runs.errors import UserError
from alto_runs.verbs import POLICY, add_cluster, print_result

if TYPE_CHECKING:
    from alto_runs.study import Study

__all__ = ["main"]

_SHIPPED = Path()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a replay that differs, 2 a mistake of the user, 130 interrupted."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    try:
        status: int = options.run(options)
    except UserError as error:
        print(f"alto: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # of the machine: no space left, no permission, no such folder
        place = f"{error.filename}: " if error.filename else ""
        print(f"alto: {place}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumes = "; what was begun with --out goes on with --resume"
        print(f"alto: interrupted{resumes if 'resume' in options else ''}", file=sys.stderr)
        return 130
    return status


def _tune(options: argparse.Namespace) -> int:
    from alto_runs.own_policy import blaming, named_policy
    from alto_runs.study import load_study, naming

    policy = None if options.policy is None else named_policy(options.policy)
    study = load_study(options.study)
    if policy is not None:
        study = study.model_copy(update={"policy": policy})
    if options.dry_run:
        with naming(options.study), blaming(study.policy):
            return _print_forecast(study)
    if options.out is None:
        raise UserError("--out: missing, expected a new or empty folder for the run")
    if options.cluster == "local":
        from alto_exec.ray_cluster.local import begin_ahead

        begin_ahead()  # while this process has done nothing else
    from alto_exec import tune
    from alto_exec.parallel.ranks import is_launched_beside_another

    with naming(options.study), blaming(study.policy):
        result = tune(
            study,
            options.out,
            resume=options.resume,
            cluster=options.cluster,
            publish=options.publish,
            artifacts=options.artifacts,
        )
    if not is_launched_beside_another():
        print_result(result, as_json=options.json)
        result.check_room()
    return 0


def _profile(options: argparse.Namespace) -> int:
    from alto_runs.costs.check import check_profile, check_text
    from alto_runs.profile import read_profile, shipped_profile

    if options.out is not None:
        from alto_exec.profiling.session import write_profile

        rows = write_profile(options.out, options.model or (), _say, quick=options.quick)
        print(f"{options.out}: {rows} rows")
        return 0
    if options.model or options.quick:
        raise UserError("--model and --quick go with --out: nothing is measured with --check")
    path = shipped_profile() if options.check == _SHIPPED else options.check
    print(check_text(check_profile(read_profile(path), str(path))), end="")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_forecast(study: "Study") -> int:
    from alto_exec.profiling.tasks import measure
    from alto_runs.summary import print_forecast, stdout_console
    from alto_sim.forecast import forecast

    def begins(task: str) -> None:
        print(f"task {task}: timing a few passes", file=sys.stderr, flush=True)

    print_forecast(forecast(measure(study, begins), study.policy), stdout_console())
    return 0


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="alto", description="Find the best LoRA adapter: many jobs on one backbone at once."
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    _add_tune(verbs)
    alto_sim.verbs.add_verbs(verbs)
    alto_runs.verbs.add_verbs(verbs)
    _add_profile(verbs)
    alto_service.verbs.add_verbs(verbs)
    return parser


def _add_tune(verbs: "argparse._SubParsersAction[OneLineParser]") -> None:
    tune = verbs.add_parser(
        "tune",
        help="train the jobs of a study, and find the best adapter",
        description="Train the jobs of a study together on one backbone, stop the weak ones "
        "early, and leave the best adapter in DIR/best, in PEFT's format. docs/study.md has every "
        "field of a study.",
    )
    tune.add_argument(
        "study",
        type=named_path,
        metavar="STUDY.yaml",
        help="what to train: model, data, hyper-parameters to search, budget",
    )
    tune.add_argument(
        "--out",
        type=named_path,
        metavar="DIR",
        help="new or empty folder for the run; only --dry-run goes without",
    )
    tune.add_argument(
        "--policy",
        metavar=POLICY,
        help="who decides, in place of the study's policy: a policy's name, or a file with one of "
        "your own; its settings are its defaults",
    )
    tune.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out that was cut short, or begin it if there is none",
    )
    add_cluster(tune)
    tune.add_argument(
        "--publish",
        type=named,
        metavar="URL",
        help="copy results here when they are final: a folder, or any URL of fsspec's",
    )
    tune.add_argument(
        "--artifacts",
        type=named,
        metavar="URL",
        help="keep states, adapters, results and a copy of the log there, so that the nodes of a "
        "cluster need no shared disk",
    )
    tune.add_argument(
        "--dry-run",
        action="store_true",
        help="print jobs, memory and predicted time, by a few timed passes; train nothing",
    )
    tune.add_argument("--json", action="store_true", help="print metrics.json, not tables")
    tune.set_defaults(run=_tune)


def _add_profile(verbs: "argparse._SubParsersAction[OneLineParser]") -> None:
    profile = verbs.add_parser(
        "profile",
        help="measure this machine's step times for the simulator, or check measured ones",
        description="With --out, measure how long training passes take on this machine, for alto "
        "simulate --profile. With --check, see how well measured times tell one another.",
    )
    does = profile.add_mutually_exclusive_group(required=True)
    does.add_argument(
        "--check",
        type=named_path,
        nargs="?",
        const=_SHIPPED,
        metavar="FILE",
        help="predict each row of a profile from its other rows; default: the shipped profile",
    )
    does.add_argument(
        "--out",
        type=named_path,
        metavar="FILE",
        help="measure, and write the rows to this new file",
    )
    profile.add_argument(
        "--model",
        type=named,
        action="append",
        metavar="NAME",
        help="what to measure: a folder, a hub id or a known shape, with random weights; may be "
        "repeated; default: models that suit the machine",
    )
    profile.add_argument(
        "--quick", action="store_true", help="measure only a few passes of each model"
    )
    profile.set_defaults(run=_profile)


if __name__ == "__main__":
    sys.exit(main())
