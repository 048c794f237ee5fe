"""Gymnasium behind a small interface: tasks to environments, one at a time (SingleEnv) or many in lock-step (VecEnv).

A task is a name; for programs it may also be a function that returns a new gymnasium.Env, or one such environment, which then plays
one episode after the other and is never closed here.

Letters: K slots in one call, Do observation dim, Da action storage dim (1 for finite actions).
Observations, rewards and continuous actions are float64; finite actions int64; done = terminated or truncated.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, find_highest_version, get_env_id, parse_env_id

from policyopt.arguments import shown
from policyopt.environments import classic_vec, legacy
from policyopt.environments.checks import (
    SUPPORTED,
    as_end,
    as_real,
    as_reals,
    check_name,
    check_spaces,
    exits_raise,
    failing_as,
    ignores_seed,
)
from policyopt.errors import FAILURES, RunFailed, UserError, closest, reason_of

Task = str | gymnasium.Env | Callable[[], gymnasium.Env]

_SEALS_MUJOCO = ('Swimmer', 'HalfCheetah', 'Hopper', 'Walker2d', 'Ant')
# the dynamics that we have as numpy, by the class that they were copied from
_OWN_DYNAMICS = {
    'gymnasium.envs.classic_control.cartpole:CartPoleEnv': 'classic_vec:CartPoleVec',
    'gymnasium.envs.classic_control.mountain_car:MountainCarEnv': 'classic_vec:MountainCarVec',
    'policyopt.environments.legacy:LegacyAcrobotEnv': 'classic_vec:LegacyAcrobotVec',
    'seals.classic_control:FixedHorizonCartPole': 'classic_vec:SealsCartPoleVec',
    'seals.classic_control:mountain_car': 'classic_vec:SealsMountainCarVec',
    **{legacy.mujoco_entry_point(task): f'mujoco_vec:{task}Vec' for task in legacy.MUJOCO_TASKS},
    **{f'seals.mujoco:{task}Env': f'mujoco_vec:{task}Vec' for task in _SEALS_MUJOCO},
}
_SEALS = 'seals:seals/'
_OURS = 'environments'  # the name that this package has at the top of a checkout


@dataclasses.dataclass(frozen=True)
class EnvInfo:
    """What the rest of the program needs to know of a task.

    name as given, id as gymnasium knows it, num_actions 0 for continuous actions, a_dim the action storage dims
    (1 for finite actions), time_limit None when episodes are unlimited; a_low and a_high the corners of the action box,
    None where an action is finite or a side is open; copies: whether the task can be played in several environments at once.
    """

    name: str
    id: str
    obs_dim: int
    num_actions: int
    a_dim: int
    time_limit: int | None
    a_low: tuple[float, ...] | None = None
    a_high: tuple[float, ...] | None = None
    copies: bool = True

    @property
    def finite(self) -> bool:
        return self.num_actions > 0


@functools.cache
def _print_once(text: str) -> None:
    if multiprocessing.parent_process() is None:  # in a worker process it would be printed again
        print(text, file=sys.stderr)


def _join_user_package() -> None:
    """Add a folder environments/ of the working folder to the package of that name, which a checkout has too."""
    here = os.path.abspath(_OURS)
    if os.path.isdir(here):
        sys.path.insert(0, os.getcwd())
        try:
            package = importlib.import_module(_OURS)
        finally:
            sys.path.remove(os.getcwd())
        if here not in package.__path__:
            package.__path__.append(here)


def _import_user_module(name: str, module: str) -> None:
    """Import the module part of 'package.module:EnvId', looking in the working folder too."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a script's own folder stands there instead; last, so that it shadows nothing
    try:
        if module.partition('.')[0] == _OURS:
            _join_user_package()
        with exits_raise():
            importlib.import_module(module)
    except FAILURES as e:
        if isinstance(e, ModuleNotFoundError) and e.name and (module == e.name or module.startswith(e.name + '.')):
            extra = '; it is installed by pip install -e .[seals]' if module == 'seals' else ''
            raise UserError(
                f"env '{name}': there is no module '{module}' in the working folder ({os.getcwd()}) or among the installed packages{extra}"
            ) from e
        raise UserError(f"env '{name}': importing the module '{module}' failed with {reason_of(e)}") from e


