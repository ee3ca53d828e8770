"""Clients and workers of others: small scripts in Perl and PHP, and the processes that run them.

Every worker offers the same functions, so that any client can be put before any worker: ``reverse`` returns the
workload backwards, ``talk`` reports everything there is to report before it returns ``done``, ``fail`` fails,
``throw`` ends with an exception that has the word ``oops`` in it, and ``wait`` never ends.

Every client takes a command, a function and a unique, and the workload from its input; it writes a line for each
thing that it hears.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from . import programs
from .servers import RunningServer

__all__ = ["LANGUAGES", "Finished", "Language", "Process", "Processes", "completed"]

_TIMEOUT: Final = 60.0  # seconds; only a hang reaches it

PERL_WORKER: Final = r"""
use strict; use warnings; use Gearman::Worker;
my ($server) = @ARGV;
my $worker = Gearman::Worker->new(job_servers => [$server], client_id => 'perl-worker');
$worker->register_function(reverse => sub { scalar reverse $_[0]->arg });
$worker->register_function(talk => sub {
    my ($job) = @_;
    $job->set_status(1, 4);
    $worker->send_work_data($job, 'part');
    $worker->send_work_warning($job, 'careful');
    return 'done';
});
$worker->register_function(fail => sub { undef });
$worker->register_function(throw => sub { die "oops\n" });
$worker->register_function(wait => sub { sleep 1000 });
$worker->work;
"""

PERL_CLIENT: Final = r"""
use strict; use warnings; use Gearman::Client; use Digest::MD5 'md5_hex';
my ($server, $command, $function, $unique) = @ARGV;
binmode STDIN; binmode STDOUT; $| = 1;
my $client = Gearman::Client->new(job_servers => [$server], exceptions => 1, command_timeout => 30);
if ($command eq 'status') {
    my $status = $client->get_status("$server//$function");
    printf "status %d %d %s\n", $status->known, $status->running, join ' ', @{ $status->progress || [] };
    exit 0;
}
my $workload = do { local $/; <STDIN> };
my %options = (uniq => $unique);
$options{high_priority} = 1 if $command =~ /high/;
if ($command =~ /background/) {
    my $handle = $client->dispatch_background($function, \$workload, \%options);
    $handle =~ s{^.*//}{};
    print "handle $handle\n";
    exit 0;
}
my $tasks = $client->new_task_set;
$tasks->add_task($function, \$workload, {
    %options,
    on_status => sub { print "status $_[0] $_[1]\n" },
    on_data => sub { print "data ${$_[0]}\n" },
    on_warning => sub { print "warning ${$_[0]}\n" },
    on_exception => sub { print "exception ", ($_[0] =~ /oops/ ? 'oops' : $_[0]), "\n" },
    on_fail => sub { print "fail\n" },
    on_complete => sub { print 'complete ', length(${$_[0]}), ' ', md5_hex(${$_[0]}), "\n" },
});
$tasks->wait(timeout => 40);
"""

PHP_WORKER: Final = r"""<?php
[$host, $port] = explode(':', $argv[1]);
$worker = new GearmanWorker();
$worker->addServer($host, (int)$port);
$worker->setId('php-worker');
$worker->addFunction('reverse', function ($job) { return strrev($job->workload()); });
$worker->addFunction('talk', function ($job) {
    $job->sendStatus(1, 4);
    $job->sendData('part');
    $job->sendWarning('careful');
    return 'done';
});
$worker->addFunction('fail', function ($job) { $job->setReturn(GEARMAN_WORK_FAIL); });
$worker->addFunction('throw', function ($job) {
    $job->setReturn(GEARMAN_WORK_EXCEPTION);
    $job->sendException('oops');
});
$worker->addFunction('wait', function ($job) { sleep(1000); });
while (true) { @$worker->work(); }
"""

PHP_CLIENT: Final = r"""<?php
[$_, $server, $command, $function, $unique] = $argv;
[$host, $port] = explode(':', $server);
$client = new GearmanClient();
$client->addServer($host, (int)$port);
$client->setTimeout(40000);
if ($command === 'status' || $command === 'status-unique') {
    $status = $command === 'status' ? $client->jobStatus($function) : $client->jobStatusByUniqueKey($unique);
    echo 'status ', implode(' ', array_map('intval', array_slice($status, 0, 4))), "\n";
    exit(0);
}
$workload = stream_get_contents(STDIN);
$background = ['background' => 'doBackground', 'high-background' => 'doHighBackground',
    'low-background' => 'doLowBackground'];
if (isset($background[$command])) {
    echo 'handle ', $client->{$background[$command]}($function, $workload, $unique), "\n";
    exit(0);
}
$client->setStatusCallback(function ($task) { echo "status {$task->taskNumerator()} {$task->taskDenominator()}\n"; });
$client->setDataCallback(function ($task) { echo "data {$task->data()}\n"; });
$client->setWarningCallback(function ($task) { echo "warning {$task->data()}\n"; });
$client->setExceptionCallback(function ($task) {
    echo 'exception ', str_contains($task->data(), 'oops') ? 'oops' : $task->data(), "\n";
});
$client->setFailCallback(function ($task) { echo "fail\n"; });
$client->setCompleteCallback(function ($task) {
    echo 'complete ', strlen($task->data()), ' ', md5($task->data()), "\n";
});
$add = ['foreground' => 'addTask', 'high' => 'addTaskHigh', 'low' => 'addTaskLow'][$command];
$context = null;
$client->$add($function, $workload, $context, $unique);
if (!@$client->runTasks() && $client->returnCode() != GEARMAN_WORK_EXCEPTION) {
    echo 'error ', $client->error(), "\n";
}
"""


@dataclass(frozen=True)
class Language:
    """What runs clients and workers in one language.

    Attributes:
        program: the interpreter.
        check: command line that succeeds where its Gearman library is installed.
        options: further arguments of the interpreter.
        scripts: source of ``client`` and ``worker``.
    """

    program: str
    check: tuple[str, ...]
    options: tuple[str, ...] = ()
    scripts: Mapping[str, str] = field(default_factory=dict)


LANGUAGES: Final = {
    "perl": Language("perl", ("-MGearman::Client", "-e", "1"), scripts={"client": PERL_CLIENT, "worker": PERL_WORKER}),
    "php": Language(
        "php",
        ("-r", 'exit(extension_loaded("gearman") ? 0 : 1);'),
        ("-d", "memory_limit=512M"),
        {"client": PHP_CLIENT, "worker": PHP_WORKER},
    ),
}


def completed(data: bytes) -> str:
    """Return the line that a client writes for a result."""
    return f"complete {len(data)} {hashlib.md5(data).hexdigest()}"


@dataclass(frozen=True)
class Finished:
    """What a program has left behind.

    Attributes:
        code: its exit status.
        output: what it wrote.
        errors: what it wrote to its standard error.
    """

    code: int
    output: bytes
    errors: bytes

    @property
    def lines(self) -> list[str]:
        """The lines that it wrote."""
        return self.output.decode().splitlines()


class Process:
    """A program that has been started."""

    def __init__(self, command: Sequence[str], workload: bytes) -> None:
        """Start it with some input."""
        with contextlib.ExitStack() as stack:
            given, self._output, self._errors = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
            given.write(workload)
            given.seek(0)
            self._process = subprocess.Popen(command, stdin=given, stdout=self._output, stderr=self._errors)
            self._files = stack.pop_all()

    def finish(self) -> Finished:
        """Wait for its end."""
        code = self._process.wait(_TIMEOUT)
        return Finished(code, _content(self._output), _content(self._errors))

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it if it still runs, and show its errors: pytest does so if the test fails."""
        if self._process.poll() is None:
            self.kill()
        sys.stderr.write(_content(self._errors).decode(errors="replace"))
        self._files.close()


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


@functools.cache
def _succeeds(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


class Processes:
    """Runs programs of others against a server; ends those that still run when it is closed."""

    def __init__(self, server: RunningServer, folder: Path) -> None:
        """Begin without processes; scripts go to a folder."""
        self._server = server
        self._folder = folder
        self._stack = contextlib.ExitStack()

    def start_client(
        self, language: str, command: str, function: bytes, workload: bytes = b"", unique: str = ""
    ) -> Process:
        """Start a client."""
        return self._start([*self._script(language, "client"), command, function.decode(), unique], workload)

    def client(self, language: str, command: str, function: bytes, workload: bytes = b"", unique: str = "") -> Finished:
        """Run a client to its end."""
        return self.start_client(language, command, function, workload, unique).finish()

    def start_worker(self, language: str) -> Process:
        """Start a worker."""
        return self._start(self._script(language, "worker"))

    def start_gearman(self, *arguments: str, workload: bytes = b"") -> Process:
        """Start the command ``gearman``."""
        return self._start([*self._tool("gearman"), *arguments], workload)

    def gearman(self, *arguments: str, workload: bytes = b"") -> Finished:
        """Run the command ``gearman`` to its end."""
        return self.start_gearman(*arguments, workload=workload).finish()

    def gearadmin(self, *arguments: str) -> Finished:
        """Run the command ``gearadmin`` to its end."""
        return self._start([*self._tool("gearadmin"), *arguments]).finish()

    def close(self) -> None:
        """End what still runs."""
        self._stack.close()

    def _start(self, command: Sequence[str], workload: bytes = b"") -> Process:
        return self._stack.enter_context(contextlib.closing(Process(command, workload)))

    def _tool(self, name: str) -> list[str]:
        return [programs.require(name), "-h", self._server.host, "-p", str(self._server.port)]

    def _script(self, language: str, role: str) -> list[str]:
        """Return the command line of a script, its arguments still missing."""
        chosen = LANGUAGES[language]
        program = programs.require(chosen.program)
        if not _succeeds(program, *chosen.check):
            programs.unavailable(f"{language} has no Gearman library")
        path = self._folder / f"{role}.{language}"
        path.write_text(chosen.scripts[role], encoding="utf-8")
        return [program, *chosen.options, str(path), self._server.address]
