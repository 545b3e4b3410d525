"""What the HTTP side works with, and who may do what with it."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException

from alto_service.admission import Admission
from alto_service.api import StudyStatus, SubmissionBody
from alto_service.database import StudyRow
from alto_service.folder import ServiceDirectory, number_of
from alto_service.store import KeyReusedError, NewStudy, Store
from alto_service.tokens import EVERYBODY, Caller, Tokens

__all__ = ["Front"]


@dataclass(frozen=True, slots=True)
class Front:
    """Without tokens it is for this machine alone. Refusals are raised as HTTPException."""

    directory: ServiceDirectory
    store: Store
    admission: Admission
    tokens: Tokens | None
    is_alive: Callable[[], Mapping[str, bool]]  # by the names of the processes

    def caller(self, authorization: str | None) -> Caller:
        if self.tokens is None:
            return EVERYBODY
        scheme, _, token = (authorization or "").partition(" ")
        caller = self.tokens.caller(token.strip()) if scheme.lower() == "bearer" else None
        if caller is None:
            challenge = {"WWW-Authenticate": "Bearer"}
            raise HTTPException(401, "expected the header Authorization: Bearer TOKEN", challenge)
        return caller

    def tenant(self, caller: Caller, named: str | None) -> str:
        """Whose study it is to be."""
        if caller.tenant is None:
            return named or ""
        if named not in (None, caller.tenant):
            raise HTTPException(403, f"tenant: value {named!r}: the token is of {caller.tenant!r}")
        return caller.tenant

    def row(self, caller: Caller, name: str) -> StudyRow:
        """The study of that name; those of others are not there."""
        number = number_of(name)
        row = None if number is None else self.store.study(number)
        if row is None or caller.tenant not in (None, row.tenant):
            raise HTTPException(404, f"study: value {name[:40]!r}: there is no such study")
        return row

    def status(self, row: StudyRow) -> StudyStatus:
        return StudyStatus.of(row, str(self.directory.study(row.number).path))

    def submit(
        self, caller: Caller, body: SubmissionBody, key: str | None
    ) -> tuple[StudyRow, bool]:
        """The study, and whether it is new. Raises UserError for a document that is wrong."""
        tenant = self.tenant(caller, body.tenant)
        study = self.admission.study(body.study, body.folder)
        new = NewStudy(
            tenant=tenant,
            key=key or uuid.uuid4().hex,
            name=study.name,
            priority=body.priority,
            document=body.study,
            folder=body.folder or str(self.admission.roots[0]),
        )
        try:
            return self.store.submit(new)
        except KeyReusedError as error:
            raise HTTPException(
                409, f"Idempotency-Key: value {new.key[:40]!r}: belongs to another submission"
            ) from error
