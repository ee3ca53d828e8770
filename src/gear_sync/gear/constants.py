"""Numbers and names of the packet types, and the magic of requests and responses (``gear.constants``)."""

from __future__ import annotations

from typing import Final

from gearproto import codec, packets

REQ: Final = codec.REQUEST
RES: Final = codec.RESPONSE

CAN_DO: Final = packets.CanDo.spec.number
CANT_DO: Final = packets.CantDo.spec.number
RESET_ABILITIES: Final = packets.ResetAbilities.spec.number
PRE_SLEEP: Final = packets.PreSleep.spec.number
NOOP: Final = packets.Noop.spec.number
SUBMIT_JOB: Final = packets.SubmitJob.spec.number
JOB_CREATED: Final = packets.JobCreated.spec.number
GRAB_JOB: Final = packets.GrabJob.spec.number
NO_JOB: Final = packets.NoJob.spec.number
JOB_ASSIGN: Final = packets.JobAssign.spec.number
WORK_STATUS: Final = packets.WorkStatus.spec.number
WORK_COMPLETE: Final = packets.WorkComplete.spec.number
WORK_FAIL: Final = packets.WorkFail.spec.number
GET_STATUS: Final = packets.GetStatus.spec.number
ECHO_REQ: Final = packets.EchoReq.spec.number
ECHO_RES: Final = packets.EchoRes.spec.number
SUBMIT_JOB_BG: Final = packets.SubmitJobBg.spec.number
ERROR: Final = packets.Error.spec.number
STATUS_RES: Final = packets.StatusRes.spec.number
SUBMIT_JOB_HIGH: Final = packets.SubmitJobHigh.spec.number
SET_CLIENT_ID: Final = packets.SetClientId.spec.number
CAN_DO_TIMEOUT: Final = packets.CanDoTimeout.spec.number
ALL_YOURS: Final = packets.AllYours.spec.number
WORK_EXCEPTION: Final = packets.WorkException.spec.number
OPTION_REQ: Final = packets.OptionReq.spec.number
OPTION_RES: Final = packets.OptionRes.spec.number
WORK_DATA: Final = packets.WorkData.spec.number
WORK_WARNING: Final = packets.WorkWarning.spec.number
GRAB_JOB_UNIQ: Final = packets.GrabJobUniq.spec.number
JOB_ASSIGN_UNIQ: Final = packets.JobAssignUniq.spec.number
SUBMIT_JOB_HIGH_BG: Final = packets.SubmitJobHighBg.spec.number
SUBMIT_JOB_LOW: Final = packets.SubmitJobLow.spec.number
SUBMIT_JOB_LOW_BG: Final = packets.SubmitJobLowBg.spec.number
SUBMIT_JOB_SCHED: Final = packets.SubmitJobSched.spec.number
SUBMIT_JOB_EPOCH: Final = packets.SubmitJobEpoch.spec.number
SUBMIT_REDUCE_JOB: Final = packets.SubmitReduceJob.spec.number
SUBMIT_REDUCE_JOB_BACKGROUND: Final = packets.SubmitReduceJobBackground.spec.number
GRAB_JOB_ALL: Final = packets.GrabJobAll.spec.number
JOB_ASSIGN_ALL: Final = packets.JobAssignAll.spec.number
GET_STATUS_UNIQUE: Final = packets.GetStatusUnique.spec.number
STATUS_RES_UNIQUE: Final = packets.StatusResUnique.spec.number

types: Final = {number: cls.spec.name for number, cls in codec.PACKETS.items()}
"""The name of each packet type by its number."""
