"""Run many commands on this machine: some at a time, each in its own process group, with a log, a lock and a clean end.

What counts as done is only the output file: `<id>.h5` exists or it does not. A run that is being done by another pipeline
is not started a second time; at the end we wait for those on this host, and name those on other hosts.

Runs are forks of this process, which has loaded torch once: two seconds of start-up less in each run of our own trainer. A fork
executes the same script with the same arguments as a fresh interpreter would, in its own session. For every other command, every
command on other systems than Linux, and every run after our code has been edited it becomes a shell.
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
_GRACE_S = 60  # a run that is asked to stop finishes its iteration and writes a checkpoint


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a job ended: 'ok', 'failed', 'stopped' (after a checkpoint), or 'elsewhere' (held by another host); `seconds` if we ran it."""

    job: Job
    state: str
    detail: str = ''
    seconds: float | None = None


def thread_environment(threads: int | None = None) -> dict[str, str]:
    """The environment of a run: one BLAS and torch thread unless `threads` or the user's own environment says otherwise."""
    ours, given = dict.fromkeys(THREAD_VARIABLES, str(threads or 1)), dict(os.environ)
    return ours | given if threads is None else given | ours


def notes(plan: Plan) -> list[str]:
    """What the bare command lines need beside themselves, and which of them are not needed."""
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
    """Run what is to do on this computer, as many at a time as --jobs says."""
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
    """Run the jobs, as many at a time as `how` says; returns an Outcome for each one that was not already done.

    The first failure starts no further run and lets the running ones finish; with `keep_going` all are tried.
    wait: stay until the runs that other hosts do are there too, and do those that a dead host leaves.
    SIGINT, SIGTERM, SIGHUP and SIGUSR1 stop the runs (a second one kills them) and raise Stopped.
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
        self.elsewhere: list[Job] = []  # runs that another pipeline is doing, which are tried again when all others are done
        self.again = False
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
        """Start a job unless it is done or someone else has it.

        A run of this host is waited for, if asked also one of another host; what was dropped is taken over.
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
        if job.complete and (job.is_log or not lock.taken_over):  # another pipeline finished it before we had the lock
            lock.release()
            self.finish(job, 'ok', 'done by another pipeline')
            return
        if os.path.exists(job.out):  # what a program that writes in place has left
            os.replace(job.out, incomplete_path(job.out))
        if os.path.exists(part_path(job.out)):  # perhaps another pipeline has begun it since the plan
            job = dataclasses.replace(job, command=job.command.with_option('--resume'))
        try:
            self.running.append(RunProcess(job, lock, self.env))
        except OSError as e:
            lock.release()
            raise RunFailed(f'{job.id}: cannot be started: {e}; finished runs are kept, continue with --resume') from e
        self.progress.started(job.id, job.command.text)

    def reap(self) -> None:
        """Take note of the runs that have ended."""
        for process in [p for p in self.running if not p.is_alive()]:
            self.running.remove(process)
            _kill_group(process, signal.SIGKILL)  # helpers that outlived their run
            state, detail = self.judge(process.job, process.exitcode or 0)
            process.lock.release()
            if state == 'failed' and process.lock.taken_by() is not None:  # by a machine that saw us suspended: its run now
                self.pending.append(process.job)
            else:
                self.finish(process.job, state, detail, time.monotonic() - process.begin)

    def judge(self, job: Job, code: int) -> tuple[str, str]:
        ended = f'was killed by {signal_name(-code)}' if code < 0 else f'failed with exit code {code}'
        there, aside = os.path.exists(job.out), incomplete_path(job.out)
        fault = job.fault if there else None
        if code == 0 and not there:
            return 'failed', f'exited with code 0 but did not write {job.out}'
        if code == 0 and fault is None:
            return 'ok', ''
        if there and fault is None and job.is_log and not job.renews:
            return 'ok', f'{ended}, but its whole run had been written'
        if there and (fault or not job.is_log):  # of a file of unknown form, the exit code says that it is not finished
            os.replace(job.out, aside)
        if code == 0:
            return 'failed', f'exited with code 0, but what it wrote is no run ({fault}); it is now {aside}'
        return ('stopped', 'was stopped after a checkpoint') if code == STOPPED else ('failed', ended)

    def finish(self, job: Job, state: str, detail: str, seconds: float | None = None) -> None:
        self.outcomes.append(Outcome(job, state, detail, seconds))
        self.progress.finished(job.id, state, detail, seconds, job.log)

    def renew(self) -> None:
        """Show those who watch our locks that we live; our trainer does so itself, once it has begun."""
        if time.monotonic() - self.renewed > locks.LEASE_S / 6:
            self.renewed = time.monotonic()
            for process in self.running:
                process.lock.renew()

    def stop_all(self) -> None:
        """Ask every run to stop, wait for its checkpoint, kill what does not listen; nothing of ours is left behind."""
        for process in self.running:
            _kill_group(process, signal.SIGTERM)
        if self.running and self.progress.verbosity >= -1:
            with contextlib.suppress(OSError):  # the terminal may have gone
                self.progress.note(f'stopping {len(self.running)} runs at their next checkpoint (again: at once)')
        deadline = time.monotonic() + _GRACE_S
        count = len(self.signals)
        while any(p.is_alive() for p in self.running) and time.monotonic() < deadline and len(self.signals) == count:
            time.sleep(0.02)
        for process in self.running:
            _kill_group(process, signal.SIGKILL)
            process.join()
            if process.exitcode:
                self.judge(process.job, process.exitcode)
            process.lock.release()
        self.running.clear()


