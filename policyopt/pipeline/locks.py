"""Lock files that work on shared disks: each lock has one holder, and a holder on this host is recognised when it has died.

A lock is a file, created with its contents at once (atomic on local disks and on NFS), that says who holds it: host, PID namespace,
process, when that process started, and the process group of the run that it started. It is stale when neither lives any more, when
the host has been rebooted since, or when it belongs to an earlier start of the same (requeued) cluster job. A holder that cannot be
seen from here (on another host, in another container, a process of another user) is not taken for dead.

Such a holder has a lease. A training run renews its lock: it touches the file every few seconds. A process that finds the lock
watches it. When nothing has changed for LEASE_S seconds of the watcher's own clock, the holder is dead or has been suspended. The
watcher then takes the lock over. A suspended holder that continues finds another name in the lock and stops before it writes.

The package `filelock` has such a lease (`SoftFileLease`), but judges a holder by host name and process number alone, so that two
containers with one host name break each other's locks. It recognises neither a run that outlives its pipeline nor a requeued job.
Its other locks use flock: the system releases such a lock when the pipeline dies, although the run that it started may continue.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
import re
import subprocess
import sys
import threading
import time
from typing import Any

from policyopt.errors import RunFailed, printable
from policyopt.files.atomic import writing
from policyopt.provenance import FIRST_PID_NAMESPACE, now, pid_namespace, process_name
from policyopt.signals import delaying_signals

LEASE_S = 120.0  # network disks show a change to other hosts after at most a minute
# earlier versions created the file first and wrote the holder's name after it; only a crash in between leaves an empty lock
_EMPTY_IS_STALE_AFTER_S = 30
_MAX_BYTES = 10000  # of a lock file
_MAX_PID = 2**31 - 1
_LOOKS: dict[Any, tuple[Any, float]] = {}  # {(lock, file beside it): (what this process has seen of them, since when)}


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    start, boot and namespace distinguish processes with the same number; machine distinguishes a reboot from another host with the
    same name. child is 0 or a process group. lease: seconds without renewal after which the lock may be taken over, 0 for never.
    """

    host: str
    pid: int
    start: str | None
    boot: str
    since: str
    job: str = ''
    child: int = dataclasses.field(default=0, compare=False)  # written by the child itself
    namespace: str = ''
    machine: str = ''
    lease: float = 0.0

    def __str__(self) -> str:
        job = f' (cluster job {self.job})' if self.job else ''
        return printable(f'process {self.pid} on {self.host}{job}, since {self.since[:19].replace("T", " ")}')


class Held(Exception):
    """The lock belongs to someone else; `state` is 'live' (seen to live) or 'foreign' (cannot be seen from here)."""

    def __init__(self, path: str, holder: Holder | None, state: str, unchanged_s: float = 0.0):
        super().__init__(path, holder, state)
        self.path, self.holder, self.state, self.unchanged_s = path, holder, state, unchanged_s

    def __str__(self) -> str:
        if self.state == 'live':
            return f'is being worked on by {self.holder or "a process that has just begun"}'
        who = self.holder or 'someone whose name in the lock cannot be read'
        if self.holder and self.holder.lease:
            return f'is held by {who}, and is free when that has not renewed it for {self.holder.lease:g} s'
        return f'is held by {who}; {platform.node()} cannot see whether that still lives: if it does not, remove {self.path}'


class Lock:
    """A lock that we hold."""

    def __init__(self, path: str, holder: Holder):
        self.path, self.holder, self.taken_over = path, holder, False
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, over: bool = False) -> None:
        """Create the file with our name; raises FileExistsError if it exists. over: replace the file of a dead holder."""
        with delaying_signals():
            _write(self.path, self.holder, replace=over)
            self.taken_over = over
            atexit.register(self.release)

    def record_child(self, pid: int) -> None:
        """Write the process group of the run into the lock, which then stays valid while the group lives, even if the holder is killed."""
        self.holder = dataclasses.replace(self.holder, child=pid)
        os.makedirs(os.path.dirname(self.path) or '.', exist_ok=True)  # a user may have removed it
        _write(self.path, self.holder, replace=True)

    def renew(self) -> None:
        """Touch the file, so that others see that we live; create it again if it has been removed."""
        with contextlib.suppress(OSError):
            found = _read(self.path)
            if found == self.holder:
                os.utime(self.path)
            elif found is None and not os.path.lexists(self.path):
                _write(self.path, self.holder)

    def keep_renewed(self) -> None:
        """Renew the lock in a thread until it is released."""
        self._thread = threading.Thread(target=self._renew_often, daemon=True)
        with delaying_signals():  # the thread inherits the mask, so signals reach the main thread at once
            self._thread.start()

    def _renew_often(self) -> None:
        while not self._released.wait(self.holder.lease / 6):
            self.renew()

    def taken_by(self) -> Holder | None:
        """Who has taken the lock over since, or None."""
        found = _read(self.path)
        return None if found == self.holder else found

    def check(self) -> None:
        """Raise RunFailed if another process has taken the lock over; call it before anything is written."""
        other = self.taken_by()
        if other is not None:
            why = f'this process had not renewed its lock for {self.holder.lease:g} s (was it suspended?)'
            raise RunFailed(f'{self.path}: was taken over by {other}, as {why}; this one stops and writes nothing more')

    def release(self) -> None:
        """Release the lock, unless that has been done."""
        if os.getpid() == self.holder.pid:
            self._released.set()
            if self._thread is not None:
                self._thread.join()
            if _read(self.path) == self.holder:
                os.unlink(self.path)
        atexit.unregister(self.release)


