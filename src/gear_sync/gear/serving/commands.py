"""The text commands of `gear.Server` that its engine does not have: the access control list, and what it guards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Final

from gear_sync.gear.acl import ACL, ACLEntry, ACLError
from gear_sync.gear.admin import AdminRequest, ServerAdminRequest
from gear_sync.gear.hooks import BaseClientServer
from gear_sync.gear.jobs import ServerJob
from gear_sync.gear.text import convert_to_bytes, decode, encode
from gearproto.admin import escape

from .peer import ServerConnection

__all__ = ["ServerCommands"]

_OK: Final = b"OK\n"
_DENIED: Final = b"ERR PERMISSION_DENIED\n"
_UNKNOWN_JOB: Final = b"ERR UNKNOWN_JOB\n"
_UNKNOWN_VERB: Final = b"ERR UNKNOWN_ACL_VERB\n"
_INCOMPLETE: Final = b"ERR UNABLE an argument is missing\n"


class ServerCommands(BaseClientServer):
    """Answers text commands.

    Attributes:
        acl: who may do what; None if everybody may do everything.
        jobs: the jobs by handle.
    """

    acl: ACL | None
    jobs: dict[bytes, ServerJob]

    @abstractmethod
    def answer(self, request: ServerAdminRequest) -> None:
        """Answer a command that has nothing to do with access."""

    @abstractmethod
    def cancel(self, job: ServerJob) -> bool:
        """End a job that nobody runs; return whether the server knew it."""

    def handleAdminRequest(self, request: AdminRequest) -> None:
        """Answer a text command. Called for every line that is received."""
        assert isinstance(request, ServerAdminRequest)
        self.log.info("Received admin request %s", request)
        words = (request.command or b"").split()
        name = b" ".join(words[:2])
        if name == b"cancel job":
            self.handleCancelJob(request)
        elif name == b"acl list":
            self.handleACLList(request)
        elif name == b"acl grant":
            self.handleACLGrant(request)
        elif name == b"acl revoke":
            self.handleACLRevoke(request)
        elif name == b"acl self-revoke":
            self.handleACLSelfRevoke(request)
        elif words == [b"status"]:
            self.handleStatus(request)
        elif words == [b"workers"]:
            self.handleWorkers(request)
        else:
            self.answer(request)

    def handleStatus(self, request: ServerAdminRequest) -> None:
        """Answer ``status``."""
        self.answer(request)

    def handleWorkers(self, request: ServerAdminRequest) -> None:
        """Answer ``workers``."""
        self.answer(request)

    def handleCancelJob(self, request: ServerAdminRequest) -> None:
        """Answer ``cancel job``: cancel a job that is queued, if the asking subject may submit such jobs."""
        words = (request.command or b"").split()
        if len(words) < 3:
            self.answer(request)
            return
        job = self.jobs.get(words[2])
        if job is not None and self.acl is not None and not self.acl.canInvoke(_subject(request), job.binary_name):
            request.connection.sendRaw(_DENIED)
        elif job is None or job.worker_connection is not None or not self.cancel(job):
            request.connection.sendRaw(_UNKNOWN_JOB)
        else:
            request.connection.sendRaw(_OK)

    def handleACLList(self, request: ServerAdminRequest) -> None:
        """Answer ``acl list``: show every entry."""
        if self.acl is None:
            request.connection.sendRaw(b"ERR ACL_DISABLED\n")
            return
        rows = [_row(entry) for entry in self.acl.getEntries()]
        request.connection.sendRaw(b"".join([*rows, b".\n"]))

    def handleACLGrant(self, request: ServerAdminRequest) -> None:
        """Answer ``acl grant``: add a right."""

        def change(acl: ACL) -> bytes:
            if not acl.canGrant(_subject(request)):
                return _DENIED
            _acl, _grant, verb, subject, pattern = _words(request, 5)
            grants: dict[bytes, Callable[[], None]] = {
                b"register": lambda: acl.grantRegister(decode(subject), decode(pattern)),
                b"invoke": lambda: acl.grantInvoke(decode(subject), decode(pattern)),
                b"grant": lambda: acl.grantGrant(decode(subject)),
            }
            if verb not in grants:
                return _UNKNOWN_VERB
            if not subject or (verb != b"grant" and not pattern):
                return _INCOMPLETE
            grants[verb]()
            return _OK

        self._change(request, change)

    def handleACLRevoke(self, request: ServerAdminRequest) -> None:
        """Answer ``acl revoke``: take a right away."""

        def change(acl: ACL) -> bytes:
            if not acl.canGrant(_subject(request)):
                return _DENIED
            _acl, _revoke, verb, subject = _words(request, 4)
            return _revoke_right(acl, verb, decode(subject)) if subject else _INCOMPLETE

        self._change(request, change)

    def handleACLSelfRevoke(self, request: ServerAdminRequest) -> None:
        """Answer ``acl self-revoke``: take a right away from the asking subject."""

        def change(acl: ACL) -> bytes:
            subject = _subject(request)
            if subject is None:
                return _DENIED
            _acl, _revoke, verb = _words(request, 3)
            return _revoke_right(acl, verb, subject)

        self._change(request, change)

    def _change(self, request: ServerAdminRequest, change: Callable[[ACL], bytes]) -> None:
        """Change the list, and answer with what came of that."""
        if self.acl is None:
            answer = b"ERR ACL_DISABLED\n"
        else:
            try:
                answer = change(self.acl)
            except ACLError as error:
                answer = b"ERR UNABLE %b\n" % escape(encode(str(error)))
        request.connection.sendRaw(answer)


def _revoke_right(acl: ACL, verb: bytes, subject: str) -> bytes:
    revokes = {
        b"register": [acl.revokeRegister],
        b"invoke": [acl.revokeInvoke],
        b"grant": [acl.revokeGrant],
        b"all": [acl.revokeRegister, acl.revokeInvoke, acl.revokeGrant],
    }
    for revoke in revokes.get(verb, ()):
        revoke(subject)
    return _OK if verb in revokes else _UNKNOWN_VERB


def _words(request: ServerAdminRequest, count: int) -> list[bytes]:
    """Return the words of a command, of which the last one may hold blanks; empty ones for those that are missing."""
    words = (request.command or b"").rstrip(b"\r").split(None, count - 1)
    return words + [b""] * (count - len(words))


def _subject(request: ServerAdminRequest) -> str | None:
    assert isinstance(request.connection, ServerConnection)
    return request.connection.ssl_subject


def _row(entry: ACLEntry) -> bytes:
    values = [b"None" if value is None else convert_to_bytes(value) for value in (entry.register, entry.invoke)]
    register, invoke = (escape(value) for value in values)
    subject = escape(encode(entry.subject))
    return b"%b\tregister=%b\tinvoke=%b\tgrant=%b\n" % (subject, register, invoke, encode(str(entry.grant)))
