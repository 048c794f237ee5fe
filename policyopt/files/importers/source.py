"""The Source that every reader of demonstrations returns, and functions that several readers use.

Letters: B trajectories, T steps of a trajectory, N steps of all, Do observation dim, Da action dim.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from policyopt.errors import RunFailed, UserError, printable
from policyopt.files.ends import Episode, numeric
from policyopt.trajectories import TrajBatch

if TYPE_CHECKING:
    from policyopt.environments.rlgymenv import EnvInfo

NAMES = {  # the names of these arrays in files of other programs
    'obs': ('obs', 'observations', 'states', 'observation', 'state'),
    'acts': ('acts', 'actions', 'acs', 'action', 'act'),
    'rews': ('rews', 'rewards', 'reward', 'rew'),
    'next_obs': ('next_obs', 'next_observations', 'next_states', 'next_observation', 'next_state'),
}


@dataclass(frozen=True)
class ReadOptions:
    """Options for sources that can be read in several ways.

    download: fetch a Minari data set that is not on this computer.
    ends: the arrays that say where episodes end ("terminals,timeouts"), if others contradict them.
    time_axis: 0 or 1, which of the first two axes is the time, if an environment's episodes follow each other along it.
    obs_keys: which parts of an observation to use, in this order.
    """

    download: bool = False
    ends: str | None = None
    time_axis: int | None = None
    obs_keys: tuple[str, ...] | None = None


@dataclass
class Source:
    """What was read from a source: its format, its episodes, the names of the arrays that were used and not used, and notes."""

    format: str
    episodes: list[Episode]
    used: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    env_name: str | None = None


def refuse_options(where: str, options: ReadOptions, *names: str) -> None:
    """Raise UserError if one of these options is given; the format of this source does not use them."""
    for name in names:
        if getattr(options, name) is not None:
            raise UserError(f'{where}: --{name} does not apply to this format; leave it out')


def in_order(name: str) -> list[Any]:
    """A key for sorting names by the numbers in them: obs2 before obs10."""
    return [int(part) if part.isdecimal() and part.isascii() else part for part in re.split(r'([0-9]+)', name)]


def files_in(folder: str, suffix: str) -> list[str]:
    """The names of the files in a folder with this suffix, 2 before 10."""
    names = [n for n in os.listdir(folder) if n.lower().endswith(suffix) and not os.path.isdir(os.path.join(folder, n))]
    return sorted(names, key=in_order)


def read_files(source: str, suffix: str, read: Callable[[str, bool], tuple[Source, list[str]]]) -> Source:
    """The episodes of a file, or of the files in a folder in the order of their names (2 before 10).

    read: (path, whether it is in a folder) → (what the file holds, names that must be the same in all files of a folder).
    """
    if not os.path.isdir(source):
        return read(source, False)[0]
    names = files_in(source, suffix)
    found, arrays = zip(*(read(os.path.join(source, name), True) for name in names), strict=True)
    for name, mine in zip(names, arrays, strict=True):
        if mine != arrays[0]:
            odd = sorted(set(mine) ^ set(arrays[0])) or mine
            seen = f'differs from {names[0]} in {", ".join(odd)}'
            raise UserError(f'{os.path.join(source, name)}: {seen}; expected the same arrays or columns in every file, in the same order')
    used, unused, notes = (list(dict.fromkeys(x for one in found for x in getattr(one, kind))) for kind in ('used', 'unused', 'notes'))
    episodes = [episode for one in found for episode in one.episodes]
    return Source(f'{suffix} files', episodes, used, [name for name in unused if name not in used], notes)


def chosen_parts(where: str, shapes: Mapping[str, tuple[int, ...]], options: ReadOptions) -> list[str]:
    """The parts of an observation that --obs_keys names, or its only part. shapes: {part: shape at one step}."""
    shapes = {name: tuple(map(int, shape)) for name, shape in shapes.items()}
    flat = [name for name, shape in shapes.items() if len(shape) <= 1]
    if options.obs_keys is None and len(shapes) == len(flat) == 1:
        return flat
    has = ', '.join(f'{name or "one part"} {shape}' for name, shape in shapes.items())
    for name in options.obs_keys or ():
        if name not in flat:
            raise UserError(f"{where}: --obs_keys names '{name}', which is no vector among them: the observations have {has}")
    if options.obs_keys is None:
        way = f'Name those to put side by side, in this order: --obs_keys {",".join(flat)}' if flat else 'None of them is a vector'
        raise UserError(f'{where}: observations have the parts {has}. {way}')
    return list(options.obs_keys)


def joined(where: str, parts: Sequence[Any]) -> np.ndarray:
    """Concatenate the parts (T,) or (T, n) of observations to (T, Do)."""
    arrays = [numeric(where, 'observations', x) for x in parts]
    columns = [x[:, None] if x.ndim == 1 else x for x in arrays]
    if any(x.ndim != 2 or len(x) != len(columns[0]) for x in columns):
        shapes = ', '.join(str(x.shape) for x in arrays)
        raise UserError(f'{where}: parts of the observations have the shapes {shapes}; expected as many steps, and vectors')
    return np.concatenate(columns, axis=1)


def described(found: Source, trajs: TrajBatch) -> str:
    """A summary, in lines, of what was read from a source."""

    def spread(x: np.ndarray) -> str:
        return f'{x.min():.6g} to {x.max():.6g}, median {np.median(x):.6g}'

    def span(x: np.ndarray) -> str:
        return f'{x.min():.4g} to {x.max():.4g}'

    ended = [e.terminated for e in found.episodes]
    kinds = [f'{ended.count(value)} {name}' for value, name in ((True, 'terminated'), (False, 'truncated'), (None, 'of unknown end'))]
    obs_N_Do, a_N_Da = trajs.obs.stacked, trajs.a.stacked
    num_obs, num_a = obs_N_Do.shape[1], a_N_Da.shape[1]
    each = f' (each: {", ".join(map(span, obs_N_Do.T))})' if 1 < num_obs <= 8 else ''
    if a_N_Da.dtype.kind == 'i':
        action = f'integers {a_N_Da.min()} to {a_N_Da.max()}'
    else:
        whole = ', all whole' if num_a == 1 and (a_N_Da == np.rint(a_N_Da)).all() else ''
        action = f'{num_a} numbers, {span(a_N_Da)}{whole}'
    kept = 'kept' if trajs.lastobs_B_Do is not None else 'not known'
    lines = [
        f'format: {found.format}',
        f'used: {", ".join(found.used)}',
        f'not used: {", ".join(found.unused) or "nothing"}',
        f'episodes: {len(trajs)} ({", ".join(kind for kind in kinds if not kind.startswith("0 "))}); after their last actions: {kept}',
        f'lengths: {spread(trajs.lengths)}; returns: {spread(trajs.returns)}',
        f'observations: {num_obs} numbers, {span(obs_N_Do)}{each}',
        f'actions: {action}',
    ]
    return '\n'.join(map(printable, [*lines, *(f'note: {note}' for note in dict.fromkeys(found.notes))]))


def known_task(env_name: str, what: str, force: bool = True) -> EnvInfo | None:
    """The EnvInfo of a task with which the data called `what` are compared.

    Where the task cannot be made on this computer, raises UserError, or with `force` prints a note and returns None.
    """
    from policyopt.environments.rlgymenv import env_info

    try:
        return env_info(env_name)
    except (UserError, RunFailed) as e:
        if not force:
            raise UserError(f'{what}: cannot be compared with its task: {e}; with --force it is stored as it is') from e
        print(printable(f'note: {what}: not compared with a task, because {e}'), file=sys.stderr)
        return None


def check_task(trajs: TrajBatch, env_name: str, what: str, force: bool = True) -> None:
    """Raise UserError, which calls the data `what`, where a task cannot have their observations or actions.

    The task is made for that, and the module of package.module:EnvId is imported. See `known_task` for a task that cannot be made.
    Where the task has a finite action space, actions such as 1.0 are converted to integers.
    """
    info = known_task(env_name, what, force)
    if info is None:
        return
    if misfit := trajs.misfit(info):
        raise UserError(f'{what}: {misfit}; give data of this env, or name theirs')
