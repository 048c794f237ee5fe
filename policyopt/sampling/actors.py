"""Policies in numpy alone, to step environments with: light enough for worker processes that never load torch.

Letters: B rows, K alternatives, Do observation dim, Da action storage dim, Dn noise dim, Pa distribution parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from policyopt.arguments import as_array, kind_of, shown
from policyopt.elementwise import tanh_
from policyopt.errors import RunFailed, UserError

if TYPE_CHECKING:
    from policyopt.environments.rlgymenv import EnvInfo

ACTOR_ROWS = 16  # an actor works in blocks of this many rows, so that a row's result does not depend on its neighbours


def sample_categorical(p_B_K: np.ndarray, u_B: np.ndarray) -> np.ndarray:
    """Inverse-CDF samples from rows of probabilities and uniforms in [0, 1); both may be scaled by a number per row."""
    # the last probability is not needed: numbers above all other sums belong to it
    return np.add.reduce(np.add.accumulate(p_B_K[:, :-1], axis=1) < u_B[:, None], axis=1)


class AnyActor:
    """What a rollout needs of a policy; by itself, one whose outputs are its distribution, and that draws nothing.

    num_noise: columns Dn of its noise. bounds_2_Da: what actions are clipped to when played.
    """

    num_noise = 0
    bounds_2_Da: np.ndarray | None = None

    def begin_episode(self) -> None:
        """Forget the episode before, where one is played after the other."""

    def outputs(self, obs_B_Do: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def adist_of(self, out_B_K: np.ndarray) -> np.ndarray:
        """Distribution parameters (B, Pa) from `outputs`."""
        return out_B_K

    def adist(self, obs_B_Do: np.ndarray) -> np.ndarray:
        """Distribution parameters (B, Pa)."""
        return self.adist_of(self.outputs(obs_B_Do))

    def noise(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """The randomness of `num` actions in a row, (num, num_noise)."""
        return np.empty((num, 0))

    def act(self, out_B_K: np.ndarray, noise_B_Dn: Any = None) -> np.ndarray:
        """Actions (B, Da) from `outputs` and noise; without noise the most likely one, where there is such a thing."""
        raise NotImplementedError

    def act_by(self, adist_B_Pa: np.ndarray, noise_B_Dn: Any = None) -> np.ndarray:
        """Actions from distribution parameters; in `Actor`, log-probabilities serve as scores, and means come first."""
        return self.act(adist_B_Pa, noise_B_Dn)


class Actor(AnyActor):
    """A policy frozen into numpy: distributions and actions for small batches of observations, without torch's overhead per call.

    It can be pickled to worker processes. Rows are evaluated in batches padded to a multiple of ACTOR_ROWS, because matrix
    products of other shapes may round otherwise: so an action depends on its observation and noise alone.
    """

    def __init__(
        self,
        layers: list,
        mean: np.ndarray | None,
        scale: np.ndarray | None,
        stdev: np.ndarray | None,
        bounds_2_Da: np.ndarray | None = None,
    ):
        """layers: [((W, b) or None, activation name or None)]; mean, scale (1, Do) or None; stdev (Da,), None for finite actions."""
        self.layers, self.mean, self.scale, self.bounds_2_Da = layers, mean, scale, bounds_2_Da
        self.stdev: Any = stdev
        self.finite = stdev is None
        self.num_noise = 1 if stdev is None else len(stdev)
        self.dtype, self.num_outputs = layers[-1][0][0].dtype, layers[-1][0][0].shape[1]

    def outputs(self, obs_B_Do: np.ndarray) -> np.ndarray:
        """Outputs of the net, (B, K): scores of finite actions, means of continuous ones."""
        num = len(obs_B_Do)
        h = np.zeros((-(-num // ACTOR_ROWS) * ACTOR_ROWS, obs_B_Do.shape[1]), self.dtype)
        # in float64, before a net of float32 rounds it
        h[:num] = obs_B_Do if self.mean is None else (obs_B_Do - self.mean) / self.scale
        for affine, act in self.layers:
            if affine is not None:
                # block by block: BLAS takes another kernel, which rounds otherwise, for larger products
                h = np.matmul(h.reshape(-1, ACTOR_ROWS, h.shape[1]), affine[0]).reshape(len(h), affine[0].shape[1])
                h += affine[1]
            if act is not None:
                _NUMPY_ACTIVATIONS[act](h)
        return h[:num]

    def adist_of(self, out_B_K: np.ndarray) -> np.ndarray:
        if not self.finite:
            return np.concatenate([out_B_K, np.broadcast_to(self.stdev, out_B_K.shape)], axis=1)
        out_B_K = out_B_K - out_B_K.max(axis=1, keepdims=True)
        return out_B_K - np.log(np.exp(out_B_K).sum(axis=1, keepdims=True))

    def noise(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Uniforms for finite actions, normals for continuous ones."""
        return rng.random((num, 1)) if self.finite else rng.standard_normal((num, self.num_noise))

    def act(self, out_B_K: np.ndarray, noise_B_Dn: np.ndarray | None = None) -> np.ndarray:
        if self.finite:
            if noise_B_Dn is None:
                return out_B_K.argmax(axis=1)[:, None]
            weight_B_K = np.exp(out_B_K - np.maximum.reduce(out_B_K, axis=1, keepdims=True))
            return sample_categorical(weight_B_K, noise_B_Dn[:, 0] * np.add.reduce(weight_B_K, axis=1))[:, None]
        mean = out_B_K[:, : self.num_noise].astype(np.float64)
        return mean if noise_B_Dn is None else mean + self.stdev * noise_B_Dn


