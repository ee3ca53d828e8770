"""Clients, workers, job servers and the network between them in one process, under one seed.

Everything runs on the pure parts of `gearproto`, in virtual time. The network delays, splits, resets and silences
connections; parties crash and start again, are paused, and have their clocks put forward and back. After every step the
promises that `Invariant` names are checked. The seed decides everything, so a failure can be played again:

>>> run_schedule(4730).submissions[0].outcomes
[Completed(data=b'...')]

``python -m gear_testing.simulator --schedules 10000`` plays many, and prints the seed of the first that fails.
"""

from .invariants import Invariant, Violation
from .simulation import Simulation, run_schedule

__all__ = ["Invariant", "Simulation", "Violation", "run_schedule"]
