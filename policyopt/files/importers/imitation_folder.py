"""Read the folders of imitation's `serialize.save`: a data set in Arrow files, with one row for each episode."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import numpy as np

from policyopt.errors import UserError
from policyopt.files.atomic import check_regular, read_utf8
from policyopt.files.ends import Episode
from policyopt.files.hdf5 import refusing_damage
from policyopt.files.importers.source import ReadOptions, Source, refuse_options

USED = ('obs', 'acts', 'rews', 'terminal')


def read_imitation(folder: str, options: ReadOptions) -> Source:
    """The episodes of a folder with state.json and data-*.arrow: columns obs (T + 1 rows), acts, rews, terminal, infos.

    imitation sets `terminal` also where a time limit ended the episode. Then TimeLimit.truncated in the infos of the last step is true.
    Where infos do not say, `terminal` decides. infos are texts of jsonpickle; they are read as plain JSON and never unpickled.
    """
    refuse_options(folder, options, 'ends', 'time_axis', 'obs_keys')
    episodes, columns, told = [], [], False
    for name in _data_files(folder):
        path = os.path.join(folder, name)
        table = _table(path)
        columns = table.column_names
        for needed in ('obs', 'acts', 'terminal'):
            if needed not in columns:
                raise UserError(f"{path}: has no column '{needed}'; it has {', '.join(columns)}. Expected a data set of imitation")
        for row in range(table.num_rows):
            where = f'{folder}: episode {len(episodes)}'
            arrays = {key: _array(where, key, _list(where, key, table[key][row])) for key in ('obs', 'acts', 'rews') if key in columns}
            terminal, limit = table['terminal'][row].as_py(), None
            if 'infos' in columns:
                limit = _time_limit(_list(where, 'infos', table['infos'][row]))
                told = told or limit is not None
            if not isinstance(terminal, bool):
                raise UserError(f'{where}: terminal is {terminal}; expected true or false')
            episodes.append(Episode(where, arrays['obs'], arrays['acts'], arrays.get('rews'), terminal and not limit))
    unused = [key if key != 'infos' else 'infos (texts of jsonpickle, never unpickled)' for key in columns if key not in USED]
    used = [key for key in USED if key in columns] + ['TimeLimit.truncated of infos'] * told
    return Source('data set folder of imitation', episodes, used, unused)


def _data_files(folder: str) -> list[str]:
    """The names of the Arrow files, in the order of state.json."""
    path = os.path.join(folder, 'state.json')
    with refusing_damage(path, 'damaged: it names no _data_files; restore or save the data set again'):
        state = json.loads(read_utf8(path, 'the list of the files of a data set', 1 << 24))
        names = [entry['filename'] for entry in state['_data_files']]
    for name in names:
        if not re.fullmatch(r'[^/\0]+\.arrow', str(name)):
            raise UserError(f'{path}: names the file {name!r}; expected .arrow files of its own folder')
    return names


def _table(path: str) -> Any:
    """The table of an Arrow file, checked."""
    try:
        import pyarrow as pa  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError as e:
        raise UserError(f"{path}: data sets of imitation need the package pyarrow ({e}); install it: pip install -e '.[hf]'") from e
    if int(pa.__version__.split('.')[0]) < 15:
        raise UserError(f"{path}: pyarrow {pa.__version__} can run code of a file; install a newer one: pip install -e '.[hf]'")
    check_regular(path, 'an Arrow file')
    if not os.path.exists(path):
        raise UserError(f'{path}: no such file, but state.json names it; copy the whole folder')
    with refusing_damage(path, 'not a readable Arrow file (truncated, damaged, or of another kind); save the data set again'):
        with pa.OSFile(path) as f:
            table = pa.ipc.open_stream(f).read_all()
        table.validate(full=True)
        return table


def _list(where: str, name: str, x: Any) -> Any:
    """The entries of a cell, which must hold a list."""
    import pyarrow as pa  # pyright: ignore[reportMissingImports] (an extra)

    if not (pa.types.is_list(x.type) or pa.types.is_large_list(x.type) or pa.types.is_fixed_size_list(x.type)):
        raise UserError(f'{where}: {name} holds {x.type}; expected a list, an entry for each step')
    return x.values


def _array(where: str, name: str, x: Any) -> np.ndarray:
    """Nested lists as an array; at each level all lists must be of the same length."""
    if x is None:
        raise UserError(f'{where}: {name} is missing; expected a list of numbers')
    shape = [len(x)]
    while hasattr(x.type, 'value_type') and hasattr(x, 'flatten'):
        lengths = np.unique(x.value_lengths().to_numpy(zero_copy_only=False))
        if x.null_count or len(lengths) > 1:
            raise UserError(f'{where}: {name} holds vectors of different lengths; expected one length at every step')
        shape.append(int(lengths[0]) if len(lengths) else 0)
        x = x.flatten()
    if x.null_count:
        raise UserError(f'{where}: {name} holds entries without a value; expected numbers')
    flat: np.ndarray = x.to_numpy(zero_copy_only=False)
    return flat.reshape(shape)


def _time_limit(infos: Any) -> bool | None:
    """TimeLimit.truncated of the last step if it is true or false, otherwise None."""
    try:
        last = json.loads(infos[-1].as_py())
    except (ValueError, TypeError, IndexError, RecursionError):
        return None  # infos may hold anything, and this entry may be missing
    limit = last.get('TimeLimit.truncated') if isinstance(last, dict) else None
    return limit if isinstance(limit, bool) else None
