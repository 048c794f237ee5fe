"""Rollout workers: they play what one process plays, and whatever befalls one of them ends the run in one sentence."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from conftest import REPO, script_env
from pipeline_tools import children, lives, wait_until
from training_tools import differences

from policyopt.errors import RunFailed
from policyopt.files.training_log import read_log
from policyopt.policies import make_policy
from policyopt.sampling import workers
from policyopt.sampling.mdp import MDP, sample_batch
from policyopt.sampling.rollout import SimConfig

TANH = [{'type': 'fc', 'n': 16}, {'type': 'nonlin', 'func': 'tanh'}]

# Continuous actions and episodes of random length; what the file fault.txt in the working folder says goes wrong at the next step.
MODULE = """
import os, signal, time
import gymnasium, numpy as np

class Walk(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
    action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def __init__(self, seconds):
        self.seconds = seconds

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.length, self.t = self.np_random.integers(1, 60), 0
        self.s = self.np_random.normal(size=3)
        return self.s, {}

    def step(self, a):
        time.sleep(self.seconds)
        fault = open('fault.txt').read() if os.path.exists('fault.txt') else ''
        if fault == 'raise':
            raise ZeroDivisionError('the wheel came off')
        if fault == 'killed':
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == 'exit':
            os._exit(7)
        while fault == 'hang':
            time.sleep(1)
        self.t += 1
        self.s = 0.9 * self.s + np.array([a[0], a[1], a[0] * a[1]]) + 0.1 * self.np_random.normal(size=3)
        obs = {'nan': np.full(3, np.nan), 'shape': np.zeros(4)}.get(fault, self.s)
        return obs, float('inf') if fault == 'reward' else float(-abs(self.s[0])), bool(self.t >= self.length), False, {}

gymnasium.register('Walk-v0', entry_point=lambda: Walk(0), max_episode_steps=50)
gymnasium.register('Slow-v0', entry_point=lambda: Walk(0.001), max_episode_steps=50)
"""
FAULTS = {
    'raise': 'failed in step() with ZeroDivisionError: the wheel came off',
    'nan': 'returned NaN or infinity as an observation at step',
    'shape': 'an observation of shape (4,), but its observation_space has shape (3,)',
    'reward': 'returned NaN or infinity as a reward at step',
    'killed': 'died by signal SIGKILL',
    'exit': 'failed in step() with SystemExit: os._exit(7)',
    'hang': 'no rollout worker has finished a step for 2 s; the environment hangs',
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the module walks."""
    (tmp_path / 'walks.py').write_text(textwrap.dedent(MODULE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    return tmp_path


@pytest.fixture
def task(folder):
    """A function that makes a task and an actor for it; its workers are ended with the test."""
    made = []

    def make(env_name):
        made.append(MDP(env_name))
        return made[-1], make_policy(made[-1].obs_space, made[-1].action_space, TANH).actor()

    yield make
    for mdp in made:
        mdp.close()


def pids(mdp):
    return [process.pid for process in mdp._pool.processes]


def assert_same(batch, other):
    for name in ('obs', 'adist', 'a', 'r', 'time'):
        x, y = getattr(batch, name), getattr(other, name)
        assert x.stacked.dtype == y.stacked.dtype and x.stacked.tobytes() == y.stacked.tobytes(), name
        np.testing.assert_array_equal(x.lengths, y.lengths)


# ---- what they play


BATCHES = [  # key, (min_num_trajs, min_total_sa), deterministic
    ((5, 0), (0, 700), False),
    ((5, 1), (9, 0), False),
    ((6, 'x'), (40, 300), False),
    ((5, 0), (3, 90), True),
]


@pytest.mark.parametrize(('env_name', 'num_workers'), [('walks:Walk-v0', 2), ('walks:Walk-v0', 3), ('CartPole-v0', 3)])
def test_workers_play_what_one_process_plays(env_name, num_workers, task):
    alone, actor = task(env_name)
    together, _ = task(env_name)
    for key, quotas, deterministic in BATCHES:
        one = sample_batch(actor, alone, SimConfig(*quotas, 50, sim_batch_size=1), key, deterministic)
        assert len(one) >= quotas[0] and one.lengths.sum() >= quotas[1] and len(set(one.lengths)) > 1
        assert_same(sample_batch(actor, together, SimConfig(*quotas, 50, sim_batch_size=num_workers), key, deterministic), one)
        assert len(pids(together)) == num_workers and all(map(lives, pids(together)))


def test_the_same_workers_play_batch_after_batch(task):
    mdp, actor = task('walks:Walk-v0')
    seen = set()
    for key in range(4):
        sample_batch(actor, mdp, SimConfig(0, 200, 50, sim_batch_size=2), (1, key))
        seen.add(tuple(pids(mdp)))
    assert len(seen) == 1
    mdp.close()
    assert not any(map(lives, seen.pop()))


# ---- what can befall them


@pytest.mark.parametrize('fault', FAULTS)
def test_a_fault_in_a_worker_is_one_sentence_and_leaves_no_process(fault, task, folder, monkeypatch):
    monkeypatch.setattr(workers, 'TIMEOUT', 2)
    mdp, actor = task('walks:Walk-v0')
    cfg = SimConfig(0, 300, 50, sim_batch_size=2)
    before = sample_batch(actor, mdp, cfg, (1, 0))
    processes = pids(mdp)
    (folder / 'fault.txt').write_text(fault)
    start = time.monotonic()
    with pytest.raises(RunFailed) as e:
        sample_batch(actor, mdp, cfg, (1, 1))
    assert time.monotonic() - start < 10
    assert FAULTS[fault] in str(e.value) and "env 'walks:Walk-v0'" in str(e.value) and '\n' not in str(e.value)
    assert not any(map(lives, processes))
    (folder / 'fault.txt').unlink()
    assert_same(sample_batch(actor, mdp, cfg, (1, 0)), before)  # new workers


def test_a_worker_killed_between_two_batches_is_told(task):
    mdp, actor = task('walks:Walk-v0')
    cfg = SimConfig(0, 100, 50, sim_batch_size=2)
    sample_batch(actor, mdp, cfg, (1, 0))
    processes = pids(mdp)
    os.kill(processes[1], signal.SIGKILL)
    wait_until(lambda: not lives(processes[1]))
    with pytest.raises(RunFailed, match='rollout worker 1 died by signal SIGKILL'):
        sample_batch(actor, mdp, cfg, (1, 1))
    assert not any(map(lives, processes))


def test_a_worker_killed_from_outside_in_the_middle_of_a_batch_is_told(task):
    mdp, actor = task('walks:Slow-v0')
    cfg = SimConfig(0, 2500, 50, sim_batch_size=2)
    sample_batch(actor, mdp, cfg, (1, 0))
    processes = pids(mdp)
    killer = threading.Timer(0.5, os.kill, (processes[0], signal.SIGKILL))
    killer.start()
    with pytest.raises(RunFailed, match='rollout worker 0 died by signal SIGKILL'):
        sample_batch(actor, mdp, cfg, (1, 1))
    killer.join()
    assert not any(map(lives, processes))


# ---- the command line

TRAINER = [sys.executable, str(REPO / 'scripts' / 'run_rl_mj.py'), '--env_name', 'walks:Slow-v0', '--seed', '3', '--policy_hidden_spec']
TRAINER += ['[{"type": "fc", "n": 8}, {"type": "nonlin", "func": "tanh"}]', '--min_total_sa', '100', '--max_iter', '31', '--save_freq', '3']
TRAINER += ['--sim_batch_size', '2']


def started(folder, *options):
    command = [*TRAINER, *map(str, options)]
    env = script_env(POLICYOPT_WORKER_TIMEOUT='2')
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def without_eta(err):
    """The lines of stderr that do not say how long a run will take, as a slow one does."""
    return [line for line in err.splitlines() if 'ETA' not in line]


def fail_and_go_on(folder, faults):
    """A run that fails once for each fault, at some time after its first save; its file must be that of an undisturbed run."""
    part = folder / 'run.h5.part'
    for fault in faults:
        saved = part.stat().st_mtime_ns if part.exists() else 0
        process = started(folder, '--log', 'run.h5', '--resume')
        try:
            wait_until(lambda saved=saved: part.exists() and part.stat().st_mtime_ns != saved, seconds=60)
            below = children(process.pid)
            (folder / 'fault.txt').write_text(fault)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
            (folder / 'fault.txt').unlink(missing_ok=True)
        assert process.returncode == 1, (out, err)
        (said,) = without_eta(err)
        assert said.startswith('run_rl_mj: error: ') and FAULTS[fault] in said, err
        assert len(below) >= 2
        wait_until(lambda below=below: not any(map(lives, below)), seconds=5)
        assert not (folder / 'run.h5').exists() and len(read_log(part))
    for options in (('--log', 'run.h5', '--resume'), ('--log', 'undisturbed.h5', '--sim_batch_size', 1, '--env_name', 'walks:Walk-v0')):
        process = started(folder, *options)
        _, err = process.communicate(timeout=100)
        assert process.returncode == 0 and not without_eta(err)
    assert len(read_log(folder / 'run.h5')) == 31
    assert [d for d in differences(folder / 'run.h5', folder / 'undisturbed.h5') if d != 'args'] == []


def test_a_run_whose_environment_fails_exits_with_one_sentence_and_resume_completes_it(folder):
    fail_and_go_on(folder, ['raise'])


@pytest.mark.slow
def test_a_run_survives_every_fault_of_its_environment(folder):
    fail_and_go_on(folder, ['killed', 'hang', 'nan', 'shape', 'exit'])


@pytest.mark.parametrize('fault', ['hang', 'slow'])
def test_a_killed_trainer_leaves_no_worker(fault, folder):
    """Also while a worker is in the middle of a long rollout, or of a step that never ends."""
    process = started(folder, '--min_total_sa', 1_000_000)
    with process:
        below = wait_until(lambda: len(children(process.pid)) >= 3 and children(process.pid), seconds=30)
        (folder / 'fault.txt').write_text(fault)
        time.sleep(0.5)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        wait_until(lambda: not any(map(lives, below)), seconds=10)
