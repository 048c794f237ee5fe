"""How far the work is and how long the rest will take, on stderr: of one run (Eta), and of many (Progress)."""

from __future__ import annotations

import datetime
import os
import sys
import time
from collections.abc import Callable
from typing import TextIO


class Eta:
    """Says on stderr how far a run is and how long the rest will take: on a terminal in one line written anew, else now and then."""

    FIRST_S, EVERY_S, REFRESH_S = 5.0, 60.0, 0.5

    def __init__(self, total: int, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self.total, self.out, self.clock = total, out or sys.stderr, clock
        self.on_terminal = self.out.isatty()
        self.start, self.first, self.due, self.shown = clock(), None, 0.0 if self.on_terminal else self.FIRST_S, False

    def update(self, iteration: int) -> None:
        """To be called after each iteration."""
        elapsed = self.clock() - self.start
        if self.first is None:  # its time includes what is made once
            self.first = iteration, elapsed
        elif elapsed >= self.due:
            each = (elapsed - self.first[1]) / (iteration - self.first[0])
            left = each * (self.total - 1 - iteration)
            line = f'iteration {iteration} of {self.total}, elapsed {_clock(elapsed)}, ETA {_clock(left)}'
            self.write(f'\r\x1b[K{line}' if self.on_terminal else line + '\n')
            self.shown, self.due = self.on_terminal, elapsed + (self.REFRESH_S if self.on_terminal else self.EVERY_S)

    def clear(self) -> None:
        """Take the line off a terminal, for other output or the end."""
        if self.shown:
            self.write('\r\x1b[K')
            self.shown = False

    def write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


class Progress:
    """A bar on a terminal, else one line per finished run, on stderr; at `verbosity` -1 failures only, below that nothing."""

    def __init__(self, total: int, verbosity: int):
        self.total, self.verbosity = total, verbosity
        self.count, self.begin, self.told = 0, time.monotonic(), set()
        self.bar = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and self.verbosity >= 0 and self.total > 1:
            import tqdm

            tqdm.tqdm.monitor_interval = 0  # no thread of its own: runs are forks of this process
            self.bar = tqdm.tqdm(total=self.total, unit='run', file=sys.stderr, dynamic_ncols=True)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar:
            self.bar.close()

    def note(self, line: str) -> None:
        """One line on stderr that does not break the bar."""
        if self.bar:
            self.bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def started(self, name: str, command: str) -> None:
        if self.verbosity > 0:
            self.note(f'start {name}\n  {command}')

    def waiting(self, name: str, held: object) -> None:
        if name not in self.told:
            self.told.add(name)
            self.note(f'waiting for {name}: it {held}')

    def finished(self, name: str, state: str = 'ok', detail: str = '', seconds: float | None = None, log: str | None = None) -> None:
        """Note the end of one piece of work; a failure shows the end of its log."""
        self.count += 1
        elapsed = time.monotonic() - self.begin
        if self.bar:
            self.bar.update()
        elif self.verbosity >= 0:
            left = elapsed / self.count * (self.total - self.count)
            took = '' if seconds is None else f' {seconds:.1f} s'
            note = '' if state == 'ok' else f' {state.upper()}'
            self.note(f'{self.count}/{self.total} {name}{took}{note} (elapsed {_clock(elapsed)}, ETA {_clock(left)})')
        if self.verbosity < -1:
            return
        if state == 'failed' and log is not None:
            self.note(f'run {name} {detail}; its log {log} ends with:\n{last_lines(log)}')
        elif detail and (state != 'ok' or self.verbosity > 0):
            self.note(f'run {name} {detail}')


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def last_lines(path: str, num: int = 10) -> str:
    """The last lines of a log, indented."""
    try:
        with open(path, 'rb') as f:
            f.seek(max(0, os.path.getsize(path) - 20000))
            lines = f.read().decode('utf-8', 'replace').splitlines()
    except OSError as e:
        return f'  | (it cannot be read: {e.strerror})'
    return '\n'.join('  | ' + line for line in lines[-num:])
