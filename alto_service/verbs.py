"""The verbs of the service on the command line; nothing is imported before one is called."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from alto_runs.arguments import named, named_path, whole
from alto_runs.verbs import add_cluster

if TYPE_CHECKING:
    from alto_service.client import Answer, Client

__all__ = ["add_verbs"]

_PORT = 8377
_SERVER = f"http://127.0.0.1:{_PORT}"


def add_verbs(verbs: "argparse._SubParsersAction[Any]") -> None:
    """`alto serve`, and what one asks of a service."""
    _add_serve(verbs)
    submit = verbs.add_parser(
        "submit",
        help="hand a study to a service",
        description="Hand a study to a service, which answers with the study's id. Data and models "
        "that it names lie on the service's machine, below one of its roots.",
    )
    submit.add_argument("study", type=named_path, metavar="STUDY.yaml", help="as for alto tune")
    submit.add_argument(
        "--tenant",
        type=named,
        metavar="NAME",
        help="for whom, with the operator's token or none; default: whose the token is",
    )
    submit.add_argument(
        "--priority",
        type=whole,
        default=0,
        metavar="N",
        help="of the tenant's own studies those with the highest go first; default: 0",
    )
    submit.set_defaults(run=_submit)

    status = verbs.add_parser(
        "status",
        help="list the studies of a service, or show one",
        description="List the studies of a service that are yours, or show how one of them stands.",
    )
    status.add_argument(
        "id", type=named, nargs="?", metavar="ID", help="of a study, such as s42; default: all"
    )
    status.set_defaults(run=_status)

    cancel = verbs.add_parser(
        "cancel",
        help="cancel a study of a service",
        description="Cancel a study of a service. What its jobs have come to by then is kept.",
    )
    cancel.add_argument("id", type=named, metavar="ID", help="of a study, such as s42")
    cancel.set_defaults(run=_cancel)

    for verb in (submit, status, cancel):
        verb.add_argument(
            "--server",
            type=named,
            default=_SERVER,
            metavar="URL",
            help=f"of the service; default: {_SERVER}",
        )
        verb.add_argument(
            "--token-file",
            type=named_path,
            metavar="FILE",
            help="file with your token and nothing else, mode 0600; needed where the service has "
            "--tokens",
        )
        verb.add_argument(
            "--json", action="store_true", help="print the service's answer as JSON, not a table"
        )


def _add_serve(verbs: "argparse._SubParsersAction[Any]") -> None:
    serve = verbs.add_parser(
        "serve",
        help="run a service that trains the studies of a team",
        description="Run a service that trains the studies of a team, on this machine or a Ray "
        "cluster. Started again with the same --out it goes on with all of them. docs/service.md "
        "says more.",
    )
    serve.add_argument(
        "--out",
        type=named_path,
        required=True,
        metavar="DIR",
        help="the service's folder: its database, its log, and a folder for each study",
    )
    serve.add_argument(
        "--root",
        type=named_path,
        action="append",
        required=True,
        metavar="DIR",
        help="studies may name data and models below this folder and nowhere else; may be repeated",
    )
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; default: 127.0.0.1, which only this machine can reach",
    )
    serve.add_argument(
        "--port",
        type=_port,
        default=_PORT,
        metavar="N",
        help=f"to listen on; default: {_PORT}",
    )
    serve.add_argument(
        "--tokens",
        type=named_path,
        metavar="FILE",
        help="file with a line TENANT TOKEN for each tenant, mode 0600; needed where other "
        "machines can reach --host",
    )
    serve.add_argument(
        "--settings",
        type=named_path,
        metavar="FILE.yaml",
        help="policy and executor of all studies, and where results go; default: as alto tune's",
    )
    add_cluster(serve)
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    from alto_service.serving import serve
    from alto_service.settings import ServiceSettings, load_settings

    settings = load_settings(options.settings) if options.settings else ServiceSettings()
    serve(
        options.out,
        options.root,
        host=options.host,
        port=options.port,
        tokens=options.tokens,
        settings=settings,
        cluster=options.cluster,
    )
    return 0


def _submit(options: argparse.Namespace) -> int:
    study = _client(options).submit(options.study, tenant=options.tenant, priority=options.priority)
    return _print_studies(study, options)


def _status(options: argparse.Namespace) -> int:
    client = _client(options)
    studies = client.studies() if options.id is None else client.status(options.id)
    return _print_studies(studies, options)


def _cancel(options: argparse.Namespace) -> int:
    from alto_service.database import State

    answer = _client(options).cancel(options.id)
    _print_studies(answer, options)
    if State(answer["state"]).is_final:
        print(f"{options.id} has ended: it stays {answer['state']}", file=sys.stderr)
    return 0


def _client(options: argparse.Namespace) -> "Client":
    from alto_service.client import Client

    return Client(options.server, options.token_file)


def _print_studies(answer: "Answer | list[Answer]", options: argparse.Namespace) -> int:
    from alto_runs.summary import stdout_console
    from alto_service.client import print_studies

    if options.json:
        print(json.dumps(answer, indent=2))
    else:
        print_studies(answer, stdout_console())
    return 0


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text) < 1 << 16:
        raise argparse.ArgumentTypeError(f"value {text!r}: expected a number below 65536")
    return int(text)
