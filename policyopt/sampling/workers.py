"""Worker processes that play trajectories and persist between batches, for tasks whose steps are expensive.

All workers draw trajectory numbers from one shared counter and see each other's lengths, so together they play what one process
would. A worker that dies, raises or hangs ends the run with its own error; none outlives its parent.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from multiprocessing import connection, util
from typing import Any

import numpy as np

from policyopt.cores import whole_from_env
from policyopt.environments import rlgymenv
from policyopt.errors import RunFailed, UserError
from policyopt.sampling.rollout import BatchRequest, Played, Rollout, TrajectoryCounter
from policyopt.signals import follow_parent, holding_signals, signal_name

TIMEOUT = whole_from_env('POLICYOPT_WORKER_TIMEOUT') or 600  # seconds without a step anywhere
_NO_MAIN_GUARD = 76  # exit code of a worker that was about to start workers itself


def _end(processes: list, conns: list) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    for conn in conns:
        conn.close()


def _serve(conn: Any, env_name: str, lengths: Any, counter: Any) -> None:
    """The loop of a worker process: one batch per message, until the pipe closes."""
    follow_parent()
    lengths_B, vec = np.frombuffer(lengths, dtype=np.int64), None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has gone
        while True:
            request = conn.recv()
            try:
                if vec is None or vec.num_slots < request.num_slots:
                    vec = rlgymenv.make_vec_env(env_name, request.num_slots)
                trajectories = TrajectoryCounter(request.cfg, lengths_B, counter)
                answer = 'rows', Rollout(request, vec, env_name, trajectories).run()
            except (RunFailed, UserError) as e:
                answer = 'failed', str(e)
            except Exception:
                answer = 'crashed', traceback.format_exc()
            conn.send(answer)


@contextlib.contextmanager
def _importable_main() -> Iterator[None]:
    """Keep workers from importing a main script that is no file, as under `python -`; they need nothing from it."""
    main = sys.modules['__main__']
    file = getattr(main, '__file__', None)
    if file is None or main.__spec__ is not None or os.path.exists(file):
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = file


class WorkerPool:
    """num_workers processes that play env_name; `capacity` bounds the trajectories of a batch (TrajectoryCounter.capacity)."""

    def __init__(self, env_name: str, num_workers: int, capacity: int):
        if getattr(multiprocessing.current_process(), '_inheriting', False):
            os._exit(_NO_MAIN_GUARD)  # this is a worker, which imports the main script, and that starts its training again
        context = multiprocessing.get_context('spawn')
        self.env_name, self.capacity = env_name, capacity
        self.lengths, self.counter = context.RawArray('q', capacity), context.Value('q', 0)
        self.conns, self.processes = [], []
        # Before multiprocessing's own clean-up at exit, which would wait forever for workers that ignore its SIGTERM;
        # unlike atexit's functions, this runs at the end of a forked process too.
        self._finalizer = util.Finalize(self, _end, (self.processes, self.conns), exitpriority=0)
        with holding_signals(), _importable_main():  # until the finalizer knows of all of them
            for _ in range(num_workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, env_name, self.lengths, self.counter), daemon=True)
                process.start()
                theirs.close()
                self.conns.append(ours)
                self.processes.append(process)

    def play(self, request: BatchRequest) -> tuple[Played, TrajectoryCounter]:
        """Play a batch, with so many slots in all; returns (what was played, counter). Raises RunFailed, and the pool is closed then."""
        lengths_B = np.frombuffer(self.lengths, dtype=np.int64)
        lengths_B[:] = 0
        self.counter.value = 0
        request = request._replace(num_slots=-(-request.num_slots // len(self.conns)))
        try:
            for i, conn in enumerate(self.conns):
                try:
                    conn.send(request)
                except OSError as e:
                    raise self._death(i) from e
            parts = self._gather(lengths_B)
        except BaseException:
            self.close()
            raise
        return Played._make(map(np.concatenate, zip(*parts, strict=True))), TrajectoryCounter(request.cfg, lengths_B, self.counter)

    def _gather(self, lengths_B: np.ndarray) -> list[Played]:
        parts, last_sum, last_time = {}, -1, time.monotonic()
        while len(parts) < len(self.conns):
            pending = [i for i in range(len(self.conns)) if i not in parts]
            waiting = {self.conns[i]: i for i in pending} | {self.processes[i].sentinel: i for i in pending}
            for i in {waiting[w] for w in connection.wait(list(waiting), timeout=1.0)}:
                parts[i] = self._answer(i)
            done = int(lengths_B.sum()) + len(parts)
            if done != last_sum:
                last_sum, last_time = done, time.monotonic()
            elif time.monotonic() - last_time > TIMEOUT:
                raise RunFailed(
                    f"env '{self.env_name}': no rollout worker has finished a step for {TIMEOUT} s; the environment hangs "
                    '(POLICYOPT_WORKER_TIMEOUT sets the seconds)'
                )
        return list(parts.values())

    def _answer(self, i: int) -> Played:
        try:
            kind, value = self.conns[i].recv()
        except (EOFError, OSError) as e:  # OSError when it died in the middle of its answer
            raise self._death(i) from e
        if kind == 'failed':
            raise RunFailed(value)
        if kind == 'crashed':
            raise RuntimeError(f'rollout worker {i} crashed:\n{value}')
        return value

    def _death(self, i: int) -> Exception:
        """The error of a worker whose pipe is closed."""
        self.processes[i].join(5)
        code, worker = self.processes[i].exitcode, f"env '{self.env_name}': rollout worker {i}"
        if code == _NO_MAIN_GUARD:
            said = 'worker processes import the script that starts them, and this one starts workers again when it is imported'
            return UserError(f"{said}; put what it does under `if __name__ == '__main__':`, or use sim_batch_size 1")
        if code is not None and code < 0:
            memory = '; is there enough memory? Continue with --resume' if code == -signal.SIGKILL else ''
            return RunFailed(f'{worker} died by signal {signal_name(-code)}{memory}')
        return RunFailed(f'{worker} died with exit code {code}; an error of its own stands above')

    def close(self) -> None:
        """End all workers at once; a closed pool has none."""
        self._finalizer()
        self.conns, self.processes = [], []
