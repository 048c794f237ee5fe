"""The threads and processor cores that this process has."""

from __future__ import annotations

import contextlib
import math
import os
import re
from pathlib import Path, PurePosixPath

from policyopt.errors import UserError, printable

BLAS_THREAD_VARIABLES = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')  # read when the libraries are loaded
MAX_WORKERS = 256  # processes that play one batch, at most


def limit_threads() -> None:
    """Give BLAS and torch one thread unless the environment says otherwise; call it before numpy is imported.

    Nets of this size gain nothing from more, runs in parallel lose, and sums stay equal to the last bit.
    """
    for name in BLAS_THREAD_VARIABLES:
        os.environ[name] = os.environ.get(name) or '1'


def threads_from_env() -> int | None:
    """The threads that OMP_NUM_THREADS asks for, of a list such as 4,2 the first (the outer level); None where it is not set."""
    return whole_from_env('OMP_NUM_THREADS', or_list=True)


def workers_from_env() -> int:
    """POLICYOPT_WORKERS, else the cores this process may use; MAX_WORKERS at most."""
    return min(whole_from_env('POLICYOPT_WORKERS') or num_cores(), MAX_WORKERS)


def whole_from_env(name: str, or_list: bool = False) -> int | None:
    """A whole number from an environment variable, or the first of a list; None where it is not set, UserError for anything else."""
    text = os.environ.get(name, '').strip()
    if not text:
        return None
    number = r'[1-9]\d{0,8}'
    if not re.fullmatch(rf'{number}(\s*,\s*{number})*' if or_list else number, text, re.ASCII):
        raise UserError(f"the environment variable {name} is '{printable(text)}'; give a whole number above 0, or unset it")
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
