"""Minari data sets, read and written with its package."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from policyopt.files.ends import Episode
from policyopt.files.importers.source import ReadOptions, Source, check_task, refuse_options
from policyopt.files.trajectories import TrajBatch
from policyopt.util import UserError


def _minari() -> Any:
    try:
        import minari  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError as e:
        raise UserError(f"Minari data sets need the package minari ({e}); install it: pip install -e '.[minari]'") from e
    return minari


def read_minari(dataset_id: Any, options: ReadOptions) -> Source:
    """The episodes of a Minari data set, by its id or as it is, with the observation after the last action and how each ended."""
    refuse_options(dataset_id, options, 'ends', 'time_axis')
    minari = _minari()
    try:
        dataset = minari.load_dataset(dataset_id, download=options.download) if isinstance(dataset_id, str) else dataset_id
        episodes = [
            Episode(f'{dataset_id}, episode {e.id}', e.observations, e.actions, e.rewards, bool(np.asarray(e.terminations)[-1]))
            for e in dataset.iterate_episodes()
        ]
    except FileNotFoundError as e:
        way = 'it is at no remote either' if options.download else '--download fetches it'
        raise UserError(f'{dataset_id}: no Minari data set of that name on this computer, and no file; {way}') from e
    except ImportError as e:
        raise UserError(f"{dataset_id}: Minari lacks a package to fetch or read it ({e}); pip install 'minari[hdf5,hf]'") from e
    except (ValueError, KeyError, IndexError, OSError) as e:
        raise UserError(f'{dataset_id}: Minari cannot read this data set: {e}') from e
    arrays = ['observations', 'actions', 'rewards', 'terminations', 'truncations']
    return Source('Minari data set', episodes, arrays, env_name=dataset.env_spec.id if dataset.env_spec else None)


def save_minari(trajs: TrajBatch, dataset_id: str, env_id: str) -> Any:
    """Store trajectories as a Minari data set on this computer, for programs that read those.

    Where a file does not hold what an episode's last action led to, the last observation stands there again, and the episode counts
    as truncated, so that nothing is learned from that step as an end.

    Args:
        trajs: a TrajBatch.
        dataset_id: a name such as cartpole/expert-v0, which must be new.
        env_id: the environment that they come from, as here: a Gymnasium id, a 2016 name, or package.module:EnvId.
    """
    from environments.rlgymenv import spec_and_spaces

    minari = _minari()
    from minari.data_collector import EpisodeBuffer  # pyright: ignore[reportMissingImports] (as above)

    check_task(trajs, env_id, dataset_id)
    spec, obs_space, action_space = spec_and_spaces(env_id)
    buffers = []
    lastobs_B_Do, terminal_B = trajs.lastobs_B_Do, trajs.terminal_B
    for i, traj in enumerate(trajs):
        last_1_Do = traj.obs_T_Do[-1:] if lastobs_B_Do is None else lastobs_B_Do[i : i + 1]
        obs_Tp1_Do = np.concatenate([traj.obs_T_Do, last_1_Do]).astype(obs_space.dtype)
        acts = traj.a_T_Da.astype(action_space.dtype).reshape(len(traj), *action_space.shape)
        last_T = np.arange(len(traj)) == len(traj) - 1
        terminal = bool(terminal_B is not None and lastobs_B_Do is not None and terminal_B[i])
        ends = (last_T & terminal).tolist(), (last_T & (not terminal)).tolist()
        buffers.append(EpisodeBuffer(i, None, None, obs_Tp1_Do, acts, traj.r_T.tolist(), *ends, {}))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that nobody is named as the author
            spaces = {'observation_space': obs_space, 'action_space': action_space}
            return minari.create_dataset_from_buffers(dataset_id, buffers, env=spec, **spaces)
    except ValueError as e:
        raise UserError(f'{dataset_id}: Minari does not store this data set: {e}') from e
