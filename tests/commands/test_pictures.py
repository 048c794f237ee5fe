"""Pictures of a policy at play, and the random policy beside it: the commands of scripts/media/, and animations of few pictures."""

import numpy as np
import pytest
from conftest import REPO
from PIL import Image

EXPERT = f'{REPO}/expert_policies/classic/CartPole-v0.h5/snapshots/last'
# Three steps each; its picture is as bright as it is late, and it earns a point in its first two steps.
DRAWN = """
import gymnasium
import numpy as np

class Drawn(gymnasium.Env):
    metadata = {'render_modes': ['rgb_array']}
    observation_space = gymnasium.spaces.Box(-1, 1, (4,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(4, dtype=np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(4, dtype=np.float32), float(self.t < 3), self.t == 3, False, {}

    def render(self):
        return np.full((20, 30, 3), 50 * self.t, dtype=np.uint8)

class Unseen(Drawn):
    metadata = {'render_modes': []}

    def __init__(self):
        super().__init__()

gymnasium.register('Drawn-v0', Drawn, max_episode_steps=10)
gymnasium.register('Unseen-v0', Unseen, max_episode_steps=10)
"""


@pytest.fixture(autouse=True)
def drawn(tmp_path):
    (tmp_path / 'drawn.py').write_text(DRAWN)


def brightness(path):
    with Image.open(path) as image:
        for i in range(getattr(image, 'n_frames', 1)):
            image.seek(i)
            yield int(np.asarray(image.convert('RGB')).mean())


def test_a_film_has_a_picture_for_every_step(run_script, tmp_path):
    words = ('media/video_frames.py', EXPERT, 'film', '--frames', 5, '--env_name')
    assert run_script(*words, 'drawn:Drawn-v0').stdout == '5 pictures: film\n'
    names = sorted(path.name for path in (tmp_path / 'film').iterdir())
    assert names == [f'0000{i}.png' for i in range(5)]
    assert [b for name in names for b in brightness(tmp_path / 'film' / name)] == [0, 50, 100, 0, 50]
    assert 'film: is no empty folder' in run_script(*words, 'drawn:Drawn-v0', rc=2).stderr
    said = run_script('media/video_frames.py', EXPERT, 'none', '--env_name', 'drawn:Unseen-v0', rc=2).stderr
    assert said.splitlines()[-1].endswith('an animation needs the render_mode rgb_array') and 'Traceback' not in said
    assert not (tmp_path / 'none').exists()


@pytest.mark.parametrize(
    ('num', 'expected', 'said'),
    [
        (1, [0], ['return: 1.0000 in 1 steps so far (stopped at --frames 1)']),
        (4, [0, 50, 100, 0], ['return: 2.0000 in 3 steps', 'return: 1.0000 in 1 steps so far (stopped at --frames 4)']),
    ],
)
def test_an_animation_has_as_many_pictures_as_asked_for(num, expected, said, run_script, tmp_path):
    done = run_script('vis_mj.py', EXPERT, '--gif', 'play.gif', '--frames', num, '--seed', 0, '--env_name', 'drawn:Drawn-v0')
    assert done.stdout.splitlines() == [*said, f'animation: play.gif ({num} pictures; --frames N for another number)']
    assert list(brightness(tmp_path / 'play.gif')) == pytest.approx(expected, abs=2)


def test_the_returns_of_the_random_policy_are_printed(run_script):
    done = run_script('media/random_returns.py', 'drawn:Drawn-v0', '--num_trajs', 3, '--seed', 0)
    assert done.stdout == 'drawn:Drawn-v0  return: 2.00 (sd 0.00)  length: 3.0\n' and done.stderr == ''
    done = run_script('media/random_returns.py', 'drawn:Drawn-v0', '--num_trajs', 3, '--seed', 0, '--max_traj_len', 1)
    assert done.stdout.endswith('return: 1.00 (sd 0.00)  length: 1.0\n')
