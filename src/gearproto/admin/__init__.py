r"""The text protocol for administrators: commands, the shape of each answer, its rows.

A command is a line, ended by LF or CRLF. Its answer is a line that begins with ``OK`` or ``ERR``, or rows up to a line
that holds only a dot. Names in answers are written with ``\xNN`` for every byte that could break a row or is not
printable (`escape`), so that no name can forge or end an answer.
"""

from .commands import (
    COMMANDS,
    MAX_WORDS,
    UNKNOWN_JOB,
    CancelJob,
    Command,
    CreateFunction,
    DropFunction,
    GetPid,
    MaxQueue,
    PriorityStatus,
    ShowJobs,
    ShowUniqueJobs,
    Shutdown,
    Status,
    Verbose,
    Version,
    Workers,
    parse_command,
    unknown_command,
)
from .escaping import escape, unescape
from .reading import ReplyReader
from .replies import Ok, Refused, Reply, Rows
from .rows import FunctionPriorities, FunctionStatus, JobListed, Row, UniqueListed, WorkerListed

__all__ = [
    "COMMANDS",
    "MAX_WORDS",
    "UNKNOWN_JOB",
    "CancelJob",
    "Command",
    "CreateFunction",
    "DropFunction",
    "FunctionPriorities",
    "FunctionStatus",
    "GetPid",
    "JobListed",
    "MaxQueue",
    "Ok",
    "PriorityStatus",
    "Refused",
    "Reply",
    "ReplyReader",
    "Row",
    "Rows",
    "ShowJobs",
    "ShowUniqueJobs",
    "Shutdown",
    "Status",
    "UniqueListed",
    "Verbose",
    "Version",
    "WorkerListed",
    "Workers",
    "escape",
    "parse_command",
    "unescape",
    "unknown_command",
]
