"""The machine around us: cores and container quotas, systems without /proc, and environment variables that others have set."""

import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import REPO, script_env
from pipeline_tools import im_pipeline, ready_spec
from results_tools import small_results

from policyopt.cores import cpu_quota, num_cores, threads_from_env
from policyopt.errors import UserError
from policyopt.files.training_log import read_log

# Loaded by every Python below: takes away what macOS does not have. (`ps`, which stands in for /proc, still works here.)
LIKE_MACOS = """
import builtins, io, os

del os.sched_getaffinity

def hide(module, name, absent):
    real = getattr(module, name)
    def replacement(path='.', *args, **kwargs):
        if isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith('/proc'):
            return absent(path)
        return real(path, *args, **kwargs)
    setattr(module, name, replacement)

def missing(path):
    raise FileNotFoundError(2, 'No such file or directory', path)

for module, name in ((builtins, 'open'), (io, 'open'), (os, 'listdir'), (os, 'stat'), (os, 'scandir'), (os, 'readlink')):
    hide(module, name, missing)
for name in ('exists', 'isdir', 'isfile', 'lexists'):
    hide(os.path, name, lambda path: False)
"""
WALK = """
import gymnasium, numpy as np

class Walk(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
    action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.normal(size=3), {}

    def step(self, a):
        self.t += 1
        return self.np_random.normal(size=3), 1.0, self.t >= 20, False, {}

gymnasium.register('Walk-v0', entry_point=Walk, max_episode_steps=50)
"""
TRAIN = """import policyopt as po
run = po.train('trpo', 'walks:Walk-v0', iterations=1, seed=0, min_total_sa=200, sim_batch_size=2)
print(run)
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with an environment that is stepped in worker processes."""
    (tmp_path / 'walks.py').write_text(WALK)
    return tmp_path


@pytest.fixture
def macos(folder):
    """The environment variables of a Python that finds itself on such a system, with that folder on its path."""
    (folder / 'hook').mkdir()
    (folder / 'hook' / 'sitecustomize.py').write_text(LIKE_MACOS)
    return script_env() | {'PYTHONPATH': os.pathsep.join(map(str, (folder / 'hook', REPO, folder)))}


