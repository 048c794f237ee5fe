"""Copies of policies and runs: they act as the original, stand alone, and follow `load`."""

import concurrent.futures
import copy
import json
import multiprocessing
import pickle

import numpy as np
import pytest
import torch

import policyopt as po
from policyopt.torchutil import NetConfig
from policyopt.valuefuncs import ValueFunc

NET = [{'type': 'fc', 'n': 8}, {'type': 'nonlin', 'func': 'tanh'}, {'type': 'nonlin', 'func': 'relu'}]
COPIES = {
    'copy': copy.copy,
    'deepcopy': copy.deepcopy,
    'pickle': lambda x: pickle.loads(pickle.dumps(x)),
    'oldest pickle': lambda x: pickle.loads(pickle.dumps(x, protocol=0)),
}
OBS_B_DO = np.random.default_rng(0).normal(size=(200, 3))


def some_policy(spec=NET, action_space=None, **more):
    policy = po.make_policy(po.ContinuousSpace(3), action_space or po.FiniteSpace(2), spec, rng=np.random.RandomState(0), **more)
    policy.theta_P.copy_(torch.as_tensor(np.random.RandomState(1).normal(size=len(policy.theta_P))))
    policy.update_obsnorm(OBS_B_DO * 3 + 1)
    return policy


def other_weights(policy):
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=x.shape) if name.endswith(('W', 'b')) else x for name, x in policy.export().items()}


@pytest.mark.parametrize('how', COPIES)
@pytest.mark.parametrize('action_space', [po.FiniteSpace(2), po.ContinuousSpace(2)], ids=['finite', 'continuous'])
@pytest.mark.parametrize('spec', ['[]', NET], ids=['linear', 'two layers'])
@pytest.mark.parametrize('more', [{}, {'dtype': torch.float32}, {'enable_obsnorm': False}], ids=['plain', 'float32', 'no obsnorm'])
def test_a_copied_policy_acts_as_the_original_stands_alone_and_follows_load(how, action_space, spec, more):
    policy = some_policy(spec, action_space, **more)
    before = policy.act(OBS_B_DO)
    copied = COPIES[how](policy)
    assert np.array_equal(copied.act(OBS_B_DO), before) and type(copied) is type(policy)
    assert np.array_equal(copied.compute_adist(OBS_B_DO), policy.compute_adist(OBS_B_DO))
    new, fresh = other_weights(policy), some_policy(spec, action_space, **more)
    copied.load(new, 'here')
    fresh.load(new, 'here')
    assert np.array_equal(copied.act(OBS_B_DO), fresh.act(OBS_B_DO)) and torch.equal(copied.theta_P, fresh.theta_P)
    assert not np.array_equal(copied.act(OBS_B_DO), before) and np.array_equal(policy.act(OBS_B_DO), before)
    obs = torch.as_tensor(OBS_B_DO).to(policy.theta_P)
    assert torch.equal(copied.to_torch()(obs), fresh.to_torch()(obs))


@pytest.mark.parametrize('how', COPIES)
def test_rewards_and_value_functions_are_copied_with_their_views(how):
    spaces, rng = (po.ContinuousSpace(3), po.ContinuousSpace(1)), np.random.RandomState(0)
    options = po.ImitationOptions(policy_hidden_spec=json.dumps(NET))
    reward = po.TransitionClassifier(options, *spaces, nets=NetConfig(rng))
    vf = ValueFunc(options, 3, 1.0, NetConfig(rng))
    a_B_1, t_B, y_B = np.tanh(OBS_B_DO[:, :1]), np.arange(200.0), OBS_B_DO.sum(axis=1)
    again, vf_again = COPIES[how](reward), COPIES[how](vf)
    for r, v in ((reward, vf), (again, vf_again)):  # the step of Adam writes theta_P, which must be what the copied net reads
        r.fit(po.Batch(OBS_B_DO, a_B_1, t_B), po.Batch(OBS_B_DO + 1, a_B_1, t_B))
        v.fit(OBS_B_DO, t_B, y_B, np.random.RandomState(2))
    assert np.array_equal(again.compute_reward(po.Batch(OBS_B_DO, a_B_1, t_B)), reward.compute_reward(po.Batch(OBS_B_DO, a_B_1, t_B)))
    assert np.array_equal(vf_again.evaluate(OBS_B_DO, t_B), vf.evaluate(OBS_B_DO, t_B)) and not torch.equal(vf.theta_P, 0 * vf.theta_P)


def acts(policy):
    return policy.act(OBS_B_DO)


def returns(run):
    return po.evaluate(run.policy, 'CartPole-v0', 2, seed=1).returns


def test_a_run_comes_back_from_another_process_and_is_saved_there_after(tmp_path):
    run = po.train('trpo', 'CartPole-v0', iterations=2, seed=0, min_total_sa=200, policy_hidden_spec=NET, progress=False)
    for how in COPIES.values():
        copied = how(run)
        assert np.array_equal(copied.log, run.log) and repr(copied) == repr(run)
        assert torch.equal(copied.policy.theta_P, run.policy.theta_P)
    copied.save(tmp_path / 'run.h5')
    assert torch.equal(po.load_policy(tmp_path / 'run.h5').theta_P, run.policy.theta_P)
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        assert np.array_equal(pool.submit(returns, run).result(), returns(run))
        assert np.array_equal(pool.submit(acts, some_policy()).result(), acts(some_policy()))
        assert np.array_equal(pool.submit(copy.copy, some_policy()).result().act(OBS_B_DO), acts(some_policy()))


def test_joblib_takes_policies_and_runs(tmp_path):
    joblib = pytest.importorskip('joblib', reason='joblib is not installed')
    policy = some_policy()
    joblib.dump(policy, tmp_path / 'policy.joblib')
    assert np.array_equal(joblib.load(tmp_path / 'policy.joblib').act(OBS_B_DO), acts(policy))
    assert np.array_equal(joblib.Parallel(2)(joblib.delayed(acts)(p) for p in [policy] * 2), [acts(policy)] * 2)
