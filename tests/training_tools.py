"""Small training runs through the real command lines, and the comparison of their files."""

import fcntl
import json
import os
import signal
import sys
import threading

import numpy as np
import pytest
import tables
from command_tools import REPO, Forked, run_command, script_env

from policyopt import elementwise
from policyopt.torchutil import numerics

EXPERT = REPO / 'expert_policies' / 'classic' / 'CartPole-v0.h5'
TINY_NET = '[{"type": "fc", "n": 8}, {"type": "nonlin", "func": "tanh"}]'
COMMON = ['--env_name', 'CartPole-v0', '--policy_hidden_spec', TINY_NET, '--seed', '3']
SAMPLED = [*COMMON, '--min_total_sa', '150', '--sim_batch_size', '1', '--max_iter', '31', '--save_freq', '10']
DATA = ['--data', 'trajs.h5', '--data_subsamp_freq', '2']
RUNS = {
    'bclone': [
        'imitate_mj.py',
        '--mode',
        'bclone',
        *DATA,
        *COMMON,
        '--max_iter',
        '1501',
        '--bclone_eval_freq',
        '150',
        '--bclone_batch_size',
        '700',
    ],
    'ga': ['imitate_mj.py', '--mode', 'ga', *DATA, *SAMPLED],
    'gail': ['imitate_mj.py', '--mode', 'gail', *DATA, *SAMPLED],
    'dagger': [
        'imitate_mj.py', '--mode', 'dagger', '--expert', f'{EXPERT}/snapshots/last', '--dagger_beta', '.5', '--dagger_label', 'sampled',
        '--dagger_rounds', '4', '--sim_batch_size', '1', *DATA, *COMMON, '--max_iter', '1501', '--bclone_eval_freq', '150',
    ],
    'l2ball': ['imitate_mj.py', '--mode', 'ga', '--reward_type', 'l2ball', *DATA, *SAMPLED, '--reward_include_time', '1'],
    'simplex': ['imitate_mj.py', '--mode', 'ga', '--reward_type', 'simplex', *DATA, *SAMPLED, '--favor_zero_expert_reward', '1'],
    'airl': ['imitate_mj.py', '--mode', 'ga', '--reward_type', 'airl', *DATA, *SAMPLED],
    'rl': ['run_rl_mj.py', *SAMPLED],
}  # fmt: skip
CLONING = ('bclone', 'dagger')  # 1501 short iterations, the others 31
TIMINGS = ('tsamp', 'tadv', 'tstep', 'ttotal')
ATTRS_OF_TIME = ('start_time', 'end_time', 'wall_time', 'command', 'content_sha256')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with expert trajectories that vis_mj.py --out wrote."""
    path = tmp_path_factory.mktemp('runs')
    run_command('vis_mj.py', f'{EXPERT}/snapshots/last', '--count', '3', '--out', 'trajs.h5', '--seed', '1', cwd=path)
    return path


def command(name, *options):
    """The command line of one of RUNS (by name, or as a list) with further options."""
    script, *args = RUNS[name] if isinstance(name, str) else name
    return [sys.executable, str(REPO / 'scripts' / script), *args, *map(str, options)]


def needs_avx512():
    """Skip the test on a processor that has no second kind to imitate."""
    if not elementwise.HAS_AVX512:
        pytest.skip(f'this processor has one code path only: {numerics()}')


def run(name, folder, *options, rc=0, env=None, fresh=False):
    """Run to the end; returns the CompletedProcess after checking its exit code."""
    return run_command(*command(name, *options)[1:], rc=rc, cwd=folder, env=script_env(**(env or {})), fresh=fresh)


def run_until(name, folder, iteration, num, *options):
    """Start a run and send it signal `num` once it has printed the row of an iteration; returns its exit code.

    It prints into a pipe of one page that nobody empties, so it cannot run far ahead of what was read.
    """
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    with open(os.devnull, 'rb') as nothing:
        process = Forked(command(name, *options)[1:], folder, script_env(), [nothing.fileno(), write, write])
    os.close(write)
    with open(read, 'rb', buffering=0) as said:
        for line in iter(said.readline, b''):
            first = line.split()[:1]
            if first and first[0].isdigit() and int(first[0]) >= iteration:
                os.kill(process.pid, num)
                break
        drain = threading.Thread(target=said.read)
        drain.start()
        code = process.wait(120)
        drain.join()
    return -code if num == signal.SIGKILL else code


def contents(path):
    """{name: array} of everything in a run's file that is not about time; options without file names."""
    found = {}
    with tables.open_file(path) as h5:
        for node in h5.walk_nodes('/'):
            for key in node._v_attrs._f_list('user'):
                if key not in ATTRS_OF_TIME:
                    found[f'{node._v_pathname}@{key}'] = str(node._v_attrs[key])
            if isinstance(node, tables.Table):
                found |= {f'{node._v_pathname}:{c}': node.col(c) for c in node.colnames if c not in TIMINGS}
            elif isinstance(node, tables.Array) and node._v_name != 'total_time':
                found[node._v_pathname] = node.read()
    args = json.loads(found.pop('/@args'))
    return found | {'args': str(sorted((k, v) for k, v in args.items() if k not in ('log', 'resume', 'print_freq')))}


def differences(path1, path2):
    """Names of what differs between two files, in a list."""
    a, b = contents(path1), contents(path2)
    return sorted(set(a) ^ set(b)) + [n for n in a if n in b and not _same(a[n], b[n])]


def _same(x, y):
    if isinstance(x, str):
        return x == y
    return x.dtype == y.dtype and np.array_equal(x, y, equal_nan=x.dtype.kind == 'f')
