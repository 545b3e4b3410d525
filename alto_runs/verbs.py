"""The verbs on runs on the command line; what they need is imported when one is called."""

import argparse
from typing import TYPE_CHECKING, Any

from alto_runs.arguments import named, named_path
from alto_runs.garbage import leave_at_exit, uncollected

if TYPE_CHECKING:
    from alto_runs.result import Result

__all__ = ["POLICY", "add_cluster", "add_verbs", "print_result"]

POLICY = "NAME|FILE.py"  # or FILE.py:CLASS


def add_verbs(verbs: "argparse._SubParsersAction[Any]") -> None:
    replay = verbs.add_parser(
        "replay",
        help="decide a run again from its log, and compare",
        description="Let the policy decide a whole run again from its log. The exit status is 0 "
        "where each decision is the same, and 1 where one differs: the first of these is printed.",
    )
    replay.add_argument("run_directory", type=named_path, metavar="DIR", help="the folder of a run")
    replay.add_argument(
        "--policy",
        metavar="FILE.py",
        help="the file of your own policy, where one decided on the run (a log holds no code)",
    )
    replay.set_defaults(run=_replay)

    report = verbs.add_parser(
        "report",
        help="draw one run, or several side by side, in one report.html",
        description="Draw a run in one self-contained report.html: losses, which job trained when, "
        "why each ended, the winner. Several runs are drawn side by side.",
    )
    report.add_argument(
        "run_directories",
        type=named_path,
        nargs="+",
        metavar="DIR",
        help="the folder of a run, or of a simulation with --seeds",
    )
    report.add_argument(
        "--out",
        type=named_path,
        metavar="DIR",
        help="where the report is written; default: the first DIR",
    )
    report.add_argument(
        "--csv", action="store_true", help="write tables of jobs and reports to export/, as CSV"
    )
    report.add_argument(
        "--parquet", action="store_true", help="write the same tables to export/, as Parquet"
    )
    report.add_argument(
        "--trace",
        action="store_true",
        help="write a timeline to export/, for ui.perfetto.dev",
    )
    report.set_defaults(run=_report)


def add_cluster(verb: argparse.ArgumentParser) -> None:
    """Where whoever trains may do so on Ray."""
    verb.add_argument(
        "--cluster",
        type=named,
        metavar="ADDRESS",
        help="train on a Ray cluster: local (all GPUs of this machine), auto or HOST:PORT",
    )


def print_result(result: "Result", *, as_json: bool) -> int:
    if as_json:
        print(result.directory.metrics_path.read_text(encoding="utf-8"), end="")
    else:
        from alto_runs.summary import print_summary, stdout_console

        print_summary(result, stdout_console())
    return 0


def _replay(options: argparse.Namespace) -> int:
    from alto_runs.own_policy import named_policy
    from alto_runs.replaying import describe, replay_run

    own = None if options.policy is None else named_policy(options.policy)
    leave_at_exit()
    with uncollected():
        num_entries, difference = replay_run(options.run_directory, own)
    if difference is None:
        print(f"{options.run_directory}: {num_entries} entries, all decided the same")
        return 0
    print(describe(difference))
    return 1


def _report(options: argparse.Namespace) -> int:
    from alto_runs.export import TableFormat, write_exports
    from alto_runs.files.directory import seeds_of
    from alto_runs.report.page import write_report

    given = options.run_directories
    runs, out = [run for each in given for run in seeds_of(each)], options.out or given[0]
    wanted = {TableFormat.CSV: options.csv, TableFormat.PARQUET: options.parquet}
    forms = [form for form, is_wanted in wanted.items() if is_wanted]
    leave_at_exit()
    with uncollected():
        print(write_report(runs, out))
        for path in write_exports(runs, out / "export", forms, with_timeline=options.trace):
            print(path)
    return 0
