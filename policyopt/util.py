"""Stateless helpers that need neither torch nor gymnasium: errors, seeds, shapes, provenance."""

import argparse
import contextlib
import datetime
import hashlib
import io
import itertools
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import threading
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from multiprocessing import resource_tracker
from typing import Any, NoReturn

MAX_ITER = 1000000  # iterations of a training that is not told how many
MAX_TRAJS = 1_000_000  # trajectories of one file, or of one evaluation
MAX_WORKERS = 256  # processes that play one batch, at most
STOP_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1  # that the pipeline passes on to its runs
PACKAGES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # the folder that holds policyopt and environments
_IN_WHEEL = os.path.join(PACKAGES, 'policyopt', 'checkout')
# the folder of scripts, pipelines and expert policies: the checkout, or what a wheel holds of it
REPO = _IN_WHEEL if os.path.isdir(_IN_WHEEL) else PACKAGES


class UserError(Exception):
    """Something the user gave is wrong: one sentence with what, where, what is expected and what to do (exit code 2)."""


class RunFailed(Exception):
    """The input was fine, but a run did not finish (exit code 1)."""


class Parser(argparse.ArgumentParser):
    """The parser of a command: `doc` is its help as it stands, options are not abbreviated, a bad one is a UserError."""

    def __init__(self, prog: str, doc: str | None, epilog: str | None = None):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=doc, epilog=epilog, formatter_class=formatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UserError(f'{message}; --help lists all options')


