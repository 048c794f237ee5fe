"""Run many commands on this machine: some at a time, each in its own process group, with a log, a lock and a clean end.

A run is done when its output file `<id>.h5` exists. A run that another pipeline works on is not started a second time. At the
end we wait for such runs on this host, and name those on other hosts.

A run is a fork of this process. Since this process has loaded torch already, a run of our own trainer starts two seconds sooner. The
fork executes the same script with the same arguments as a fresh interpreter would, in a session of its own. The fork becomes a shell
instead if the command is not our trainer's, if the system is not Linux, or if our code has been edited since the start.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import glob
import itertools
import multiprocessing.context
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence

from policyopt import options
from policyopt.command_line import run_main
from policyopt.cores import BLAS_THREAD_VARIABLES, num_cores, threads_from_env
from policyopt.errors import RunFailed
from policyopt.files.names import incomplete_path, lock_path, part_path
from policyopt.pipeline import locks
from policyopt.pipeline.command import Command, is_our_trainer
from policyopt.pipeline.plan import How, Plan
from policyopt.pipeline.spec import Job
from policyopt.progress import Progress
from policyopt.shipped import PACKAGE
from policyopt.signals import FAILED, STOP_SIGNALS, STOPPED, Stopped, counted_signals, delaying_signals, signal_name

# POLICYOPT_WORKERS: how many processes a run samples with
THREAD_VARIABLES = (*BLAS_THREAD_VARIABLES, 'POLICYOPT_WORKERS')
_GRACE_S = 60  # the time that a run has to finish its iteration and write a checkpoint after a stop signal


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a job ended: 'ok', 'failed', 'stopped' (after a checkpoint) or 'elsewhere' (on another host); seconds: None if not run here."""

    job: Job
    state: str
    detail: str = ''
    seconds: float | None = None


def thread_environment(threads: int | None = None) -> dict[str, str]:
    """The environment of a run: one BLAS and torch thread unless `threads` or the user's own environment says otherwise."""
    ours, given = dict.fromkeys(THREAD_VARIABLES, str(threads or 1)), dict(os.environ)
    return ours | given if threads is None else given | ours


def notes(plan: Plan) -> list[str]:
    """Which files the printed commands need but are missing, and how many of the commands are not needed."""
    folder, done = plan.spec.checkpt_dir, sum(run.done for run in plan.todo)
    found = [] if os.path.isdir(folder) else [f'these commands need the folder {folder}; 0_sampletrajs makes it']
    sets = dict.fromkeys((run.task, run.dataset) for run in plan.todo)
    paths = list(itertools.starmap(plan.spec.traj_path, sets))
    missing = [path for path in paths if not os.path.exists(path)]
    if missing and not found:
        found = [f'these commands need {len(missing)} trajectory files that are not there, first {missing[0]}; 0_sampletrajs makes them']
    if len(missing) < len(paths):
        from policyopt.pipeline.sample_stage import unfit_sets  # here, because it loads PyTables

        found += unfit_sets(plan.spec, sets)[:1]
    found += [f'{done} of these {len(plan.todo)} runs are done; --resume leaves them out'] if done else []
    return [f'note: {note}' for note in found]


def execute(plan: Plan, how: How) -> str:
    """Do the runs of a plan on this computer, --jobs of them at a time."""
    num = len(plan.todo)
    num_jobs, each = min(how.jobs or num_cores(), num), how.threads or threads_from_env() or 1
    if num_jobs * each > num_cores():
        what = f'{num_jobs} jobs × {each} threads on {num_cores()} cores'
        print(f'warning: {what}: they will slow each other down; see -j and --threads', file=sys.stderr)
    outcomes = run_local(plan.todo, how)
    bad = [o for o in outcomes if o.state != 'ok']
    if bad:
        left = num - len(outcomes)
        rest = f', {left} were not started (-k starts them all the same)' if left else ''
        first = f'{bad[0].job.id} ({bad[0].detail})'
        raise RunFailed(f'{len(bad)} of {num} runs did not finish, first {first}{rest}. Continue with --resume')
    return how.evaluation(plan.spec)


def run_local(jobs: Sequence[Job], how: How) -> list[Outcome]:
    """Run the jobs, `how.jobs` of them at a time; returns an Outcome for each that was tried.

    After a failure no further run is started, and the running ones finish; with `how.keep_going` all jobs are tried. With `how.wait` the
    call also waits for runs on other hosts, and takes over the runs of a dead host. SIGINT, SIGTERM, SIGHUP and SIGUSR1 stop the runs (a
    second signal kills them) and raise Stopped.
    """
    with counted_signals() as signals, Progress(len(jobs), how.verbosity) as progress:
        return _Launcher(collections.deque(jobs), how, signals, progress).loop()


