"""The policy that the paper calls random: uniform over finite actions and in the action box, standard normal without one."""

import dataclasses

import numpy as np
import pytest

from policyopt.environments.rlgymenv import env_info
from policyopt.sampling.actors import RandomActor
from policyopt.sampling.mdp import MDP, sample_randomly

# (mean, sd) of the paper, and episodes enough to tell the uniform policy from a normal one
PAPER = {'Reacher': (-43.21, 4.32, 100), 'HalfCheetah': (-282.43, 79.53, 10), 'Ant': (-69.68, 111.10, 40), 'Hopper': (14.47, 7.96, 100)}


def actions(info, num=4000, **kwargs):
    actor = RandomActor(info, **kwargs)
    out_B_0 = actor.outputs(np.zeros((num, info.obs_dim)))
    assert out_B_0.shape == (num, 0)
    return actor.act(out_B_0, actor.noise(np.random.default_rng(0), num))


def test_bounds_are_those_of_the_action_box():
    assert (env_info('Pendulum-v1').a_low, env_info('Pendulum-v1').a_high) == ((-2.0,), (2.0,))
    assert (env_info('CartPole-v0').a_low, env_info('CartPole-v0').a_high) == (None, None)


def test_finite_actions_are_equally_likely():
    a_B_1 = actions(env_info('MountainCar-v0'))
    assert a_B_1.dtype == np.int64 and a_B_1.shape == (4000, 1)
    np.testing.assert_allclose(np.bincount(a_B_1[:, 0], minlength=3) / 4000, 1 / 3, atol=0.03)


@pytest.mark.parametrize(
    'low, high, a_max, expected',
    [
        ((-2.0, 0.0), (2.0, 1.0), None, ((-2, 2), (0, 1))),
        ((-2.0, 0.0), (2.0, 1.0), 0.5, ((-0.5, 0.5), (-0.5, 0.5))),
        (None, None, 3.0, ((-3, 3), (-3, 3))),
    ],
)
def test_continuous_actions_are_uniform_between_the_bounds(low, high, a_max, expected):
    info = dataclasses.replace(env_info('Pendulum-v1'), a_dim=2, a_low=low, a_high=high)
    a_B_Da = actions(info, a_max=a_max)
    for a_B, (lo, hi) in zip(a_B_Da.T, expected, strict=True):
        np.testing.assert_allclose(np.quantile(a_B, [0, 0.25, 0.5, 0.75, 1]), np.linspace(lo, hi, 5), atol=0.03 * (hi - lo))


def test_without_bounds_actions_are_standard_normal():
    info = dataclasses.replace(env_info('Pendulum-v1'), a_dim=2, a_low=None, a_high=None)
    a_B_Da = actions(info)
    np.testing.assert_allclose(a_B_Da.mean(axis=0), 0, atol=0.06)
    np.testing.assert_allclose(a_B_Da.std(axis=0), 1, atol=0.06)


def test_the_same_seed_gives_the_same_episodes():
    mdp = MDP('Pendulum-v1')
    one, same, other = (sample_randomly(mdp, 3, seed, max_traj_len=20) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.a.stacked, same.a.stacked)
    assert list(one.lengths) == [20] * 3 and not np.array_equal(one.a.stacked, other.a.stacked)


@pytest.mark.mujoco
@pytest.mark.parametrize('task', PAPER)
def test_the_random_returns_are_those_of_the_paper(task):
    pytest.importorskip('mujoco', reason='mujoco is not installed (pip install -e .[mujoco])')
    mean, sd, num = PAPER[task]
    mdp = MDP(f'legacy/{task}-v1')
    returns = sample_randomly(mdp, num, seed=0).returns
    mdp.close()
    # the paper's own mean is over about 50 episodes
    assert returns.mean() == pytest.approx(mean, abs=3.5 * np.hypot(sd / np.sqrt(50), returns.std() / np.sqrt(num)))
