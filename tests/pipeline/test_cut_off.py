"""What a program is cut off from: its terminal, its standard streams, its folders of logs and locks; and numbers that are finite."""

import dataclasses
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from command_tools import REPO, run_command, script_env
from exploits import demonstrations
from pipeline_tools import IM_PIPELINE, environment, im_pipeline, ready_spec, started_pipeline, wait_until
from results_tools import small_results
from training_tools import TINY_NET, command, differences, run

from policyopt.files import results_file
from policyopt.files.training_log import TrainingLog, read_log

RUN = ['imitate_mj.py', '--mode', 'ga', '--data', 't.h5', '--env_name', 'CartPole-v0', '--policy_hidden_spec', TINY_NET, '--seed', '3']
RUN += ['--min_total_sa', '150', '--sim_batch_size', '1', '--save_freq', '1000']


@pytest.fixture
def place(tmp_path):
    demonstrations(tmp_path / 't.h5')
    return tmp_path


# ---- folders


@pytest.mark.parametrize('names', [['logs'], ['locks'], ['logs', 'locks']])
def test_folders_that_are_cleared_away_during_training_come_back(names, tmp_path):
    path, folder = ready_spec(tmp_path, seconds=0.5)
    with started_pipeline(path, '1', '-j', 2, '--only', 'task=cartpole') as pipeline:
        wait_until(lambda: list(folder.glob('*.part')))
        for name in names:
            shutil.rmtree(folder / name)
        out, err = pipeline.communicate(timeout=30)
    assert pipeline.returncode == 0 and 'Traceback' not in err, err
    assert len(list(folder.glob('alg=*.h5'))) == 8 and os.listdir(folder / 'locks') == []


def test_a_failed_run_whose_log_is_gone_is_told_all_the_same(tmp_path):
    path, folder = ready_spec(tmp_path, cmd=f"'rm -r {tmp_path}/store/checkpoints/logs; exit 3; {{out}}'")
    _, err = im_pipeline(path, '1', '-j', 1, code=1)
    assert 'failed with exit code 3' in err and 'it cannot be read: No such file' in err


# ---- standard streams

CLOSED = ['<&-', '>&-', '2>&-', '<&- >&-', '<&- >&- 2>&-']