@dataclasses.dataclass
class _Launcher:
    pending: collections.deque[Job]
    how: How
    signals: list[int]
    progress: Progress

    def __post_init__(self):
        self.num_jobs, self.env = self.how.jobs or num_cores(), thread_environment(self.how.threads)
        self.elsewhere: list[Job] = []  # runs that another pipeline works on; tried again when all others are done
        self.again = False  # whether that has begun
        self.renewed = time.monotonic()
        self.running: list[RunProcess] = []
        self.outcomes: list[Outcome] = []

    def loop(self) -> list[Outcome]:
        pause = 0.005
        try:
            while self.pending or self.running or self.elsewhere:
                before = len(self.outcomes), len(self.running)
                self.reap()
                self.renew()
                if self.signals:
                    raise Stopped(self.signals[0])
                if any(o.state != 'ok' for o in self.outcomes) and not self.how.keep_going:
                    self.pending.clear()
                    self.elsewhere.clear()
                while self.pending and len(self.running) < self.num_jobs:
                    self.start(self.pending.popleft())
                if not self.running and not self.pending and self.elsewhere:
                    self.pending.extend(self.elsewhere)
                    self.elsewhere, self.again = [], True
                pause = min(2 * pause, 0.2) if before == (len(self.outcomes), len(self.running)) else 0.005
                time.sleep(pause)
            return self.outcomes
        finally:
            self.stop_all()

    def start(self, job: Job) -> None:
        """Start a job, unless it is done or another pipeline works on it.

        The order matters: take the lock, then look whether the job has been done in the meantime, and only then rename a broken
        output and resume from a checkpoint. A held lock is tried again when all other jobs are done; one of another host only with
        --wait. The lock of a dead holder is taken over.
        """
        if job.done:
            self.finish(job, 'ok', 'done by another pipeline')
            return
        try:
            lock = locks.acquire(job.lock, locks.LEASE_S if job.renews else 0.0, lock_path(job.out))
        except locks.Held as held:
            if self.again and held.state == 'foreign' and not self.how.wait:
                self.finish(job, 'elsewhere', f'{held}; --wait stays until the lock is free or the run is there')
                return
            self.elsewhere.append(job)
            if self.again:
                self.progress.waiting(job.id, held)
            return
        with contextlib.suppress(OSError):  # NFS looks for new files when their folder is opened
            os.close(os.open(os.path.dirname(job.out) or '.', os.O_RDONLY))
        if job.complete and (job.is_log or not lock.taken_over):  # finished before we had the lock
            lock.release()
            self.finish(job, 'ok', 'done by another pipeline')
            return
        if os.path.exists(job.out):  # left by a program that writes in place
            os.replace(job.out, incomplete_path(job.out))
        if os.path.exists(part_path(job.out)):  # another pipeline may have begun it after the plan was made
            job = dataclasses.replace(job, command=job.command.with_option('--resume'))
        try:
            self.running.append(RunProcess(job, lock, self.env))
        except OSError as e:
            lock.release()
            raise RunFailed(f'{job.id}: cannot be started: {e}; finished runs are kept, continue with --resume') from e
        self.progress.started(job.id, job.command.text)

    def reap(self) -> None:
        """Record the runs that have ended."""
        for process in [p for p in self.running if not p.is_alive()]:
            self.running.remove(process)
            _kill_group(process, signal.SIGKILL)  # worker processes that outlived their run
            state, detail = _settle(process.job, process.exitcode or 0)
            process.lock.release()
            if state == 'failed' and process.lock.taken_by() is not None:  # while we were suspended
                self.pending.append(process.job)
            else:
                self.finish(process.job, state, detail, time.monotonic() - process.begin)

    def finish(self, job: Job, state: str, detail: str, seconds: float | None = None) -> None:
        self.outcomes.append(Outcome(job, state, detail, seconds))
        self.progress.finished(job.id, state, detail, seconds, job.log)

    def renew(self) -> None:
        """Renew our locks, so that others see that we live; a started trainer renews a lock of its own."""
        if time.monotonic() - self.renewed > locks.LEASE_S / 6:
            self.renewed = time.monotonic()
            for process in self.running:
                process.lock.renew()

    def stop_all(self) -> None:
        """Stop every run: ask, wait for its checkpoint, then kill it; no process of ours is left."""
        for process in self.running:
            _kill_group(process, signal.SIGTERM)
        if self.running and self.progress.verbosity >= -1:
            with contextlib.suppress(OSError):  # the terminal may be closed
                self.progress.note(f'stopping {len(self.running)} runs at their next checkpoint (again: at once)')
        deadline = time.monotonic() + _GRACE_S
        count = len(self.signals)
        while any(p.is_alive() for p in self.running) and time.monotonic() < deadline and len(self.signals) == count:
            time.sleep(0.02)
        for process in self.running:
            _kill_group(process, signal.SIGKILL)
            process.join()
            if process.exitcode:
                _settle(process.job, process.exitcode)
            process.lock.release()
        self.running.clear()


def _settle(job: Job, code: int) -> tuple[str, str]:
    """(state, detail) of a job that has ended with this exit code; an output that is not a complete run is renamed."""
    there = os.path.exists(job.out)
    fault = job.fault if there else None
    state, detail = _judge(job, code, there, fault)
    if state != 'ok' and there and (fault or not job.is_log):  # a file of unknown format is complete only if the exit code is 0
        os.replace(job.out, incomplete_path(job.out))
    return state, detail