def _kill_group(process: RunProcess, signum: int) -> None:
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signum)


def _sources() -> dict[str, tuple[int, int]]:
    """{source file of ours: (size, time of its last change)}."""
    files = glob.glob(f'{PACKAGE}/**/*.py', recursive=True)
    return {f: (stat.st_size, stat.st_mtime_ns) for f in files for stat in [os.stat(f)]}


_SOURCES_AT_START = _sources()


def can_fork(env: Mapping[str, str]) -> bool:
    """Whether a fork of this process would do what a fresh one does under the environment `env`: on Linux, with one thread, as this has."""
    return sys.platform == 'linux' and all(e.get(name) == '1' for name in BLAS_THREAD_VARIABLES for e in (env, os.environ))


def script_and_options(command: Command, env: Mapping[str, str]) -> list[str] | None:
    """[script, option, …] of a command that `RunProcess` can do itself under the environment `env`, else None.

    It must run our trainer with this very interpreter, as plain words, and with one thread: as many as this process has.
    """
    if not can_fork(env):
        return None
    program, *words = command.plain_words or ['']
    if program != sys.executable or not words or not is_our_trainer(words[0]):
        return None
    return words


def load_trainer() -> bool:
    """Import what a run of the trainer needs; False where a fork would not do what a fresh process does."""
    try:
        if _sources() != _SOURCES_AT_START:
            return False  # a fork would mix what is loaded with what is on disk by now
        import policyopt.training  # noqa: F401
    except Exception:
        return False  # a fresh process fails in the same way, and says so in the run's log
    return True


class RunProcess(multiprocessing.context.ForkProcess):
    """A run in a session and process group of its own: a fork of this process, which runs our trainer or becomes a shell.

    Before it begins it writes its group into the lock, so that a run that survives the sudden end of this process is found by the next.
    """

    def __init__(self, job: Job, lock: locks.Lock, env: dict[str, str]):
        """Start it, with its command in its log; env: its environment."""
        super().__init__()
        self.job, self.lock, self.env = job, lock, env
        words = script_and_options(job.command, env)
        self.words = words if words and load_trainer() else None
        os.makedirs(os.path.dirname(job.log) or '.', exist_ok=True)  # a user may have cleared it away since
        old = os.path.exists(job.log) and os.path.getsize(job.log) > 0
        with open(job.log, 'a', encoding='utf-8') as self.log:
            self.log.write(('\n' if old else '') + job.command.text + '\n')
            self.log.flush()
            with delaying_signals():  # until it has its own handlers
                self.start()
        assert self.pid is not None
        while self.is_alive() and os.getpgid(self.pid) != self.pid:  # which signals are sent to
            time.sleep(0.001)
        self.begin, lock.holder = time.monotonic(), dataclasses.replace(lock.holder, child=self.pid)

    def run(self) -> None:
        """The child: set up what a fresh process would have, unless another pipeline has taken the lock by now, and begin."""
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
            for num in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and programs do not
                signal.signal(num, signal.SIG_DFL)
            command = self.job.command
            os.execve('/bin/sh', ['/bin/sh', '-c', f'exec {command.text}' if command.is_simple else command.text], self.env)
        os.environ.clear()
        os.environ.update(self.env)
        import numpy as np

        np.random.seed()  # for environments that draw from numpy's global generator: no two runs have its state in common
        sys.argv = self.words
        sys.exit(run_main('imitate_mj', _imitate))


def _imitate(argv: list[str]) -> int:
    from policyopt.training import train_imitation

    return train_imitation(options.parse_options('imitate_mj', None, options.ImitationOptions, argv))
