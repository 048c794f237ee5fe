"""A person at the keyboard plays an environment, through `gymnasium.utils.play`, and is recorded.

Letters: T steps of an episode, Do observation dim, Da action dims (1 for finite actions).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from typing import Any

import gymnasium
import numpy as np

from policyopt.environments.rlgymenv import EnvInfo, SingleEnv, Task, exits_raise
from policyopt.errors import UserError

ARROWS = {'left': 1073741904, 'right': 1073741903, 'up': 1073741906, 'down': 1073741905}  # what pygame calls them
UNSEEN = ('dummy', 'offscreen')  # SDL's drivers where there is no screen
PAIRS = ('ad', 'sw', 'qe', 'zx', 'fh', 'gt')  # of keys, for the numbers of a continuous action: down to the lowest, up to the highest


@dataclasses.dataclass
class Played:
    """An episode: observations (T + 1, Do), actions (T, Da), rewards (T,), and whether it ended in a terminal state."""

    obs: list[np.ndarray]
    actions: list[np.ndarray]
    rewards: list[float]
    terminated: bool = False


class _Enough(BaseException):
    """All episodes have been played."""


class _Recorder(gymnasium.Wrapper):
    """Keeps what is played; episode i begins with seed + i, and max_len cuts it."""

    def __init__(self, env: gymnasium.Env, one: SingleEnv, seed: int, num_episodes: int, max_len: int | None):
        super().__init__(env)
        self.one, self.seed, self.num_episodes, self.max_len = one, seed, num_episodes, max_len
        self.complete: list[Played] = []
        self.now = Played([], [], [])

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        if len(self.complete) == self.num_episodes:
            raise _Enough
        self.now = Played([self.one.reset(self.seed + len(self.complete))], [], [])
        return self.now.obs[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        a_Da = np.atleast_1d(action)
        obs_Do, r, done = self.one.step(a_Da)
        self.now.obs.append(obs_Do)
        self.now.actions.append(a_Da)
        self.now.rewards.append(r)
        self.now.terminated = done and not self.one.cut_short
        done = done or len(self.now.rewards) == self.max_len
        if done:
            self.complete.append(self.now)
        return obs_Do, r, done, False, {}


def keys_of(info: EnvInfo, env: gymnasium.Env) -> dict[tuple[int, ...], Any]:
    """{keys held together: action}: the environment's own, if it has some; else digits and arrows, or a pair of keys per number."""
    if env.has_wrapper_attr('get_keys_to_action'):
        own = env.get_wrapper_attr('get_keys_to_action')()
        return {tuple(ord(k) if isinstance(k, str) else k for k in np.atleast_1d(keys).tolist() if k): a for keys, a in own.items() if keys}
    if info.finite:
        keys = {(ord(str(a)),): a for a in range(min(info.num_actions, 10))}
        return keys | {(ARROWS['left'],): 0, (ARROWS['right'],): info.num_actions - 1}
    low, high = info.a_low or (-1.0,) * info.a_dim, info.a_high or (1.0,) * info.a_dim
    ways = [{'': 0.0, down: least, up: most} for (down, up), least, most in zip(PAIRS, low, high, strict=False)]
    keys: dict[tuple[int, ...], Any] = {}
    for held in itertools.product(*reversed(ways)):  # so that those of the first number are told first
        keys[tuple(sorted(ord(key) for key in held if key))] = a_Da = np.zeros(info.a_dim)
        a_Da[: len(ways)] = [way[key] for way, key in zip(ways, reversed(held), strict=True)]
    del keys[()]
    return keys if info.a_dim > 1 else keys | {(ARROWS['left'],): keys[(ord('a'),)], (ARROWS['right'],): keys[(ord('d'),)]}


def words_for(keys: dict[tuple[int, ...], Any]) -> str:
    """The single keys and their actions in words."""
    names = {code: name for name, code in ARROWS.items()}
    single = {held[0]: a for held, a in keys.items() if len(held) == 1}
    return ', '.join(f'{names.get(key, chr(key) if 32 < key < 127 else key)}: {a}' for key, a in single.items())


def play(
    task: Task, num_episodes: int, seed: int, noop: int | None = None, fps: int | None = None, max_len: int | None = None
) -> list[Played]:
    """The episodes that a person played to their ends, num_episodes or fewer (Escape, or closing the window, ends the play).

    noop: the action while no key is held, 0 for continuous ones; None: time stands still then. fps: steps per second.
    Raises: UserError, or RunFailed where the environment fails at play.
    """
    os.environ.setdefault('PYGAME_HIDE_SUPPORT_PROMPT', '1')
    try:
        import pygame
        from gymnasium.utils.play import play as play_game
    except ImportError as e:
        raise UserError(f"a window to play in needs 'pygame': pip install -e .[video] ({e})") from e
    with contextlib.suppress(pygame.error):  # opening the window raises it again
        pygame.display.init()
        if pygame.display.get_driver() in UNSEEN and not os.environ.get('SDL_VIDEODRIVER'):
            pygame.quit()
            raise UserError('there is no screen to play on, and no keyboard; run this where a window can be opened')
    one = SingleEnv(task, render_mode='rgb_array')
    recorder = _Recorder(one.env, one, seed, num_episodes, max_len)
    keys = keys_of(one.info, one.env)
    print(f'keys: {words_for(keys)}; Escape ends', flush=True)
    actions: dict[Any, Any] = {held: a if one.info.finite else np.asarray(a, one._a_dtype) for held, a in keys.items()}
    still: Any = np.zeros(one.info.a_dim, one._a_dtype)
    if one.info.finite:
        still = 0 if noop is None else noop
    try:
        with exits_raise():
            play_game(recorder, fps=fps, keys_to_action=actions, noop=still, wait_on_player=noop is None, seed=seed)
    except _Enough:
        pass
    except pygame.error as e:
        raise UserError(f"env '{one.info.name}': no window can be opened: {e}") from e
    except (AssertionError, TypeError, ValueError) as e:
        raise UserError(f"env '{one.info.name}' cannot be played at a keyboard: {e}") from e
    finally:
        pygame.quit()
        one.close()
    return recorder.complete
