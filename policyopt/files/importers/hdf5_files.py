"""Read HDF5 files of demonstrations: of D4RL, with arrays at the root, or of robomimic, with a group for each demonstration."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
import tables

from policyopt.errors import UserError
from policyopt.files.ends import TRUNCATED, Episode
from policyopt.files.hdf5 import attr_table, numbers, open_h5
from policyopt.files.importers.arrays import Arrays, read_arrays
from policyopt.files.importers.source import NAMES, ReadOptions, Source, chosen_parts, in_order, joined, refuse_options
from policyopt.files.trajectory_file import layout_of_h5
from policyopt.shipped import as_typed

NOT_DEMONSTRATIONS = {
    'trajectories': 'is a trajectory file already, which --data takes as it is; {show} shows what it holds',
    'run': 'is the file of a training run, not demonstrations; its policy records some: {record}',
    'results': 'holds the results of an experiment, not demonstrations',
    'minari': 'is a part of a Minari data set; give its id, such as cartpole/expert-v0, and the folder of all data sets as '
    'MINARI_DATASETS_PATH in the environment',
    'other': 'is an HDF5 file with {holds}; expected observations and actions at its root (D4RL), or data/demo_0, … (robomimic)',
}


def read_hdf5(path: str, options: ReadOptions) -> Source:
    """The demonstrations in a file of D4RL or robomimic. Raises UserError for other files, which says what the file is."""
    with open_h5(path, 'an HDF5 file with demonstrations') as h5:
        layout = layout_of_h5(h5)
        if layout == 'd4rl':
            return _read_d4rl(path, h5, options)
        if layout == 'robomimic':
            return _read_robomimic(path, h5, options)
        quoted, names = shlex.quote(path), ', '.join(sorted(h5.root._v_children)) or 'nothing in it'
        show = as_typed(f'print_saved_returns.py {quoted}')
        record = as_typed(f'vis_mj.py {quoted}/snapshots/last --count 10 --out trajs.h5')
        raise UserError(f'{path}: {NOT_DEMONSTRATIONS[layout].format(show=show, record=record, holds=names)}')


def _read_d4rl(path: str, h5: Any, options: ReadOptions) -> Source:
    """The episodes of an open file, by observations, actions, rewards, terminals, timeouts, next_observations. Other arrays are ignored."""
    names = [node._v_pathname[1:] for node in h5.walk_nodes('/', 'Leaf')]
    arrays = Arrays(path, names, lambda name: numbers(h5, name, 'numbers for each step'), options)
    found = read_arrays(arrays, 'HDF5 as of D4RL')
    found.unused = list(dict.fromkeys(name.split('/')[0] + '/…' if '/' in name else name for name in found.unused))
    if not any(name in found.used for name in (*TRUNCATED, *NAMES['next_obs'])) and any('terminal' in name for name in found.used):
        found.notes.append('without timeouts or next_observations, an episode that a time limit ended is one with the next')
    return found


def _read_robomimic(path: str, h5: Any, options: ReadOptions) -> Source:
    """The demonstrations of an open file, one episode each: data/demo_N/{obs/KEY, next_obs/KEY, actions, rewards, dones}.

    1 in `dones` can mean success or the end of the recording. So if it is 1 at the last step, nothing says how the episode ended.
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
    has_next = set(after) <= set(demos[first])
    used += after if has_next else []
    episodes = []
    for name in names:
        if odd := sorted({*now, *after, 'actions', 'rewards', 'dones'} & (set(demos[name]) ^ set(demos[first]))):
            raise UserError(f'{path}: {odd[0]} is in only one of {first} and {name}; expected the same arrays in every demonstration')
        where = f'{path}: {name}'
        arrays = {key: numbers(h5, f'data/{name}/{key}', 'numbers for each step') for key in used}
        obs, dones = joined(where, [arrays[key] for key in now]), arrays.get('dones')
        if has_next and len(obs) == len(arrays['actions']) > 0:
            obs = np.concatenate([obs, joined(where, [arrays[key][-1:] for key in after])])
        over = dones is None or not dones.size or bool(dones.ravel()[-1])
        episodes.append(Episode(where, obs, arrays['actions'], arrays.get('rewards'), None if over else False))
    inside = [name for name in dict.fromkeys(name for held in demos.values() for name in held) if name not in used]
    others = [name for name in h5.root._v_children if name != 'data']
    env = (attr_table(data, 'env_args') or {}).get('env_name')
    notes = [f"recorded in the environment '{env}' of robomimic"] if env else []
    return Source('HDF5 as of robomimic, a group for each demonstration', episodes, used, inside + others, notes)
