"""Read and write Minari data sets, with the package minari."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from policyopt.arguments import kind_of
from policyopt.errors import UserError
from policyopt.files.ends import Episode
from policyopt.files.importers.source import ReadOptions, Source, check_task, chosen_parts, joined, refuse_options
from policyopt.trajectories import TrajBatch


def _minari() -> Any:
    try:
        import minari  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError as e:
        raise UserError(f"Minari data sets need the package minari ({e}); install it: pip install -e '.[minari]'") from e
    return minari


def read_minari(dataset_id: Any, options: ReadOptions) -> Source:
    """The episodes of a Minari data set, given by its id or as an object, with the observations after the last actions.

    `options.obs_keys` names the parts to use of observations that are dictionaries or tuples.
    """
    dataset = _load(dataset_id, options.download) if isinstance(dataset_id, str) else dataset_id
    if dataset is dataset_id:
        dataset_id = getattr(getattr(dataset, 'spec', None), 'dataset_id', 'the Minari data set')
    if not callable(getattr(dataset, 'iterate_episodes', None)):
        raise UserError(f'dataset is {kind_of(dataset)}; expected the id of a Minari data set, or what minari.load_dataset returned')
    refuse_options(dataset_id, options, 'ends', 'time_axis')
    episodes, used, unused, env = [], [], [], getattr(getattr(dataset, 'env_spec', None), 'id', None)
    try:
        for e in dataset.iterate_episodes():
            where, parts = f'{dataset_id}, episode {e.id}', dict(_parts(e.observations))
            used = chosen_parts(where, {name: np.shape(x)[1:] for name, x in parts.items()}, options)
            unused = [name for name in parts if name not in used]
            obs = joined(where, [parts[name] for name in used])
            episodes.append(Episode(where, obs, e.actions, e.rewards, bool(np.asarray(e.terminations)[-1])))
    except UserError:
        raise
    except Exception as e:  # on damaged files h5py, pyarrow and Minari raise errors of any type
        raise UserError(f'{dataset_id}: Minari cannot read this data set: {e}') from e
    names, unused = ([f'observations/{name}'.rstrip('/') for name in kind] for kind in (used, unused))
    arrays = [*names, 'actions', 'rewards', 'terminations', 'truncations']
    notes = []
    if used != [''] and env:  # its observations are not one vector, as our policies need
        notes, env = [f"recorded in '{env}'; name a task whose observations are these parts, in this order, with --env_name"], None
    return Source('Minari data set', episodes, arrays, unused, notes=notes, env_name=env)


def _load(dataset_id: str, download: bool) -> Any:
    """Load a Minari data set of this computer; with `download`, fetch it if it is not there."""
    minari = _minari()
    try:
        return minari.load_dataset(dataset_id, download=download)
    except FileNotFoundError as e:
        way = 'it is at no remote either' if download else '--download fetches it'
        raise UserError(f'{dataset_id}: no Minari data set of that name on this computer, and no file; {way}') from e
    except ImportError as e:
        raise UserError(f"{dataset_id}: Minari lacks a package to fetch or read it ({e}); install it: pip install -e '.[minari]'") from e
    except Exception as e:  # networks, servers and damaged files cause errors of any type
        seen = ' '.join(str(e).split())[:200] or type(e).__name__
        way = 'check the name and the connection, or copy the folder from a computer that has it to MINARI_DATASETS_PATH'
        raise UserError(f'{dataset_id}: cannot be {"fetched" if download else "read"} ({seen}); {way}') from e


def _parts(x: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """(name, array) of each part of an observation; inner names are joined by a slash. A single array has the name ''."""
    if isinstance(x, dict | tuple):
        for key, inner in x.items() if isinstance(x, dict) else enumerate(x):
            yield from _parts(inner, f'{name}/{key}'.lstrip('/'))
    else:
        yield name, x


def save_minari(trajs: TrajBatch, dataset_id: str, env_id: str) -> Any:
    """Store trajectories as a Minari data set on this computer, for programs that read those.

    If the observation after an episode's last action is not known, the last observation is repeated, and the episode counts as
    truncated, so that no program takes it for a terminal state.

    Args:
        trajs: a TrajBatch.
        dataset_id: a name such as cartpole/expert-v0, which must be new.
        env_id: their environment: a Gymnasium id, a 2016 name, or package.module:EnvId.
    """
    from policyopt.environments.rlgymenv import SingleEnv

    minari = _minari()
    from minari.data_collector import EpisodeBuffer  # pyright: ignore[reportMissingImports] (as above)

    check_task(trajs, env_id, dataset_id)
    with contextlib.closing(SingleEnv(env_id)) as single:
        spec, obs_space = single.env.spec, single.env.observation_space
        action_space: Any = single.env.action_space
    buffers = []
    lastobs_B_Do, terminal_B = trajs.lastobs_B_Do, trajs.terminal_B
    for i, traj in enumerate(trajs):
        last_1_Do = traj.obs_T_Do[-1:] if lastobs_B_Do is None else lastobs_B_Do[i : i + 1]
        obs_Tp1_Do = np.concatenate([traj.obs_T_Do, last_1_Do]).astype(obs_space.dtype)
        acts = traj.a_T_Da.astype(action_space.dtype).reshape(len(traj), *action_space.shape)
        last_T = np.arange(len(traj)) == len(traj) - 1
        terminal = bool(terminal_B is not None and lastobs_B_Do is not None and terminal_B[i])
        ends = {'terminations': (last_T & terminal).tolist(), 'truncations': (last_T & (not terminal)).tolist()}
        buffers.append(EpisodeBuffer(i, observations=obs_Tp1_Do, actions=acts, rewards=traj.r_T.tolist(), **ends, infos={}))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Minari warns that no author is named
            spaces = {'observation_space': obs_space, 'action_space': action_space}
            return minari.create_dataset_from_buffers(dataset_id, buffers, env=spec, **spaces)
    except ValueError as e:
        raise UserError(f'{dataset_id}: Minari does not store this data set: {e}') from e
