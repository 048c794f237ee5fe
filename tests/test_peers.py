"""benchmarks/peers.py with a stand-in for the other package: what both sides are given, and what is made of their runs."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPO, script_env

EXPERT = REPO / 'expert_policies' / 'classic' / 'CartPole-v0.h5' / 'snapshots' / 'last'
# Plays the part of the Python that has the package: called with peer_imitation.py and a job, it plays the demonstrations again and
# earns 7 or 9.
STAND_IN = f"""#!{sys.executable}
import json, pathlib, sys
import gymnasium, numpy as np
job, npz = json.loads(pathlib.Path(sys.argv[2]).read_text()), None
npz, net = np.load(job['demonstrations']), np.load(job['expert'])
env = gymnasium.make(job['env'])
worst, i = 0.0, 0
for seed, length in zip(npz['seeds'], npz['lengths']):
    obs = env.reset(seed=int(seed))[0]
    for t in range(i, i + length):
        worst = max(worst, abs(obs - npz['obs'][t]).max())
        obs = env.step(int(npz['a'][t, 0]))[0]
    i += length
h = npz['obs'][:9]
if 'mean' in net:
    h = (h - net['mean']) / net['scale']
for k in range(net['num_layers']):
    h = h @ net[f'W{{k}}'] + net[f'b{{k}}']
    h = np.tanh(h) if k < net['num_layers'] - 1 else h
with open('told.jsonl', 'a') as f:
    f.write(json.dumps(job | {{'scores': h.tolist()}}) + '\\n')
returns = [7.0 + 2 * job['seed']] * len(job['eval_seeds'])
found = {{'returns': returns, 'cpu_seconds': 3.0, 'steps': 4096, 'difference': float(worst) + DIFFERENCE}}
pathlib.Path(job['out']).write_text(json.dumps(found))
"""


@pytest.fixture
def peers(tmp_path):
    def run(*options, difference=0, rc=0):
        stand_in = tmp_path / 'python'
        stand_in.write_text(STAND_IN.replace('DIFFERENCE', str(difference)))
        stand_in.chmod(0o755)
        small = ['--folder', 'peers', '--seeds', 0, 1, '--trajs', 2, '--episodes', 3, '--steps', 1000, '--batch', 500]
        ours = ['--ours', 'bc=--max_iter 21 --bclone_eval_freq 10']
        command = ['--env', 'CartPole-v0', '--expert', EXPERT, '--peer_python', stand_in, *small, *ours, *options]
        done = subprocess.run(
            [sys.executable, str(REPO / 'benchmarks' / 'peers.py'), *map(str, command)],
            cwd=tmp_path, env=script_env(), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == rc, done.stderr
        return done

    return run


def test_both_sides_get_the_same_episodes_and_become_a_row(peers, tmp_path):
    from policyopt.evaluation import open_policy

    done = peers('--algorithms', 'bc')
    rows = [line.split(' | ') for line in done.stdout.splitlines() if line.startswith('| ')]
    assert [row[0] for row in rows] == ['| algorithm', '| BC'] and [rows[1][i] for i in (1, 4, 5)] == ['0 / 4096', '8.0 (sd 1.4)', '3 |']
    assert 8 <= float(rows[1][2].partition(' (sd ')[0]) <= 200 and 1 <= float(rows[1][3]) < 60
    told = [json.loads(line) for line in (tmp_path / 'told.jsonl').read_text().splitlines()]
    assert [(job['algorithm'], job['seed']) for job in told] == [('bc', 0), ('bc', 1)]
    assert all(job['eval_seeds'] == told[0]['eval_seeds'] and len(set(job['eval_seeds'])) == 3 for job in told)
    obs = np.load(tmp_path / 'peers' / 'trajs.npz')['obs'][:9]
    np.testing.assert_allclose(told[0]['scores'], open_policy(str(EXPERT))[0].actor().outputs(obs), rtol=1e-9)
    again = peers('--algorithms', 'bc')
    assert again.stdout == done.stdout and len((tmp_path / 'told.jsonl').read_text().splitlines()) == 2


def test_another_task_on_the_other_side_is_noticed(peers):
    done = peers('--algorithms', 'bc', '--seeds', 0, difference=1e-3, rc=1)
    assert 'does not repeat our demonstrations (by 0.001)' in done.stderr and '| BC' not in done.stdout


def test_an_algorithm_that_this_tree_lacks_is_left_out_with_a_word(peers, tmp_path):
    from policyopt import algorithms

    lacking = {'dagger'} - set(algorithms.MODES) | {'airl'} - set(algorithms.rewards())
    if not lacking:
        pytest.skip('this tree has every algorithm')
    done = peers('--algorithms', *sorted(lacking), '--seeds', 0)
    assert done.stderr.count('skipped, this tree has no') == len(lacking) and len(done.stdout.splitlines()) == 4
