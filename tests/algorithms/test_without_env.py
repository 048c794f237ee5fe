"""Cloning from demonstrations alone: no environment is made, and what is validated is the loss."""

import gymnasium
import numpy as np
import pytest
from conftest import REPO

import policyopt as po
from policyopt.files.training_log import read_root

EXPERT = REPO / 'expert_policies' / 'classic' / 'CartPole-v0.h5'
FEW = {'iterations': 30, 'seed': 0, 'bclone_batch_size': 20, 'bclone_eval_freq': 10, 'progress': False}


@pytest.fixture(scope='module')
def demos():
    return po.Demonstrations.record(po.load_policy(EXPERT), 'CartPole-v0', 3, max_traj_len=80)


def test_the_policy_is_the_one_that_is_cloned_with_the_environment(demos, tmp_path, run_script):
    run = po.train('bc', None, demos, **FEW)
    assert run.policy.theta_P.equal(po.train('bc', 'CartPole-v0', demos, **FEW).policy.theta_P)
    assert 'demonstrations alone' in repr(run) and np.isfinite(run.log['valloss'][[0, 10, 20]]).all()
    demos.save(tmp_path / 'trajs.h5')
    args = ['--mode', 'bclone', '--data', tmp_path / 'trajs.h5', '--max_iter', '30', '--seed', '0', '--bclone_batch_size', '20']
    done = run_script('imitate_mj.py', *args, '--bclone_eval_freq', '10', '--log', tmp_path / 'run.h5')
    assert 'nothing is played. Judge by valloss' in done.stdout
    assert po.load_policy(tmp_path / 'run.h5').theta_P.equal(run.policy.theta_P)
    assert read_root(str(tmp_path / 'run.h5'))['args']['env_name'] is None
    assert len(po.evaluate(run.policy, 'CartPole-v0', 2).returns) == 2
    played = run_script('vis_mj.py', tmp_path / 'run.h5/snapshots/last', '--eval_only', '--count', '1', '--seed', '0', rc=2)
    assert 'give --env_name' in played.stderr


def test_spaces_are_those_of_the_data_or_given():
    obs, steps = [np.random.default_rng(0).normal(size=(60, 3))], np.arange(60)
    continuous = po.Demonstrations.from_arrays(obs, [np.random.default_rng(1).normal(size=(60, 2))])
    finite = po.Demonstrations.from_arrays(obs, [steps % 3])
    assert po.train('bclone', None, continuous, **FEW).policy.action_space == po.ContinuousSpace(2)
    assert po.train('bclone', None, finite, **FEW).policy.action_space == po.FiniteSpace(3)
    assert po.train('bclone', None, finite, num_actions=5, **FEW).policy.action_space == po.FiniteSpace(5)


WRONG = {
    'too few actions': ({'num_actions': 1}, 'actions that are whole numbers from 0 to 1'),
    'both': ({'env': 'CartPole-v0', 'num_actions': 2}, 'num_actions=2: the env says it'),
    'gail': ({'algorithm': 'ga'}, 'env is None; expected an id'),
    'dagger': ({'algorithm': 'dagger', 'expert': lambda obs: 0}, 'env is None; expected an id'),
    'num_actions of gail': (
        {'algorithm': 'ga', 'env': 'CartPole-v0', 'num_actions': 2},
        "num_actions=2 with 'ga'; expected it only with 'bclone'",
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_what_needs_an_environment_says_so(case, demos):
    changes, sentence = WRONG[case]
    known = {'algorithm': 'bclone', 'env': None} | changes
    with pytest.raises(po.UserError, match=sentence):
        po.train(known.pop('algorithm'), known.pop('env'), demos, **(FEW | known))


def test_a_policy_without_an_environment_cannot_be_evaluated(demos):
    policy = po.train('bclone', None, demos, **FEW).policy
    with pytest.raises(po.UserError, match='nothing to play in.*valloss'):
        po.evaluate(policy, None)
    assert len(po.evaluate(policy, lambda: gymnasium.make('CartPole-v0'), 1).returns) == 1


def test_commands_that_play_need_an_environment(demos, tmp_path, run_script):
    demos.save(tmp_path / 'trajs.h5')
    done = run_script('imitate_mj.py', '--mode', 'ga', '--data', tmp_path / 'trajs.h5', '--seed', '0', rc=2)
    assert '--mode ga plays in an environment; give --env_name' in done.stderr
    continuous = po.Demonstrations.from_arrays([np.zeros((9, 2))], [np.zeros((9, 1))])
    with pytest.raises(po.UserError, match='the actions of the data are no integers'):
        po.train('bclone', None, continuous, num_actions=2, **FEW)
