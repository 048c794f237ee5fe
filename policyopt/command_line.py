"""What every command does: read its arguments, and turn its outcome into an exit code."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from policyopt.cores import limit_threads, threads_from_env
from policyopt.errors import RunFailed, UserError, printable
from policyopt.signals import BAD_INPUT, FAILED, INTERRUPTED, interrupt_again


def _help_formatter(prog: str) -> argparse.HelpFormatter:
    """Help texts as they stand, of at most 100 columns."""
    return argparse.RawDescriptionHelpFormatter(prog, width=min(100, shutil.get_terminal_size().columns - 2))


class BadCommandLine(UserError):
    """A command line that cannot be read; a traceback would say nothing more, whatever -v means to the command."""


class Parser(argparse.ArgumentParser):
    """The parser of a command: `doc` is its help as it stands, options are not abbreviated, a bad one is a UserError.

    verbose: whether it has the plain option --verbose, for which see `run_main`.
    """

    def __init__(self, prog: str, doc: str | None, usage: str | None = None, add_help: bool = True, verbose: bool = True):
        super().__init__(prog, usage, doc, formatter_class=_help_formatter, allow_abbrev=False, add_help=add_help)
        if verbose:
            self.add_argument('--verbose', action='store_true', help='show a traceback on errors')

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else list(args)
        for before, word in itertools.pairwise(['', *words]):
            if word == '' or re.fullmatch(r'--[\w-]+=', word):
                where = word or (f'the argument after {before}' if before else 'the first argument')
                self.error(f'{where} is empty, as a shell variable that is not set leaves it; expected a value')
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        message = re.sub(r'^argument (\S+): (?=-?[0-9])', r'\1 ', message)
        raise BadCommandLine(f'{message}; --help lists all options')


def whole(low: int, high: int = 10**9) -> Callable[[str], int]:
    """A `type` for whole numbers from low to high; an error says "--count 0: give 1 or more, up to 1000000000"."""

    def number(text: str) -> int:
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f'{text}: give {low} or more, up to {high}')
        return int(text)

    number.__name__ = 'whole number'  # as argparse calls it where it is none
    return number


def run_main(prog: str, main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Call `main(argv)` as the body of a command and turn its outcome into an exit code.

    Returns 0 (or the integer that main returned), 1 for RunFailed and OSError, 2 for UserError, 130 for Ctrl-C.
    A traceback is printed only when `--verbose` or `-v` is among the arguments (not `-v 2`, a level of detail); an
    exception that is none of these is our own bug and always shows one.
    """
    limit_threads()
    open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ('strict', 'surrogateescape'):
            stream.reconfigure(errors='replace')  # a terminal that cannot show ± shows a ?
    argv = sys.argv[1:] if argv is None else list(argv)
    verbose = any(re.fullmatch(r'--verbose|-v+', a) and not b.isdecimal() for a, b in itertools.pairwise([*argv, '']))
    hook, sys.unraisablehook = sys.unraisablehook, interrupt_again
    try:
        _check_current_folder()
        threads_from_env()
        return main(argv) or 0
    except (UserError, RunFailed, OSError) as e:
        if verbose and not isinstance(e, BadCommandLine):
            traceback.print_exc()
        if isinstance(e, BrokenPipeError):
            # the reader of our stdout has gone (`| head`): keep the interpreter from complaining about it again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        with contextlib.suppress(OSError):
            sys.stdout.flush()  # in a file that holds both, what was printed before stands before the error
        lines = re.split(r'\n(?=  )', str(e))  # a sentence, and perhaps a list of ours, whose lines are indented
        with contextlib.suppress(OSError):  # of a full disk, which must not change the exit code
            print(f'{prog}: error: ' + '\n'.join(map(printable, lines)), file=sys.stderr)
        return BAD_INPUT if isinstance(e, UserError) else FAILED
    except MemoryError as e:
        print(f'{prog}: error: not enough memory ({e or "no details"}); use smaller numbers', file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f'{prog}: interrupted', file=sys.stderr)
        return INTERRUPTED
    finally:
        sys.unraisablehook = hook


def open_standard_streams() -> None:
    """Lead standard streams that are closed (`>&-`, as some schedulers start programs) to /dev/null.

    Otherwise the next files that are opened get their numbers, and take what our own runs and libraries print.
    """
    for fd, name, mode in ((0, 'stdin', 'r'), (1, 'stdout', 'w'), (2, 'stderr', 'w')):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding='utf-8'))


def _check_current_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError as e:
        raise UserError('the current folder does not exist any more; cd into another one and give the command again') from e


def format_table(lines: list[list[str]], left: Sequence[int] = (0, 1), rule: bool = False) -> str:
    """Lists of words as aligned columns; those with an index in `left` stand left, the others right; `rule` underlines the first line."""
    lines = [[printable(word) for word in line] for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    if rule:
        lines = [lines[0], ['-' * w for w in widths], *lines[1:]]

    def one(line):
        return '  '.join(word.ljust(w) if i in left else word.rjust(w) for i, (word, w) in enumerate(zip(line, widths, strict=True)))

    return '\n'.join(one(line).rstrip() for line in lines)