def python(*words, env=None, code=0, **kwargs):
    done = subprocess.run(
        [sys.executable, *map(str, words)], env=env or script_env(), capture_output=True, text=True, timeout=120, **kwargs
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


# ---- cores


@pytest.mark.parametrize(
    ('membership', 'files', 'quota'),
    [
        ('0::/\n', {'cpu.max': '150000 100000\n'}, 1.5),
        ('0::/\n', {'cpu.max': 'max 100000\n'}, math.inf),
        ('0::/pod/box\n', {'pod/cpu.max': '50000 100000\n', 'pod/box/cpu.max': 'max 100000\n'}, 0.5),
        ('0::/of/the/host\n', {'cpu.max': '200000 100000\n'}, 2),
        ('4:memory:/x\n3:cpu,cpuacct:/a\n0::/\n', {'cpu/a/cpu.cfs_quota_us': '300000\n', 'cpu/a/cpu.cfs_period_us': '100000\n'}, 3),
        ('3:cpu,cpuacct:/of/the/host\n', {'cpu/cpu.cfs_quota_us': '100000\n', 'cpu/cpu.cfs_period_us': '50000\n'}, 2),
        ('3:cpu:/\n', {'cpu/cpu.cfs_quota_us': '-1\n', 'cpu/cpu.cfs_period_us': '100000\n'}, math.inf),
        ('3:cpuset:/\n', {'cpu/cpu.cfs_quota_us': '100000\n', 'cpu/cpu.cfs_period_us': '100000\n'}, math.inf),
        ('0::/\n', {'cpu.max': 'nonsense\n'}, math.inf),
    ],
)
def test_the_quota_of_a_container_is_the_smallest_of_its_groups(tmp_path, membership, files, quota):
    (tmp_path / 'membership').write_text(membership)
    for name, content in files.items():
        (tmp_path / 'root' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'root' / name).write_text(content)
    assert cpu_quota(str(tmp_path / 'membership'), str(tmp_path / 'root')) == quota
    assert cpu_quota(str(tmp_path / 'none')) == math.inf


def test_a_process_in_a_group_with_a_quota_counts_its_cores(tmp_path):
    try:
        root = Path('/sys/fs/cgroup/cpu' if Path('/sys/fs/cgroup/cpu').is_dir() else '/sys/fs/cgroup')
        group = root / f'policyopt-test-{os.getpid()}'
        group.mkdir()
    except OSError as e:
        pytest.skip(f'no control group can be made here: {e}')
    try:
        if (group / 'cpu.max').exists():
            (group / 'cpu.max').write_text('100000 100000')
        elif (group / 'cpu.cfs_quota_us').exists():
            (group / 'cpu.cfs_quota_us').write_text('100000')
        else:
            pytest.skip('control groups limit no CPU here')
        code = f"open('{group}/cgroup.procs', 'w').write('0'); from policyopt.cores import num_cores; print(num_cores())"
        assert python('-c', code).stdout == '1\n'
    finally:
        group.rmdir()
    assert num_cores() >= 1


def test_where_macos_lacks_something_tasks_of_ones_own_are_sampled_trained_and_shown(folder, macos):
    code = 'import os; from policyopt.cores import num_cores; print(num_cores() == os.cpu_count(), os.path.exists("/proc/self"))'
    assert python('-c', code, env=macos).stdout == 'True False\n'
    scripts, env = REPO / 'scripts', macos | {'POLICYOPT_WORKERS': ''}
    small = ['--max_iter', 1, '--min_total_sa', 100, '--log', 'run.h5']
    python(scripts / 'run_rl_mj.py', '--env_name', 'walks:Walk-v0', *small, env=env, cwd=folder)
    assert len(read_log(folder / 'run.h5')) == 1
    out = ['--env_name', 'walks:Walk-v0', '--out', 'trajs.h5', '--count', 2]
    python(scripts / 'vis_mj.py', 'run.h5/snapshots/last', *out, env=env, cwd=folder)
    python(scripts / 'media' / 'random_returns.py', 'walks:Walk-v0', '--num_trajs', 2, env=env, cwd=folder)


def test_where_macos_lacks_something_a_pipeline_locks_trains_and_goes_on(tmp_path, macos):
    path, folder = ready_spec(tmp_path)
    only = ['--only', 'alg=ga', 'num_trajs=1']
    im_pipeline(path, '1_train', '-j', 2, *only, env=macos)
    assert len(list(folder.glob('alg=*.h5'))) == 4
    next(folder.glob('alg=*.h5')).unlink()
    im_pipeline(path, '1_train', '--resume', '-j', 2, *only, env=macos)
    assert len(list(folder.glob('alg=*.h5'))) == 4 and not list((folder / 'locks').glob('*.lock'))


def test_windows_is_answered_in_one_sentence():
    code = 'import signal, sys; sys.platform = "win32"; del signal.SIGHUP, signal.SIGUSR1; import policyopt.signals'
    said = python('-c', code, code=1).stderr.splitlines()[-1]
    assert said.startswith('ImportError: policyopt runs on Linux and macOS') and 'WSL' in said


# ---- variables that others have set


@pytest.mark.parametrize('backend', ['module://matplotlib_inline.backend_inline', 'no_such_backend'])
def test_the_backend_of_a_notebook_is_not_needed_for_figures(tmp_path, backend):
    results = small_results(str(tmp_path / 'results.h5'))
    done = python(REPO / 'scripts' / 'plot_results.py', results, '-o', tmp_path / 'x.png', env=script_env(MPLBACKEND=backend))
    assert (tmp_path / 'x.png').read_bytes()[:4] == b'\x89PNG'
    assert ("note: MPLBACKEND 'no_such_backend' is not used" in done.stderr) == (backend == 'no_such_backend')
    # a notebook's backend has no window: the curve is saved, as where there is no screen
    code = 'from policyopt.reporting.figures import has_screen; print(has_screen())'
    assert python('-c', code, env=script_env(MPLBACKEND=backend) | {'DISPLAY': ''}).stdout == 'False\n'


@pytest.mark.parametrize('value', ['0', '-1', 'abc', '2.5', '4,0', ','])
def test_a_number_of_threads_that_is_none_is_refused(tmp_path, value, monkeypatch):
    words = ['--env_name', 'CartPole-v0', '--max_iter', 1, '--log', tmp_path / 'run.h5']
    done = python(REPO / 'scripts' / 'run_rl_mj.py', *words, env=script_env(OMP_NUM_THREADS=value), code=2)
    assert f"error: the environment variable OMP_NUM_THREADS is '{value}'; give a whole number above 0" in done.stderr
    assert 'Traceback' not in done.stderr and not list(tmp_path.iterdir())
    monkeypatch.setenv('OMP_NUM_THREADS', value)
    with pytest.raises(UserError):
        threads_from_env()


def test_of_nested_threads_the_outer_level_counts(tmp_path, monkeypatch):
    code = 'import torch; from policyopt import options, training as t; t.net_config(options.RLOptions()); print(torch.get_num_threads())'
    env = {k: v for k, v in script_env().items() if k != 'NUMEXPR_NUM_THREADS'}
    assert python('-c', code, env=env | {'OMP_NUM_THREADS': '2,1'}).stdout == '2\n'
    small = ['--max_iter', 1, '--min_total_sa', 100, '--log', tmp_path / 'run.h5']
    python(REPO / 'scripts' / 'run_rl_mj.py', '--env_name', 'CartPole-v0', *small, env=env | {'OMP_NUM_THREADS': '2,1'})
    monkeypatch.setenv('OMP_NUM_THREADS', ' ')
    assert threads_from_env() is None


# ---- how a program was started


def test_workers_are_started_from_a_program_on_standard_input(folder):
    env = script_env(PYTHONPATH=f'{REPO}{os.pathsep}{folder}')
    assert python('-', input=TRAIN, env=env, cwd=folder).stdout == '<TrainedRun: trpo on walks:Walk-v0, 1 iterations, seed 0>\n'
    (folder / 'guarded.py').write_text("if __name__ == '__main__':\n" + textwrap.indent(TRAIN, '    '))
    assert 'TrainedRun' in python('guarded.py', env=env, cwd=folder).stdout


@pytest.mark.parametrize('words', [['unguarded.py'], ['-m', 'unguarded']])
def test_a_script_without_a_main_guard_is_told_so(folder, words):
    (folder / 'unguarded.py').write_text(TRAIN)
    done = python(*words, env=script_env(PYTHONPATH=f'{REPO}{os.pathsep}{folder}'), cwd=folder, code=1)
    assert 'spawn.py' not in done.stderr  # no traceback of a worker
    said = done.stderr.splitlines()[-1]
    assert said.startswith('policyopt.errors.UserError: worker processes import the script') and "`if __name__ == '__main__':`" in said
