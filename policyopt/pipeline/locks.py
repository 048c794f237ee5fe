"""Lock files that work on shared disks: one holder a name, and a dead holder on this host is recognised.

A lock is a file made with O_EXCL (atomic on local disks and on NFS) that says who holds it: host, process, when that process
started, and the process group of the run that it started. It is stale when neither lives any more, when the host has been
rebooted since, or when it belongs to an earlier start of the same (requeued) cluster job. What another host holds cannot be
judged from here: that is explained to the user and never taken.

The package `filelock` locks with flock: the system takes such a lock back as soon as the pipeline dies, also by kill -9, although
the run that it started may go on, and then a second one would be started beside it. Nor does it say who holds a lock, and on network
disks without a lock service other hosts do not see it.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import platform
import subprocess
import time

from policyopt.util import STOP_SIGNALS, delaying_signals, now, replacing

# a holder writes its name right after it has made the file; only a crash in between leaves an empty lock
_EMPTY_IS_STALE_AFTER_S = 30


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a lock; `start` and `boot` tell a process from a later one with the same number; `child` is 0 or a process group."""

    host: str
    pid: int
    start: str | None
    boot: str
    since: str
    job: str = ''
    child: int = 0

    def __str__(self) -> str:
        job = f' (cluster job {self.job})' if self.job else ''
        return f'process {self.pid} on {self.host}{job}, since {self.since[:19].replace("T", " ")}'


class Held(Exception):
    """The lock belongs to someone else; `state` is 'live' (on this host) or 'foreign' (on another one)."""

    def __init__(self, path: str, holder: Holder | None, state: str):
        super().__init__(path, holder, state)
        self.path, self.holder, self.state = path, holder, state

    def __str__(self) -> str:
        if self.state == 'live':
            return f'is being worked on by {self.holder}'
        return f'is held by {self.holder}; {platform.node()} cannot see whether that still lives: if it does not, remove {self.path}'


class Lock:
    """A lock that we hold."""

    def __init__(self, path: str, holder: Holder):
        self.path, self.holder = path, holder

    def record_child(self, pid: int) -> None:
        """Say which process group works under this lock, so that it outlives us in the eyes of others if we are killed."""
        holder = dataclasses.replace(self.holder, child=pid)
        with replacing(self.path) as tmp, open(tmp, 'w', encoding='utf-8') as f:
            f.write(json.dumps(dataclasses.asdict(holder)))
        self.holder = holder

    def release(self) -> None:
        """Give the lock back, unless that has been done."""
        if os.getpid() == self.holder.pid and _read(self.path) == self.holder:
            os.unlink(self.path)
        atexit.unregister(self.release)