def _asked(function: Any, *args: Any, **kwargs: Any) -> Any:
    """What a function of the user's returns; its SystemExit is a failure, and does not end this process as if all were well."""
    try:
        return function(*args, **kwargs)
    except SystemExit as e:
        raise RunFailed(f'{getattr(function, "__name__", type(function).__name__)} exited with {e.code!r}; expected actions') from e


_LARGEST = np.finfo(np.float32).max  # an environment may get an action in single precision


class GivenActions(AnyActor):
    """What actors share whose actions come from elsewhere: these are distribution and action at once."""

    def __init__(self, info: EnvInfo):
        self.num_actions, self.a_dim = info.num_actions, info.a_dim

    def act(self, out_B_K: np.ndarray, noise_B_Dn: Any = None) -> np.ndarray:
        return out_B_K.astype(np.int64) if self.num_actions else out_B_K

    def actions(self, said: np.ndarray, num: int) -> np.ndarray | None:
        """What was said as float64 (num, Da), or None where it is not `num` actions of the task."""
        n = self.num_actions
        if said.dtype.kind not in 'biuf' or said.size != num * self.a_dim or not (np.abs(said) <= _LARGEST).all():
            return None
        if n and ((said != np.floor(said)).any() or not 0 <= said.min() <= said.max() < n):
            return None
        return said.reshape(num, self.a_dim).astype(np.float64)


class FunctionActor(GivenActions):
    """Any function obs_B_Do → a_B_Da as an actor. What it returns is both its distribution and its action.

    Finite actions are integers, as (B,) or (B, 1). Raises UserError when it returns anything but B actions of the task.
    """

    def __init__(self, function: Callable[[np.ndarray], Any], info: EnvInfo):
        super().__init__(info)
        self.function = function

    def outputs(self, obs_B_Do: np.ndarray) -> np.ndarray:
        said, num, n = as_array(_asked(self.function, obs_B_Do.copy()), 'what the expert returned'), len(obs_B_Do), self.num_actions
        if n:
            is_fit = said.dtype.kind in 'iu' and said.shape in ((num,), (num, 1))
        else:
            is_fit = said.shape == (num, self.a_dim)
        a_B_Da = self.actions(said, num) if is_fit else None
        if a_B_Da is None:
            wanted = f'{num} integers from 0 to {n - 1}' if n else f'finite numbers of shape ({num}, {self.a_dim})'
            raise UserError(f'the expert returned {shown(said)} for {num} observations; expected {wanted}')
        return a_B_Da


class PlayerActor(GivenActions):
    """A model, a controller or a function as an actor that plays one episode at a time.

    Calls `predict` (of Stable-Baselines3: with its state, episode_start and deterministic), else `act`, else the object itself, with one
    observation (Do,); what does not take that, as a model of scikit-learn, gets a batch (1, Do).
    """

    def __init__(self, player: Any, info: EnvInfo, deterministic: bool):
        """Raises UserError for a policy that has none of these."""
        self.call: Any = next(filter(callable, (getattr(player, 'predict', None), getattr(player, 'act', None), player)), None)
        if self.call is None or isinstance(player, type):
            what = 'a class' if isinstance(player, type) else kind_of(player)
            raise UserError(f'policy is {what}; give a Policy, an object with predict or act, or a function obs → action')
        self.name = getattr(player, '__name__', type(player).__name__)
        try:
            self.takes = set(inspect.signature(self.call).parameters)
        except (TypeError, ValueError):  # what is not written in Python may have none
            self.takes = set()
        super().__init__(info)
        self.deterministic = deterministic
        self.batched = self.state = None
        self.begin_episode()

    def begin_episode(self) -> None:
        self.state, self.first = None, True

    def outputs(self, obs_B_Do: np.ndarray) -> np.ndarray:
        known = {'state': self.state, 'episode_start': np.array([self.first]), 'deterministic': self.deterministic}
        known = {name: value for name, value in known.items() if name in self.takes}
        said, failed = None, None
        for batched in (False, True) if self.batched is None else (self.batched,):
            try:
                said = _asked(self.call, (obs_B_Do if batched else obs_B_Do[0]).copy(), **known)
            except (IndexError, TypeError, ValueError, RuntimeError) as e:  # of a batch's function that got one observation
                if self.batched is not None:
                    raise
                failed = failed or e
                continue
            if isinstance(said, tuple) and len(said) == 2 and 'state' in self.takes:
                said, self.state = said
            a_1_Da = self._action(said)
            if a_1_Da is not None:
                self.batched, self.first = batched, False
                return a_1_Da
        if failed is not None and said is None and hasattr(self.call, 'forward'):
            way = 'give a Policy itself, or a function such as lambda obs: module(torch.as_tensor(obs))'
            raise UserError(f'policy is a torch module, {self.name}, that failed on an array of numpy ({failed}); {way}') from failed
        if failed is not None and said is None:
            raise failed
        wanted = f'an integer from 0 to {self.num_actions - 1}' if self.num_actions else f'{self.a_dim} finite numbers'
        raise UserError(f'{self.name} returned {shown(said)} for one observation; expected {wanted}')

    def _action(self, said: Any) -> np.ndarray | None:
        """The action as (1, Da), or None where it is none of this task."""
        try:
            a = as_array(said, 'the action')
        except UserError:
            return None
        return self.actions(a, 1) if a.shape in ((), (self.a_dim,), (1, self.a_dim)) else None


