"""The command line: verbs and flags, no logic."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alto_runs.arguments import OneLineParser, Version, above_0, at_least_0, count, seed
from alto_runs.errors import UserError
from alto_service.verbs import add_verbs

if TYPE_CHECKING:
    from alto_runs.result import Result
    from alto_runs.study import Study

__all__ = ["main"]

_SHIPPED = Path()
_POLICY = "NAME|FILE.py"  # or FILE.py:CLASS
_GPU = "a kind of GPU that was not measured: times are carried over by data sheets"


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
    from alto_runs.own_policy import blaming, named_policy
    from alto_runs.study import load_study, naming

    policy = None if options.policy is None else named_policy(options.policy)
    study = load_study(options.study)
    if policy is not None:
        study = study.model_copy(update={"policy": policy})
    if options.dry_run:
        with naming(options.study):
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
        _print_result(result, options)
        result.check_room()
    return 0


def _simulate(options: argparse.Namespace) -> int:
    from alto_runs.garbage import leave_at_exit
    from alto_runs.own_policy import named_policy
    from alto_sim.seeds import Simulation

    leave_at_exit()
    policy = None if options.policy is None else named_policy(options.policy)
    if options.cluster is not None and (options.gpus, options.gpu) != (None, None):
        raise UserError("--gpus and --gpu go without --cluster: its file says them")
    simulation = Simulation(
        path=options.workload,
        num_gpus=options.gpus or 1,
        cluster=options.cluster,
        policy=policy,
        profile=options.profile,
        gpu=options.gpu,
        conditions=options.conditions,
        curves=options.losses,
    )
    if options.seeds is None:
        return _print_result(simulation.run(options.out), options)
    from alto_runs.summary import counted

    seeds = simulation.run_seeds(options.seeds, options.out)
    return _print_seeds(list(counted(seeds, options.seeds)), options)


def _workload(options: argparse.Namespace) -> int:
    from alto_sim.recipe import AtLoad, Recipe

    gap = options.gap
    if gap is None:
        if options.cluster is not None and (options.gpus, options.gpu) != (None, None):
            raise UserError("--gpus and --gpu go without --cluster: its file says them")
        if options.gpus is None and options.cluster is None:
            raise UserError("--gpus: missing, expected the number of GPUs of the --load")
        gap = AtLoad(
            share=options.load,
            num_gpus=options.gpus or 1,
            cluster=options.cluster,
            profile=options.profile,
            gpu=options.gpu,
        )
    elif (options.gpus, options.cluster, options.profile, options.gpu) != (None,) * 4:
        raise UserError(
            "--gpus, --cluster, --profile and --gpu go with --load: with --gap nothing is timed"
        )
    recipe = Recipe(
        num_tasks=options.tasks,
        gap=gap,
        arrivals=options.arrivals,
        mix=options.mix,
        seed=options.seed,
    )
    print(f"{options.out}: {recipe.write(options.out).told}")
    return 0


def _replay(options: argparse.Namespace) -> int:
    from alto_runs.own_policy import named_policy
    from alto_runs.replaying import describe, replay_run

    own = None if options.policy is None else named_policy(options.policy)
    num_entries, difference = replay_run(options.run_directory, own)
    if difference is None:
        print(f"{options.run_directory}: {num_entries} entries, all decided the same")
        return 0
    print(describe(difference))
    return 1


def _report(options: argparse.Namespace) -> int:
    from alto_runs.directory import seeds_of
    from alto_runs.export import TableFormat, write_exports
    from alto_runs.report.page import write_report

    given = options.run_directories
    runs, out = [run for each in given for run in seeds_of(each)], options.out or given[0]
    print(write_report(runs, out))
    wanted = {TableFormat.CSV: options.csv, TableFormat.PARQUET: options.parquet}
    forms = [form for form, is_wanted in wanted.items() if is_wanted]
    for path in write_exports(runs, out / "export", forms, with_timeline=options.trace):
        print(path)
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
    print(check_text(check_profile(read_profile(path))), end="")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_result(result: "Result", options: argparse.Namespace) -> int:
    if options.json:
        print(result.directory.metrics_path.read_text(encoding="utf-8"), end="")
    else:
        from alto_runs.summary import print_summary, stdout_console

        print_summary(result, stdout_console())
    return 0


def _print_seeds(results: "Sequence[Result]", options: argparse.Namespace) -> int:
    from alto_runs.summary import print_seeds, seeds_json, stdout_console

    if options.json:
        print(seeds_json(results), end="")
    else:
        print_seeds(results, stdout_console())
    return 0


def _print_forecast(study: "Study") -> int:
    from alto_exec.measuring import measure
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
    _add_simulate(verbs)
    _add_workload(verbs)

    replay = verbs.add_parser("replay", help="decide again; exit status 1 at the first difference")
    replay.add_argument("run_directory", type=Path, metavar="DIR")
    replay.add_argument("--policy", metavar="FILE.py", help="your own policy, if one decided")
    replay.set_defaults(run=_replay)

    report = verbs.add_parser("report", help="write figures of runs into one report.html")
    report.add_argument("run_directories", type=Path, nargs="+", metavar="DIR")
    report.add_argument("--out", type=Path, metavar="DIR", help="default: the first DIR")
    report.add_argument("--csv", action="store_true", help="tables as CSV too, in export/")
    report.add_argument("--parquet", action="store_true", help="tables as Parquet too")
    report.add_argument("--trace", action="store_true", help="a timeline too, for ui.perfetto.dev")
    report.set_defaults(run=_report)

    profile = verbs.add_parser("profile", help="measure this machine's step times, or check some")
    does = profile.add_mutually_exclusive_group(required=True)
    does.add_argument(
        "--check",
        type=Path,
        nargs="?",
        const=_SHIPPED,
        metavar="FILE",
        help="predict each row of a profile from its others; default: the shipped profile",
    )
    does.add_argument("--out", type=Path, metavar="FILE", help="measure, and write this new file")
    profile.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="folder, hub id or known shape to measure, with random weights; may be repeated",
    )
    profile.add_argument("--quick", action="store_true", help="only a few passes of each model")
    profile.set_defaults(run=_profile)
    add_verbs(verbs)
    for listed in verbs._choices_actions:  # each verb's own help begins with what it does
        verbs.choices[listed.dest].description = f"{str(listed.help).capitalize()}."
    return parser


def _add_simulate(verbs: "argparse._SubParsersAction[OneLineParser]") -> None:
    simulate = verbs.add_parser("simulate", help="let a policy decide on a simulated cluster")
    simulate.add_argument(
        "workload",
        type=Path,
        metavar="TRACE|STUDY.yaml|DIR",
        help="a workload; DIR is that of a run",
    )
    simulate.add_argument(
        "--policy", metavar=_POLICY, help="who decides; default: the policy of the workload"
    )
    simulate.add_argument("--gpus", type=_gpus, metavar="N", help="of the cluster; default: 1")
    simulate.add_argument(
        "--cluster",
        type=Path,
        metavar="FILE.yaml",
        help="nodes of several kinds of GPU, in place of --gpus and --gpu",
    )
    simulate.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help="step times, as alto profile measured them; default: the shipped profile",
    )
    simulate.add_argument("--gpu", metavar="NAME", help=_GPU)
    simulate.add_argument(
        "--conditions",
        type=Path,
        metavar="FILE.yaml",
        help="failures, latencies, placement, and what the policy believes of durations; "
        "default: nothing fails",
    )
    simulate.add_argument(
        "--losses",
        type=Path,
        metavar="DIR|TABLE.csv",
        help="losses of all jobs: DIR/<job>/trainer_state.json, or a table with columns job, step, "
        "train_loss, val_loss",
    )
    simulate.add_argument(
        "--seeds", type=count, metavar="N", help="simulate N times, each with losses of its own"
    )
    simulate.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new or empty folder for the run"
    )
    simulate.add_argument("--json", action="store_true", help="print metrics.json, not tables")
    simulate.set_defaults(run=_simulate)


def _add_workload(verbs: "argparse._SubParsersAction[OneLineParser]") -> None:
    workload = verbs.add_parser("workload", help="draw tuning tasks, as a trace to simulate")
    workload.add_argument(
        "--out", type=Path, required=True, metavar="FILE.jsonl", help="a new file"
    )
    workload.add_argument("--tasks", type=count, required=True, metavar="N", help="how many")
    workload.add_argument(
        "--arrivals",
        default="poisson",
        metavar="poisson|bursty|WORKLOAD",
        help="when tasks arrive; a trace, study or run lends its rhythm; default: poisson",
    )
    workload.add_argument(
        "--mix",
        type=Path,
        metavar="FILE.yaml",
        help="models, grids, data and tenants; default: the paper's",
    )
    rate = workload.add_mutually_exclusive_group(required=True)
    rate.add_argument("--gap", type=at_least_0, metavar="SECONDS", help="mean time between tasks")
    rate.add_argument(
        "--load",
        type=above_0,
        metavar="SHARE",
        help="share of the GPUs' time that the tasks need if each job trains to its end; 1 is full",
    )
    workload.add_argument("--gpus", type=count, metavar="N", help="GPUs of the cluster, for --load")
    workload.add_argument(
        "--cluster",
        type=Path,
        metavar="FILE.yaml",
        help="nodes of several kinds of GPU, for --load, in place of --gpus and --gpu",
    )
    workload.add_argument("--profile", type=Path, metavar="FILE", help="step times, for --load")
    workload.add_argument("--gpu", metavar="NAME", help=_GPU)
    workload.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="of the draw; default: 0"
    )
    workload.set_defaults(run=_workload)


def _add_tune(verbs: "argparse._SubParsersAction[OneLineParser]") -> None:
    tune = verbs.add_parser("tune", help="train the jobs of a study, and find the best adapter")
    tune.add_argument("study", type=Path, metavar="STUDY.yaml")
    tune.add_argument("--out", type=Path, metavar="DIR", help="new or empty folder for the run")
    tune.add_argument(
        "--policy", metavar=_POLICY, help="in place of the study's, with its defaults"
    )
    tune.add_argument(
        "--resume", action="store_true", help="go on with the run in --out, if there is one"
    )
    tune.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="train on a Ray cluster: local (all GPUs of this machine), auto or HOST:PORT",
    )
    tune.add_argument(
        "--publish", metavar="URL", help="copy results to this folder or URL (any of fsspec's)"
    )
    tune.add_argument(
        "--artifacts",
        metavar="URL",
        help="keep states, adapters, results and a copy of the log there, so that the nodes of a "
        "cluster need no shared disk",
    )
    tune.add_argument(
        "--dry-run",
        action="store_true",
        help="print jobs, memory and predicted time; train nothing",
    )
    tune.add_argument("--json", action="store_true", help="print metrics.json, not tables")
    tune.set_defaults(run=_tune)


def _gpus(text: str) -> int:
    from alto_sim.hardware import MOST_GPUS

    number = count(text)
    if number > MOST_GPUS:
        raise argparse.ArgumentTypeError(f"value {text!r}: expected {MOST_GPUS:,} at most")
    return number


if __name__ == "__main__":
    sys.exit(main())
