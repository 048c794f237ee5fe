"""Convert demonstrations of other programs into trajectory files: one module for each family of formats, named in `READERS`.

Each reader returns a Source: episodes of arrays, with the observation after the last action if it is known. Only policyopt.files.ends
decides where episodes end. Nothing is unpickled, since unpickling can run any code that the file's author chose.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from policyopt.errors import UserError
from policyopt.files.atomic import begins_as_hdf5, check_regular
from policyopt.files.importers.csv_folder import read_csvs
from policyopt.files.importers.hdf5_files import read_hdf5
from policyopt.files.importers.imitation_folder import read_imitation
from policyopt.files.importers.minari import read_minari, save_minari
from policyopt.files.importers.npz import read_npzs
from policyopt.files.importers.source import ReadOptions, Source, check_task, described, files_in, known_task
from policyopt.files.importers.unread import refuse_unread
from policyopt.files.trajectory_file import batch_of, foreign_kind, save_trajs
from policyopt.provenance import provenance
from policyopt.trajectories import TrajBatch

__all__ = [
    'READERS', 'ReadOptions', 'Source', 'batch_of', 'check_task', 'described', 'import_trajs', 'known_task', 'read_minari',
    'read_source', 'save_minari',
]  # fmt: skip

READERS: dict[str, Callable[[str, ReadOptions], Source]] = {
    'minari': read_minari, 'npz': read_npzs, 'csv': read_csvs, 'imitation': read_imitation,
}  # fmt: skip
EXPECTED = (
    'an .npz or .csv file or a folder of them, HDF5 of D4RL or robomimic, a folder of imitation, or a Minari id such as cartpole/expert-v0'
)


def read_source(source: str, options: ReadOptions = ReadOptions()) -> Source:  # noqa: B008 (it is frozen)
    """Read demonstrations of any known format. Raises UserError for anything else, which says what it seems to be."""
    kind = foreign_kind(source)
    if kind != 'minari' and not os.path.exists(source):
        raise UserError(f'{source}: no such file or folder; expected {EXPECTED}')
    if kind == 'folder':
        holds = [k for k in ('npz', 'csv') if files_in(source, f'.{k}')]
        if os.path.exists(os.path.join(source, 'state.json')):
            kind = 'imitation'
        elif len(holds) > 1:
            raise UserError(f'{source}: holds .npz and .csv files; expected files of one kind, one for each episode')
        elif holds:
            kind = holds[0]
    else:
        check_regular(source, 'demonstrations')
    if kind in READERS:
        return READERS[kind](source, options)
    refuse_unread(source)
    if source.lower().endswith(('.h5', '.hdf5', '.hdf')) or begins_as_hdf5(source):
        return read_hdf5(source, options)
    seen = 'a folder without .npz or .csv files' if kind == 'folder' else 'is of no known format'
    raise UserError(f'{source}: {seen}; expected {EXPECTED}')


def import_trajs(
    source: str, out: str, env_name: str | None = None, *, force: bool = False, **choices: Any
) -> tuple[TrajBatch, str | None]:
    """Convert demonstrations into the trajectory file `out`; returns (TrajBatch, the name of their task or None).

    Args:
        source: see EXPECTED.
        env_name: the task of the data, instead of the one that the source names. The data must fit it, see `check_task`.
        force: if the task cannot be made on this computer, store the data without comparing them with it.
        choices: see ReadOptions.
    """
    if os.path.lexists(out):
        raise UserError(f'{out}: exists already, and finished data is never overwritten; choose another name')
    found = read_source(source, ReadOptions(**choices))
    trajs = batch_of(found.episodes, source)
    if env_name:
        check_task(trajs, env_name, source, force)
    env_name = env_name or found.env_name
    print(described(found, trajs), file=sys.stderr)
    save_trajs(out, trajs, provenance() | {'source': source} | ({'env_name': env_name} if env_name else {}))
    return trajs, env_name
