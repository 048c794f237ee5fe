"""Read files of numpy.savez. Arrays of Python objects are refused: they are pickles, and reading a pickle can run any code."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from policyopt.errors import UserError
from policyopt.files.atomic import check_regular
from policyopt.files.hdf5 import refusing_damage
from policyopt.files.importers.arrays import Arrays, read_arrays
from policyopt.files.importers.source import NAMES, ReadOptions, Source, read_files

_NO_NPZ = 'not a readable .npz file (damaged, or of another kind); numpy.savez makes one'


def read_npzs(source: str, options: ReadOptions) -> Source:
    """The episodes of an .npz file, in any layout of `read_arrays`, or of a folder of them in the order of their names (2 before 10).

    A file of a folder is one episode unless its arrays say where several end. All files must have the same arrays.
    """
    return read_files(source, '.npz', lambda path, of_several: _read_npz(path, options, of_several))


def _read_npz(path: str, options: ReadOptions, of_several: bool) -> tuple[Source, list[str]]:
    """(what a file holds, the names of its arrays)."""
    check_regular(path, 'an .npz file with obs and acts')
    with refusing_damage(path, _NO_NPZ):
        npz: Any = np.load(path, allow_pickle=False)
        names = npz.files  # raises for a file with a single array, which has no names
    with npz:
        return read_arrays(Arrays(path, names, lambda key: _array(path, npz, key), options, of_several), '.npz'), sorted(names)


def _array(path: str, npz: Any, key: str) -> np.ndarray:
    with refusing_damage(path, f'{key} cannot be read; {_NO_NPZ}'):
        size, memory = npz.zip.getinfo(f'{key}.npy').file_size, os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
        if size > memory:
            raise UserError(
                f'{path}: {key} unpacks to {size} bytes, but this computer has {memory}; it is damaged or made to fill the memory'
            )
        try:
            return npz[key]
        except ValueError as e:
            if 'allow_pickle' not in str(e):
                raise
            keys = [name for names in NAMES.values() for name in names if name in npz.files]
            raise UserError(
                f'{path}: {key} holds Python objects, which could run code when they are read; expected arrays of numbers (obs_0, acts_0, '
                'obs_1, … for episodes of different lengths). If you trust who made the file, convert it:\n  import numpy as np\n'
                f'  old = np.load({path!r}, allow_pickle=True)\n'
                f"  np.savez('converted.npz', **{{f'{{k}}_{{i}}': np.stack(x) for k in {keys} for i, x in enumerate(old[k])}})"
            ) from e
