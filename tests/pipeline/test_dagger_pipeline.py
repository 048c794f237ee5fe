"""DAgger in a pipeline, in an estimate and in the documents; and that it learns from fewer labels than cloning."""

import re
import shlex
import shutil
import signal
import types

import numpy as np
import pytest
import tables
import training_tools
from pipeline_tools import CARTPOLE, im_pipeline, spec_text, write_trajs
from training_tools import EXPERT, differences

import policyopt as po
from policyopt.pipeline import estimate
from policyopt.pipeline.command import Command
from policyopt.pipeline.spec import Job

DAGGER = (
    'python scripts/imitate_mj.py --mode dagger --expert {policy} --dagger_rounds 4 --max_iter 501 --bclone_eval_freq 100 --tiny_policy '
    '--env {env} --data {dataset} --limit_trajs {num_trajs} --data_subsamp_freq {data_subsamp_freq} --seed {seed} --log {out}'
)


def write(folder, policy):
    """An experiment with that expert (None: without); returns its path."""
    task = {key: value for key, value in (CARTPOLE | {'policy': policy}).items() if value is not None}
    path = folder / 'dagger.yaml'
    path.write_text(spec_text({'dagger': DAGGER}, [task], runs=2, options={'storagedir': str(folder / 'store'), 'eval_num_trajs': 5}))
    return path


def test_all_three_stages_with_the_task_s_expert(tmp_path):
    """The expert lies in a folder whose name has a blank, and one run is interrupted and continued."""
    (tmp_path / 'my experts').mkdir()
    shutil.copy(EXPERT, tmp_path / 'my experts')
    spec = write(tmp_path, 'my experts/CartPole-v0.h5/snapshots/last')
    im_pipeline(spec, '0', cwd=tmp_path)
    shown, _ = im_pipeline(spec, '1', '-n', cwd=tmp_path)
    assert shown.count("--expert 'my experts/CartPole-v0.h5/snapshots/last'") == 2
    said, _ = im_pipeline(spec, '1', '--estimate', '-j', '1', cwd=tmp_path)
    assert said.startswith('2 of 2 runs to do: ')
    im_pipeline(spec, '1', '-j', '1', cwd=tmp_path)
    runs = sorted((tmp_path / 'store' / 'checkpoints').glob('alg=dagger*.h5'))
    assert len(runs) == 2
    runs[0].rename(tmp_path / 'undisturbed.h5')
    line = shlex.split(shown.splitlines()[0])[1:]
    assert training_tools.run_until(line, tmp_path, 200, signal.SIGTERM) == 75
    im_pipeline(spec, '1', '-j', '1', '--resume', cwd=tmp_path)
    assert differences(tmp_path / 'undisturbed.h5', runs[0]) == []
    assert 'continuing' in (runs[0].parent / 'logs' / f'{runs[0].stem}.txt').read_text()
    said, _ = im_pipeline(spec, '2', cwd=tmp_path)
    assert re.search(r'^cartpole +dagger ', said, re.M)


def test_a_pipeline_without_the_expert_that_a_command_names_is_refused(tmp_path):
    spec = write(tmp_path, None)
    _, err = im_pipeline(spec, '1', '-n', code=2)
    assert "training.algorithms[0].cmd: the field {policy}; expected the expert of every task, and tasks[0] has no 'policy'" in err
    write(tmp_path, CARTPOLE['policy'].replace('CartPole', 'CartPool'))
    write_trajs(tmp_path / 'store' / 'trajs' / 'trajs_cartpole.h5')
    _, err = im_pipeline(spec, '1', code=2)
    assert "tasks[0].policy: no file for 'expert_policies/classic/CartPool-v0.h5/snapshots/last'" in err
    assert not (tmp_path / 'store' / 'checkpoints').exists()


def test_an_estimate_counts_the_play_of_the_rounds_once(tmp_path):
    """In a short run the rounds are as many as in a long one."""
    n, step, play = 10, 0.1, 3.0
    tsamp = np.zeros(n)
    tsamp[[3, 6]] = play
    table = np.zeros(n, dtype=[('round', 'i4'), ('tsamp', 'f4'), ('ttotal', 'f4')])
    table['tsamp'], table['ttotal'] = tsamp, np.cumsum(tsamp + step)
    with tables.open_file(tmp_path / 'run.h5', 'w') as h5:
        h5.create_table('/', 'log', obj=table)
    job = types.SimpleNamespace(id='run', out=str(tmp_path / 'run.h5'))
    startup, each = estimate._cost(1.0 + 2 * play + n * step, estimate._ttotal(job))
    assert (startup, each) == pytest.approx((1.0 + 2 * play, step), rel=1e-4)
    for rounds, measured in ((700, 701), (7, 300)):
        command = f'imitate_mj.py --mode dagger --dagger_rounds {rounds} --max_iter 5000'
        run = Job('id', Command(command), 'out.h5', 'log.txt', 'id.lock')
        assert estimate._shortened(run).command.text == f'{command} --max_iter {measured}'


# ---- learning


def test_at_equal_labels_it_learns_what_demonstrations_do_not_show():
    """MountainCar, of whose expert only the first 20 steps are shown: what comes later must be asked for."""
    env, beaten = 'MountainCar-v0', []
    expert = po.load_policy(f'{EXPERT.parent}/{env}.h5')
    settings = {'iterations': 2200, 'progress': False, 'data_subsamp_freq': 5, 'tiny_policy': True, 'bclone_batch_size': 32}
    for seed in range(2):
        demos = po.Demonstrations.record(expert, env, episodes=100, seed=seed, max_traj_len=20)
        dagger = po.train('dagger', env, demos, seed=seed, expert=expert, limit_trajs=1, **settings)
        labels = dagger.log['nlabels'][-1]
        cloning = po.train('bclone', env, demos, seed=seed, limit_trajs=-(-labels // 4), **settings)  # 4 of 20 steps are kept
        assert dagger.log['nlabels'][0] == 4 and labels < 400
        beaten.append([po.evaluate(run.policy, env, 20, seed=seed).returns.mean() for run in (dagger, cloning)])
    ours, theirs = np.mean(beaten, axis=0)
    assert ours > -125 > theirs + 15, beaten  # the expert: -100
