"""Where numbers come from: the seed, the code, the machine, the process, the time."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from importlib import metadata
from typing import Any

from policyopt.errors import printable

FIRST_PID_NAMESPACE = 'pid:[4026531836]'  # that of a Linux machine itself, a constant of the kernel


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2³¹) that is a pure function of the parts (numbers and strings), equal on every machine."""
    digest = hashlib.sha256('\x1f'.join(str(p) for p in parts).encode()).digest()
    return int.from_bytes(digest[:4], 'little') & 0x7FFFFFFF


def draw_seed() -> int:
    """A fresh seed for a run that was given none."""
    return int.from_bytes(os.urandom(4), 'little') & 0x7FFFFFFF


def now() -> str:
    """Local time with its offset, to the microsecond, as ISO 8601."""
    return datetime.datetime.now().astimezone().isoformat()


def parse_time(text: str) -> datetime.datetime | None:
    """A time with its offset, or None: other programs write run files too, and may write times as they like."""
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else None


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
