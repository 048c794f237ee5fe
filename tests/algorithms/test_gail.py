"""Mode gail: the options that it adds to the loop of ga, each against a slow account or through a real file."""

import json
import math
import signal

import gymnasium
import numpy as np
import pytest
import torch
from conftest import REPO
from test_steps import NET
from training_tools import folder as folder
from training_tools import run, run_until

import policyopt as po
from policyopt.files.training_log import read_root, read_snapshot
from policyopt.files.trajectory_file import load_trajs
from policyopt.nn import ACTIVATIONS
from policyopt.options import ImitationOptions, with_changes
from policyopt.rewards import ClassifierRows, TransitionClassifier
from policyopt.sampling.mdp import MDP
from policyopt.torchutil import NetConfig

EXPERT = REPO / 'expert_policies' / 'classic' / 'CartPole-v0.h5'


def slow_score(params, func, x_Di, action):
    """The score of one row, with loops over the layers only."""
    h = x_Di
    for W, b in params[:-1]:
        h = np.array([func(float(z)) for z in h @ W + b])
    return float((h @ params[-1][0] + params[-1][1])[action])


SCALAR = {
    'tanh': math.tanh,
    'relu': lambda z: max(z, 0.0),
    'lrelu': lambda z: z if z > 0 else 0.01 * z,
    'elu': lambda z: z if z > 0 else math.expm1(z),
}


