"""Runs of our own trainer as forks of this process, which has loaded torch once: two seconds of start-up less in each run.

A forked run executes the same script with the same arguments as a fresh interpreter would, in its own session, with its
output in its log. Every other command, every command on other systems than Linux, and every run after our code has been edited
gets a fresh process.
"""

from __future__ import annotations

import glob
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from typing import TextIO

from policyopt import options
from policyopt.command_line import run_main
from policyopt.pipeline.command import Command, is_our_trainer
from policyopt.shipped import PACKAGE
from policyopt.signals import NEVER_BEGUN, STOP_SIGNALS

BLAS_THREAD_VARIABLES = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')  # read when the libraries are loaded


def _sources() -> dict[str, tuple[int, int]]:
    """{source file of ours: (size, time of its last change)}."""
    files = glob.glob(f'{PACKAGE}/**/*.py', recursive=True)
    return {f: (stat.st_size, stat.st_mtime_ns) for f in files for stat in [os.stat(f)]}


_SOURCES_AT_START = _sources()


def is_possible(env: Mapping[str, str]) -> bool:
    """Whether a fork of this process would do what a fresh one does under the environment `env`: on Linux, with one thread, as this has."""
    return sys.platform == 'linux' and all(e.get(name) == '1' for name in BLAS_THREAD_VARIABLES for e in (env, os.environ))


def script_and_options(command: Command, env: Mapping[str, str]) -> list[str] | None:
    """[script, option, …] of a command that `ForkedRun` can do under the environment `env`, else None.

    It must run our trainer with this very interpreter, as plain words, and with one thread: as many as this process has.
    """
    if not is_possible(env):
        return None
    program, *words = command.plain_words or ['']
    if program != sys.executable or not words or not is_our_trainer(words[0]):
        return None
    return words


def load_trainer() -> bool:
    """Import what a run of the trainer needs; False where a fork would not do what a fresh process does."""
    try:
        if _sources() != _SOURCES_AT_START:
            return False  # a fork would mix what is loaded with what is on disk by now
        import policyopt.training  # noqa: F401
    except Exception:
        return False  # a fresh process fails in the same way, and says so in the run's log
    return True


class ForkedRun:
    """A run of a script in a fork, with what the launcher uses of subprocess.Popen: pid, returncode, stdin, poll() and wait().

    It begins when something is written to `stdin`; when that is closed before, it ends with exit code 143. A run must have
    begun before another is made, which would otherwise hold its `stdin` open.
    """

    def __init__(self, words: list[str], log: TextIO, env: dict[str, str]):
        """words: the script and its options; log: the open file for its output; env: its environment."""
        gate, ready = os.pipe(), os.pipe()
        self._process = multiprocessing.get_context('fork').Process(target=_run, args=(words, log.fileno(), env, gate, ready))
        try:
            self._process.start()
        except OSError:
            os.close(gate[1])
            raise
        finally:
            os.close(gate[0])
            os.close(ready[1])
            if self._process.pid is not None:
                os.read(ready[0], 1)  # the child has its process group and its own signal handlers now
            os.close(ready[0])
        self.pid, self.stdin = self._process.pid, os.fdopen(gate[1], 'wb')

    @property
    def returncode(self) -> int | None:
        """As of Popen: negative after a signal, None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self) -> int | None:
        self._process.join()
        return self.returncode


def _run(words: list[str], log_fd: int, env: dict[str, str], gate: tuple[int, int], ready: tuple[int, int]) -> None:
    """The child: set up what a fresh process would have, wait until the launcher writes to the pipe, run the script."""
    os.setsid()
    for num in STOP_SIGNALS:  # the launcher handles these
        if signal.getsignal(num) != signal.SIG_IGN:
            signal.signal(num, signal.default_int_handler if num == signal.SIGINT else signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    sys.stdout, sys.stderr = open(1, 'w', closefd=False), open(2, 'w', closefd=False, buffering=1, errors='backslashreplace')
    os.close(gate[1])
    os.write(ready[1], b'.')
    os.close(ready[1])
    if not os.read(gate[0], 1):
        sys.exit(NEVER_BEGUN)
    os.environ.clear()
    os.environ.update(env)
    import numpy as np

    np.random.seed()  # for environments that draw from numpy's global generator: no two runs have its state in common
    sys.argv = words
    sys.exit(run_main('imitate_mj', _imitate))


def _imitate(argv: list[str]) -> int:
    from policyopt.training import train_imitation

    return train_imitation(options.parse_options('imitate_mj', None, options.ImitationOptions, argv))
