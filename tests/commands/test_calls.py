"""Calls from Python: messages in its words, and environments that need nothing said about them."""

import numpy as np
import pytest
from test_api import EXPERT, Line, small

import policyopt as po


@pytest.fixture(scope='module')
def demos():
    return po.Demonstrations.record(po.load_policy(EXPERT), 'CartPole-v0', episodes=6, seed=1, max_traj_len=60)


PYTHON_NAMES = {
    'a time limit': (lambda d: small('trpo', env=Line), r"env 'Line' has no time limit .*; give max_traj_len=$"),
    'a device': (lambda d: small('ga', d, device='gpu'), r"^device=gpu: expected 'cpu', or 'cuda' .*A GPU is called cuda$"),
    'another device': (lambda d: small('ga', d, device='mps'), r"^device=mps: .*Apple's GPUs have no float64"),
    'iterations': (lambda d: small('dagger', d, iterations=2, expert=lambda o: 0, dagger_rounds=3), r'^iterations=2 leaves'),
    'a reward that sees the time': (lambda d: small('ga', d, Line, reward_include_time=1), r'needs one; give max_traj_len=$'),
}


@pytest.mark.parametrize('case', PYTHON_NAMES)
def test_messages_name_the_arguments_of_python(case, demos):
    call, sentence = PYTHON_NAMES[case]
    if call.__code__.co_names and 'Line' in call.__code__.co_names and case != 'a time limit':
        demos = po.Demonstrations.record(lambda obs: np.zeros(2), Line, 2, max_traj_len=20)
    with pytest.raises(po.UserError, match=sentence) as error:
        call(demos)
    assert '--' not in str(error.value)


def test_bc_is_cloning(demos):
    run = small('bc', demos, bclone_batch_size=5)
    assert run.algorithm == 'bclone' and run.policy.theta_P.equal(small('bclone', demos, bclone_batch_size=5).policy.theta_P)


class Truncating(Line):
    """Ends its episodes by itself after 15 steps, and says so nowhere."""

    def reset(self, seed=None, options=None):
        self.t = 0
        return super().reset(seed=seed)

    def step(self, action):
        self.t += 1
        obs, r, _, _, info = super().step(action)
        return obs, r, False, self.t == 15, info


@pytest.mark.parametrize('algorithm', ['trpo', 'bclone', 'dagger', 'ga', 'gail', 'fem', 'simplex'])
def test_an_environment_that_ends_its_episodes_by_itself_needs_no_horizon(algorithm):
    recorded = po.Demonstrations.record(lambda obs: -obs[:2], Truncating(), 3)
    assert recorded.lengths.tolist() == [15] * 3 and not recorded.terminal_B.any()
    more = {'expert': lambda obs: -obs[:, :2]} if algorithm == 'dagger' else {}
    more |= {'bclone_batch_size': 5} if algorithm in ('bclone', 'dagger') else {}
    run = small(algorithm, None if algorithm == 'trpo' else recorded, Truncating(), iterations=11 if algorithm == 'dagger' else 2, **more)
    assert po.evaluate(run.policy, Truncating(), 2).lengths.tolist() == [15, 15]
