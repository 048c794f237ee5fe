"""The HDF5 files of robomimic: a group for each demonstration, with observations in parts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import tables

from policyopt.errors import UserError
from policyopt.files.ends import Episode
from policyopt.files.hdf5 import attr_text, numbers
from policyopt.files.importers.source import ReadOptions, Source, chosen_parts, in_order, joined, refuse_options


def read_robomimic(path: str, h5: Any, options: ReadOptions) -> Source:
    """The demonstrations of an open file, each of which is an episode: data/demo_N/{obs/KEY, next_obs/KEY, actions, rewards, dones}.

    A raised flag in `dones` can mean success or the end of the recording, so that such an end counts as unknown.
    """
    refuse_options(path, options, 'ends', 'time_axis')
    data = h5.root._v_children['data']
    demos = sorted((name for name, node in data._v_children.items() if isinstance(node, tables.Group)), key=in_order)
    if not demos:
        raise UserError(f'{path}: the group data holds no demonstration')

    def parts_of(group: str) -> dict[str, Any]:
        leaves: list[Any] = list(h5.walk_nodes(group, 'Leaf')) if group in h5 else []
        return {node._v_pathname[len(group) + 1 :]: node for node in leaves}

    def load(where: str) -> np.ndarray:
        return numbers(h5, where.lstrip('/'), 'numbers for each step').read()

    first = f'/data/{demos[0]}'
    parts = parts_of(f'{first}/obs')
    if not parts:
        way = 'robomimic extracts them with dataset_states_to_obs.py' if f'{first}/states' in h5 else 'expected the group obs'
        raise UserError(f'{path}: {demos[0]} holds no observations; {way}')
    keys = chosen_parts(path, {name: node.shape[1:] for name, node in parts.items()}, options)
    episodes, used = [], [*(f'obs/{key}' for key in keys), 'actions']
    optional = [name for name in ('rewards', 'dones') if f'{first}/{name}' in h5]
    after = all(f'{first}/next_obs/{key}' in h5 for key in keys)
    leaves = {name: parts_of(f'/data/{name}') for name in demos}
    decide = {'actions', 'rewards', 'dones', *(f'{kind}/{key}' for kind in ('obs', 'next_obs') for key in keys)}
    for name in demos:
        if odd := sorted(decide & (leaves[name].keys() ^ leaves[demos[0]].keys())):
            raise UserError(f'{path}: {odd[0]} is in only one of {demos[0]} and {name}; expected the same arrays in every demonstration')
        where, group = f'{path}: {name}', f'/data/{name}'
        obs = joined(where, [load(f'{group}/obs/{key}') for key in keys])
        acts = load(f'{group}/actions')
        rews, dones = (load(f'{group}/{x}') if x in optional else None for x in ('rewards', 'dones'))
        if after and len(obs) == len(acts) > 0:
            obs = np.concatenate([obs, joined(where, [load(f'{group}/next_obs/{key}')[-1:] for key in keys])])
        over = dones is None or not dones.size or bool(dones.ravel()[-1])
        episodes.append(Episode(where, obs, acts, rews, None if over else False))
    used += optional + [f'next_obs/{key}' for key in keys if after]
    inside = [name for name in dict.fromkeys(part for parts in leaves.values() for part in parts) if name not in used]
    others = [name for name in h5.root._v_children if name != 'data']
    env = _env_name(path, data)
    notes = [f"recorded in the environment '{env}' of robomimic"] if env else []
    return Source('HDF5 as of robomimic, a group for each demonstration', episodes, used, inside + others, notes)


def _env_name(path: str, data: Any) -> str | None:
    """The environment's name in data.attrs['env_args'], which is JSON."""
    text = attr_text(data, 'env_args')
    if text is None:
        return None
    try:
        args = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: the attribute 'env_args' of data is not JSON ({e}); restore the file, or delete the attribute") from e
    return str(args['env_name']) if isinstance(args, dict) and 'env_name' in args else None
