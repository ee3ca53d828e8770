"""What clients, workers and servers have in common: the hooks that packets call."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, ClassVar, Final

from gearproto.codec import PACKETS

from . import constants
from .text import convert_to_bytes, decode

if TYPE_CHECKING:
    from .admin import AdminRequest
    from .jobs import Job
    from .packet import Packet

__all__ = ["BaseClientServer"]

_IRREGULAR: Final = {constants.JOB_ASSIGN_UNIQ: "handleJobAssignUnique", constants.SET_CLIENT_ID: "handleSetClientID"}
_HOOKS: Final = {number: _IRREGULAR.get(number, f"handle{cls.__name__}") for number, cls in PACKETS.items()}


class BaseClientServer:
    """Calls a hook for every packet: override those that your program is interested in.

    Hooks run in the thread that reads, one at a time; while one runs, nothing else is read.

    Attributes:
        client_id: its name, as bytes; None if it has none.
        running: whether it has not been shut down.
        connections_condition: guards the lists of connections, and is notified when they change.
    """

    _log_name: ClassVar[str] = "BaseClientServer"

    def __init__(self, client_id: str | bytes | None = None) -> None:
        """Begin without connections."""
        self.client_id: bytes | None = convert_to_bytes(client_id)
        name = f".{decode(self.client_id)}" if self.client_id else ""
        self.log = logging.getLogger(f"gear.{self._log_name}{name}")
        self.running = True
        self.connections_condition = threading.Condition()

    def handlePacket(self, packet: Packet) -> None:
        """Call the hook of a packet's type. Called for every packet, those of unknown types too."""
        self.log.info("Received packet from %s: %s", packet.connection, packet)
        start = time.monotonic()
        hook = getattr(self, _HOOKS.get(packet.ptype, ""), self._unhandled)
        hook(packet)
        self.reportTimingStats(packet.ptype, time.monotonic() - start)

    def reportTimingStats(self, ptype: int, duration: float) -> None:
        """Do nothing; called when a packet has been dealt with.

        Args:
            ptype: the packet's type number.
            duration: how many seconds that took.
        """

    def handleAdminRequest(self, request: AdminRequest) -> None:
        """Wake the threads that wait for the answer to a text command. Called when it is complete."""
        self.log.info("Received admin response %s", request)
        request.setComplete()

    def handleDisconnect(self, job: Job) -> Job:
        """Return the job. Called for every job whose connection has been lost before its end."""
        return job

    def _unhandled(self, packet: Packet) -> None:
        self.log.error("No hook for packet %s from %s", packet, packet.connection)

    def handleJobCreated(self, packet: Packet) -> Job | None:
        """Hook for ``JOB_CREATED``."""
        self._unhandled(packet)
        return None

    def handleWorkComplete(self, packet: Packet) -> Job | None:
        """Hook for ``WORK_COMPLETE``."""
        self._unhandled(packet)
        return None

    def handleWorkFail(self, packet: Packet) -> Job | None:
        """Hook for ``WORK_FAIL``."""
        self._unhandled(packet)
        return None

    def handleWorkException(self, packet: Packet) -> Job | None:
        """Hook for ``WORK_EXCEPTION``."""
        self._unhandled(packet)
        return None

    def handleWorkData(self, packet: Packet) -> Job | None:
        """Hook for ``WORK_DATA``."""
        self._unhandled(packet)
        return None

    def handleWorkWarning(self, packet: Packet) -> Job | None:
        """Hook for ``WORK_WARNING``."""
        self._unhandled(packet)
        return None

    def handleWorkStatus(self, packet: Packet) -> Job | None:
        """Hook for ``WORK_STATUS``."""
        self._unhandled(packet)
        return None

    def handleStatusRes(self, packet: Packet) -> Job | None:
        """Hook for ``STATUS_RES``."""
        self._unhandled(packet)
        return None

    def handleStatusResUnique(self, packet: Packet) -> None:
        """Hook for ``STATUS_RES_UNIQUE``."""
        self._unhandled(packet)

    def handleGetStatus(self, packet: Packet) -> None:
        """Hook for ``GET_STATUS``."""
        self._unhandled(packet)

    def handleGetStatusUnique(self, packet: Packet) -> None:
        """Hook for ``GET_STATUS_UNIQUE``."""
        self._unhandled(packet)

    def handleJobAssign(self, packet: Packet) -> None:
        """Hook for ``JOB_ASSIGN``."""
        self._unhandled(packet)

    def handleJobAssignUnique(self, packet: Packet) -> None:
        """Hook for ``JOB_ASSIGN_UNIQ``."""
        self._unhandled(packet)

    def handleJobAssignAll(self, packet: Packet) -> None:
        """Hook for ``JOB_ASSIGN_ALL``."""
        self._unhandled(packet)

    def handleNoJob(self, packet: Packet) -> None:
        """Hook for ``NO_JOB``."""
        self._unhandled(packet)

    def handleNoop(self, packet: Packet) -> None:
        """Hook for ``NOOP``."""
        self._unhandled(packet)

    def handleSubmitJob(self, packet: Packet) -> None:
        """Hook for ``SUBMIT_JOB``."""
        self._unhandled(packet)

    def handleSubmitJobBg(self, packet: Packet) -> None:
        """Hook for ``SUBMIT_JOB_BG``."""
        self._unhandled(packet)

    def handleSubmitJobHigh(self, packet: Packet) -> None:
        """Hook for ``SUBMIT_JOB_HIGH``."""
        self._unhandled(packet)

    def handleSubmitJobHighBg(self, packet: Packet) -> None:
        """Hook for ``SUBMIT_JOB_HIGH_BG``."""
        self._unhandled(packet)

    def handleSubmitJobLow(self, packet: Packet) -> None:
        """Hook for ``SUBMIT_JOB_LOW``."""
        self._unhandled(packet)

    def handleSubmitJobLowBg(self, packet: Packet) -> None:
        """Hook for ``SUBMIT_JOB_LOW_BG``."""
        self._unhandled(packet)

    def handleSubmitJobSched(self, packet: Packet) -> None:
        """Hook for ``SUBMIT_JOB_SCHED``."""
        self._unhandled(packet)

    def handleSubmitJobEpoch(self, packet: Packet) -> None:
        """Hook for ``SUBMIT_JOB_EPOCH``."""
        self._unhandled(packet)

    def handleSubmitReduceJob(self, packet: Packet) -> None:
        """Hook for ``SUBMIT_REDUCE_JOB``."""
        self._unhandled(packet)

    def handleSubmitReduceJobBackground(self, packet: Packet) -> None:
        """Hook for ``SUBMIT_REDUCE_JOB_BACKGROUND``."""
        self._unhandled(packet)

    def handleGrabJob(self, packet: Packet) -> None:
        """Hook for ``GRAB_JOB``."""
        self._unhandled(packet)

    def handleGrabJobUniq(self, packet: Packet) -> None:
        """Hook for ``GRAB_JOB_UNIQ``."""
        self._unhandled(packet)

    def handleGrabJobAll(self, packet: Packet) -> None:
        """Hook for ``GRAB_JOB_ALL``."""
        self._unhandled(packet)

    def handlePreSleep(self, packet: Packet) -> None:
        """Hook for ``PRE_SLEEP``."""
        self._unhandled(packet)

    def handleSetClientID(self, packet: Packet) -> None:
        """Hook for ``SET_CLIENT_ID``."""
        self._unhandled(packet)

    def handleCanDo(self, packet: Packet) -> None:
        """Hook for ``CAN_DO``."""
        self._unhandled(packet)

    def handleCanDoTimeout(self, packet: Packet) -> None:
        """Hook for ``CAN_DO_TIMEOUT``."""
        self._unhandled(packet)

    def handleCantDo(self, packet: Packet) -> None:
        """Hook for ``CANT_DO``."""
        self._unhandled(packet)

    def handleResetAbilities(self, packet: Packet) -> None:
        """Hook for ``RESET_ABILITIES``."""
        self._unhandled(packet)

    def handleEchoReq(self, packet: Packet) -> None:
        """Hook for ``ECHO_REQ``."""
        self._unhandled(packet)

    def handleEchoRes(self, packet: Packet) -> None:
        """Hook for ``ECHO_RES``."""
        self._unhandled(packet)

    def handleError(self, packet: Packet) -> None:
        """Hook for ``ERROR``."""
        self._unhandled(packet)

    def handleAllYours(self, packet: Packet) -> None:
        """Hook for ``ALL_YOURS``."""
        self._unhandled(packet)

    def handleOptionReq(self, packet: Packet) -> None:
        """Hook for ``OPTION_REQ``."""
        self._unhandled(packet)

    def handleOptionRes(self, packet: Packet) -> None:
        """Hook for ``OPTION_RES``."""
        self._unhandled(packet)
