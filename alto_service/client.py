"""The client's side of the service."""

import json
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from alto_runs.errors import UserError
from alto_runs.study import load_study
from alto_service.tokens import read_secret

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Answer", "Client", "print_studies"]

_TIMEOUT_SECONDS = 30.0
_PATIENCE_SECONDS = 20.0  # with a service that is being started again
_PAUSE_SECONDS = 0.5
_STUDY = "study: "

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Client:
    """Speaks for the owner of the token. Every method raises UserError with the service's line."""

    server: str
    token_file: Path | None = None

    def submit(self, path: Path, *, tenant: str | None, priority: int) -> Answer:
        """Hand in a study file, once, however often it has to be tried."""
        load_study(path)
        body = {
            "study": path.read_text(encoding="utf-8-sig"),
            "folder": str(path.absolute().parent),
            "tenant": tenant,
            "priority": priority,
        }
        try:
            return self._ask("POST", "/studies", body, key=uuid.uuid4().hex)
        except UserError as error:  # the service was not told what the file is called
            line = str(error)
            if line.startswith(_STUDY):
                raise UserError(f"{path}: {line.removeprefix(_STUDY)}") from error
            raise

    def status(self, study: str) -> Answer:
        return self._ask("GET", f"/studies/{quote(study, safe='')}")

    def studies(self) -> list[Answer]:
        found: list[Answer] = []
        after: int | None = 0
        while after is not None:
            page = self._ask("GET", f"/studies?limit=1000&after={after}")
            found += page["studies"]
            after = page["after"]
        return found

    def cancel(self, study: str) -> Answer:
        return self._ask("POST", f"/studies/{quote(study, safe='')}/cancel")

    def _ask(
        self, method: str, path: str, body: Answer | None = None, key: str | None = None
    ) -> Answer:
        request = self._request(method, path, body, key)
        opener = build_opener(ProxyHandler({}))
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while True:
            is_last = time.monotonic() >= give_up_at
            try:
                with opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
                    answer: Answer = json.load(response)
                    return answer
            except HTTPError as error:
                if error.code != 503 or is_last:
                    raise UserError(_line_of(error)) from error
            except (URLError, OSError) as error:
                if is_last or not _may_come_back(error):
                    raise UserError(f"--server: value {self.server!r}: {_why(error)}") from error
            except ValueError as error:
                raise UserError(f"--server: value {self.server!r}: no ALTO service") from error
            time.sleep(_PAUSE_SECONDS)

    def _request(self, method: str, path: str, body: Answer | None, key: str | None) -> Request:
        parts = urlsplit(self.server)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UserError(f"--server: value {self.server!r}: expected http://HOST:PORT")
        headers = {"Content-Type": "application/json"}
        if self.token_file is not None:
            headers["Authorization"] = f"Bearer {read_secret(self.token_file).strip()}"
        if key is not None:
            headers["Idempotency-Key"] = key
        data = None if body is None else json.dumps(body).encode()
        return Request(self.server.rstrip("/") + path, data, headers, method=method)


def _may_come_back(error: OSError) -> bool:
    """Somebody is at the address, though nobody listens or it falls silent."""
    return isinstance(getattr(error, "reason", error), ConnectionError | TimeoutError)


def _why(error: OSError) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ConnectionRefusedError):
        return "nobody listens there, expected a service begun with alto serve"
    return str(reason)


def _line_of(error: HTTPError) -> str:
    try:
        line = str(json.load(error)["error"])
        return f"{line}; --token-file names a file with yours" if error.code == 401 else line
    except (ValueError, KeyError, TypeError):
        return f"the server answered {error.code} {error.reason}"


def print_studies(answer: Answer | list[Answer], console: "Console") -> None:
    """One study, with the folder of its results, or a list of them."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("id", "name", "tenant", "state", "jobs", "best job", "val loss"):
        table.add_column(heading, justify="right" if heading == "val loss" else "left")
    studies = answer if isinstance(answer, list) else [answer]
    for study in studies:
        best = study["best"]
        jobs = ", ".join(f"{count} {status}" for status, count in study["jobs"].items())
        cells = [study["id"], study["name"], study["tenant"], study["state"], jobs]
        cells += [best["job"], f"{best['val_loss']:.4f}"] if best else ["", ""]
        table.add_row(*(Text(str(cell)) for cell in cells))
    console.print(table)
    for study in studies:
        if study["error"]:
            console.print(Text(f"{study['id']}: {study['error']}"), soft_wrap=True)
        elif study is answer:
            console.print(Text(f"directory: {study['directory']}"), soft_wrap=True)