def acquire(path: str, lease: float = 0.0, also: str | None = None) -> Lock:
    """Take the lock at `path`, also a stale one; raises Held when someone else has it.

    It is released when this process exits at the latest, because a stop signal can come before the caller's `finally`.
    lease: seconds; the caller promises to renew the lock. also: see `inspect`.
    """
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    here = {'job': _cluster_job(), 'namespace': pid_namespace(), 'machine': _machine_id(), 'lease': lease}
    lock = Lock(path, Holder(platform.node(), os.getpid(), process_start(os.getpid()), _boot_id(), now(), **here))
    while True:
        seen, unchanged_s = _watch(path, also)
        state, holder = _judge(seen, unchanged_s)
        if seen is None:
            with contextlib.suppress(FileExistsError):
                lock.take()
                return lock
        elif state == 'stale':
            # Several processes may see the stale lock at once. The one that creates the claim may replace the lock. The claim is a lock
            # too, and its name is a hash of the stale lock's contents, so a new lock is never replaced.
            claim = acquire_leased(f'{path}.{hashlib.sha256(seen[0]).hexdigest()[:8]}')
            try:
                if _look(path) == seen:
                    lock.take(over=True)
                    return lock
            finally:
                claim.release()
        else:
            raise Held(path, holder, state, unchanged_s)


def acquire_leased(path: str) -> Lock:
    """`acquire` a lock and keep it renewed; if its holder cannot be seen from here, watch it for as long as its lease first."""
    unchanged_s, told = 0.0, False
    while True:
        try:
            lock = acquire(path, LEASE_S)
            lock.keep_renewed()
            return lock
        except Held as held:
            if held.state != 'foreign' or held.holder is None or not held.holder.lease:
                raise
            if held.unchanged_s < unchanged_s:  # it has been renewed
                raise Held(path, held.holder, 'live') from held
            if held.unchanged_s > 2 and not told:
                told = True
                print(f'{path}: is held by {held.holder}; waiting {held.holder.lease:g} s to see whether that renews it', file=sys.stderr)
            unchanged_s = held.unchanged_s
            time.sleep(min(1.0, held.holder.lease / 10))


def _write(path: str, holder: Holder, replace: bool = False) -> None:
    try:
        with writing(path, replace) as tmp, open(tmp, 'w', encoding='utf-8') as f:
            f.write(json.dumps(dataclasses.asdict(holder)))
    except OSError as e:
        raise OSError(e.errno, e.strerror, path) from e  # FileExistsError among them


def inspect(path: str, also: str | None = None) -> tuple[str, Holder | None]:
    """('free' | 'live' | 'stale' | 'foreign', Holder or None) of a lock, without touching it; None for one that cannot be read.

    also: a second file that the holder renews; a change of either one shows that the holder lives.
    """
    return _judge(*_watch(path, also))


def _watch(path: str, also: str | None) -> tuple[tuple[bytes, int] | None, float]:
    """(`_look` of a lock, for how many seconds this process has seen it unchanged); only our own clock is read, as clocks differ."""
    files = _look(path), None if also is None else _look(also)
    if files != _LOOKS.get((path, also), (None, 0.0))[0]:
        _LOOKS[path, also] = files, time.monotonic()
    return files[0], time.monotonic() - _LOOKS[path, also][1]


def _judge(seen: tuple[bytes, int] | None, unchanged_s: float) -> tuple[str, Holder | None]:
    if seen is None:
        return 'free', None
    content, mtime_ns = seen
    holder = _parse(content)
    if holder is not None:
        state = _state(holder)
        return ('stale' if state == 'foreign' and 0 < holder.lease <= unchanged_s else state), holder
    if content:
        return 'foreign', None
    return ('stale' if time.time() - mtime_ns / 1e9 > _EMPTY_IS_STALE_AFTER_S else 'live'), None


def _state(holder: Holder) -> str:
    if _is_earlier_start(holder):
        return 'stale'
    if holder.host != platform.node() or holder.machine not in ('', _machine_id()) or holder.namespace not in ('', pid_namespace()):
        return 'foreign'
    if holder.boot != _boot_id():
        # rebooted since, unless it may be another machine: containers have equal host names and copied ids
        rebooted = not holder.namespace or (holder.machine and holder.namespace == FIRST_PID_NAMESPACE)
        return 'stale' if rebooted else 'foreign'
    alive = _lives(holder.pid, holder.start)
    if alive or (holder.child and group_lives(holder.child)):
        return 'live'
    return 'foreign' if alive is None else 'stale'


