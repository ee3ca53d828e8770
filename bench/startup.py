"""How much processor time it takes to import the packages, and to start the command ``gear``.

Each row is the least of several runs, user and system time together: what else the machine does can only add to it.
"""

import argparse
import os
import shlex
import socket
import subprocess
import sys
import tempfile

# What is run, and the limit in milliseconds that was set for it.
RUNS = {
    "python -c pass": None,
    "python -c 'import gearproto'": 100,
    "python -c 'import gear_sync'": None,
    "python -c 'import gear_anyio'": None,
    "gear --version": 300,
    "gear nonsense": 300,
    "gear submit --nonsense": 300,
    "gear serve --port=nonsense": 300,
    "gear --help": 500,
    "gear submit --help": 500,
    "gear submit f x --server=127.0.0.1:{free}": 500,
}


def processor_time(words: list[str], environment: dict[str, str]) -> float:
    """Run a program; return its processor time in seconds."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    _pid, _status, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # it has been waited for
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=20, help="runs of each, of which the least counts")
    parser.add_argument("--only", default="", metavar="TEXT", help="run what contains this text only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache, socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # a port on which nobody listens
        # Whether bytecode has been written before must not matter: the first run writes it.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        print("| what | CPU ms | limit |\n| --- | ---: | ---: |")
        for line, limit in RUNS.items():
            if options.only not in line:
                continue
            words = shlex.split(line.format(free=sock.getsockname()[1]))
            words[:1] = [sys.executable, *(["-m", "gear_cli"] if words[0] == "gear" else [])]
            best = min(processor_time(words, environment) for _ in range(options.repeat))
            name = line.replace("{free}", "4730")
            print(f"| `{name}` | {best * 1000:.0f} | {'' if limit is None else limit} |", flush=True)


if __name__ == "__main__":
    main()
