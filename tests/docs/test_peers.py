"""benchmarks/peers.py with a stand-in for the other package: what both sides are given, and what is made of their runs."""

import csv
import json
import sys

import numpy as np
import pytest
from command_tools import REPO, run_command

from policyopt.files.training_log import read_snapshot

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
found['points'] = [{{'steps': 2048, 'cpu_seconds': 1.5, 'returns': returns[: job['curve_episodes']]}}]
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
        return run_command('benchmarks/peers.py', *command, cwd=tmp_path, rc=rc)

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


def test_every_point_on_the_way_becomes_a_row_of_the_csv_file(peers, tmp_path):
    peers('--algorithms', 'gail', '--seeds', 1, '--steps', 8000, '--every', 4000, '--curve_episodes', 2, '--csv', 'points.csv')
    rows = list(csv.DictReader((tmp_path / 'points.csv').read_text().splitlines()))
    assert [(r['side'], r['algorithm'], r['seed'], r['episodes']) for r in rows] == [
        ('expert', '', '', '2'),
        *[('ours', 'gail', '1', n) for n in ('2', '2', '3')],
        *[('peer', 'gail', '1', n) for n in ('2', '3')],
    ]
    expert, first, second, final, *theirs = rows
    assert float(expert['return_mean']) == 200 and [r['return_mean'] for r in theirs] == ['9.00', '9.00']
    steps, seconds = ([float(r[k]) for r in (first, second, final)] for k in ('steps', 'cpu_seconds'))
    assert 4000 <= steps[0] < 6400 and 8000 <= steps[1] == steps[2] < 8800 and 1 <= seconds[0] < seconds[1] <= seconds[2]
    assert all(8 <= float(r['return_mean']) <= 200 and float(r['return_sd']) >= 0 for r in (first, second, final))
    # the points are those of the snapshots: playing leaves the training as it is
    log = ['--env_name', 'CartPole-v0', '--data', 'peers/trajs.h5', '--sim_batch_size', '1', '--seed', '1', '--log', 'plain.h5']
    run_command('imitate_mj.py', '--mode', 'gail', '--max_iter', '4', *log, cwd=tmp_path)
    mine, same = (read_snapshot(str(tmp_path / f'{file}/snapshots/last')) for file in ('peers/ours_gail_1.h5', 'plain.h5'))
    assert all(np.array_equal(value, mine.variables[name]) for name, value in same.variables.items())


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
