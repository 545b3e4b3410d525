"""The verbs of the service on the command line; nothing is imported before one is called."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alto_service.client import Answer, Client

__all__ = ["add_verbs"]

_PORT = 8377
_SERVER = f"http://127.0.0.1:{_PORT}"


def add_verbs(verbs: "argparse._SubParsersAction[Any]") -> None:
    """`alto serve`, and what one asks of a service."""
    serve = verbs.add_parser("serve", help="a service that trains the studies of many tenants")
    serve.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder it lives in")
    serve.add_argument(
        "--root",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="studies may name data and models below it; may be given many times",
    )
    serve.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default: loopback")
    serve.add_argument("--port", type=_port, default=_PORT, metavar="N", help=f"default: {_PORT}")
    serve.add_argument("--tokens", type=Path, metavar="FILE", help="lines of TENANT TOKEN")
    serve.add_argument(
        "--settings", type=Path, metavar="FILE.yaml", help="policy and executor of all studies"
    )
    serve.add_argument("--cluster", metavar="ADDRESS", help="train on a Ray cluster, as tune does")
    serve.set_defaults(run=_serve)

    submit = verbs.add_parser("submit", help="hand a study to a service")
    submit.add_argument("study", type=Path, metavar="STUDY.yaml")
    submit.add_argument("--tenant", metavar="NAME", help="default: that of the token")
    submit.add_argument(
        "--priority", type=int, default=0, metavar="N", help="among those of the tenant, high first"
    )
    submit.set_defaults(run=_submit)

    status = verbs.add_parser("status", help="studies of a service, or one of them")
    status.add_argument("id", nargs="?", metavar="ID")
    status.set_defaults(run=_status)

    cancel = verbs.add_parser("cancel", help="end a study of a service")
    cancel.add_argument("id", metavar="ID")
    cancel.set_defaults(run=_cancel)

    for verb in (submit, status, cancel):
        verb.add_argument("--server", default=_SERVER, metavar="URL", help=f"default: {_SERVER}")
        verb.add_argument("--token-file", type=Path, metavar="FILE", help="holds nothing else")
        verb.add_argument("--json", action="store_true", help="print what the service answers")


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
