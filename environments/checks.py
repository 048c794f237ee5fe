"""Checks of environments: supported spaces, and a `reset` that uses its seed."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NoReturn

import gymnasium
import numpy as np

from policyopt.arguments import as_array, shown
from policyopt.errors import FAILURES, RunFailed, UserError, reason_of

SUPPORTED = 'supported are a 1-D Box observation and a Discrete action (from 0) or a 1-D float Box action'
RECIPES = 'docs/data.md has recipes'
LONGEST_NAME = 1000
_exit = os._exit


class exits_raise:
    """Let os._exit raise SystemExit where the block calls it, so that the user's code cannot end our process without a message.

    It does what it always does in other threads and in forks, which may need it.
    """

    def __enter__(self) -> None:
        self.before, self.caller = os._exit, (os.getpid(), threading.get_ident())
        os._exit = self._raise

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        os._exit = self.before

    def _raise(self, status: int) -> NoReturn:
        if (os.getpid(), threading.get_ident()) != self.caller:
            _exit(status)
        raise SystemExit(f'os._exit({status})')


@contextlib.contextmanager
def failing_as(kind: type[UserError | RunFailed], what_failed: str, hint: str = '') -> Iterator[None]:
    """Raise `kind`, which says what failed and why, where the user's code raises in the block or ends the process."""
    try:
        with exits_raise():
            yield
    except (UserError, RunFailed):
        raise
    except FAILURES as e:
        raise kind(f'{what_failed} with {reason_of(e)}{hint}') from e


def check_name(name: Any, what: str = 'env') -> None:
    """Raise UserError unless this can be what an environment is called, in tables and files too."""
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
        seen = shown(name) + (f'… of {len(name)} characters' if isinstance(name, str) and len(name) > 80 else '')
        expected = f"expected an environment's id, such as 'CartPole-v1': 1 to {LONGEST_NAME} printable characters"
        raise UserError(f'{what} is {seen}; {expected}')


def check_spaces(name: str, env: gymnasium.Env) -> tuple[int, int, int]:
    """(obs_dim, num_actions, a_dim) of an environment, or UserError with what it has and what is supported."""
    spaces = gymnasium.spaces
    obs, a = env.observation_space, env.action_space
    if not (isinstance(obs, spaces.Box) and len(obs.shape) == 1 and obs.shape[0] > 0 and obs.dtype.kind in 'fiu'):
        raise UserError(f"env '{name}' has the observation space {describe(obs)}; {SUPPORTED}{_cure(obs)}")
    if isinstance(a, spaces.Discrete) and a.start == 0:
        return obs.shape[0], int(a.n), 1
    if isinstance(a, spaces.Box) and len(a.shape) == 1 and a.shape[0] > 0 and a.dtype.kind == 'f':
        return obs.shape[0], 0, a.shape[0]
    cure = f'. Wrap it in gymnasium.wrappers.TransformAction: {RECIPES}'
    raise UserError(f"env '{name}' has the action space {describe(a)}; {SUPPORTED}{cure}")


def _cure(obs: Any) -> str:
    """The wrapper that turns a space into a supported one, as a sentence; empty where there is none."""
    if not isinstance(obs, gymnasium.Space) or not obs.is_np_flattenable:
        return ''
    image = isinstance(obs, gymnasium.spaces.Box) and len(obs.shape) > 1
    also = ' (the nets have no convolutions, so compute features from large images first)' if image else ''
    return f'. Wrap it in gymnasium.wrappers.FlattenObservation{also}: {RECIPES}'


def describe(space: Any) -> str:
    """A space in a few words (a Box's bounds can be pages long)."""
    if isinstance(space, gymnasium.spaces.Box):
        return f'Box of shape {space.shape}, {space.dtype}'
    text = ' '.join(str(space).split())
    return text if len(text) <= 120 else text[:117] + '...'


_NUMBERS = {float, int, np.float64, np.float32}


def as_real(x: Any) -> float:
    """One real number as a float; TypeError for words, complex numbers and masked values, which float() may take all the same."""
    if type(x) in _NUMBERS:
        return float(x)
    if np.ma.is_masked(x) or isinstance(x, str | bytes | bytearray) or getattr(getattr(x, 'dtype', None), 'kind', 'f') not in 'biufO':
        raise TypeError('expected a real number')
    return float(x)


def as_end(x: Any) -> bool:
    """True or False, as a 0 or 1 of any type too; TypeError for all else, the truth of which says nothing."""
    if x is True or x is False or type(x) is np.bool_:
        return bool(x)
    value = as_real(x.item() if getattr(x, 'shape', None) == (1,) else x)
    if value not in (0, 1):
        raise TypeError('expected True or False')
    return bool(value)


def as_reals(x: Any) -> np.ndarray:
    """Anything array-like as a float64 array of its own; an error for words, complex numbers, dates and masked values."""
    if type(x) is not np.ndarray or x.dtype.kind not in 'biuf':
        x = as_array(x, 'it')
        if x.dtype.kind == 'O':  # a row of a table, say
            x = np.array([as_real(value) for value in x.ravel()]).reshape(x.shape)
        if x.dtype.kind not in 'biuf':
            raise TypeError('expected real numbers')
    return np.array(x, dtype=np.float64)


def ignores_seed(env: Any) -> bool:
    """Whether `reset(seed)` does not decide how an episode starts: equal seeds start otherwise, or every start has a seed of its own.

    Resets the environment, which should not be played any more. False where a reset fails: that is said where it is played.
    """
    try:
        first, again, other = (as_reals(env.reset(seed=seed)[0]) for seed in (1, 1, 2))
        used = getattr(env.unwrapped, '_np_random_seed', None)
    except FAILURES:
        return False
    # Gymnasium keeps the seed that its own reset got: None if that was never called, -1 for a generator of the user's
    return not np.array_equal(first, again, equal_nan=True) or (np.array_equal(first, other, equal_nan=True) and used not in (None, -1, 2))