def _look(path: str) -> tuple[bytes, int] | None:
    """(bytes, time of the last change in ns) of a lock file, None if there is none; a file that cannot be read gets made-up contents."""
    try:
        # opening makes NFS ask the server; a pipe of that name must not hold us up
        with open(path, 'rb', opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as f:
            return f.read(_MAX_BYTES) or b'', os.fstat(f.fileno()).st_mtime_ns
    except FileNotFoundError:
        return (b'a link to nothing', 0) if os.path.islink(path) else None  # no lock can be made of that name
    except OSError as e:
        return f'cannot be read: {e.strerror}'.encode(), 0


def _read(path: str) -> Holder | None:
    seen = _look(path)
    return None if seen is None else _parse(seen[0])


def _parse(content: bytes) -> Holder | None:
    """The holder that a lock names, None if it is no table of ours; keys of later versions are ignored."""
    try:
        found = json.loads(content.decode('utf-8'))
        known = {f.name: found[f.name] for f in dataclasses.fields(Holder) if f.name in found}
        holder = Holder(**known)
    except (ValueError, TypeError, RecursionError):
        return None
    texts = [holder.host, holder.boot, holder.since, holder.job, holder.namespace, holder.machine, holder.start or '']
    numbers = [holder.pid, holder.child]
    good = all(type(x) is str for x in texts) and all(type(x) is int and 0 <= x <= _MAX_PID for x in numbers)
    good = good and holder.pid > 0 and type(holder.lease) in (int, float) and 0 <= holder.lease < math.inf
    return holder if good else None


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
    """The hosts of our PBS job, as far as its environment names them."""
    try:
        with open(os.environ['PBS_NODEFILE'], encoding='utf-8') as f:
            return set(f.read().split())
    except (KeyError, OSError):
        return set()


def _is_earlier_start(holder: Holder) -> bool:
    """Whether our own cluster job took this lock before it was requeued.

    Slurm counts the starts of a job. PBS does not, but a PBS job on one host that finds itself on another must have been requeued.
    """
    mine = _cluster_job()
    theirs, ours = (re.fullmatch(r'(.+)/(\d{1,9})', text, re.ASCII) for text in (holder.job, mine))
    if theirs and ours:
        return theirs[1] == ours[1] and int(theirs[2]) < int(ours[2])
    return '#' in mine and holder.job == mine and holder.host != platform.node()


def _boot_id() -> str:
    return _first_line('/proc/sys/kernel/random/boot_id')


def _machine_id() -> str:
    """An id of this machine that survives a reboot, '' if there is none."""
    return _first_line('/etc/machine-id')


def _first_line(path: str) -> str:
    try:
        with open(path, encoding='utf-8') as f:
            return f.readline().strip()
    except (OSError, ValueError):
        return ''


def _stat_fields(pid: int | str) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the state on (state, ppid, pgrp, …; start time is [19]); None for a zombie or one not seen."""
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as f:
            fields = f.read().rpartition(')')[2].split()
    except OSError:
        return None
    return None if fields[0] in 'ZX' else fields


def process_start(pid: int) -> str | None:
    """When a process started, as text that differs from that of any other process with the same number; None when it is not seen."""
    if os.path.lexists('/proc/self'):
        fields = _stat_fields(pid) if _proc_is_ours() else None
        return fields[19] if fields else None
    listing = subprocess.run(['ps', '-o', 'lstart=', '-p', str(pid)], capture_output=True, text=True)
    return listing.stdout.strip() or None


def _lives(pid: int, start: str | None) -> bool | None:
    """Whether a process of this PID namespace lives; None if the system hides it (hidepid hides those of other users)."""
    seen = process_start(pid)
    if seen is not None:
        return start is None or seen == start
    try:
        os.kill(pid, 0)
    except PermissionError:
        return None
    except ProcessLookupError:
        return False
    return not _proc_is_ours()  # if it is, the process has just ended


def _proc_is_ours() -> bool:
    """Whether /proc exists and has our process numbers; in a container it can be the /proc of the machine."""
    try:
        return os.readlink('/proc/self') == str(os.getpid())
    except OSError:
        return False


def group_lives(group: int) -> bool:
    """Whether a process group has a living member (zombies do not count)."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if not _proc_is_ours():
        return True
    members = map(_stat_fields, filter(str.isdecimal, os.listdir('/proc')))
    return any(f and f[2] == str(group) for f in members)


def remove_leftovers(folder: str) -> None:
    """Remove the temporary files `NAME.<process name>.<number>.tmp` that dead processes of this host and PID namespace left in a folder."""
    here = re.escape(process_name().rpartition('.')[0])
    for name in os.listdir(folder):
        pid = re.search(rf'\.{here}\.(\d{{1,9}})(\.\d+)?\.tmp$', name, re.ASCII)
        if pid and _lives(int(pid[1]), None) is False:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