def _find_spec(name: str) -> EnvSpec:
    """The registered gymnasium spec of a name: as it is, as `legacy/<name>`, or from the user's module.

    Gymnasium's own look-up is not used: it warns of every id that has a newer version, and ours are old on purpose.
    """
    check_name(name)
    module, _, env_id = str(name).rpartition(':')
    if module:
        _import_user_module(name, module)
    try:
        spec = _look_up(env_id)
    except gymnasium.error.Error as e:
        raise UserError(f"env '{name}' is no valid id: expected [package.module:][namespace/]Name-vN, e.g. CartPole-v0") from e
    if spec is not None:
        if spec.id != env_id:
            _print_once(f"env '{name}': using {spec.id}")
        return spec
    known = dict.fromkeys(x for full in gymnasium.registry for x in (full, full.removeprefix(f'{legacy.NAMESPACE}/')))
    hint = closest(env_id, known) or ' A task of your own is named package.module:EnvId.'
    if needs_seals(f'seals:{name}'):  # the package's own name for it; known once the package is imported
        hint = f" Did you mean 'seals:{name}'?"
    where = f"the module '{module}' registers no env '{env_id}'" if module else 'no such environment is registered'
    raise UserError(f"env '{name}': {where}.{hint}")


def _look_up(env_id: str) -> EnvSpec | None:
    """The spec of an id as it is, as `legacy/<id>`, or of the newest version when it names none; else None.

    Raises: gymnasium.error.Error when it is no id at all.
    """
    registry = gymnasium.registry
    for known in (env_id, f'{legacy.NAMESPACE}/{env_id}'):
        if known in registry:
            return registry[known]
    namespace, base, version = parse_env_id(env_id)
    latest = find_highest_version(namespace, base) if version is None else None
    return None if latest is None else registry[get_env_id(namespace, base, latest)]


def _missing_module(e: BaseException | None) -> str | None:
    """The name of the module whose absence led to an exception, or None."""
    while e is not None:
        if isinstance(e, ModuleNotFoundError):
            return e.name
        e = e.__cause__ or e.__context__
    return None


def _make(name: Task, render_mode: str | None = None) -> gymnasium.Env:
    """The gymnasium environment of a task; raises UserError for whatever goes wrong in making it."""
    if not isinstance(name, str):
        return _env_of(name)
    spec = _find_spec(name)
    render: dict[str, Any] = {} if render_mode is None else {'render_mode': render_mode}
    try:
        with exits_raise(), warnings.catch_warnings():
            if needs_seals(name):  # the bounds of its CartPole are cast to float32
                warnings.filterwarnings('ignore', message='.*precision lowered by casting')
            # a spec, not an id: see _find_spec. Our own checks replace the passive checker, which warns and costs time.
            return gymnasium.make(spec, disable_env_checker=True, **render)
    except FAILURES as e:
        if _missing_module(e) in ('mujoco', 'glfw', 'imageio'):  # gymnasium's MuJoCo tasks import all three
            raise UserError(f"env '{name}' needs MuJoCo: pip install -e .[mujoco]") from e
        raise UserError(f"env '{name}' could not be made: {reason_of(e)}") from e


def _env_of(task: Any) -> gymnasium.Env:
    """An environment from a function, or the one that is given."""
    env = task
    if not isinstance(task, gymnasium.Env):
        if not callable(task):
            raise UserError(f'env is {task!r}; expected an id, a gymnasium.Env, or a function that returns a new one')
        with failing_as(UserError, f'env: calling {_name_of(task)}() failed'):
            env = task()
    if not isinstance(env, gymnasium.Env):
        raise UserError(f'env: {_name_of(task)}() returned {env!r}; expected a new gymnasium.Env')
    return env