@pytest.mark.parametrize('closed', CLOSED)
def test_a_pipeline_with_closed_streams_does_its_runs(closed, tmp_path):
    path, folder = ready_spec(tmp_path)
    line = f'exec {sys.executable} {IM_PIPELINE} {path} 1 -j 2 --only task=cartpole alg=ga {closed}'
    done = subprocess.run(['sh', '-c', line], cwd=REPO, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stderr
    assert len(list(folder.glob('alg=*.h5'))) == 4
    for log in (folder / 'logs').iterdir():
        assert log.read_text().splitlines()[1:] == ['threads 1']


@pytest.mark.parametrize('closed', ['>&-', '<&- >&- 2>&-'])
def test_a_run_with_closed_streams_is_the_same_run(closed, place):
    run(RUN, place, '--max_iter', 3, '--log', 'a.h5')
    words = ['sh', '-c', f'exec "$@" {closed}', '-', *command(RUN, '--max_iter', 3, '--log', 'b.h5')]
    done = subprocess.run(words, cwd=place, env=script_env())
    assert done.returncode == 0 and differences(place / 'a.h5', place / 'b.h5') == []


# ---- the terminal


def hang_up(place, *words):
    """Start words on a terminal of their own, close that after a row, and return the process when it has ended."""
    terminal, theirs = pty.openpty()
    code = (
        'import fcntl, os, signal, sys, termios; signal.signal(signal.SIGHUP, signal.SIG_DFL); '  # the tests may run under nohup
        'os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])'
    )
    streams = {'stdin': theirs, 'stdout': theirs, 'stderr': theirs}
    process = subprocess.Popen([sys.executable, '-c', code, *words], **streams, cwd=place, env=script_env())
    os.close(theirs)
    seen = b''
    while b'\n        5 ' not in seen.replace(b'\r', b''):
        seen += os.read(terminal, 1000)
    os.close(terminal)
    return process, process.wait(timeout=60)


def test_a_run_whose_terminal_is_closed_keeps_the_iteration_reached(place):
    _, code = hang_up(place, *command(RUN, '--max_iter', 1000, '--log', 'a.h5'))
    assert code == 75
    reached = len(read_log(place / 'a.h5.part'))
    assert 6 <= reached < 1000 and not (place / 'a.h5.lock').exists()
    run(RUN, place, '--max_iter', reached + 3, '--log', 'b.h5')


def test_so_does_one_that_writes_through_tee(place):
    line = shlex.join(command(RUN, '--max_iter', 1000, '--log', 'a.h5'))
    process, _ = hang_up(place, 'sh', '-c', f'{line} 2>&1 | tee log.txt')
    wait_until(lambda: (place / 'a.h5.part').exists() and not (place / 'a.h5.lock').exists())
    assert len(read_log(place / 'a.h5.part')) < 1000


def test_nohup_still_means_that_a_run_goes_on(place):
    words = command(RUN, '--max_iter', 12, '--log', 'a.h5')
    with subprocess.Popen(['nohup', *words], cwd=place, env=script_env(), stdout=subprocess.PIPE, text=True) as process:
        next(line for line in process.stdout if line.split()[0] == '3')
        process.send_signal(signal.SIGHUP)
        process.stdout.read()
    assert process.returncode == 0 and len(read_log(place / 'a.h5')) == 12


# ---- clusters


def test_a_list_without_its_script_is_in_no_later_submissions_way(tmp_path):
    path, folder = ready_spec(tmp_path)
    left, sbatch = folder / 'cluster' / 'slurm_1.runs', tmp_path / 'bin' / 'sbatch'
    for file, text in ((left, 'half'), (sbatch, '#!/bin/sh\necho 5\n')):
        file.parent.mkdir(parents=True)
        file.write_text(text)
    sbatch.chmod(0o755)
    env = environment(PATH=f'{sbatch.parent}:{os.environ["PATH"]}')
    _, err = im_pipeline(path, '1', '-e', 'slurm', '-y', env=env)
    assert 'submitted job 5' in err and left.read_text() == 'half'


# ---- numbers beyond the finite ones

BIG = """
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Big(CartPoleEnv):
    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, 1e37, *rest

gymnasium.register('Big-v0', entry_point=Big, max_episode_steps=200)
"""


@pytest.mark.parametrize('workers', [1, 2])
def test_a_run_that_leaves_the_finite_numbers_ends_in_one_sentence_and_resume_says_that_it_would_repeat(workers, place):
    (place / 'big_env.py').write_text(BIG)
    env = script_env(PYTHONPATH=f'{REPO}{os.pathsep}{place}')
    words = command(['run_rl_mj.py'], '--env_name', 'big_env:Big-v0', '--policy_hidden_spec', TINY_NET, '--seed', 0, '--min_total_sa', 150)
    words += ['--sim_batch_size', str(workers), '--max_iter', '50', '--save_freq', '1', '--log', 'a.h5']
    done = run_command(*words[1:], cwd=place, env=env, rc=1)
    assert done.stderr.count('error: ') == 1 and 'Warning' not in done.stderr, done.stderr
    said = 'iteration 2: ret is not a finite number (in float32, as logs hold it)'
    assert said in done.stderr
    table = read_log(place / 'a.h5.part')
    assert len(table) == 2 and all(np.isfinite(table[name]).all() for name in ('ret', 'dl', 'kl'))
    done = run_command(*words[1:], '--resume', cwd=place, env=env, rc=2)
    assert f'a.h5.part: reached NaN or infinity ({said})' in done.stderr and '--resume' in done.stderr
    assert done.stderr.count('\n') == 1 and not (place / 'a.h5.lock').exists()


def test_a_curvature_that_is_no_number_ends_a_run_in_the_same_way(place):
    words = command(['imitate_mj.py'], '--mode', 'ga', '--data', 't.h5', '--env_name', 'CartPole-v0', '--seed', 0, '--min_total_sa', 50)
    words += ['--sim_batch_size', '1', '--max_iter', '2', '--reward_lr', '1e300', '--log', 'a.h5']
    done = run_command(*words[1:], cwd=place, rc=1)
    assert 'iteration 0: the curvature along a search direction is not a finite number' in done.stderr
    assert 'lower the step sizes' in done.stderr and done.stderr.count('error') == 1 and not (place / 'a.h5').exists()


def test_under_another_version_it_is_tried_again(place):
    test_a_run_that_leaves_the_finite_numbers_ends_in_one_sentence_and_resume_says_that_it_would_repeat(1, place)
    log = TrainingLog(str(place / 'a.h5'), {})
    log.mark_part({'diverged': '{"seen": "that", "git_hash": "earlier"}'})
    words = command(['run_rl_mj.py'], '--env_name', 'big_env:Big-v0', '--policy_hidden_spec', TINY_NET, '--seed', 0, '--min_total_sa', 150)
    words += ['--sim_batch_size', '1', '--max_iter', '50', '--save_freq', '1', '--log', 'a.h5', '--resume']
    env = script_env(PYTHONPATH=f'{REPO}{os.pathsep}{place}')
    done = run_command(*words[1:], cwd=place, env=env, rc=1)
    assert 'iteration 2: ret' in done.stderr and 'continuing a.h5.part at iteration 2' in done.stdout


@pytest.mark.parametrize('largest', [1e101, -1.7e308])
def test_returns_without_a_variance_are_refused_by_everything_that_reads_results(largest, tmp_path, run_script):
    small_results(tmp_path / 'small.h5')
    small = results_file.read_results(str(tmp_path / 'small.h5'))
    rows = [dataclasses.replace(r, alg_traj_returns=np.full_like(r.alg_traj_returns, largest)) for r in small.rows]
    results_file.write_results(str(tmp_path / 'r.h5'), rows, small.tasks, small.attrs)
    said = f"r.h5: the column 'alg_traj_returns' of /results holds {largest:g}; expected numbers up to 1e+100"
    assert said in run_script('analyze_results.py', 'r.h5', '--html', 'r.html', rc=2).stderr
    for kind in ('figure1', 'profile'):
        assert said in run_script('plot_results.py', 'r.h5', '--kind', kind, '-o', f'{kind}.png', rc=2).stderr


def test_large_returns_are_shown(tmp_path, run_script):
    small_results(tmp_path / 'small.h5')
    small = results_file.read_results(str(tmp_path / 'small.h5'))
    rows = [dataclasses.replace(r, alg_traj_returns=r.alg_traj_returns * 9e95) for r in small.rows]
    results_file.write_results(str(tmp_path / 'r.h5'), rows, small.tasks, small.attrs)
    run_script('analyze_results.py', 'r.h5', '--html', 'r.html', '--csv', 'r.csv', '--markdown', 'r.md', '--latex', 'r.tex')
    run_script('plot_results.py', 'r.h5', '-o', 'r.png')


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no device that is always full')
def test_a_run_whose_output_cannot_be_written_says_so_and_can_be_continued(tmp_path):
    words = [sys.executable, REPO / 'scripts' / 'run_rl_mj.py', *'--env_name CartPole-v0 --max_iter 3 --min_total_sa 60'.split()]
    words += ['--sim_batch_size', '1', '--seed', '0', '--log', 'a.h5']
    with open('/dev/full', 'w') as full:
        done = subprocess.run(words, cwd=tmp_path, env=script_env(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=100)
    assert done.returncode == 75 and (tmp_path / 'a.h5.part').exists()
    assert 'stopped by its output, which cannot be written (No space left on device), after' in done.stderr and '--resume' in done.stderr
