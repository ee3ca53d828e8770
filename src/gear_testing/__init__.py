"""Tools to test programs that speak Gearman: yours, and this package itself.

- `gear_testing.strategies`: Hypothesis strategies for packets, text commands, whole sessions, splits and mutations.
- `gear_testing.properties`: properties that any parser of the protocol has to have.
- `gear_testing.jobs`: runs a worker's function without a worker and without a server.
- `gear_testing.plugin`: fixtures for pytest: a job server without a port, a client, a worker, a virtual clock.
- `gear_testing.simulator`: clients, workers, servers and a network in one process, under one seed.
- `gear_testing.fuzz`: coverage-guided fuzzing.

This module imports nothing, so that pytest can load the plugin without importing the packages that it measures.
"""
