"""Non-blocking sockets for `gear_sync` and `gear_anyio`: connecting, TLS, links, and the job server's reactor."""