@pytest.mark.parametrize('kind', ['finite', 'continuous'])
@pytest.mark.parametrize('func', ACTIVATIONS)
def test_the_gradient_of_the_penalty_is_that_of_a_slow_account(func, kind):
    """Central differences in x, row by row, for ‖∇s‖, and in every parameter for the gradient of the mean of (‖∇s‖ − 1)²."""
    rng = np.random.RandomState(0)
    action_space = po.FiniteSpace(3) if kind == 'finite' else po.ContinuousSpace(2)
    spec = [{'type': 'fc', 'n': 4}, {'type': 'nonlin', 'func': func}, {'type': 'fc', 'n': 3}, {'type': 'nonlin', 'func': func}]
    options = ImitationOptions(policy_hidden_spec=json.dumps(spec), reward_grad_penalty=1.0)
    reward = TransitionClassifier(options, po.ContinuousSpace(3), action_space, nets=NetConfig(rng))
    reward.theta_P.copy_(torch.as_tensor(rng.randn(len(reward.theta_P))))
    num_pi, num_ex, num_in = 6, 4, 3 if kind == 'finite' else 5
    x_Ball_Di = torch.as_tensor(rng.randn(num_pi + num_ex, num_in))
    index = torch.as_tensor(rng.randint(3, size=(num_pi + num_ex, 1))) if kind == 'finite' else None
    count = np.array([3, 1, 0, 2])
    reward.rng = np.random.RandomState(7)
    found_P = reward.penalty_gradient(x_Ball_Di, index, ClassifierRows(num_pi, num_ex, count, x_Ball_Di)).numpy()

    draws = np.random.RandomState(7)
    rows, share = draws.choice(num_ex, size=num_pi, p=count / 6), draws.uniform(size=num_pi)
    x = x_Ball_Di.numpy()
    mixed = [share[i] * x[i] + (1 - share[i]) * x[num_pi + rows[i]] for i in range(num_pi)]

    def penalty(theta_P):
        params, at = [], 0
        for rows_, cols in [(num_in, 4), (4, 3), (3, 3 if kind == 'finite' else 1)]:
            W, at = theta_P[at : at + rows_ * cols].reshape(rows_, cols), at + rows_ * cols
            params, at = [*params, (W, theta_P[at : at + cols])], at + cols
        total = 0.0
        for i, m in enumerate(mixed):
            action = int(index[i, 0]) if kind == 'finite' else 0
            steps = 1e-5 * np.eye(num_in)
            ends = [[slow_score(params, SCALAR[func], m + sign * e, action) for sign in (1, -1)] for e in steps]
            slope = [(high - low) / 2e-5 for high, low in ends]
            total += (math.sqrt(sum(g * g for g in slope)) - 1) ** 2
        return total / num_pi

    theta_P = reward.theta_P.numpy().copy()
    expected = [(penalty(theta_P + e) - penalty(theta_P - e)) / 2e-5 for e in 1e-5 * np.eye(len(theta_P))]
    np.testing.assert_allclose(found_P, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('kind', ['finite', 'continuous'])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('spec', ['relu', 'lrelu', 'nothing'])
def test_the_penalty_of_a_piecewise_linear_net_has_the_bits_of_autograd(spec, dtype, kind, monkeypatch):
    """The gradient that is written out, and that of torch.func; `nothing` is a linear classifier."""
    rng = np.random.RandomState(0)
    layers = [{'type': 'fc', 'n': 24}, {'type': 'nonlin', 'func': spec}, {'type': 'fc', 'n': 20}, {'type': 'nonlin', 'func': spec}]
    action_space = po.FiniteSpace(3) if kind == 'finite' else po.ContinuousSpace(6)
    hidden = [] if spec == 'nothing' else layers
    options = ImitationOptions(policy_hidden_spec=json.dumps(hidden), reward_grad_penalty=1.0)
    reward = TransitionClassifier(options, po.ContinuousSpace(11), action_space, nets=NetConfig(rng, dtype))
    reward.theta_P.copy_(torch.as_tensor(rng.randn(len(reward.theta_P))))
    x_Ball_Di = torch.as_tensor(rng.randn(700 + 300, 11 if kind == 'finite' else 17)).to(dtype)
    index = torch.as_tensor(rng.randint(3, size=(1000, 1))) if kind == 'finite' else None

    def gradient():
        reward.rng = np.random.RandomState(7)
        return reward.penalty_gradient(x_Ball_Di, index, ClassifierRows(700, 300, None, x_Ball_Di))

    written_out_P = gradient()
    monkeypatch.setattr(type(reward.net), 'is_piecewise_linear', False)
    assert written_out_P.abs().max() > 0 and torch.equal(written_out_P, gradient())


class Strict(gymnasium.Env):
    """Refuses any action outside its box; episodes of 20 steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(np.array([-0.1, -0.2], 'f4'), np.array([0.1, 0.3], 'f4'))

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.normal(size=2), {}

    def step(self, action):
        assert (action >= self.action_space.low - 1e-7).all() and (action <= self.action_space.high + 1e-7).all(), action
        self.t += 1
        return self.np_random.normal(size=2), float(-np.square(action).sum()), False, self.t == 20, {}


def recorded(num=3, env=Strict):
    rng = np.random.default_rng(0)
    return po.Demonstrations.from_arrays([rng.normal(size=(20, 2)) for _ in range(num)], [rng.normal(size=(20, 2)) for _ in range(num)])


def test_clipped_actions_are_what_environment_classifier_and_every_later_play_get(tmp_path):
    """A policy that was trained with clipped actions is played so ever after: evaluated, recorded, exported, loaded from its file."""
    run = po.train('gail', Strict, recorded(), iterations=2, seed=0, min_total_sa=60, max_traj_len=20)
    run.save(tmp_path / 'run.h5')
    loaded = po.load_policy(tmp_path / 'run.h5')
    obs = np.random.default_rng(1).normal(size=(50, 2))
    for policy in (run.policy, loaded):
        a = policy.act(obs, deterministic=False, rng=0)
        assert (np.abs(a) > 0).any() and Strict.action_space.low[0] == pytest.approx(a[:, 0].min())
        po.evaluate(policy, Strict, episodes=2, deterministic=False, max_traj_len=20)
        demos = po.Demonstrations.record(policy, Strict, episodes=2, max_traj_len=20)
        assert demos.a.stacked.min(axis=0) == pytest.approx(Strict.action_space.low)
        assert demos.a.stacked.max(axis=0) == pytest.approx(Strict.action_space.high)
        big = torch.as_tensor(1e3 * obs)
        np.testing.assert_allclose(policy.to_torch()(big).detach().numpy(), policy.act(big.numpy()), rtol=1e-9)
    with pytest.raises(po.RunFailed):
        po.train('gail', Strict, recorded(), iterations=1, seed=0, min_total_sa=60, max_traj_len=20, clip_actions=0)


def test_the_sign_of_the_reward_follows_from_how_expert_episodes_end(run_script, tmp_path):
    """MountainCar's expert ends its episodes by success: rewards ≤ 0. CartPole's balances to the time limit: rewards ≥ 0."""
    for task, sign in (('CartPole-v0', 0), ('MountainCar-v0', 1)):
        expert = REPO / 'expert_policies' / 'classic' / f'{task}.h5'
        data, log = tmp_path / f'{task}.h5', tmp_path / f'{task}_run.h5'
        run_script('vis_mj.py', f'{expert}/snapshots/last', '--out', data, '--count', '3', '--seed', '1')
        args = ['--env_name', task, '--data', data, '--seed', '0', '--max_iter', '1', '--log', log, '--sim_batch_size', '1']
        run_script('imitate_mj.py', '--mode', 'gail', *args)
        stored = read_root(log)['args']
        assert stored['favor_zero_expert_reward'] == sign and stored['mode'] == 'gail' and stored['min_total_sa'] == 2000
        assert len(load_trajs(str(data))) == 3


def test_options_that_are_not_given_follow_the_mode():
    ours, of_2016 = ImitationOptions(mode='gail', lam=0.5), ImitationOptions(lam=0.5)
    assert (of_2016.discount, of_2016.reward_lr, of_2016.clip_actions, of_2016.policy_final_kl) == (0.995, 0.01, 0, None)
    assert ours.discount < 0.995 and ours.lam == 0.5 and ours.clip_actions == 1
    assert with_changes(of_2016, {'mode': 'gail'}) == ours and with_changes(ours, {'mode': 'ga'}) == of_2016
    assert with_changes(ImitationOptions(discount=0.995), {'mode': 'gail'}).discount == 0.995, 'what was given stays, were it the default'


def test_python_and_the_command_train_the_same_policy(run_script, tmp_path):
    data = tmp_path / 'trajs.h5'
    run_script('vis_mj.py', f'{EXPERT}/snapshots/last', '--out', data, '--count', '3', '--seed', '1')
    net = json.dumps(NET)
    args = ['--data', data, '--env_name', 'CartPole-v0', '--sim_batch_size', '1', '--max_iter', '3', '--min_total_sa', '150', '--seed', '3']
    run_script('imitate_mj.py', '--mode', 'gail', *args, '--policy_hidden_spec', net, '--log', tmp_path / 'run.h5')
    run = po.train('gail', 'CartPole-v0', str(data), iterations=3, seed=3, min_total_sa=150, policy_hidden_spec=NET)
    theirs = read_snapshot(f'{tmp_path}/run.h5/snapshots/last').variables
    assert all(np.array_equal(value, theirs[name]) for name, value in run.policy.export().items())
    assert run.options.discount == ImitationOptions(mode='gail').discount


def test_help_says_what_each_mode_takes_where_they_differ(run_script):
    text = ' '.join(run_script('imitate_mj.py', '--help').stdout.split())
    assert '(default: 0.995; gail 0.97)' in text and '(default: 50000; gail 2000)' in text


def test_an_unfinished_run_whose_steps_shrink_to_its_end_cannot_be_made_longer(folder):
    assert run_until('gail', folder, 3, signal.SIGTERM, '--log', 'shrinks.h5') == 75
    done = run('gail', folder, '--log', 'shrinks.h5', '--resume', '--max_iter', '40', rc=2)
    assert 'was started with --max_iter 31, not 40, on which all iterations of --mode gail depend' in done.stderr


def test_airl_takes_the_defaults_of_the_mode_too(folder):
    """With the classifier's own net; its reward can be taken out of the run."""
    run('gail', folder, '--reward_type', 'airl', '--max_iter', '2', '--log', 'airl_of_today.h5')
    snapshot = read_snapshot(str(folder / 'airl_of_today.h5/snapshots/last'))
    assert snapshot.variables['/AIRLReward/g/hidden/FeedforwardNet/layer_0/AffineLayer/W'].shape == (4, 32)
    assert snapshot.args['discount'] == 0.97 and 'reward_grad_penalty' not in snapshot.args
    reward = po.load_reward(folder / 'airl_of_today.h5', MDP('CartPole-v0'))
    assert reward.learned_reward(np.zeros((2, 4)), np.zeros((2, 1), int), np.zeros(2)).shape == (2,)
