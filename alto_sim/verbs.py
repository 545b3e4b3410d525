"""The simulator's verbs on the command line; what they need is imported when one is called."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alto_runs.arguments import above_0, at_least_0, count, named, named_path, seed
from alto_runs.errors import UserError
from alto_runs.verbs import POLICY, print_result

if TYPE_CHECKING:
    from alto_runs.result import Result

__all__ = ["add_verbs"]

_GPU = "a kind of GPU that was not measured, such as H200: times are carried over by data sheets"
_MOST_TASKS = 1_000_000  # whose jobs fill tens of GB


def add_verbs(verbs: "argparse._SubParsersAction[Any]") -> None:
    _add_simulate(verbs)
    _add_workload(verbs)


def _add_simulate(verbs: "argparse._SubParsersAction[Any]") -> None:
    simulate = verbs.add_parser(
        "simulate",
        help="let a policy decide on a simulated cluster",
        description="Let a policy decide on a simulated cluster, and write its log and results as "
        "a run. Needs no GPU. docs/simulator.md says what can be simulated, and how.",
    )
    simulate.add_argument(
        "workload",
        type=named_path,
        metavar="TRACE|STUDY.yaml|DIR",
        help="the trace of a cluster, a study, or the folder of a run, whose losses come again",
    )
    simulate.add_argument(
        "--policy",
        metavar=POLICY,
        help="who decides: a policy's name, or a file with one of your own; default: the policy of "
        "the workload",
    )
    simulate.add_argument("--gpus", type=_gpus, metavar="N", help="GPUs of the cluster; default: 1")
    simulate.add_argument(
        "--cluster",
        type=named_path,
        metavar="FILE.yaml",
        help="nodes of several kinds of GPU, in place of --gpus and --gpu",
    )
    simulate.add_argument(
        "--profile",
        type=named_path,
        metavar="FILE",
        help="step times, as alto profile --out measures them; default: those of an H100, or of "
        "the run",
    )
    simulate.add_argument("--gpu", type=named, metavar="NAME", help=_GPU)
    simulate.add_argument(
        "--conditions",
        type=named_path,
        metavar="FILE.yaml",
        help="failures, latencies, placement, and what the policy believes of durations; "
        "default: nothing fails",
    )
    simulate.add_argument(
        "--losses",
        type=named_path,
        metavar="DIR|TABLE.csv",
        help="losses of all jobs: DIR/<job>/trainer_state.json, or a table with columns job, step, "
        "train_loss, val_loss",
    )
    simulate.add_argument(
        "--seeds", type=count, metavar="N", help="simulate N times, each with losses of its own"
    )
    simulate.add_argument(
        "--out",
        type=named_path,
        required=True,
        metavar="DIR",
        help="new or empty folder for the run",
    )
    simulate.add_argument("--json", action="store_true", help="print metrics.json, not tables")
    simulate.set_defaults(run=_simulate)


def _add_workload(verbs: "argparse._SubParsersAction[Any]") -> None:
    workload = verbs.add_parser(
        "workload",
        help="draw tuning tasks at random, as a trace to simulate",
        description="Draw tuning tasks at random: when they arrive, which models, grids and data "
        "they have. The file is a trace for alto simulate.",
    )
    workload.add_argument(
        "--out", type=named_path, required=True, metavar="FILE.jsonl", help="a new file"
    )
    workload.add_argument("--tasks", type=_tasks, required=True, metavar="N", help="how many")
    workload.add_argument(
        "--arrivals",
        default="poisson",
        metavar="poisson|bursty|WORKLOAD",
        help="when tasks arrive; a trace, study or run lends its rhythm; default: poisson",
    )
    workload.add_argument(
        "--mix",
        type=named_path,
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
        type=named_path,
        metavar="FILE.yaml",
        help="nodes of several kinds of GPU, for --load, in place of --gpus and --gpu",
    )
    workload.add_argument(
        "--profile",
        type=named_path,
        metavar="FILE",
        help="step times, for --load; default: of an H100",
    )
    workload.add_argument("--gpu", type=named, metavar="NAME", help=_GPU)
    workload.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="of the draw; default: 0"
    )
    workload.set_defaults(run=_workload)


def _simulate(options: argparse.Namespace) -> int:
    from alto_runs.garbage import leave_at_exit
    from alto_runs.own_policy import named_policy
    from alto_sim.seeds import Simulation

    leave_at_exit()
    policy = None if options.policy is None else named_policy(options.policy)
    _require_one_cluster(options)
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
        return print_result(simulation.run(options.out), as_json=options.json)
    from alto_runs.summary import counted

    seeds = simulation.run_seeds(options.seeds, options.out)
    return _print_seeds(list(counted(seeds, options.seeds)), options)


def _require_one_cluster(options: argparse.Namespace) -> None:
    if options.cluster is not None and (options.gpus, options.gpu) != (None, None):
        raise UserError("--gpus and --gpu go without --cluster: its file says them")


def _workload(options: argparse.Namespace) -> int:
    from alto_sim.workloads.recipe import AtLoad, Recipe

    gap = options.gap
    if gap is None:
        _require_one_cluster(options)
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


def _print_seeds(results: "Sequence[Result]", options: argparse.Namespace) -> int:
    from alto_runs.summary import print_seeds, seeds_json, stdout_console

    if options.json:
        print(seeds_json(results), end="")
    else:
        print_seeds(results, stdout_console())
    return 0


def _gpus(text: str) -> int:
    from alto_sim.machines.hardware import MOST_GPUS

    return _at_most(MOST_GPUS, text)


def _tasks(text: str) -> int:
    return _at_most(_MOST_TASKS, text)


def _at_most(most: int, text: str) -> int:
    if (number := count(text)) > most:
        raise argparse.ArgumentTypeError(f"value {text!r}: expected {most:,} at most")
    return number
