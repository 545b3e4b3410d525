"""The command line: verbs and flags, no logic."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from alto_runs.errors import UserError

if TYPE_CHECKING:
    from alto_policy.policies import Settings
    from alto_runs.result import Result
    from alto_runs.study import Study

__all__ = ["main"]


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
        print("alto: interrupted; what was begun with --out goes on with --resume", file=sys.stderr)
        return 130
    return status


def _tune(options: argparse.Namespace) -> int:
    from alto_runs.study import load_study

    study = load_study(options.study)
    if options.policy is not None:
        study = study.model_copy(update={"policy": _settings(options.policy)})
    if options.dry_run:
        return _print_forecast(study)
    if options.out is None:
        raise UserError("--out: missing, expected a new or empty folder for the run")
    from alto_exec import tune

    return _print_result(tune(study, options.out, resume=options.resume), options)


def _simulate(options: argparse.Namespace) -> int:
    from alto_policy.types import Gpu, GpuId
    from alto_runs.versions import versions
    from alto_sim.load import load_workload
    from alto_sim.simulate import simulate

    workload, settings = load_workload(options.workload)
    if options.policy is not None:
        settings = _settings(options.policy)
    gpus = tuple(Gpu(id=GpuId(number), kind="simulated") for number in range(options.gpus))
    made_by = tuple(versions("simpy").items())
    return _print_result(simulate(workload, settings, gpus, options.out, made_by=made_by), options)


def _replay(options: argparse.Namespace) -> int:
    from alto_runs.replaying import describe, replay_run

    num_entries, difference = replay_run(options.run_directory)
    if difference is None:
        print(f"{options.run_directory}: {num_entries} entries, all decided the same")
        return 0
    print(describe(difference))
    return 1


def _report(options: argparse.Namespace) -> int:
    from alto_runs.report.page import write_report

    print(write_report(options.run_directories, options.out or options.run_directories[0]))
    return 0


def _print_result(result: "Result", options: argparse.Namespace) -> int:
    if options.json:
        print(result.directory.metrics_path.read_text(encoding="utf-8"), end="")
    else:
        from alto_runs.summary import print_summary, stdout_console

        print_summary(result, stdout_console())
    return 0


def _print_forecast(study: "Study") -> int:
    from alto_exec.measuring import measure
    from alto_runs.summary import print_forecast, stdout_console
    from alto_sim.forecast import forecast

    print_forecast(forecast(measure(study), study.policy), stdout_console())
    return 0


def _settings(name: str) -> "Settings":
    from alto_runs.fields import FieldError
    from alto_runs.policy_settings import parse_settings

    try:
        return parse_settings(name)
    except FieldError as error:
        raise UserError(f"--policy: value {name!r}: {error.what}") from error


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line; a flag may not be cut short, lest a new one change its sense."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help tells more\n")


class _Version(argparse.Action):
    """Looks the version up when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from alto_runs.versions import own_version

        print(f"alto {own_version()}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="alto", description="Find the best LoRA adapter: many jobs on one backbone at once."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    tune = verbs.add_parser("tune", help="run the tasks of a study on this machine")
    tune.add_argument("study", type=Path, metavar="STUDY.yaml")
    tune.add_argument("--out", type=Path, metavar="DIR", help="new or empty folder for the run")
    tune.add_argument("--policy", metavar="NAME", help="decide by this policy, at its defaults")
    tune.add_argument("--resume", action="store_true", help="go on with the run in --out")
    tune.add_argument(
        "--dry-run", action="store_true", help="print jobs, memory and predicted time only"
    )
    tune.add_argument("--json", action="store_true", help="print metrics.json")
    tune.set_defaults(run=_tune)

    simulate = verbs.add_parser("simulate", help="the same loop on a simulated cluster")
    simulate.add_argument("workload", type=Path, metavar="TRACE|STUDY.yaml|DIR")
    simulate.add_argument("--policy", metavar="NAME", help="default: that of the workload")
    simulate.add_argument("--gpus", type=_count, default=1, metavar="N")
    simulate.add_argument("--out", type=Path, required=True, metavar="DIR")
    simulate.add_argument("--json", action="store_true", help="print metrics.json")
    simulate.set_defaults(run=_simulate)

    replay = verbs.add_parser("replay", help="decide again; exit 1 at the first difference")
    replay.add_argument("run_directory", type=Path, metavar="DIR")
    replay.set_defaults(run=_replay)

    report = verbs.add_parser("report", help="figures and a self-contained report.html")
    report.add_argument("run_directories", type=Path, nargs="+", metavar="DIR")
    report.add_argument("--out", type=Path, metavar="DIR", help="default: the first run's folder")
    report.set_defaults(run=_report)
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"value {text!r}: expected a whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