class MixtureActor(AnyActor):
    """At every step the expert acts with probability β, else the learner (Ross et al. 2011, Algorithm 3.1); `adist` is the expert's."""

    def __init__(self, learner: Actor, expert: AnyActor, beta: float):
        self.learner, self.expert, self.beta = learner, expert, beta
        self.num_noise, self.bounds_2_Da = 1 + learner.num_noise + expert.num_noise, learner.bounds_2_Da

    def outputs(self, obs_B_Do: np.ndarray) -> np.ndarray:
        """The outputs of the learner, then those of the expert, as columns."""
        return np.concatenate([self.learner.outputs(obs_B_Do), self.expert.outputs(obs_B_Do)], axis=1)

    def adist_of(self, out_B_K: np.ndarray) -> np.ndarray:
        return self.expert.adist_of(out_B_K[:, self.learner.num_outputs :])

    def noise(self, rng: np.random.Generator, num: int) -> np.ndarray:
        return np.concatenate([rng.random((num, 1)), self.learner.noise(rng, num), self.expert.noise(rng, num)], axis=1)

    def act(self, out_B_K: np.ndarray, noise_B_Dn: Any = None) -> np.ndarray:
        coin_B_1, learner_noise, expert_noise = np.split(noise_B_Dn, [1, 1 + self.learner.num_noise], axis=1)
        learner_out, expert_out = np.split(out_B_K, [self.learner.num_outputs], axis=1)
        return np.where(coin_B_1 < self.beta, self.expert.act(expert_out, expert_noise), self.learner.act(learner_out, learner_noise))


class RandomActor(AnyActor):
    """The policy that the paper calls random: finite actions equally likely, continuous ones uniform in the action box.

    Standard normal where a continuous action has no bounds. Its distributions have no parameters to record (Pa = 0).
    Original: not part of the code; found by what the paper's random returns are (Reacher −43, HalfCheetah −282).
    """

    def __init__(self, info: EnvInfo, a_max: float | None = None):
        """info: the EnvInfo of a task. a_max: uniform in ±a_max instead."""
        self.num_actions, self.num_noise = info.num_actions, info.a_dim
        low, high = (info.a_low, info.a_high) if a_max is None else (np.full(info.a_dim, -a_max), np.full(info.a_dim, a_max))
        self.low_high = None if low is None else (np.array(low), np.array(high))

    def outputs(self, obs_B_Do: np.ndarray) -> np.ndarray:
        return np.empty((len(obs_B_Do), 0))

    def noise(self, rng: np.random.Generator, num: int) -> np.ndarray:
        bounded = self.num_actions or self.low_high
        return rng.random((num, self.num_noise)) if bounded else rng.standard_normal((num, self.num_noise))

    def act(self, out_B_K: np.ndarray, noise_B_Dn: Any = None) -> np.ndarray:
        if self.num_actions:
            return (noise_B_Dn * self.num_actions).astype(np.int64)
        if self.low_high is None:
            return noise_B_Dn
        low, high = self.low_high
        return low + (high - low) * noise_B_Dn


def _elu_(h: np.ndarray) -> None:
    h[:] = np.where(h > 0, h, np.expm1(np.minimum(h, 0)))


_NUMPY_ACTIVATIONS = {  # in place
    'tanh': tanh_,
    'relu': lambda h: np.maximum(h, 0, out=h),
    'lrelu': lambda h: np.maximum(h, h.dtype.type(0.01) * h, out=h),
    'elu': _elu_,
}
