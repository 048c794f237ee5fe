"""Ctrl-C as a terminal sends it, to the whole group: what is done is kept, one line says how to go on, a second one ends at once."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tables
import test_forked
from conftest import REPO, script_env
from pipeline_tools import CARTPOLE, IM_PIPELINE, environment, im_pipeline, lives, spec_text, wait_until
from training_tools import TINY_NET, differences, run

from policyopt.files.training_log import read_log
from policyopt.files.trajectory_file import save_trajs
from policyopt.trajectories import TrajBatch

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='looks at processes as Linux shows them')

RUN = ['imitate_mj.py', '--mode', 'ga', '--data', 'trajs.h5', '--env_name', 'CartPole-v0', '--policy_hidden_spec', TINY_NET]
RUN += ['--seed', '3', '--min_total_sa', '150', '--save_freq', '1000', '--max_iter', '41', '--sim_batch_size']
SLOW_ENV = """
import time
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Slow(CartPoleEnv):
    def step(self, action):
        time.sleep(SECONDS)
        return super().step(action)

gymnasium.register('Slow-v0', entry_point=Slow, max_episode_steps=200)
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('ctrl_c')
    rng = np.random.RandomState(0)
    trajs = TrajBatch(rng.normal(size=(60, 4)), np.zeros((60, 0)), rng.randint(0, 2, (60, 1)), np.ones(60), [35, 25])
    save_trajs(str(path / 'trajs.h5'), trajs, {'env_name': 'CartPole-v0'})
    return path


