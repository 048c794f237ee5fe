"""The HDF5 files of robomimic: a group for each demonstration, with observations in parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import tables

from policyopt.errors import UserError
from policyopt.files.ends import Episode
from policyopt.files.hdf5 import attr_table, numbers
from policyopt.files.importers.source import ReadOptions, Source, chosen_parts, in_order, joined, refuse_options


def read_robomimic(path: str, h5: Any, options: ReadOptions) -> Source:
    """The demonstrations of an open file, each of which is an episode: data/demo_N/{obs/KEY, next_obs/KEY, actions, rewards, dones}.

    A raised flag in `dones` can mean success or the end of the recording, so that such an end counts as unknown.
    """
    refuse_options(path, options, 'ends', 'time_axis')
    data = h5.root._v_children['data']
    names = sorted((name for name, node in data._v_children.items() if isinstance(node, tables.Group)), key=in_order)
    if not names:
        raise UserError(f'{path}: the group data holds no demonstration')
    demos = {name: [leaf._v_pathname.split('/', 3)[3] for leaf in h5.walk_nodes(f'/data/{name}', 'Leaf')] for name in names}
    first = names[0]
    parts = {name[4:]: h5.get_node(f'/data/{first}/{name}').shape[1:] for name in demos[first] if name.startswith('obs/')}
    if not parts:
        way = 'robomimic extracts them with dataset_states_to_obs.py' if 'states' in demos[first] else 'expected the group obs'
        raise UserError(f'{path}: {first} holds no observations; {way}')
    keys = chosen_parts(path, parts, options)
    now, after = ([f'{kind}/{key}' for key in keys] for kind in ('obs', 'next_obs'))
    used = [*now, 'actions', *(name for name in ('rewards', 'dones') if name in demos[first])]
    used += after if set(after) <= set(demos[first]) else []
    episodes = []
    for name in names:
        if odd := sorted({*now, *after, 'actions', 'rewards', 'dones'} & (set(demos[name]) ^ set(demos[first]))):
            raise UserError(f'{path}: {odd[0]} is in only one of {first} and {name}; expected the same arrays in every demonstration')
        where = f'{path}: {name}'
        arrays = {key: numbers(h5, f'data/{name}/{key}', 'numbers for each step').read() for key in used}
        obs, dones = joined(where, [arrays[key] for key in now]), arrays.get('dones')
        if after[-1] in used and len(obs) == len(arrays['actions']) > 0:
            obs = np.concatenate([obs, joined(where, [arrays[key][-1:] for key in after])])
        over = dones is None or not dones.size or bool(dones.ravel()[-1])
        episodes.append(Episode(where, obs, arrays['actions'], arrays.get('rewards'), None if over else False))
    inside = [name for name in dict.fromkeys(name for held in demos.values() for name in held) if name not in used]
    others = [name for name in h5.root._v_children if name != 'data']
    env = (attr_table(data, 'env_args') or {}).get('env_name')
    notes = [f"recorded in the environment '{env}' of robomimic"] if env else []
    return Source('HDF5 as of robomimic, a group for each demonstration', episodes, used, inside + others, notes)
