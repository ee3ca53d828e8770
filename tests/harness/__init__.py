"""What several tests share, and the words for it.

Who takes part:

- *idiom* (`idioms`): how clients and workers are used. ``asyncio``, ``asyncio.run`` and ``trio`` are `gear_anyio` in
  three kinds of event loop (`loops`); ``gear_sync`` is the blocking package, behind facades with the same coroutines.
  One suite, ``tests/adapters``, tests them all.
- *driver* (`drivers`): how our job server is run: ``gear_sync``, ``asyncio`` or ``trio``.
- *running server* (`servers`): a job server for tests that block, ours in a thread or gearmand in a process. Its *kind*
  is ``ours`` or ``gearmand``.
- *backend* (`network`): which servers clients and workers of an idiom talk to, and over what: ``ours`` and
  ``gearmand`` over TCP, ``pipes`` for ours over pipes in memory.
- *network* (`network`): the servers, clients and workers of one such test. It ends with the test, the latest first.

Peers that speak packets:

- *raw peer* (`raw`): one connection to a server that hides nothing: packets, bytes, lines of text. A *raw connection*
  is one over a socket.
- *site* (`sites`): one server and any number of raw peers: the pure one in memory, ours behind a socket, or gearmand.
  ``tests/behaviour`` says each clause once, for all three.
- *bench* (`engine`): the pure engine, its peers and its virtual clock. It checks the engine's books after each move.
  *Driven* (`endpoint`) is the same for the pure server with all that it decides about connections.
- *hostile server* (`hostile`): plays a script with each connection, for every way in which a server can misbehave.
- *model* (`gear_testing.model`): what a server promises, in the plainest words; property tests and simulations compare
  the two.

Time and waiting:

- *gate* (`idioms`): an event that threads and tasks alike can set and wait for. Waits of tests end in an error after
  ``LIMIT`` seconds (`threads`), which only a hang takes: no test passes or fails by how long something took.
- *virtual time* (`peers`): an event loop whose clock jumps to the next timer as soon as nothing else is left to do.
- *skipping clock* (`clocks`): real time that a test puts forward, where sockets and threads rule out virtual time.
- *calls* (`counting`): what something costs, in function calls.
"""
