"""Whoever can choose actions plays, is recorded and is evaluated; our policies play where Stable-Baselines3's models do."""

import gymnasium
import numpy as np
import pytest
import torch
from conftest import REPO

import policyopt as po

EXPERT = REPO / 'expert_policies' / 'classic' / 'CartPole-v0.h5'


def upright(obs):
    """A hand-written controller of CartPole; one observation."""
    return int(obs[2] + 0.3 * obs[3] > 0)


class WithAct:
    def act(self, obs):
        assert obs.shape == (4,)
        return upright(obs)


class Recurrent:
    """As Stable-Baselines3 asks: the state counts the steps of an episode, and episode_start says when one begins."""

    seen = ()

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        assert episode_start.shape == (1,) and episode_start[0] == (state is None)
        self.seen = (*self.seen, state, deterministic)
        return np.array(upright(observation)), (state or 0) + 1


class Sklearn:
    def predict(self, X):
        return (X[:, 2] + 0.3 * X[:, 3] > 0).astype(np.int64)


class Net(torch.nn.Module):
    """A net whose answers carry gradients."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([0.0, 0.0, 1.0, 0.3], dtype=torch.float64))

    def act(self, obs):
        return (torch.as_tensor(obs) @ self.w > 0) * torch.ones((), dtype=torch.float64, requires_grad=True)


PLAYERS = {
    'a function': upright,
    'a lambda of numpy': lambda obs: np.int32(upright(obs)),
    'an array': lambda obs: np.array([upright(obs)]),
    'a float': lambda obs: float(upright(obs)),
    'a bool': lambda obs: bool(obs[2] + 0.3 * obs[3] > 0),
    'a function of batches': lambda obs_B_Do: (obs_B_Do[:, 2] + 0.3 * obs_B_Do[:, 3] > 0).astype(int),
    'act': WithAct(),
    'predict with a state': Recurrent(),
    'predict of batches': Sklearn(),
    'a net': Net(),
}


@pytest.mark.parametrize('who', PLAYERS)
def test_players_of_every_kind_play_the_same_episodes(who):
    expected = po.evaluate(upright, 'CartPole-v0', 3, seed=5)
    returns, lengths = po.evaluate(PLAYERS[who], 'CartPole-v0', 3, seed=5)
    assert np.array_equal(returns, expected.returns) and np.array_equal(lengths, returns) and returns.min() > 100
    demos = po.Demonstrations.record(PLAYERS[who], 'CartPole-v0', 3, seed=5)
    assert np.array_equal(demos.returns, returns) and demos.a.stacked.dtype == np.int64
    assert [upright(o) for o in demos[0].obs_T_Do] == demos[0].a_T_Da[:, 0].tolist()


def test_a_policy_asked_as_a_player_plays_its_own_episodes():
    """So a function sees the episodes, seeds and horizon that a policy sees; recorded ends are the same too."""
    policy = po.load_policy(EXPERT)
    demos = [po.Demonstrations.record(p, 'CartPole-v0', 3, deterministic=True, max_traj_len=50) for p in (policy, policy.act)]
    for x, y in zip(*demos, strict=True):
        assert np.array_equal(x.obs_T_Do, y.obs_T_Do) and np.array_equal(x.a_T_Da, y.a_T_Da)
    assert np.array_equal(demos[0].lastobs_B_Do, demos[1].lastobs_B_Do) and np.array_equal(demos[0].terminal_B, demos[1].terminal_B)


def test_a_state_lives_for_one_episode_and_deterministic_is_handed_on():
    player = Recurrent()
    lengths = po.evaluate(player, 'CartPole-v0', 2, max_traj_len=5).lengths
    assert player.seen[::2] == (None, 1, 2, 3, 4) * 2 and set(player.seen[1::2]) == {True} and lengths.tolist() == [5, 5]
    po.Demonstrations.record(player, 'CartPole-v0', 1, max_traj_len=1)
    assert player.seen[-1] is False


@pytest.mark.parametrize('answer', [0.5, [0.1], np.zeros(1), np.float32(1), torch.zeros(1, requires_grad=True), np.zeros((1, 1))])
def test_continuous_actions_come_in_any_of_the_usual_shapes(answer):
    assert po.Demonstrations.record(lambda obs: answer, 'Pendulum-v1', 1, max_traj_len=3).a.stacked.shape == (3, 1)


WRONG = {
    'too large': (lambda obs: 2, 'returned 2 for one observation; expected an integer from 0 to 1'),
    'negative': (lambda obs: -1, 'returned -1'),
    'a fraction': (lambda obs: 0.5, 'returned 0.5'),
    'nothing': (lambda obs: None, 'returned None'),
    'a word': (lambda obs: 'left', "returned 'left'"),
    'ragged': (lambda obs: [[1], [1, 2]], 'returned'),
    'masked': (lambda obs: np.ma.masked_array([1], [True]), 'returned masked_array'),
    'NaN': (lambda obs: np.nan, 'returned nan'),
    'a path': (str(EXPERT), 'policy is a str'),
    'a number': (3, 'policy is an int; give a Policy, an object with predict or act'),
    'a class': (WithAct, 'policy is a class'),
}


@pytest.mark.parametrize('how', WRONG)
def test_what_cannot_play_is_refused_in_a_sentence(how):
    player, sentence = WRONG[how]
    with pytest.raises(po.UserError, match=sentence):
        po.evaluate(player, 'CartPole-v0', 1)


@pytest.mark.parametrize('action', [1e300, -1e39, np.inf])
def test_an_action_beyond_single_precision_is_no_finite_number(action, recwarn):
    with pytest.raises(po.UserError, match='for one observation; expected 1 finite numbers'):
        po.evaluate(lambda obs: action, 'Pendulum-v1', 1, max_traj_len=3)
    assert not recwarn.list


def test_a_player_s_own_exception_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        po.evaluate(lambda obs: 1 // 0, 'CartPole-v0', 1)
    with pytest.raises(IndexError, match='99'):
        po.evaluate(lambda obs: [][99] if len(obs) == 1 else np.zeros(4)[99], 'CartPole-v0', 1)


def test_workers_play_policies_only():
    with pytest.raises(po.UserError, match='worker processes play a Policy only'):
        po.evaluate(upright, 'CartPole-v0', 1, sim_batch_size=2)


@pytest.mark.parametrize('space', [po.FiniteSpace(2), po.ContinuousSpace(2)])
def test_predict_is_that_of_stable_baselines(space):
    policy = po.make_policy(po.ContinuousSpace(3), space, '[]', rng=np.random.RandomState(0))
    obs = np.random.default_rng(0).normal(size=(5, 3))
    policy.theta_P.copy_(torch.randn(len(policy.theta_P)).to(policy.theta_P))
    actions, state = policy.predict(obs, state=None, episode_start=np.ones(5, bool), deterministic=True)
    assert state is None and isinstance(actions, np.ndarray) and np.array_equal(actions, policy.act(obs))
    one = policy.predict(obs[0], deterministic=True)[0]
    assert isinstance(one, np.ndarray) and np.array_equal(one, actions[0]) and policy.predict(obs[0])[0].shape == one.shape


def test_stable_baselines_evaluates_our_policies_and_its_models_are_recorded(tmp_path):
    sb3 = pytest.importorskip('stable_baselines3', reason='Stable-Baselines3 is not installed')
    from stable_baselines3.common.evaluation import evaluate_policy

    env = gymnasium.make('CartPole-v0')
    mean, _ = evaluate_policy(po.load_policy(EXPERT), env, n_eval_episodes=3, warn=False)
    assert mean > 150
    for algorithm, task in (('PPO', 'CartPole-v0'), ('SAC', 'Pendulum-v1')):
        model = getattr(sb3, algorithm)('MlpPolicy', task, seed=0, device='cpu')
        demos = po.Demonstrations.record(model, task, 2, max_traj_len=10, deterministic=True)
        expected = model.predict(demos.obs.stacked.astype(np.float32), deterministic=True)[0]
        np.testing.assert_allclose(demos.a.stacked, expected.reshape(len(expected), -1), rtol=1e-5)
        assert len(po.evaluate(model, task, 2, max_traj_len=10).returns) == 2