def _name_of(task: Any) -> str:
    """What a task is called: an environment's id if it has one, else the name of its class or of the function."""
    if isinstance(task, gymnasium.Env):
        if task.spec is not None and not (hasattr(task.spec, 'id') and hasattr(task.spec, 'max_episode_steps')):
            what = f'{type(task.spec).__name__} ({str(task.spec)[:40]})'
            raise UserError(f"env '{type(task).__name__}' has a spec of type {what}; expected an EnvSpec of Gymnasium, or None")
        return task.spec.id if task.spec is not None else type(task.unwrapped).__name__
    return str(getattr(task, '__name__', type(task).__name__))


def _close(env: gymnasium.Env, name: str) -> None:
    with failing_as(RunFailed, f"env '{name}' failed in close()"):
        env.close()


def needs_mujoco(name: str) -> bool:
    """Whether a name is a MuJoCo task of gymnasium, seals or ours. Does not make the task, nor import mujoco or seals.

    False for unknown names and for tasks of the user's own modules, even if these need MuJoCo.
    """
    if needs_seals(name):
        return name.removeprefix(_SEALS).removesuffix('-v1') in (*_SEALS_MUJOCO, 'Humanoid')
    try:
        spec = _look_up(name)
    except gymnasium.error.Error:
        return False
    return spec is not None and str(spec.entry_point).startswith(('gymnasium.envs.mujoco', 'policyopt.environments.legacy_mujoco'))


def needs_seals(name: str) -> bool:
    """Whether a name is a task of the package seals. Does not import it."""
    return name.startswith(_SEALS)


def env_info(task: Task) -> EnvInfo:
    """The EnvInfo of a task; makes an environment to read its spaces, of a name once per process.

    Raises: UserError, or RunFailed where close() fails.
    """
    what = f"env '{task}'" if isinstance(task, str) else 'env: what was given as an environment'
    with failing_as(UserError, f'{what} failed', f'; {SUPPORTED}'):
        return _info_of_name(task) if isinstance(task, str) else _info_of(task)


def _info_of(task: Any) -> EnvInfo:
    env = _make(task)
    is_given = env is task  # an environment itself: it cannot be made again, and its owner closes it
    if isinstance(task, str):
        name = str(task)
    else:
        name = _name_of(env if isinstance(task, gymnasium.Env) or env.spec is not None else task)
    try:
        info = _info(name, env, copies=not is_given)
        is_ours = isinstance(task, str) and own_dynamics(info) is not None
        if info.copies and not is_ours and multiprocessing.parent_process() is None and ignores_seed(env):
            _print_once(
                f"warning: env '{info.name}': reset() ignores its seed, so equal seeds give other runs, and environments that are played "
                'together may be copies of each other; call super().reset(seed=seed) and draw from self.np_random'
            )
        return info
    finally:
        if not is_given:
            _close(env, name)


_info_of_name = functools.cache(_info_of)


def _info(name: str, env: gymnasium.Env, copies: bool) -> EnvInfo:
    obs_dim, num_actions, a_dim = check_spaces(name, env)
    spec = env.spec  # of the environment with its wrappers, so the time limit is in it
    if spec is not None:
        env_id, limit = spec.id, spec.max_episode_steps
    else:
        env_id, limit = name, env.get_wrapper_attr('_max_episode_steps') if env.has_wrapper_attr('_max_episode_steps') else None
        limit = limit if isinstance(limit, int | np.integer) else None  # the name may be another thing of the environment's own
    check_name(env_id)
    if limit is not None and (not isinstance(limit, int | np.integer) or isinstance(limit, bool) or limit < 1):
        raise UserError(f"env '{name}' has a time limit of {str(limit)[:40]!r} steps; expected a whole number of 1 or more, or None")
    space: Any = env.action_space
    closed = isinstance(space, gymnasium.spaces.Box) and space.is_bounded()
    return EnvInfo(
        name,
        env_id,
        obs_dim=obs_dim,
        num_actions=num_actions,
        a_dim=a_dim,
        time_limit=None if limit is None else int(limit),
        a_low=tuple(space.low.tolist()) if closed else None,
        a_high=tuple(space.high.tolist()) if closed else None,
        copies=copies,
    )


