"""Plays schedules: ``python -m gear_testing.simulator --schedules 10000``."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence

from .schedules import play_many
from .simulation import Simulation

__all__ = ["main"]


def _replay(seed: int, *, trace: bool) -> int:
    simulation = Simulation(seed)
    try:
        simulation.run()
    except Exception as error:
        failure = "".join(traceback.format_exception_only(error))
    else:
        failure = ""
    if trace:
        for when, who, what in simulation.trace:
            print(f"{when:9.4f}  {who}: {what}")
    print(failure or f"seed {seed}: {len(simulation.trace)} steps, every promise kept")
    return 1 if failure else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m gear_testing.simulator", description=__doc__)
    parser.add_argument("--schedules", type=int, default=1000, help="how many to play (1000)")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first; the others follow (0)")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="how many play at once (all processors)"
    )
    parser.add_argument("--seed", type=int, help="play the schedule of one seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: print everything that happens")
    options = parser.parse_args(arguments)
    if options.schedules < 1 or options.processes < 1:
        parser.error("--schedules and --processes are 1 or more")
    if options.seed is not None:
        return _replay(options.seed, trace=options.trace)
    began = time.monotonic()
    schedules = steps = submissions = 0
    for block in play_many(options.first, options.schedules, options.processes):
        schedules += block.schedules
        steps += block.steps
        submissions += block.submissions
        if block.failure:
            print(block.failure, file=sys.stderr)
            print(f"{schedules} schedules before it kept every promise", file=sys.stderr)
            return 1
    seconds = time.monotonic() - began
    print(
        f"{schedules} schedules with {submissions} submissions and {steps} steps in {seconds:.0f} s,"
        f" {schedules / seconds:.0f} a second: every promise kept"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