def run_main(prog: str, main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Call `main(argv)` as the body of a command and turn its outcome into an exit code.

    Returns 0 (or the integer that main returned), 1 for RunFailed and OSError, 2 for UserError, 130 for Ctrl-C.
    A traceback is printed only when `--verbose` or `-v` is among the arguments (not `-v 2`, a level of detail); an
    exception that is none of these is our own bug and always shows one.
    """
    limit_threads()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == 'strict':
            stream.reconfigure(errors='replace')  # a terminal that cannot show ± shows a ?
    argv = sys.argv[1:] if argv is None else list(argv)
    verbose = any(re.fullmatch(r'--verbose|-v+', a) and not b.isdecimal() for a, b in itertools.pairwise([*argv, '']))
    hook, sys.unraisablehook = sys.unraisablehook, interrupt_again
    try:
        _check_current_folder()
        return main(argv) or 0
    except (UserError, RunFailed, OSError) as e:
        if verbose:
            traceback.print_exc()
        if isinstance(e, BrokenPipeError):
            # the reader of our stdout has gone (`| head`): keep the interpreter from complaining about it again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        with contextlib.suppress(OSError):
            sys.stdout.flush()  # in a file that holds both, what was printed before stands before the error
        lines = re.split(r'\n(?=  )', str(e))  # a sentence, and perhaps a list of ours, whose lines are indented
        print(f'{prog}: error: ' + '\n'.join(map(printable, lines)), file=sys.stderr)
        return 2 if isinstance(e, UserError) else 1
    except MemoryError as e:
        print(f'{prog}: error: not enough memory for what was asked ({e or "no details"}); use smaller numbers', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f'{prog}: interrupted', file=sys.stderr)
        return 130
    finally:
        sys.unraisablehook = hook


def _check_current_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError as e:
        raise UserError('the current folder does not exist any more; cd into another one and give the command again') from e


def printable(text: object, keep: str = '') -> str:
    r"""A text as a terminal may be given it: control characters, line ends, lone surrogates and marks of direction as \x1b, \u202e.

    Names, attributes and errors can come from files of strangers, and escape sequences can rewrite what a terminal shows.
    """
    return ''.join(
        c if c in keep or unicodedata.category(c) not in ('Cc', 'Cf', 'Cs', 'Zl', 'Zp') else c.encode('unicode_escape').decode()
        for c in str(text)
    )


def limit_threads() -> None:
    """Give BLAS and torch one thread unless the environment says otherwise; call it before numpy is imported.

    Nets of this size gain nothing from more, runs in parallel lose, and sums stay equal to the last bit.
    """
    for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
        os.environ.setdefault(name, '1')


def number_from_env(name: str, default: float) -> float:
    """A number above 0 from an environment variable, or the default where it is not set; UserError for anything else."""
    text = os.environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise UserError(f"the environment variable {name} is '{text}'; give a number above 0, or unset it")
    return value


def check_shapes(**arrays: Any) -> None:
    """Check every array against the shape letters at the end of its keyword: check_shapes(obs_B_Do=…, a_B_Da=…).

    The letters after the first underscore name the axes; one letter has one size throughout the call.
    Raises UserError: "a_B_Da has shape (99, 6), but B is 100 in obs_B_Do".
    """
    bound = {}
    for name, x in arrays.items():
        letters = name.split('_')[1:]
        shape = tuple(x.shape)
        if len(shape) != len(letters):
            raise UserError(f'{name} has shape {shape}, but its name promises {len(letters)} axes ({", ".join(letters)})')
        for letter, size in zip(letters, shape, strict=True):
            seen_size, seen_in = bound.setdefault(letter, (size, name))
            if seen_size != size:
                raise UserError(f'{name} has shape {shape}, but {letter} is {seen_size} in {seen_in}')


def continuing_command() -> str:
    """The command line of this process with --resume, to be typed again after an interruption."""
    script, *options = sys.argv
    options += [] if '--resume' in options else ['--resume']
    if REPO != PACKAGES and os.path.realpath(script).startswith(os.path.realpath(REPO) + os.sep):
        return as_typed(shlex.join([os.path.basename(script), *options]))  # where a wheel is, nobody types a path
    return shlex.join(['python', script, *options])


def call(command: Sequence[str]) -> int:
    """The exit code of a command that is run, and waited for even after Ctrl-C, which a terminal sends there too."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    finally:
        process.wait()


@contextlib.contextmanager
def holding_signals(*nums: int) -> Iterator[None]:
    """Hold signals back in the block, from this process and for good from those that it starts; ours arrive after it.

    A terminal's Ctrl-C goes to helpers too, also to one that has not yet come to ignoring it.
    """
    resource_tracker.ensure_running()  # multiprocessing lets SIGINT and SIGTERM through again when it starts this
    with delaying_signals(*nums):
        yield


@contextlib.contextmanager
def delaying_signals(*nums: int) -> Iterator[None]:
    """Let signals arrive at the end of the block, which is where their handlers raise what they raise."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, nums)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def interrupt_again(ignored: Any) -> None:
    """A sys.unraisablehook for KeyboardInterrupt: raised in a destructor, Python would show it, drop it and go on; here it comes again.

    PyTables has many destructors, so that Ctrl-C is likely to land in one. All other exceptions are shown as always.
    """
    if not issubclass(ignored.exc_type, KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        sys.__unraisablehook__(ignored)
        return
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01)  # by then the destructor is over, or it happens once more


def ignore_signals(*nums: int) -> None:
    """Ignore signals from now on, those that were held back at the start of this process too: its parent decides."""
    for num in nums:
        signal.signal(num, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, nums)


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2³¹) that is a pure function of the parts (numbers and strings), equal on every machine."""
    digest = hashlib.sha256('\x1f'.join(str(p) for p in parts).encode()).digest()
    return int.from_bytes(digest[:4], 'little') & 0x7FFFFFFF


def draw_seed() -> int:
    """A fresh seed for a run that was given none."""
    return int.from_bytes(os.urandom(4), 'little') & 0x7FFFFFFF


def closest(word: object, words: Iterable[object]) -> str:
    """The likely intended one of `words`, as the sentence " Did you mean 'x'?", or an empty string."""
    import difflib

    match = difflib.get_close_matches(str(word), [str(w) for w in words], n=1)
    return f" Did you mean '{match[0]}'?" if match else ''


def format_table(lines: list[list[str]], left: Sequence[int] = (0, 1), indent: str = '', rule: bool = False) -> str:
    """Lists of words as aligned columns; those with an index in `left` stand left, the others right; `rule` underlines the first line."""
    lines = [[printable(word) for word in line] for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    if rule:
        lines = [lines[0], ['-' * w for w in widths], *lines[1:]]

    def one(line):
        return '  '.join(word.ljust(w) if i in left else word.rjust(w) for i, (word, w) in enumerate(zip(line, widths, strict=True)))

    return '\n'.join((indent + one(line)).rstrip() for line in lines)


def here_or_ours(path: str) -> str:
    """`path` itself, or where it leads to nothing, the file of that name in our own checkout (or wheel) if there is one."""
    ours = os.path.join(REPO, path)
    return ours if not os.path.exists(path) and os.path.exists(ours) else path


def as_typed(command: str) -> str:
    """A command of ours as the user types it: `python scripts/im_pipeline.py …`, or from a wheel `gail-pipeline im_pipeline …`."""
    return f'python scripts/{command}' if REPO == PACKAGES else f'gail-pipeline {command.replace(".py", "", 1)}'


def parse_time(text: str) -> datetime.datetime | None:
    """A time with its offset, or None: other programs write run files too, and may write times as they like."""
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else None


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed over `path`, else removed.

    A reader of `path` sees the old file or the whole new one, never a part.
    """
    tmp = f'{path}.{platform.node()}.{os.getpid()}.tmp'
    try:
        yield tmp
        fd = os.open(tmp, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(tmp, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tmp)


@contextlib.contextmanager
def superseding(path: str) -> Iterator[str]:
    """Yield where to write the next version of a file of ours; it takes the place of `path` at once when the block ends well."""
    new = f'{path}.new'
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)  # of a process that was killed
    yield new
    os.replace(new, path)


def read_utf8(path: str, what: str, most: int | None = None) -> str:
    """The text of a file, at most its first `most` characters; UserError where it is not UTF-8."""
    try:
        with open(path, encoding='utf-8') as f:
            return f.read(most)
    except UnicodeDecodeError as e:
        raise UserError(f'{path}: byte {e.start} is not UTF-8 text; expected {what}') from e


def write_text(path: str, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as tmp, open(tmp, 'w', encoding='utf-8') as f:
        f.write(text)


def check_writable_dir(path: str, what: str) -> None:
    """Raise UserError unless files can be created in the folder of `path` (which need not exist yet)."""
    folder = os.path.dirname(path) or '.'  # as the system will walk it: x/../out.h5 needs x
    if not os.path.isdir(folder):
        raise UserError(f"{path}: the folder '{folder}' for {what} does not exist; create it first")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{path}: cannot write {what} into '{folder}' (no write permission); choose another folder")


def check_output(path: str, what: str, inputs: Iterable[str | None] = (), others: Iterable[str] = ()) -> None:
    """Raise UserError unless a file can be written at `path` without the loss of an input or of finished data; call it before the work.

    inputs: files that the command reads; others: what else it writes. Any HDF5 file that exists is taken for finished data; other
    regular files are replaced.
    """
    folder, name = os.path.split(path)
    try:
        length = len(name.encode())
    except UnicodeEncodeError as e:
        raise UserError(f'{path}: the name for {what} is not UTF-8 text; choose another name') from e
    if name in ('', '.', '..') or os.path.isdir(path):
        raise UserError(f"'{path}': expected the name of a file for {what}, not of a folder")
    if printable(path, keep='\u200c\u200d') != path:  # joiners belong to some languages
        raise UserError(f'{path!r}: the name for {what} has control characters or marks of direction; choose another name')
    longest = 255 - len(f'.part.{platform.node()}.{os.getpid()}.tmp')  # while it is written, its name is longer
    if length > longest or len(os.path.abspath(path).encode()) > 4000:
        raise UserError(f'{path}: the name for {what} is too long; give at most {longest} characters, and 4000 with its folders')
    check_writable_dir(path, what)
    for given in inputs:
        if given and (os.path.realpath(path) == os.path.realpath(given) or _same_file(path, given)):
            raise UserError(f'{path}: is an input of this command and would be lost; choose another file for {what}')
    if os.path.realpath(path) in map(os.path.realpath, others):
        raise UserError(f'{path}: is named for two outputs; choose another file for {what}')
    if os.path.exists(path):
        if not os.path.isfile(path):
            raise UserError(f'{path}: exists and is no regular file; choose another file for {what}')
        if is_hdf5(path):
            raise UserError(f'{path}: is an HDF5 file, and finished data is never overwritten; choose another file for {what}')


def _same_file(path: str, other: str) -> bool:
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)


def is_hdf5(path: str) -> bool:
    """Whether a file begins as HDF5 files do."""
    with open(path, 'rb') as f:
        return f.read(8) == b'\x89HDF\r\n\x1a\n'


def now() -> str:
    """Local time with its offset, to the microsecond, as ISO 8601."""
    return datetime.datetime.now().astimezone().isoformat()


def git_hash() -> str:
    """The commit of the code that runs, with '+changes' when the tree differs from it; 'unknown' outside a checkout."""
    here = os.path.dirname(os.path.abspath(__file__))

    def git(*args):
        return subprocess.run(['git', '-C', here, *args], capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        git('ls-files', '--error-unmatch', os.path.basename(__file__))  # an environment inside of somebody else's checkout
        commit = git('rev-parse', 'HEAD')
        return commit + ('+changes' if git('status', '--porcelain', '--untracked-files=no') else '')
    except (OSError, subprocess.SubprocessError):
        return 'unknown'


def versions() -> dict[str, str]:
    """{package: installed version} of what decides the numbers, Python included."""
    found = {'python': platform.python_version()}
    for name in ('torch', 'numpy', 'scipy', 'gymnasium', 'mujoco', 'tables'):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def machine() -> str:
    """The processor's name, as far as the system tells it, and the number of cores."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open('/proc/cpuinfo', encoding='utf-8') as f:
        name = next((line.partition(':')[2].strip() for line in f if line.startswith('model name')), name)
    return f'{name}, {os.cpu_count()} cores'


def provenance() -> dict[str, Any]:
    """What every file that we write says of its origin, as a flat dict for root attributes."""
    return {
        'command': printable(shlex.join([os.path.basename(sys.argv[0] or 'python'), *sys.argv[1:]]), keep='\n\t'),
        'git_hash': git_hash(),
        'versions': versions(),
        'host': platform.node(),
        'machine': machine(),
        'start_time': now(),
    }