class SingleEnv:
    """One environment: reset(seed) → obs_Do; step(a_Da) → (obs_Do, r, done); render() → HxWx3 uint8; close().

    cut_short: if the last step was done, whether it was truncated and not terminated. Call the methods within `exits_raise()`.
    Raises: UserError where it cannot be made, RunFailed where it fails later.
    """

    cut_short = False

    def __init__(self, task: Task, render_mode: str | None = None, info: EnvInfo | None = None):
        """render_mode: 'rgb_array' for pictures, 'human' for a window. info: the task's EnvInfo where it is known already."""
        self.info = info or env_info(task)
        if render_mode == 'rgb_array' and sys.platform == 'linux' and not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
            os.environ.setdefault('MUJOCO_GL', 'egl')  # the default, glfw, cannot draw without a screen
        if render_mode is not None:
            os.environ.setdefault('PYGAME_HIDE_SUPPORT_PROMPT', '1')  # it would greet on stdout
        self.env = _make(task, render_mode)
        # environments may check the type; those with a numpy version of ours get float64, as that version does, for equal bits
        ours = isinstance(task, str) and own_dynamics(self.info) is not None
        self._a_dtype = np.float64 if ours or self.info.finite else self.env.action_space.dtype

    def reset(self, seed: int) -> np.ndarray:
        try:
            obs, _ = self.env.reset(seed=int(seed))
        except FAILURES as e:
            raise self._failed('reset', e) from e
        return self._obs('reset', obs)

    def step(self, a_Da: np.ndarray) -> tuple[np.ndarray, float, bool]:
        # a copy, because an environment may change the array that it is given
        a = int(a_Da[0]) if self.info.finite else np.array(a_Da, dtype=self._a_dtype)
        try:
            obs, r, terminated, truncated, _ = self.env.step(a)
        except FAILURES as e:
            raise self._failed('step', e, self._outside(a_Da)) from e
        obs_Do = self._obs('step', obs)
        try:
            is_terminal, is_cut, reward = as_end(terminated), as_end(truncated), as_real(r)
        except _NO_NUMBERS as e:
            parts = f'a reward of {shown(r)}, terminated of {shown(terminated)} and truncated of {shown(truncated)}'
            raise self._wrong('step', f'{parts}; expected a float, a bool and a bool') from e
        self.cut_short = not is_terminal
        return obs_Do, reward, is_terminal or is_cut

    def render(self) -> Any:
        try:
            return self.env.render()
        except FAILURES as e:
            missing = _missing_module(e)
            if missing:
                raise RunFailed(f"env '{self.info.name}' needs '{missing}' for its pictures: pip install -e .[video]") from e
            raise self._failed('render', e) from e

    def close(self) -> None:
        if self.info.copies:
            _close(self.env, self.info.name)

    def _failed(self, method: str, e: BaseException, hint: str = '') -> RunFailed:
        reason = reason_of(e)
        if any(sign in reason for sign in _OLD_API_SIGNS.get(method, ())):
            hint = f'; {_EXPECTED[method]}'
        return RunFailed(f"env '{self.info.name}' failed in {method}() with {reason}{hint}")

    def _wrong(self, method: str, what: str) -> RunFailed:
        return RunFailed(f"env '{self.info.name}': {method}() returned {what}")

    def _outside(self, a_Da: np.ndarray) -> str:
        """A hint where an action is outside the action space, which not every environment accepts."""
        if self.info.a_low is None or (np.greater_equal(a_Da, self.info.a_low) & np.less_equal(a_Da, self.info.a_high)).all():  # pyright: ignore
            return ''
        return f'; the action {np.round(a_Da, 3).tolist()} is outside the action space: --clip_actions 1 clips it'

    def _obs(self, method: str, obs: Any) -> np.ndarray:
        try:
            obs_Do = as_reals(obs)
        except _NO_NUMBERS as e:
            wanted = f'expected an array of shape ({self.info.obs_dim},) of numbers'
            raise self._wrong(method, f'an observation of {shown(obs)}; {wanted}') from e
        if obs_Do.shape != (self.info.obs_dim,):
            cure = f'; {_EXPECTED[method]}. A number alone is returned as np.array([x])' if obs_Do.shape == () else ''
            what = f'an observation of shape {obs_Do.shape}, but its observation_space has shape ({self.info.obs_dim},){cure}'
            raise self._wrong(method, what)
        return obs_Do


