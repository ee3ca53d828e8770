"""The job server on asyncio or trio, as a command: `gear serve` under another driver.

python bench/serve_anyio.py trio --port 4730
"""

from __future__ import annotations

import argparse

import anyio

import gear_anyio
from gear_anyio import TLS, ServerOptions
from gear_cli.serve import tune_memory


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a job server on asyncio or trio.")
    parser.add_argument("backend", choices=["asyncio", "trio"])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--max-memory", type=int)
    parser.add_argument("--tls-certificate")
    parser.add_argument("--tls-key")
    given = parser.parse_args()
    options: ServerOptions = {"trim_memory": True}
    if given.max_memory is not None:
        options["max_memory"] = given.max_memory
    if given.tls_certificate:
        options["tls"] = TLS(given.tls_certificate, given.tls_key)
    server = gear_anyio.Server("127.0.0.1", given.port, **options)
    print(f"listening on {server.addresses}", flush=True)
    tune_memory()
    anyio.run(server.serve, backend=given.backend)


if __name__ == "__main__":
    main()
