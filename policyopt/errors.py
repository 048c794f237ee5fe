"""The two kinds of errors, and text made safe to show in a terminal. The exit codes of commands are in signals.py."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """Something the user gave is wrong: one sentence with what, where, what is expected and what to do (exit code 2)."""


class Unfit(UserError):
    """A value that will not do: what was seen, what is expected, what to do; `path` is its place, as far as that is known here."""

    def __init__(self, seen: str, expected: str, hint: str = '', path: str = ''):
        super().__init__(f'{seen}; expected {expected}{"." + hint if hint else ""}')
        self.seen, self.expected, self.path = seen, expected, path

    def __reduce__(self) -> Any:
        return UserError, (str(self),)  # in another process it is a sentence like others


class RunFailed(Exception):
    """The input was fine, but a run did not finish (exit code 1)."""


# what the code of a user may raise; SystemExit would end our command with an exit code of its own
FAILURES = (Exception, SystemExit, GeneratorExit)


def reason_of(e: BaseException) -> str:
    """An exception as one line: its kind and its text, if that can be had."""
    try:
        text = ' '.join(str(e).split())
    except FAILURES:  # an exception of the user's own may have any __str__
        text = ''
    return f'{type(e).__name__}: {text}' if text else type(e).__name__


def printable(text: object, keep: str = '') -> str:
    r"""A text as a terminal may be given it: control characters, line ends, lone surrogates and marks of direction as \x1b, \u202e.

    Names, attributes and errors can come from files of strangers, and escape sequences can rewrite what a terminal shows.
    """
    return ''.join(
        c if c in keep or unicodedata.category(c) not in ('Cc', 'Cf', 'Cs', 'Zl', 'Zp') else c.encode('unicode_escape').decode()
        for c in str(text)
    )


def closest(word: object, words: Iterable[object]) -> str:
    """The likely intended one of `words`, as the sentence " Did you mean 'x'?", or an empty string."""
    import difflib

    match = difflib.get_close_matches(str(word), [str(w) for w in words], n=1)
    return f" Did you mean '{match[0]}'?" if match else ''
