"""Recording a person at the keyboard, whose keys are scripted: real events of pygame, in a window that is not shown."""

import sys
import textwrap

import numpy as np
import pytest

import policyopt as po
from policyopt.files.trajectory_file import load_trajs

pytest.importorskip('pygame', reason='pygame is not installed')

MODULE = '''
import gymnasium, numpy as np, pygame
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv

LEFT, RIGHT = pygame.K_LEFT, pygame.K_RIGHT

class Person:
    """Presses keys by what it sees on each picture; Escape after its last step."""
    held, steps, last = None, 0, 10**9

    def press(self, key):
        if self.held is not None:
            pygame.event.post(pygame.event.Event(pygame.KEYUP, key=self.held))
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
        self.held = key

    def step(self, action):
        self.steps += 1
        if self.steps == self.last:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_ESCAPE))
        assert self.action_space.contains(action)
        return super().step(action)

class Cart(Person, CartPoleEnv):
    def render(self):
        if pygame.display.get_surface() is not None:
            self.press(RIGHT if self.state[2] + .3 * self.state[3] > 0 else LEFT)
        return np.zeros((20, 30, 3), np.uint8)

class Short(Cart):
    last = 30

class Swing(Person, PendulumEnv):
    def render(self):
        if pygame.display.get_surface() is not None:
            self.press(pygame.K_d if self.steps % 2 else pygame.K_a)
        return np.zeros((20, 30, 3), np.uint8)

for name, cls in (('Cart', Cart), ('Short', Short), ('Swing', Swing)):
    gymnasium.register(f'{name}-v0', entry_point=cls, max_episode_steps=25)
'''
QUIET = {'SDL_VIDEODRIVER': 'dummy', 'SDL_AUDIODRIVER': 'dummy'}


@pytest.fixture
def record(run_script, tmp_path):
    (tmp_path / 'typed.py').write_text(textwrap.dedent(MODULE))
    return lambda *args, rc=0: run_script('record_trajs.py', *args, '--fps', '1000', rc=rc, env=QUIET, timeout=60)


def test_what_was_typed_is_recorded_and_can_be_cloned(record, tmp_path, run_script):
    done = record('typed:Cart-v0', 'trajs.h5', '--count', '3', '--seed', '5')
    assert 'left: 0, right: 1; Escape ends' in done.stdout and '3 trajectories: trajs.h5' in done.stdout
    trajs = load_trajs(str(tmp_path / 'trajs.h5'))
    assert trajs.lengths.tolist() == [25] * 3 and trajs.env_name == 'typed:Cart-v0'
    assert not trajs.terminal_B.any() and trajs.lastobs_B_Do.shape == (3, 4)
    for episode in trajs:  # the keys of a picture act in the step after it
        pressed = (episode.obs_T_Do[:, 2] + 0.3 * episode.obs_T_Do[:, 3] > 0).astype(int)
        assert episode.a_T_Da[1:, 0].tolist() == pressed[1:].tolist() or np.mean(episode.a_T_Da[1:, 0] == pressed[1:]) > 0.9
    starts = [episode.obs_T_Do[0] for episode in trajs]
    assert not np.array_equal(starts[0], starts[1])
    po.train('bclone', None, po.Demonstrations.load(tmp_path / 'trajs.h5'), iterations=5, seed=0, bclone_batch_size=10, progress=False)


def test_escape_keeps_complete_episodes_only(record, tmp_path):
    record('typed:Short-v0', 'trajs.h5', '--seed', '5')
    assert load_trajs(str(tmp_path / 'trajs.h5')).lengths.tolist() == [25]
    done = record('typed:Short-v0', 'none.h5', '--seed', '5', '--max_traj_len', '40', '--count', '1', rc=0)
    assert '1 trajectories' in done.stdout


def test_continuous_actions_go_to_the_ends_of_the_box(record, tmp_path):
    record('typed:Swing-v0', 'trajs.h5', '--count', '1', '--seed', '5', '--max_traj_len', '10')
    trajs = load_trajs(str(tmp_path / 'trajs.h5'))
    assert trajs.lengths.tolist() == [10] and set(trajs.a.stacked[:, 0].tolist()) == {-2.0, 2.0}


@pytest.mark.parametrize(
    'args, sentence',
    [
        (['CartPole-v1', 'x.h5', '--noop', '2'], "--noop 2: env 'CartPole-v1' has the actions 0 to 1"),
        (['CartPol-v1', 'x.h5'], 'Did you mean'),
        (['CartPole-v1', 'x.h5', '--count', '0'], '--count 0: give 1 or more'),
    ],
)
def test_what_cannot_be_recorded_is_said_and_leaves_no_file(record, tmp_path, args, sentence):
    assert sentence in record(*args, rc=2).stderr and not (tmp_path / 'x.h5').exists()


@pytest.mark.skipif(sys.platform != 'linux', reason='elsewhere a window needs no DISPLAY')
def test_a_recording_without_a_screen_is_refused(run_script, tmp_path):
    nowhere = {'SDL_VIDEODRIVER': '', 'DISPLAY': '', 'WAYLAND_DISPLAY': ''}
    said = run_script('record_trajs.py', 'CartPole-v0', 'mine.h5', '--count', 1, rc=2, env=nowhere, timeout=60).stderr
    assert 'error: there is no screen to play on' in said or 'no window can be opened' in said
    assert not list(tmp_path.iterdir())