def started(*words, cwd, env=None):
    """A command in a session and process group of its own, as a terminal has it."""
    pipe = subprocess.PIPE
    command = [sys.executable, '-u', *map(str, words)]
    return subprocess.Popen(command, cwd=cwd, env=env or script_env(), stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def group(pgid):
    """The living processes of a group."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/stat') as f:
                state, _, pgrp = f.read().rpartition(')')[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(pgrp) == pgid and state not in 'ZX':
            found.append(int(pid))
    return found


def ctrl_c(process):
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize('workers', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_keeps_the_iteration_reached_and_its_line_continues_it_bit_for_bit(workers, folder):
    log = f'run{workers}.h5'
    with started(REPO / 'scripts' / RUN[0], *RUN[1:], workers, '--log', log, cwd=folder) as process:
        next(line for line in process.stdout if line.split()[0] == '6')
        ctrl_c(process)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and 'Traceback' not in err
    assert 'stopping after this iteration (Ctrl-C again: at once)' in err
    said = re.fullmatch(r'stopped by SIGINT after iteration (\d+); continue with: python (.*)', out.splitlines()[-1])
    assert said and len(read_log(folder / f'{log}.part')) == int(said[1]) + 1 > 6
    assert said[2].endswith('--resume') and out.count('continue with') == 1
    assert group(process.pid) == []
    again = subprocess.run([sys.executable, *shlex.split(said[2])], cwd=folder, env=script_env(), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f'at iteration {int(said[1]) + 1} of 41' in again.stdout
    run([*RUN, str(workers)], folder, '--log', f'whole{workers}.h5')
    assert differences(folder / f'whole{workers}.h5', folder / log) == []


def is_worker(pid):
    """Whether a process is one that multiprocessing has spawned, and not git or the like."""
    try:
        return 'multiprocessing.spawn' in Path(f'/proc/{pid}/cmdline').read_text()
    except OSError:  # it has ended
        return False


def test_workers_that_have_just_been_started_do_not_take_ctrl_c_for_themselves(folder):
    with started(REPO / 'scripts' / RUN[0], *RUN[1:], 2, '--log', 'early.h5', cwd=folder) as process:
        workers = wait_until(lambda: [p for p in group(process.pid) if is_worker(p)], 60)
        ctrl_c(process)
        out, err = process.communicate(timeout=60)
    assert workers and process.returncode == 130 and 'Traceback' not in err and 'died' not in err
    assert 'stopped by SIGINT after iteration' in out and (folder / 'early.h5.part').exists()


def test_without_a_log_nothing_is_promised(folder):
    with started(REPO / 'scripts' / RUN[0], *RUN[1:], 1, cwd=folder) as process:
        next(line for line in process.stdout if line.split()[0] == '3')
        ctrl_c(process)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and out.splitlines()[-1].endswith('; nothing is kept without --log')


@pytest.fixture
def slow(tmp_path):
    """A spec whose task takes its time at every step; returns (its folder, a function that sets the seconds)."""
    expert = REPO / 'expert_policies' / 'classic' / 'CartPole-v0.h5'
    task = CARTPOLE | {'name': 'slow', 'env': 'slow_env:Slow-v0', 'policy': f'{expert}/snapshots/last'}
    copy = {'ga': f'cp {expert} {{out}}'}
    (tmp_path / 'spec.yaml').write_text(spec_text(copy, [task], {'eval_num_trajs': 2}, runs=2, deterministic_expert=False))

    def pace(seconds):
        (tmp_path / 'slow_env.py').write_text(SLOW_ENV.replace('SECONDS', str(seconds)))

    pace(0)
    return tmp_path, pace


def env(folder):
    return environment(PYTHONPATH=f'{REPO}{os.pathsep}{folder}', PYTHONDONTWRITEBYTECODE='1')


def test_a_second_ctrl_c_ends_a_run_in_the_middle_of_an_iteration(slow):
    folder, pace = slow
    pace(0.05)
    options = ['--env_name', 'slow_env:Slow-v0', '--min_total_sa', 100000, '--sim_batch_size', 1, '--log', 'run.h5']
    with started(REPO / 'scripts' / 'run_rl_mj.py', *options, cwd=folder, env=env(folder)) as process:
        wait_until(lambda: handles(process.pid, signal.SIGUSR1), 60)
        ctrl_c(process)
        assert process.stderr.readline().startswith('stopping after this iteration')
        ctrl_c(process)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err == 'run_rl_mj: interrupted\n'
    assert not list(folder.glob('run.h5*'))


def handles(pid, num):
    """Whether a process has a handler of its own for a signal."""
    with open(f'/proc/{pid}/status') as f:
        return bool(int(next(line for line in f if line.startswith('SigCgt')).split()[1], 16) >> (num - 1) & 1)


STAGES = [('0', 1, signal.SIGINT), ('2', 2, signal.SIGINT), pytest.param('2', 1, signal.SIGTERM, marks=pytest.mark.slow)]


@pytest.mark.parametrize(('stage', 'jobs', 'signum'), STAGES)
def test_the_stages_around_training_keep_what_is_done_and_name_the_command_that_continues(slow, stage, jobs, signum):
    folder, pace = slow
    if stage == '2':
        for before in '01':
            im_pipeline('spec.yaml', before, '-q', cwd=folder, env=env(folder))
    pace(0.05)
    with started(IM_PIPELINE, 'spec.yaml', stage, '-j', jobs, cwd=folder, env=env(folder)) as process:
        place = folder / 'store' / 'checkpoints' / ('evaluated' if stage == '2' else 'locks/0_sampletrajs.lock')
        wait_until(place.exists, 60)
        if jobs > 1:
            wait_until(lambda: len(group(process.pid)) > 2)
        os.killpg(process.pid, signum)
        _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if signum == signal.SIGINT else 75) and 'Traceback' not in err
    line = err.splitlines()[-1]
    name = signal.Signals(signum).name
    again = f'continue with: python {IM_PIPELINE} spec.yaml {stage} -j {jobs} --resume'
    assert line == f'im_pipeline: stopped by {name}; what is finished is kept; {again}'
    wait_until(lambda: not group(process.pid))
    assert not list(folder.rglob('*.tmp'))
    pace(0)
    im_pipeline(*shlex.split(line.partition(IM_PIPELINE)[2]), cwd=folder, env=env(folder))
    with tables.open_file(folder / 'store' / ('checkpoints/results.h5' if stage == '2' else 'trajs/trajs_slow.h5')) as h5:
        assert h5.root._v_nchildren > 1


def test_the_runs_of_a_pipeline_and_their_workers_save_the_iteration_reached(tmp_path):
    """Runs are forks in groups of their own, which the terminal's Ctrl-C does not reach; the pipeline passes it on."""
    path, folder = test_forked.sampled(tmp_path, 100000, workers=2, options='--policy_max_kl .01')
    with started(IM_PIPELINE, path, '1', '-j', 1, '--only', 'num_trajs=1', cwd=REPO, env=environment()) as process:
        fork = wait_until(lambda: test_forked.run_group(folder, 1), 60)
        workers = group(fork)
        ctrl_c(process)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and len(workers) >= 3
    assert err.splitlines()[-1].endswith(f'continue with: python {IM_PIPELINE} {path} 1 -j 1 --only num_trajs=1 --resume')
    log = (folder / 'logs' / 'alg=ga,task=cartpole,num_trajs=1,run=0.txt').read_text()
    said = re.search(r'stopped by SIGTERM after iteration (\d+); continue with: python .*imitate_mj.py .*--resume\n', log)
    assert said and len(read_log(folder / 'alg=ga,task=cartpole,num_trajs=1,run=0.h5.part')) == int(said[1]) + 1
    wait_until(lambda: not group(fork) and not group(process.pid))


def test_a_second_ctrl_c_ends_a_stage_at_once(slow):
    folder, pace = slow
    pace(30)
    with started(IM_PIPELINE, 'spec.yaml', '0', cwd=folder, env=env(folder)) as process:
        wait_until((folder / 'store/checkpoints/locks/0_sampletrajs.lock').exists, 60)
        process.send_signal(signal.SIGSTOP)  # both arrive before it can act on the first
        ctrl_c(process)
        process.send_signal(signal.SIGCONT)
        ctrl_c(process)
        process.communicate(timeout=30)
    assert process.returncode in (-signal.SIGINT, 130) and not lives(process.pid)


def python(code, cwd, timeout=30):
    """A program of the test's own, in a process of its own."""
    return subprocess.run([sys.executable, '-c', code], cwd=cwd, env=script_env(), capture_output=True, text=True, timeout=timeout)


IN_A_DESTRUCTOR = """
import contextlib, os, signal, time
from policyopt.command_line import run_main
from policyopt.signals import stoppable

class Node:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGNUM)
        time.sleep(0.1)

def main(argv):
    with BLOCK:
        Node()
        time.sleep(60)

raise SystemExit(run_main('it', main, []))
"""


@pytest.mark.parametrize(
    ('block', 'signum', 'code', 'said'),
    [
        ('contextlib.nullcontext()', signal.SIGINT, 130, 'it: interrupted\n'),
        ('stoppable()', signal.SIGINT, 1, 'it: error: stopped by SIGINT; what is finished is kept'),
        ('stoppable()', signal.SIGTERM, 1, 'it: error: stopped by SIGTERM; what is finished is kept'),
    ],
    ids=['a command', 'a pipeline', 'a pipeline that is ended'],
)
def test_a_signal_that_lands_in_a_destructor_is_neither_shown_nor_lost(block, signum, code, said, tmp_path):
    done = python(IN_A_DESTRUCTOR.replace('BLOCK', block).replace('SIGNUM', signal.Signals(signum).name), tmp_path)
    assert done.returncode == code and done.stderr.startswith(said) and done.stderr.count('\n') == 1, done.stderr


def test_training_leaves_the_child_handler_of_a_program_as_it_is(tmp_path):
    code = 'import os, signal\nfrom policyopt.signals import stop_signals\nended = []\n'
    code += 'signal.signal(signal.SIGCHLD, lambda *_: ended.append(1))\n'
    code += 'with stop_signals():\n    if not os.fork(): os._exit(0)\n    os.wait()\n'
    code += 'signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwith stop_signals(): print(ended, signal.getsignal(signal.SIGCHLD))\n'
    assert python(code, tmp_path).stdout == f'[1] {signal.SIG_DFL}\n'


def test_other_exceptions_in_destructors_are_shown_as_ever(tmp_path):
    code = IN_A_DESTRUCTOR.replace('os.kill(os.getpid(), signal.SIGNUM)', '1 / 0').replace('time.sleep(60)', 'pass')
    done = python(code.replace('BLOCK', 'stoppable()'), tmp_path)
    assert done.returncode == 0 and 'Exception ignored in: <function Node.__del__' in done.stderr and 'ZeroDivisionError' in done.stderr


AT_A_LOCK = """
import os, signal, types
from policyopt.command_line import run_main
from policyopt.pipeline import experiment_dir, locks
from policyopt.signals import stoppable

sent = []

def stop():
    if not sent:
        sent.append(True)
        os.kill(os.getpid(), signal.SIGINT)

MOMENT

def main(argv):
    with stoppable(), experiment_dir.stage_lock(types.SimpleNamespace(checkpt_dir='checkpoints'), 'stage'):
        print('held', os.listdir('checkpoints/locks'))

raise SystemExit(run_main('it', main, []))
"""
MOMENTS = {  # when the signal comes
    'before its name is written': 'fsync, os.fsync = os.fsync, lambda fd: (stop(), fsync(fd))',
    'before it is handed out': 'acquire, locks.acquire = locks.acquire, lambda *args: (acquire(*args), stop())[0]',
    'before it is given back': 'release, locks.Lock.release = locks.Lock.release, lambda lock: (stop(), release(lock))',
}


@pytest.mark.parametrize('moment', MOMENTS)
def test_no_lock_is_left_whenever_the_signal_comes(moment, tmp_path):
    done = python(AT_A_LOCK.replace('MOMENT', MOMENTS[moment]), tmp_path)
    assert done.returncode == 1 and done.stderr.startswith('it: error: stopped by SIGINT; ') and done.stderr.count('\n') == 1, done.stderr
    assert os.listdir(tmp_path / 'checkpoints' / 'locks') == []
    assert done.stdout == ("held ['stage.lock']\n" if 'back' in moment else '')
