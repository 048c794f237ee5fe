"""How long a run will still take, on stderr."""

from __future__ import annotations

import datetime
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

    def tell(self, iteration: int) -> None:
        """To be called after each iteration."""
        elapsed = self.clock() - self.start
        if self.first is None:  # its time includes what is made once
            self.first = iteration, elapsed
        elif elapsed >= self.due:
            each = (elapsed - self.first[1]) / (iteration - self.first[0])
            left = each * (self.total - 1 - iteration)
            elapsed_text, left_text = (datetime.timedelta(seconds=round(s)) for s in (elapsed, left))
            line = f'iteration {iteration} of {self.total}, elapsed {elapsed_text}, ETA {left_text}'
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