_OLD_API = '. That is the API of gym before 0.26: shimmy.GymV21CompatibilityV0 wraps such an environment'
_OLD_API_SIGNS = {
    'reset': ('unpack (expected 2', 'cannot unpack', "unexpected keyword argument 'seed'"),
    'step': ('unpack (expected 5', 'cannot unpack'),
}
_EXPECTED = {
    'reset': f'expected (observation, info) from reset(self, seed=None, options=None){_OLD_API}',
    'step': f'expected (observation, reward, terminated, truncated, info){_OLD_API}',
}
_NO_NUMBERS = (UserError, TypeError, ValueError, OverflowError, RuntimeError)  # of as_reals and the like; RuntimeError of tensors


class LoopVecEnv(classic_vec.VecEnv):
    """Any task as a VecEnv: one environment per slot, stepped one after the other.

    Where fewer can be made than asked for, says so once and has fewer slots `available` (results are the same).
    """

    def __init__(self, task: Task, num_slots: int, info: EnvInfo | None = None):
        super().__init__(num_slots)
        self._info = info or env_info(task)
        self._envs: list[SingleEnv] = []
        for slot in range(num_slots):
            try:
                new = SingleEnv(task, info=self._info)
            except UserError as e:
                if slot == 0:
                    raise RunFailed(str(e)) from e
                _print_once(f'{e}; playing in {slot} at a time (--max_envs {slot} does so from the start)')
                self.available = slot
                break
            if any(env.env is new.env for env in self._envs):
                raise RunFailed(f"env '{self._info.name}' returned the same environment twice; return a new one")
            self._envs.append(new)

    def reset(self, slots_K: np.ndarray, seeds_K: Sequence[int]) -> np.ndarray:
        with exits_raise():
            return np.array([self._envs[slot].reset(seed) for slot, seed in zip(slots_K, seeds_K, strict=True)])

    def step(self, slots_K: np.ndarray, a_K_Da: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        K = len(slots_K)
        obs_K_Do, r_K, done_K = np.empty((K, self._info.obs_dim)), np.empty(K), np.empty(K, dtype=bool)
        with exits_raise():  # here, not in SingleEnv.step: it costs more than a microsecond
            for k, slot in enumerate(slots_K):
                obs_K_Do[k], r_K[k], done_K[k] = self._envs[slot].step(a_K_Da[k])
        return obs_K_Do, r_K, done_K

    def cut_short(self, slots_K: np.ndarray) -> np.ndarray:
        return np.array([self._envs[slot].cut_short for slot in slots_K], dtype=bool)

    def close(self) -> None:
        for env in self._envs:
            env.close()


def make_vec_env(name: Task, num_slots: int, info: EnvInfo | None = None) -> classic_vec.VecEnv:
    """`num_slots` copies in lock-step: our own batched tasks where we have them, else a loop over gymnasium environments.

    info: the task's EnvInfo where it is known already. Raises: UserError, RunFailed.
    """
    info = info or env_info(name)
    own = own_dynamics(info) if isinstance(name, str) else None
    if own is None:
        return LoopVecEnv(name, num_slots, info)
    module, _, vec_class = own.partition(':')
    make = getattr(importlib.import_module(f'policyopt.environments.{module}'), vec_class)  # now, because mujoco is an extra
    return make(_make(name).unwrapped, num_slots) if pays_in_processes(info) else make(num_slots)


def pays_in_processes(info: EnvInfo) -> bool:
    """Whether a step of a registered task costs enough to be worth a process of its own."""
    return not (own_dynamics(info) or '').startswith('classic_vec')


def own_dynamics(info: EnvInfo) -> str | None:
    """'module:class' of a registered task whose dynamics we have as numpy, else None."""
    spec = gymnasium.registry[info.id]
    is_plain = isinstance(spec.entry_point, str) and not spec.kwargs and not spec.additional_wrappers
    return _OWN_DYNAMICS.get(str(spec.entry_point)) if is_plain else None
