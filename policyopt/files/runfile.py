"""Run files as stage 2 reads them: one reader that checks all that it uses, because any program may have written them."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tables

from policyopt.errors import UserError
from policyopt.files.hdf5 import attr_text, open_h5
from policyopt.files.training_log import read_snapshot, snapshot_groups
from policyopt.provenance import parse_time

_WHAT = 'the file of a run (/snapshots, /log)'


@dataclass(frozen=True)
class RunFile:
    """What stage 2 uses of a run file.

    snapshots: their sorted names. log: {'iter', and 'valacc' and 'trueret' where it has them: an array}, or None without /log.
    seed: None where it says none.
    """

    path: str
    snapshots: list[str]
    log: dict[str, np.ndarray] | None
    seed: int | None

    def choose_snapshot(self, rule: str) -> str:
        """The name of the snapshot that stands for the run: the last one, or the one with the highest `valacc` (NaN ignored)."""
        if rule == 'last':
            return self.snapshots[-1]
        log = self.log or {}
        if 'valacc' not in log:
            raise UserError(f"{self.path}: its log has no column 'valacc', which eval: best_valacc needs. Use eval: last")
        best = best_snapshot(log, self.snapshots)
        if best is None:
            raise UserError(f'{self.path}: no snapshot has a valacc that is a number; expected one. Use eval: last for this algorithm')
        return best

    @property
    def last_trueret(self) -> float:
        """Mean true return of the last batch of the training, NaN where its log has none."""
        column = (self.log or {}).get('trueret')
        return np.nan if column is None or not len(column) else float(column[-1])


def best_snapshot(log: Any, snapshots: Iterable[str]) -> str | None:
    """The name of the snapshot with the highest `valacc` in a log (NaN ignored); None where none has one."""
    valacc = {f'iter{i:07d}': value for i, value in zip(log['iter'].tolist(), log['valacc'].tolist(), strict=True)}
    judged = [n for n in snapshots if not np.isnan(valacc.get(n, np.nan))]
    return max(judged, key=valacc.__getitem__, default=None)


def read_run(path: str) -> RunFile:
    """Read a run file of ours, of 2016, or of another program. Raises UserError with the place of anything that is not as expected."""
    with open_h5(path, _WHAT) as h5:
        names = snapshot_groups(h5, path)
        odd = [n for n in names if not re.fullmatch('iter[0-9]{7,}', n)]
        if odd:
            raise UserError(f"{path}: /snapshots/{odd[0]}: a snapshot that is called '{odd[0]}'; expected iter0000100 for iteration 100")
        seed, *times = (attr_text(h5.root, key) for key in ('seed', 'start_time', 'end_time'))
        log = _columns(h5, path)
    start, end = (parse_time(text or '') for text in times)
    if seed is not None and not re.fullmatch('[0-9]{1,18}', seed):
        raise UserError(f"{path}: the attribute 'seed' is {seed[:40]!r}; expected a whole number, or no such attribute")
    if start and end and end < start:
        raise UserError(f"{path}: the attribute 'end_time' is {times[1]}, before 'start_time', {times[0]}; expected it later")
    return RunFile(path, names, log, None if seed is None else int(seed))


def _columns(h5: Any, path: str) -> dict[str, np.ndarray] | None:
    """The columns of /log that stage 2 uses; None without that table."""
    if '/log' not in h5:
        return None
    if not isinstance(h5.root.log, tables.Table):
        raise UserError(f'{path}: /log is no table; expected one row per iteration')
    table, names = h5.root.log.read(), h5.root.log.colnames
    for name, kinds, expected in (('iter', 'iu', 'a whole number'), ('valacc', 'biuf', 'a number'), ('trueret', 'biuf', 'a number')):
        held = table.dtype[name] if name in names else None
        if held is None and name == 'iter':
            raise UserError(f"{path}: /log has no column 'iter'; expected the number of each iteration")
        if held is not None and held.kind not in kinds:
            shown = f'{held.base} of shape {held.shape}' if held.shape else held
            raise UserError(f"{path}: the column '{name}' of /log holds {shown}; expected {expected} in each row")
    if len(table) and table['iter'].min() < 0:
        raise UserError(f"{path}: the column 'iter' of /log holds {table['iter'].min()}; expected 0, 1, 2, …")
    return {name: table[name] for name in ('iter', 'valacc', 'trueret') if name in names}


def fault_of(path: str) -> str | None:
    """Why a file is no whole run that stage 2 could evaluate, None for one that is."""
    try:
        stat = os.stat(path)
    except OSError as e:
        return str(e)
    return _fault_of(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=10000)
def _fault_of(path: str, *_state: int) -> str | None:
    try:
        read_snapshot(f'{path}/snapshots/{read_run(path).snapshots[-1]}')
    except (UserError, OSError) as e:
        return str(e)
    return None
