"""``gear submit`` and ``gear work`` over TLS, and what they say of files that are of no use."""

from __future__ import annotations

import re
import subprocess

import gear_sync
from tests.harness.certificates import authority

from .conftest import WAIT, Refusal, Run, command, environment, in_time


def test_job_and_worker_speak_tls(gear: Run) -> None:
    ours = authority("ours")
    files = ours.issue("localhost")
    with gear_sync.Server("localhost", 0, tls=files) as server:
        at = f"--server=localhost:{server.port}"
        tls = [f"--tls-ca={ours.ca}", f"--tls-certificate={files.certificate}", f"--tls-key={files.key}"]
        words = [*command("work", "up", at, *tls, "--count=1", "tr", "a-z", "A-Z")]
        with subprocess.Popen(words, env=environment()) as process:
            done = gear("submit", "up", "text", at, *tls)
            assert (done.stdout, done.returncode) == (b"TEXT", 0)
            assert process.wait(WAIT) == 0
        refused = gear("submit", "up", "text", at, f"--tls-ca={ours.ca}")
        assert (refused.returncode, refused.stdout) == (3, b"")
        assert b"it wants a certificate of ours" in refused.stderr
        assert refused.stderr.count(b"\n") == 1


def test_server_whose_certificate_is_unknown_is_refused(gear: Run) -> None:
    with gear_sync.Server("localhost", 0, tls=authority("ours").issue("localhost")) as server:
        done = gear("submit", "f", "text", f"--server=localhost:{server.port}", f"--tls-ca={authority('other').ca}")
        assert (done.returncode, done.stdout) == (3, b"")
        assert b"its certificate is refused" in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_tls_on_one_side_only_is_told_as_such(gear: Run) -> None:
    ours = authority("ours")
    with (
        gear_sync.Server("localhost", 0) as plain,
        gear_sync.Server("localhost", 0, tls=ours.issue("localhost")) as tls,
    ):
        to_plain, to_tls = f"--server=localhost:{plain.port}", f"--server=localhost:{tls.port}"
        done = gear("submit", "f", "text", to_plain, f"--tls-ca={ours.ca}")
        assert (done.returncode, done.stdout) == (3, b"")
        assert f"localhost:{plain.port}: TLS: it ".encode() in done.stderr
        assert b"not speak TLS" in done.stderr
        done = gear("submit", "f", "text", to_tls, "--no-exceptions")
        assert (done.returncode, done.stdout) == (3, b"")
        assert b"seems to speak TLS, which this connection does not" in done.stderr
        for words, said in (
            ([to_plain, f"--tls-ca={ours.ca}"], f"localhost:{plain.port}: TLS: it "),
            ([to_tls], f"localhost:{tls.port}: .* seems to speak TLS, which this connection does not"),
        ):
            with subprocess.Popen(
                command("work", "f", "cat", *words), stderr=subprocess.PIPE, env=environment()
            ) as worker:
                assert worker.stderr is not None
                with in_time(worker):
                    assert re.search(said, worker.stderr.readline().decode())
                worker.terminate()
                assert worker.wait(WAIT) == 0


def test_file_that_is_of_no_use_is_named(refusal: Refusal) -> None:
    code, text = refusal("submit", "f", "x", "--tls-key=key.pem")
    assert code == 2
    assert "the key key.pem is of no use without its certificate" in text
    code, text = refusal("work", "f", "--tls-ca=no/such.pem", "cat")
    assert code == 2
    assert "no/such.pem" in text
