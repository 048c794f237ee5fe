"""Policies of other programs in stage 2: `policy: package.module:load` of an algorithm is called with a run's file, whatever is in it.

What it returns has `act(obs)`: an action for one observation, both as the environment has them.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from policyopt.util import RunFailed, UserError

if TYPE_CHECKING:
    from environments.rlgymenv import EnvInfo


def loader(dotted: str, where: str) -> Callable[[str], Any]:
    """The function `package.module:load`, sought in the working folder too; `where` names its place in the YAML file."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a script's own folder stands there instead; last, so that it shadows nothing
    module, _, name = dotted.partition(':')
    try:
        function = getattr(importlib.import_module(module), name, None)
    except Exception as e:  # anything can go wrong in a module of the user's
        raise UserError(f"{where}: '{dotted}' cannot be imported: {type(e).__name__}: {' '.join(str(e).split())}") from e
    if not callable(function):
        raise UserError(f"{where}: '{dotted}': the module '{module}' has no function '{name}'; expected one that loads a policy")
    return function


class ForeignActor:
    """A policy with `act(obs)` as an actor: one observation at a time, no noise of ours, no distributions (Pa = 0)."""

    num_noise, bounds_2_Da = 1, None

    def __init__(self, policy: Any, info: EnvInfo, source: str):
        """info: the EnvInfo of the task; source: what messages call the policy."""
        if not callable(getattr(policy, 'act', None)):
            raise UserError(f'{source}: is of type {type(policy).__name__}; expected an object with act(obs) that returns an action')
        self.policy, self.info, self.source = policy, info, source

    def outputs(self, obs_B_Do: np.ndarray) -> np.ndarray:
        """The actions (B, Da) themselves."""
        return np.array([self._action(obs_Do) for obs_Do in obs_B_Do])

    def _action(self, obs_Do: np.ndarray) -> np.ndarray:
        try:
            action = np.asarray(self.policy.act(obs_Do.copy()))
        except Exception as e:
            raise RunFailed(f'{self.source}: act() failed with {type(e).__name__}: {" ".join(str(e).split())}') from e
        info = self.info
        if info.finite:
            if action.size != 1 or action.dtype.kind not in 'biu' or not 0 <= action.item() < info.num_actions:
                seen = action.tolist() if action.size == 1 else f'an array of shape {action.shape}'
                raise RunFailed(
                    f'{self.source}: act() returned {seen}; env {info.name} takes a whole number from 0 to {info.num_actions - 1}'
                )
            return action.reshape(1).astype(np.int64)
        if action.dtype.kind not in 'biuf' or action.shape not in ((info.a_dim,), (1, info.a_dim)) or not np.isfinite(action).all():
            seen = f'an array of type {action.dtype} and shape {action.shape}'
            raise RunFailed(f'{self.source}: act() returned {seen}; env {info.name} takes {info.a_dim} finite numbers')
        return action.reshape(info.a_dim).astype(np.float64)

    def adist_of(self, out_B_Da: np.ndarray) -> np.ndarray:
        """Nothing is known of its distribution."""
        return np.empty((len(out_B_Da), 0))

    def noise(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """A policy of another program draws its own."""
        return np.empty((num, 1))

    def act(self, out_B_Da: np.ndarray, noise_B_1: np.ndarray | None = None) -> np.ndarray:
        """The actions."""
        return out_B_Da
