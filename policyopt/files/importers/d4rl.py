"""HDF5 files with arrays at their root, one step after the other: those of D4RL, and others of the same layout."""

from __future__ import annotations

from typing import Any

import numpy as np

from policyopt.files.ends import TRUNCATED
from policyopt.files.hdf5 import numbers
from policyopt.files.importers.arrays import Arrays, read_arrays
from policyopt.files.importers.source import NAMES, ReadOptions, Source


def read_d4rl(path: str, h5: Any, options: ReadOptions) -> Source:
    """The episodes of an open file: observations, actions, rewards, terminals, timeouts, next_observations. infos and metadata stay."""
    leaves: list[Any] = list(h5.walk_nodes('/', 'Leaf'))
    names = [node._v_pathname[1:] for node in leaves]

    def load(name: str) -> np.ndarray:
        return numbers(h5, name, 'numbers for each step').read()

    found = read_arrays(Arrays(path, names, load, options), 'HDF5 as of D4RL')
    found.unused = list(dict.fromkeys(name.split('/')[0] + '/…' if '/' in name else name for name in found.unused))
    if not any(name in found.used for name in (*TRUNCATED, *NAMES['next_obs'])) and any('terminal' in name for name in found.used):
        found.notes.append('without timeouts or next_observations, an episode that a time limit ended is one with the next')
    return found
