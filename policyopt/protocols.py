"""What a reward function and an optimiser must offer to be trained, saved and continued like those that are here.

Letters: B policy rows, Bex expert rows, Do, Da observation and action dims.
"""

from typing import Any, Protocol

Fields = list[tuple[str, Any, type]]  # columns of the log: (name, value or None, int or float), the same at every iteration


class Reward(Protocol):
    """A reward function that is learned from expert pairs, for `imitation.ImitationOptimizer`; named in a row of algorithms.py."""

    @classmethod
    def from_options(cls, args, mdp, expert, time_scale, nets) -> 'Reward':
        """Build it.

        args: the options of imitate_mj.py. mdp: the task. expert: (obs_Bex_Do, a_Bex_Da, t_Bex). time_scale: 1 / steps of an episode
        at most. nets: rng, dtype and device for parameters; whatever is random must come from `rng`.
        """

    def compute_reward(self, obs_B_Do, a_B_Da, t_B):
        """Rewards of pairs, a numpy array (B,)."""

    def fit(self, obs_B_Do, a_B_Da, t_B, exobs_Bex_Do, exa_Bex_Da, ext_Bex, excount_Bex=None) -> tuple[Fields, Any]:
        """Learn from one batch and as many expert pairs, of which row i was drawn excount_Bex[i] times (None: once each).

        Returns (fields of the log, rewards (B,) of the batch under what was learned).
        """

    def update_inputnorm(self, obs_B_Do, a_B_Da) -> None:
        """Let the normaliser of the inputs see the expert's pairs, before the first iteration."""

    def export(self) -> dict[str, Any]:
        """{path in a snapshot: numpy array} of parameters and normalisers."""

    def load(self, arrays, where) -> None:
        """Take what `export` gave back; `where` names the file in error messages."""

    def state(self) -> dict[str, Any]:
        """{name that begins with '/': array} of all else that a continued run needs to be the same to the bit."""

    def load_state(self, state) -> None:
        """Take what `state` gave back."""


class Optimizer(Protocol):
    """What `training.Run` iterates, logs, saves and continues.

    The models that it trains are its attributes `policy` and, where it has them, `vf` and `reward`; each has export, load, state and
    load_state as a Reward has. `rng` is the RandomState of all draws that are not sampling.
    """

    policy: Any
    rng: Any
    iteration: int
    total_time: float

    def step(self) -> Fields:
        """One iteration; counts `iteration` up and returns its row of the log."""

    def counters(self) -> dict[str, Any]:
        """{name: number or array} of all else that a continued run needs."""

    def load_counters(self, state) -> None:
        """Take what `counters` gave back."""