def _judge(job: Job, code: int, there: bool, fault: str | None) -> tuple[str, str]:
    if code == 0:
        if not there:
            return 'failed', f'exited with code 0 but did not write {job.out}'
        if fault is not None:
            return 'failed', f'exited with code 0, but what it wrote is no run ({fault}); it is now {incomplete_path(job.out)}'
        return 'ok', ''
    ended = f'was killed by {signal_name(-code)}' if code < 0 else f'failed with exit code {code}'
    if there and fault is None and job.is_log and not job.renews:
        return 'ok', f'{ended}, but its whole run had been written'
    return ('stopped', 'was stopped after a checkpoint') if code == STOPPED else ('failed', ended)


def _kill_group(process: RunProcess, signum: int) -> None:
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signum)


def _sources() -> dict[str, tuple[int, int]]:
    """{source file of this package: (size, time of its last change)}."""
    files = glob.glob(f'{PACKAGE}/**/*.py', recursive=True)
    return {f: (stat.st_size, stat.st_mtime_ns) for f in files for stat in [os.stat(f)]}


_SOURCES_AT_START = _sources()


def can_fork(env: Mapping[str, str]) -> bool:
    """Whether a fork of this process does the same as a fresh process under the environment `env`: on Linux, if both have one thread."""
    return sys.platform == 'linux' and all(e.get(name) == '1' for name in BLAS_THREAD_VARIABLES for e in (env, os.environ))


def script_and_options(command: Command, env: Mapping[str, str]) -> list[str] | None:
    """[script, option, …] of a command that a fork can carry out under the environment `env`, else None.

    The command must consist of plain words and call our trainer with this very interpreter and, as this process has, one thread.
    """
    if not can_fork(env):
        return None
    program, *words = command.plain_words or ['']
    if program != sys.executable or not words or not is_our_trainer(words[0]):
        return None
    return words


def load_trainer() -> bool:
    """Import the trainer; False if a fork would not do the same as a fresh process."""
    try:
        if _sources() != _SOURCES_AT_START:
            return False  # a fork would mix the loaded code with the edited one
        import policyopt.training  # noqa: F401
    except Exception:
        return False  # a fresh process fails in the same way, and says so in the run's log
    return True


class RunProcess(multiprocessing.context.ForkProcess):
    """A run: a fork of this process, in its own session and process group, that calls our trainer or becomes a shell.

    First it writes its process group into the lock. So if this process is killed, the next pipeline finds the surviving run.
    """

    def __init__(self, job: Job, lock: locks.Lock, env: dict[str, str]):
        """Write the command to the job's log and start the run; env: its environment."""
        super().__init__()
        self.job, self.lock, self.env = job, lock, env
        words = script_and_options(job.command, env)
        self.words = words if words and load_trainer() else None
        os.makedirs(os.path.dirname(job.log) or '.', exist_ok=True)  # a user may have removed it
        old = os.path.exists(job.log) and os.path.getsize(job.log) > 0
        with open(job.log, 'a', encoding='utf-8') as self.log:
            self.log.write(('\n' if old else '') + job.command.text + '\n')
            self.log.flush()
            with delaying_signals():  # until the child has its own handlers
                self.start()
        assert self.pid is not None
        while self.is_alive() and os.getpgid(self.pid) != self.pid:  # until the group exists that gets the signals
            time.sleep(0.001)
        self.begin, lock.holder = time.monotonic(), dataclasses.replace(lock.holder, child=self.pid)

    def run(self) -> None:
        """In the child: set up the state of a fresh process, then begin, unless another pipeline has taken the lock."""
        os.setsid()
        for num in STOP_SIGNALS:  # the launcher handles these
            if signal.getsignal(num) != signal.SIG_IGN:
                signal.signal(num, signal.default_int_handler if num == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(self.log.fileno(), 1)
        os.dup2(self.log.fileno(), 2)
        sys.stdout, sys.stderr = open(1, 'w', closefd=False), open(2, 'w', closefd=False, buffering=1, errors='backslashreplace')
        if self.lock.taken_by() is not None:
            sys.exit(FAILED)
        self.lock.record_child(os.getpid())
        if self.words is None:
            for num in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, other programs do not
                signal.signal(num, signal.SIG_DFL)
            command = self.job.command
            os.execve('/bin/sh', ['/bin/sh', '-c', f'exec {command.text}' if command.is_simple else command.text], self.env)
        os.environ.clear()
        os.environ.update(self.env)
        import numpy as np

        np.random.seed()  # some environments draw from numpy's global generator; no two runs may share its state
        sys.argv = self.words
        sys.exit(run_main('imitate_mj', _imitate))


def _imitate(argv: list[str]) -> int:
    from policyopt.training import train_imitation

    return train_imitation(options.parse_options('imitate_mj', None, options.ImitationOptions, argv))
