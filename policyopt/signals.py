"""The signals that stop a run or a pipeline, and the exit codes that say so."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from types import FrameType
from typing import Any

from policyopt.errors import RunFailed
from policyopt.shipped import continuing_command

FAILED = 1  # the input was fine, but a run did not finish
BAD_INPUT = 2  # something that the user gave is wrong
STOPPED = 75  # stopped by a signal: the state is saved, --resume continues (EX_TEMPFAIL)
INTERRUPTED = 130  # the same after Ctrl-C, as shells have it

STOP_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1  # that the pipeline passes on to its runs


def signal_name(number: int) -> str:
    """SIGKILL of 9; 35 of the real-time signals, most of which have no name."""
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)


@contextlib.contextmanager
def holding_signals() -> Iterator[None]:
    """Hold stop signals back in the block, from this process and for good from those that it starts; ours arrive after it.

    A terminal's Ctrl-C goes to worker processes too, also to one that does not yet ignore it.
    """
    resource_tracker.ensure_running()  # multiprocessing lets SIGINT and SIGTERM through again when it starts this
    with delaying_signals():
        yield


@contextlib.contextmanager
def delaying_signals() -> Iterator[None]:
    """Let stop signals arrive at the end of the block, which is where their handlers raise what they raise."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def interrupt_again(ignored: Any) -> None:
    """A sys.unraisablehook for KeyboardInterrupt: raised in a destructor, Python would show and drop it; here it is raised again.

    PyTables has many destructors, so that Ctrl-C is likely to land in one. All other exceptions are shown as always.
    """
    if not issubclass(ignored.exc_type, KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        sys.__unraisablehook__(ignored)
        return
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01)  # by then the destructor is over, or it happens once more


def follow_parent() -> None:
    """For a worker process: leave stop signals to the parent, those that were held back too, and end as soon as it has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    for num in STOP_SIGNALS:
        signal.signal(num, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def watch():
        connection.wait([parent.sentinel])
        os._exit(1)  # whatever it is doing

    threading.Thread(target=watch, daemon=True).start()


def call(command: Sequence[str]) -> int:
    """The exit code of a command that is run, and waited for even after Ctrl-C, which a terminal sends there too."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    finally:
        process.wait()


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let stop signals call `handler` in the block, where this is the main thread, which alone can do so."""
    with contextlib.ExitStack() as restore:
        if threading.current_thread() is threading.main_thread():
            with delaying_signals():
                # a shell's background job is to ignore Ctrl-C, one of nohup the end of its terminal
                ignored = [num for num in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(num) == signal.SIG_IGN]
                # where the parent has chosen to ignore its children's ends, we would never learn of those of ours
                handlers: dict[int, Any] = {num: handler for num in STOP_SIGNALS if num not in ignored}
                if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
                    handlers[signal.SIGCHLD] = signal.SIG_DFL
                for num, new in handlers.items():
                    restore.callback(signal.signal, num, signal.signal(num, new))
        yield


@contextlib.contextmanager
def counted_signals() -> Iterator[list[int]]:
    """Note stop signals in a list in the block, and do no more: the launcher checks for them between two steps, never within one."""
    seen: list[int] = []
    with _handling(lambda num, frame: seen.append(num)):
        yield seen


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Note stop signals in a list, which the loop in the block checks after each iteration; a second Ctrl-C ends the run at once."""
    seen: list[int] = []

    def note(num, frame):
        seen.append(num)
        if num == signal.SIGINT:
            signal.signal(num, signal.default_int_handler)
            if seen == [num]:  # not print, which may be what is interrupted
                os.write(2, b'stopping after this iteration (Ctrl-C again: at once)\n')
        if num == signal.SIGHUP:
            mute()

    with _handling(note):
        try:
            yield seen
        except KeyboardInterrupt as e:
            if signal.SIGINT in seen:
                raise
            raise RunFailed('KeyboardInterrupt was raised, and not by Ctrl-C: the environment has raised it') from e


def mute() -> None:
    """Lead our output to /dev/null, files excepted: a terminal that has gone, or the `tee` on it, must not end us by an error."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for fd in (1, 2):
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.dup2(nothing, fd)
    os.close(nothing)


class Stopped(RunFailed):
    """A signal stopped the pipeline; its runs have been stopped."""

    def __init__(self, signum: int, then: str | None = None):
        then = then or f'what is finished is kept; continue with: {continuing_command()}'
        super().__init__(f'stopped by {signal.Signals(signum).name}; {then}')
        self.signum, self.interrupted = signum, signum == signal.SIGINT


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """A stop signal in the block ends it as Ctrl-C does, cleaning up, and becomes Stopped; a second one ends this process at once.

    Where `continuing_command` is wrong advice, the block catches KeyboardInterrupt and raises another one with the right one.
    """
    first = []

    def note(signum, frame):
        first.append(signum)
        for num in STOP_SIGNALS:
            if signal.getsignal(num) == note:
                signal.signal(num, signal.SIG_DFL)
        raise KeyboardInterrupt  # no Exception, which a reader of a file might take for damage

    try:
        with _handling(note):
            yield
    except KeyboardInterrupt as e:
        if not first:
            raise
        raise Stopped(first[0], *e.args) from e


@contextlib.contextmanager
def stopping_after(seconds: int | None) -> Iterator[None]:
    """Send this process the warning of a time limit after so many seconds in the block; never for None."""
    if seconds is None:
        yield
        return
    old = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
