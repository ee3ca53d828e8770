"""Wrong input of every kind: each mistake is one sentence and an exit code."""

import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import WAIT, Refusal

NUMBER = "the port has to be a number"
KUBERNETES = "as Kubernetes sets it for a Service; set enableServiceLinks to false"
FORM = "the form is module:function"

# What stands after ``gear``, the exit code, and a part of the sentence. There is a socket file {tmp}/taken on which
# somebody listens, a port {taken}, and a port {free} that nobody listens on.
MISTAKES = [
    ("nonsense", 2, 'gear: unknown command "nonsense"; the commands are demo, serve, submit and work.'),
    ("''", 2, 'unknown command ""'),
    ("--nonsense", 2, 'gear: unknown option "--nonsense"'),
    ("'\x1b[31m\n'", 2, r'unknown command "\x1b[31m\n"'),
    # Job servers
    ("submit f x -s ''", 2, "it has no host"),
    ("submit f x -s a,,b", 2, "it has no host"),
    ("submit f x -s :4730", 2, "it has no host"),
    ("submit f x -s host:port", 2, NUMBER),
    ("submit f x -s host:0", 2, NUMBER),
    ("submit f x -s host:99999999999999999999", 2, NUMBER),
    ("submit f x -s '[::1'", 2, "'[::1'"),
    ("submit f x -s a..b", 2, "'a..b' cannot be the name of a host"),
    ("submit f x -s \udcff", 2, "cannot be the name of a host"),
    ("submit f x -s 127.0.0.1:{free}", 3, "no server could be reached: 127.0.0.1:{free}: Connection refused."),
    ("GEAR_SERVERS=127.0.0.1:{free} submit f x", 3, "127.0.0.1:{free}: Connection refused"),
    (
        "GEAR_SERVERS='127.0.0.1:{free} localhost:{free},' submit f x",
        3,
        "; localhost:{free}: Connection refused",
    ),
    ("GEAR_SERVERS=host:port submit f x", 2, "GEAR_SERVERS: 'host:port'"),
    ("GEAR_SERVERS=tcp://10.0.0.1:4730 submit f x", 2, f"GEAR_SERVERS is tcp://10.0.0.1:4730, {KUBERNETES}"),
    ("GEAR_SERVERS=tcp://10.0.0.1:4730 work f cat", 2, f"GEAR_SERVERS is tcp://10.0.0.1:4730, {KUBERNETES}"),
    ("work f cat -s ''", 2, "it has no host"),
    ("work f cat -s a..b", 2, "'a..b' cannot be the name of a host"),
    # Files of TLS
    ("submit f x --tls-ca {tmp}/none", 2, "{tmp}/none cannot be read: No such file or directory"),
    ("submit f x --tls-ca {tmp}", 2, "{tmp} cannot be read: Is a directory"),
    ("submit f x --tls-ca {tmp}/text", 2, "{tmp}/text has no certificate in PEM form"),
    ("submit f x --tls-key {tmp}/text", 2, "of no use without its certificate"),
    ("work f cat --tls-certificate {tmp}/text", 2, "of no use without its key"),
    ("work f cat --tls-certificate {tmp}/text --tls-key {tmp}/text", 2, "has no certificate in PEM form"),
    ("serve --tls-certificate {tmp}/text", 2, "of no use without its key"),
    ("serve --tls-certificate {tmp}/none --tls-key {tmp}/none", 2, "{tmp}/none cannot be read: No such file"),
    ("serve --tls-ca {tmp}/text", 2, "a server needs a certificate and its key for TLS"),
    # gear submit
    ("submit", 2, "FUNCTION requires an argument"),
    ("submit '' x -s 127.0.0.1:{free}", 2, "function must not be empty"),
    ("submit f x --unique " + "u" * 65, 2, "unique has 65 bytes, limit 64"),
    ("submit f x --unique " + "u" * 65 + " --background", 2, "unique has 65 bytes, limit 64"),
    ("submit f x y", 2, "y"),
    ("submit f x --nonsense", 2, "Unknown option: --nonsense"),
    ("submit f x --json=3", 2, "--json"),
    ("submit f x --priority urgent", 2, '"high", "normal", "low"'),
    ("submit f x --policy random", 2, '"ordered", "round_robin", "unique_hash"'),
    ("submit f x --timeout 0", 2, "--timeout. Must be > 0"),
    ("submit f x --timeout nan", 2, "--timeout. Must be > 0"),
    ("submit f x --timeout inf", 2, "<= 1,000,000,000 (seconds)"),
    ("submit f x --timeout soon", 2, "--timeout"),
    ("submit f x --file y", 2, "the workload is given twice"),
    ("submit f x --lines", 2, "leave the workload out"),
    ("submit f --lines --unique u", 2, "--unique names one job"),
    ("submit f --file {tmp}/none", 2, "{tmp}/none cannot be read: No such file or directory"),
    ("submit f --file {tmp}", 2, "{tmp} cannot be read: Is a directory"),
    ("submit f --lines --file {tmp}/none", 2, "{tmp}/none cannot be read: No such file or directory"),
    ("submit f --lines --file {tmp}", 2, "{tmp} cannot be read: Is a directory"),
    ("submit f --file /dev/zero", 2, "/dev/zero has more than 67174400 bytes, the limit of a job."),
    ("submit f --lines --file /dev/zero -s 127.0.0.1:{free}", 2, "a line has more than 67174400 bytes"),
    # gear serve
    ("serve x", 2, "x"),
    ("serve --nonsense", 2, "Unknown option: --nonsense"),
    ("serve --host '' --port 0", 2, "--host is empty"),
    ("serve --host a..b --port 0", 2, "'a..b' cannot be the name of a host"),
    ("serve --host 192.0.2.1 --port 0", 1, "cannot listen on 192.0.2.1:0: Cannot assign requested address."),
    ("serve --port {taken}", 1, "gear serve: cannot listen on 127.0.0.1:{taken}: Address already in use."),
    ("serve --port nonsense", 2, "--port"),
    ("serve --port -1", 2, "--port"),
    ("serve --port 65536", 2, "--port"),
    ("serve --listen ''", 2, "it has no host; use 0.0.0.0 or [::] for all addresses"),
    ("serve --listen :4730", 2, "it has no host"),
    ("serve --listen '[::1]:x'", 2, NUMBER),
    ("serve --listen 127.0.0.1:\u00b2", 2, NUMBER),
    ("serve --listen http://127.0.0.1:0", 2, "leave out http://"),
    ("serve --listen tcp://127.0.0.1", 2, "leave out tcp://"),
    ("serve --listen unix:", 2, "it has no path"),
    ("serve --listen unix:{tmp}/none/socket", 1, "cannot listen on unix:{tmp}/none/socket: No such file or directory."),
    ("serve --listen unix:{tmp}/" + "x" * 108, 1, "AF_UNIX path too long"),
    ("serve --listen unix:{tmp}/text", 1, "{tmp}/text: Address already in use"),
    ("serve --listen unix:{tmp}/fine --listen unix:{tmp}/taken", 1, "on unix:{tmp}/taken: Address already in use."),
    ("GEAR_SERVE_LISTEN=127.0.0.1:x serve", 2, NUMBER),
    ("GEAR_SERVE_LISTEN=tcp://10.0.0.1:4730 serve", 2, f"GEAR_SERVE_LISTEN is tcp://10.0.0.1:4730, {KUBERNETES}"),
    ("serve --backlog 0", 2, "--backlog"),
    ("serve --backlog 99999999999", 2, "--backlog"),
    ("serve --keepalive 40000", 2, "--keepalive"),
    ("serve --wakeup-timeout nan", 2, "--wakeup-timeout"),
    ("serve --handshake-timeout inf", 2, "--handshake-timeout. Must be > 0 and <= 86,400 (seconds)"),
    ("serve --max-jobs 0", 2, "--max-jobs"),
    ("serve --job-retries -2", 2, "--job-retries"),
    ("serve --handle-prefix ''", 2, "--handle-prefix must not be empty"),
    ("serve --handle-prefix 'a b'", 2, "--handle-prefix must not be empty, or contain spaces"),
    ("serve --handle-prefix a\x1bb", 2, "spaces or control characters"),
    ("serve --handle-prefix \udcff", 2, "spaces or control characters"),
    ("serve --handle-prefix " + "x" * 60, 2, "handle prefix of 69 bytes"),
    # gear work
    ("work", 2, "FUNCTION requires an argument"),
    ("work f", 2, "give either a command or --target"),
    ("work f true --target m:f", 2, "give either a command or --target"),
    ("work '' true -s 127.0.0.1:{free}", 2, "function must not be empty"),
    ("work f ''", 2, "the command is empty"),
    ("work f no-such-command", 2, "command not found: no-such-command"),
    ("work f 'no-such-command and arguments'", 2, "command not found: no-such-command"),
    ("work f no-such-command x", 2, "command not found: no-such-command"),
    ("work f {tmp}/text", 2, "{tmp}/text is not a file that can be executed"),
    ("work f {tmp}/text x", 2, "{tmp}/text is not a file that can be executed"),
    ("work f '{tmp} and arguments'", 2, "{tmp} is not a file that can be executed"),
    ("work f '(cat'", 2, "the shell cannot read the command: "),
    ("work f ls -l", 2, "Unknown option: -l. Put -- before a command that has options"),
    ("work f true --count 0", 2, "--count"),
    ("work f true --threads -1", 2, "--threads"),
    ("work f true --threads 9999999", 2, "--threads"),
    ("work f true --timeout nan", 2, "--timeout"),
    ("work f true --timeout 2000001", 2, "<= 2,000,000 (seconds)"),
    ("work f --target nonsense", 2, FORM),
    ("work f --target :f", 2, FORM),
    ("work f --target good:", 2, FORM),
    ("work f --target no_such_module:f", 2, "No module named 'no_such_module'"),
    ("work f --target good.no_such_module:f", 2, "'good' is not a package"),
    ("work f --target .good:f", 2, ".good cannot be imported: TypeError"),
    ("work f --target good:nothing", 2, "good has no nothing"),
    ("work f --target good:number", 2, "not a function"),
    ("work f --target good:Some.method", 2, "the function must accept one argument, the job"),
    ("work f --target asyncio:sleep", 2, "cannot run asynchronous functions"),
    ("work f --target raises:f", 2, r"raises cannot be imported: ValueError: not\n\x1b[1mtoday"),
    ("work f --target ends:f", 2, "ends cannot be imported: SystemExit: 3"),
    ("work f --target silent:f", 2, "silent cannot be imported: Silent."),
    ("work f --target broken:f", 2, "broken cannot be imported: SyntaxError"),
    # gear demo
    ("demo {tmp}/none", 2, "gear demo: {tmp}/none cannot be read: No such file or directory."),
    ("demo {tmp}", 2, "{tmp} cannot be read: Is a directory"),
    ("demo {tmp}/binary", 2, "gear demo: {tmp}/binary is not text in UTF-8."),
    ("demo /dev/zero", 2, "/dev/zero has more than 67174400 bytes"),
    ("demo a b", 2, "b"),
    ("demo --pieces 0", 2, "--pieces"),
    ("demo --pieces 1001", 2, "--pieces"),
]

MODULES = {
    "good": "number = 3\nclass Some:\n    def method(self, job): pass\n",
    "raises": "raise ValueError('not\\n\\x1b[1mtoday')\n",
    "ends": "raise SystemExit(3)\n",
    "silent": "class Silent(Exception):\n    def __str__(self): raise self\nraise Silent\n",
    "broken": "def (\n",
}


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """End a command that takes a mistake for good, and would run for ever."""

    def on_alarm(_number: int, _frame: object) -> None:
        raise AssertionError("the mistake is not refused")

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(WAIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a directory with files of every kind that can be got wrong."""
    (tmp_path / "text").write_text("text")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("line", "code", "sentence"), MISTAKES)
def test_mistake_is_one_sentence(
    refusal: Refusal,
    place: Path,
    taken: int,
    unused_port: int,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    code: int,
    sentence: str,
) -> None:
    places = {"tmp": place, "taken": taken, "free": unused_port}
    words = [word.format(**places) for word in shlex.split(line)]
    while words and words[0].startswith("GEAR_"):
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    found, text = refusal(*words)
    assert sentence.format(**places) in text
    assert found == code
    assert text.removesuffix("\n").isprintable()
    assert not (place / "fine").exists()
