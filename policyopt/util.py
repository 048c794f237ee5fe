"""Stateless helpers that need neither torch nor gymnasium: errors, seeds, shapes, provenance."""

import argparse
import contextlib
import datetime
import errno
import hashlib
import io
import itertools
import math
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
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

MAX_ITER = 1000000  # iterations of a training that is not told how many
MAX_TRAJS = 1_000_000  # trajectories of one file, or of one evaluation
FIRST_PID_NAMESPACE = 'pid:[4026531836]'  # that of a Linux machine itself, a constant of the kernel
_NO_HARD_LINKS = errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK  # what a file system without them answers
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
    open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == 'strict':
            stream.reconfigure(errors='replace')  # a terminal that cannot show ± shows a ?
    argv = sys.argv[1:] if argv is None else list(argv)
    verbose = any(re.fullmatch(r'--verbose|-v+', a) and not b.isdecimal() for a, b in itertools.pairwise([*argv, '']))
    hook, sys.unraisablehook = sys.unraisablehook, interrupt_again
    try:
        _check_current_folder()
        threads_from_env()
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
        os.environ[name] = os.environ.get(name) or '1'


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


def threads_from_env() -> int | None:
    """The threads that OMP_NUM_THREADS asks for, of a list such as 4,2 the first (the outer level); None where it is not set.

    Raises UserError for anything else.
    """
    text = os.environ.get('OMP_NUM_THREADS', '').strip()
    if not text:
        return None
    if not re.fullmatch(r'[1-9]\d{0,8}(\s*,\s*[1-9]\d{0,8})*', text, re.ASCII):
        raise UserError(f"the environment variable OMP_NUM_THREADS is '{printable(text)}'; give a whole number above 0, or unset it")
    return int(text.partition(',')[0])


def num_cores() -> int:
    """The cores that this process may use: those that the system or a cluster gives it, but no more than a container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cpu_quota())))


def cpu_quota(membership: str = '/proc/self/cgroup', root: str = '/sys/fs/cgroup') -> float:
    """The CPU quota of our control group in cores, infinite where there is none, or no Linux."""
    try:
        with open(membership, encoding='utf-8') as f:
            lines = [line.strip().split(':', 2) for line in f]
    except OSError:
        return math.inf
    quotas = [math.inf]
    for _, controllers, path in lines:
        if controllers and 'cpu' not in controllers.split(','):
            continue  # of version 1, another hierarchy; version 2 has one hierarchy, and names no controllers here
        mount = os.path.join(root, 'cpu') if controllers else root
        # Every group above ours limits it too. In a container the path may be the host's; what is there then stands at the mount itself.
        quotas += [_quota_of(f'{mount}/{group}') for group in (path, *PurePosixPath(path).parents)]
    return min(quotas)


def _quota_of(group: str) -> float:
    for names in (['cpu.max'], ['cpu.cfs_quota_us', 'cpu.cfs_period_us']):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            words = ' '.join(Path(group, name).read_text() for name in names).split()
            quota, period = (float(word) for word in words)  # of no limit, the first is 'max' or -1
            return quota / period if quota > 0 else math.inf
    return math.inf


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


def pid_namespace() -> str:
    """What tells the process numbers of this container from those of another one on the same machine; '' where there are no containers."""
    try:
        return os.readlink('/proc/self/ns/pid')
    except OSError:
        return ''


def process_name() -> str:
    """HOST.PID, or in a container HOST.NAMESPACE.PID: two containers with one host name have equal process numbers."""
    namespace = pid_namespace()
    inside = [] if namespace in ('', FIRST_PID_NAMESPACE) else re.findall(r'\d+', namespace)
    return '.'.join([platform.node(), *inside, str(os.getpid())])


@contextlib.contextmanager
def writing(path: str, replace: bool = False) -> Iterator[str]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and becomes `path`, else it is removed.

    A reader of `path` sees the old file or the whole new one, never a part. Without `replace`, a file that stands at `path` by then
    is kept. Raises FileExistsError in that case.
    """
    tmp = _new_temporary(path)
    try:
        yield tmp
        fd = os.open(tmp, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        if replace:
            os.replace(tmp, path)
        else:
            _create_from(tmp, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tmp)


def _new_temporary(path: str) -> str:
    """A file that was not there, even where a process of the same number has left one."""
    for n in itertools.count():
        tmp = f'{path}.{process_name()}{f".{n}" if n else ""}.tmp'
        with contextlib.suppress(FileExistsError):
            os.close(os.open(tmp, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return tmp
    raise AssertionError


def _create_from(tmp: str, path: str) -> None:
    """Give a file its final name unless that is taken; the system decides who is first, on network disks too."""
    try:
        os.link(tmp, path)
    except FileExistsError:
        if not _same_file(tmp, path):  # NFS can lose the answer to a link that it has made
            raise
    except OSError as e:
        if e.errno not in _NO_HARD_LINKS:
            raise
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        os.replace(tmp, path)


def replacing(path: str) -> contextlib.AbstractContextManager[str]:
    """`writing` that replaces what stands at `path`: for checkpoints, tables and pictures, never for finished data."""
    return writing(path, replace=True)


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
    longest = 255 - len(f'.lock.12345678.{process_name()}.tmp')  # the longest name that stands beside it while it is made
    if length > longest or len(os.path.abspath(path).encode()) > 4000:
        raise UserError(f'{path}: the name for {what} is too long; give at most {longest} characters, and 4000 with its folders')
    check_writable_dir(path, what)
    for given in inputs:
        if given and (os.path.realpath(path) == os.path.realpath(given) or _same_file(path, given)):
            raise UserError(f'{path}: is an input of this command and would be lost; choose another file for {what}')
    if os.path.realpath(path) in map(os.path.realpath, others):
        raise UserError(f'{path}: is named for two outputs; choose another file for {what}')
    if os.path.islink(path):  # to be replaced by a file, be it /dev/stdout where that leads to one
        where = 'another file' if os.path.exists(path) else 'nothing'
        raise UserError(f'{path}: is a link to {where} ({os.readlink(path)}); give the name of the file itself for {what}')
    if os.path.exists(path):
        if not os.path.isfile(path):
            raise UserError(f'{path}: exists and is no regular file; choose another file for {what}')
        if is_hdf5(path):
            raise UserError(f'{path}: is an HDF5 file, and finished data is never overwritten; choose another file for {what}')


def _same_file(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them is not there
        return False


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
