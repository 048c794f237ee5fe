"""The protocols of reward functions and optimisers, by which a run trains, saves and continues them.

Letters: B policy rows, Bex expert rows, Do, Da observation and action dims.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

if TYPE_CHECKING:
    from policyopt.torchutil import NetConfig
    from policyopt.trajectories import Batch, Expert

Fields = list[tuple[str, Any, type]]  # columns of the log: (name, value or None, int or float), the same at every iteration


class Reward(Protocol):
    """A reward function that is learned from expert pairs, for `imitation.ImitationOptimizer`; named in a row of algorithms.py.

    uses_transitions: whether the batches must have `transitions`: the next observation of each pair, and log π of its action.
    A reward may also have a method further_fields(), see the function of that name.
    """

    uses_transitions: ClassVar[bool] = False

    @classmethod
    def from_options(cls, args: Any, mdp: Any, expert: Expert, time_scale: float, nets: NetConfig) -> Reward:
        """Build it.

        args: the options of imitate_mj.py. mdp: the task. time_scale: 1 / steps of an episode at most. nets: rng, dtype and device
        of parameters; whatever is random must come from `nets.rng`.
        """
        ...

    def compute_reward(self, batch: Batch) -> np.ndarray:
        """Rewards of pairs, a numpy array (B,)."""
        ...

    def learned(self) -> dict[str, np.ndarray]:
        """{path in a snapshot: numpy array} of all that `learned_reward` needs."""
        ...

    def load_learned(self, arrays: Mapping[str, np.ndarray], where: str) -> None:
        """Take what `learned` gave back; raises UserError, which names `where`, when it does not fit."""

    def learned_reward(self, obs_B_Do: np.ndarray, a_B_Da: np.ndarray, t_B: np.ndarray, terminal_B: np.ndarray | None = None) -> np.ndarray:
        """Rewards (B,) to train another policy on; they do not change any more.

        terminal_B: which pairs lead to a terminal state (None: none does), for rewards that pay for what follows it.
        """
        ...

    def fit(self, batch: Batch, expert: Batch, excount_Bex: np.ndarray | None = None) -> tuple[Fields, np.ndarray]:
        """Learn from one batch and as many expert pairs, of which row i was drawn excount_Bex[i] times (None: once each).

        Returns (fields of the log, rewards (B,) of the batch under what was learned).
        """
        ...

    def update_inputnorm(self, obs_B_Do: np.ndarray, a_B_Da: np.ndarray) -> None:
        """Let the normaliser of the inputs see the expert's pairs, before the first iteration."""

    def export(self) -> dict[str, np.ndarray]:
        """{path in a snapshot: numpy array} of parameters and normalisers."""
        ...

    def load(self, arrays: Mapping[str, np.ndarray], where: str) -> None:
        """Take what `export` gave back; `where` names the file in error messages."""

    def state(self) -> dict[str, np.ndarray]:
        """{name that begins with '/': array} of all else that a continued run needs to be the same to the bit."""
        ...

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take what `state` gave back."""


def uses_transitions(reward: Any) -> bool:
    """Whether a reward function, or its class, sees transitions; one that does not say so sees pairs."""
    return getattr(reward, 'uses_transitions', False)


def further_fields(reward: Any) -> Fields:
    """Return the columns that a reward logs after those of 2016, by a method of this name; none where it has no such method."""
    return reward.further_fields() if hasattr(reward, 'further_fields') else []


class Optimizer(Protocol):
    """What `training.Run` iterates, logs, saves and continues.

    The models that it trains are its attributes `policy` and, where it has them, `vf` and `reward`; each has export, load, state and
    load_state as a Reward has. `rng` is the RandomState of all draws that are not sampling.
    """

    policy: Any
    rng: np.random.RandomState
    iteration: int
    total_time: float

    def step(self) -> Fields:
        """One iteration; counts `iteration` up and returns its row of the log."""
        ...

    def counters(self) -> dict[str, Any]:
        """{name: number or array} of all else that a continued run needs."""
        ...

    def load_counters(self, state: Mapping[str, Any]) -> None:
        """Take what `counters` gave back."""