def acquire(path: str) -> Lock:
    """Take the lock at `path`, breaking a stale one; raises Held when someone else has it.

    It is given back at the end of this process at the latest: a stop signal can come between taking it and the caller's `finally`.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    me = Holder(platform.node(), os.getpid(), process_start(os.getpid()), _boot_id(), now(), _cluster_job())
    lock = Lock(path, me)
    while True:
        try:
            with delaying_signals(*STOP_SIGNALS):
                _create(path, me)
                atexit.register(lock.release)
            return lock
        except FileExistsError:
            state, holder = inspect(path)
            if state == 'stale':
                _break(path)
            elif state != 'free':
                raise Held(path, holder, state) from None


def _create(path: str, me: Holder) -> None:
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    try:
        with os.fdopen(fd, 'w', encoding='utf-8') as f:
            f.write(json.dumps(dataclasses.asdict(me)))
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        os.unlink(path)
        raise OSError(e.errno, e.strerror, path) from e


def inspect(path: str) -> tuple[str, Holder | None]:
    """('free' | 'live' | 'stale' | 'foreign', Holder or None) of a lock, without touching it."""
    holder = _read(path)
    if holder is None:
        try:
            age = time.time() - os.stat(path).st_mtime
        except FileNotFoundError:
            return 'free', None
        return ('stale' if age > _EMPTY_IS_STALE_AFTER_S else 'live'), Holder('this or another host', 0, '', '', 'a moment ago')
    if _is_earlier_start(holder):
        return 'stale', holder
    if holder.host != platform.node():
        return 'foreign', holder
    if holder.boot != _boot_id():
        return 'stale', holder
    if process_start(holder.pid) == holder.start or (holder.child and group_lives(holder.child)):
        return 'live', holder
    return 'stale', holder


def _read(path: str) -> Holder | None:
    try:
        with open(path, encoding='utf-8') as f:
            return Holder(**json.load(f))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _break(path: str) -> None:
    """Remove a stale lock; of several processes that saw it stale (all on this host), only one does, and none removes a fresh one."""
    import fcntl

    with open(os.path.join(os.path.dirname(path), '.breaking'), 'a') as f:
        # released by the system when we die; where flock is missing this raises, and the stale lock is left to the user
        fcntl.flock(f, fcntl.LOCK_EX)
        if inspect(path)[0] == 'stale':
            os.unlink(path)


def _cluster_job() -> str:
    """Within a Slurm job '<job id>/<how often it was requeued>', within a PBS job on one host '<job id>#<array index>', else ''."""
    env = os.environ
    if 'SLURM_JOB_ID' in env:
        return f'{env["SLURM_JOB_ID"]}/{env.get("SLURM_RESTART_COUNT", "0")}'
    if 'PBS_JOBID' in env and len(_pbs_hosts()) <= 1:
        # some servers give all tasks of an array the id of the array
        return f'{env["PBS_JOBID"]}#{env.get("PBS_ARRAYID", env.get("PBS_ARRAY_INDEX", ""))}'
    return ''


def _pbs_hosts() -> set[str]:
    """The hosts of our PBS job, as far as it says."""
    try:
        with open(os.environ['PBS_NODEFILE'], encoding='utf-8') as f:
            return set(f.read().split())
    except (KeyError, OSError):
        return set()


def _is_earlier_start(holder: Holder) -> bool:
    """Whether a lock was taken by the cluster job that we are, before it was requeued.

    Slurm counts the starts of a job. PBS does not, but a PBS job on one host that finds itself on another must have been requeued.
    """
    mine = _cluster_job()
    if not mine or '/' not in mine:
        return mine != '' and holder.job == mine and holder.host != platform.node()
    (job, _, start), (my_job, _, my_start) = holder.job.partition('/'), mine.partition('/')
    return job == my_job and int(start) < int(my_start)


def _boot_id() -> str:
    try:
        with open('/proc/sys/kernel/random/boot_id') as f:
            return f.read().strip()
    except FileNotFoundError:
        return ''


def _stat_fields(pid: int | str) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the state on (state, ppid, pgrp, …; start time is [19]), or None."""
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as f:
            return f.read().rpartition(')')[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def process_start(pid: int | str) -> str | None:
    """When a process started, as text that differs from that of any other process with the same number; None when it is dead."""
    if os.path.isdir('/proc/self'):
        fields = _stat_fields(pid)
        return None if fields is None or fields[0] in 'ZX' else fields[19]
    listing = subprocess.run(['ps', '-o', 'lstart=', '-p', str(pid)], capture_output=True, text=True)
    return listing.stdout.strip() or None


def group_lives(group: int) -> bool:
    """Whether a process group has a living member (zombies do not count)."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if not os.path.isdir('/proc/self'):
        return True
    members = (_stat_fields(pid) for pid in os.listdir('/proc') if pid.isdecimal())
    return any(f and f[2] == str(group) and f[0] not in 'ZX' for f in members)


def remove_leftovers(folder: str) -> None:
    """Remove the temporary files `NAME.<host>.<pid>.tmp` that dead processes of this host left in a folder."""
    marker = f'.{platform.node()}.'
    for name in os.listdir(folder):
        pid = name[: -len('.tmp')].rpartition(marker)[2] if name.endswith('.tmp') and marker in name else ''
        if pid.isdecimal() and process_start(int(pid)) is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
