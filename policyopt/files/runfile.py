"""Read run files for stage 2. Any program may have written them, so everything that stage 2 uses is checked."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from policyopt.errors import UserError
from policyopt.files.hdf5 import attr_text, check_column, open_h5, open_hashed, read_table
from policyopt.files.training_log import Snapshot, snapshot_groups, snapshot_in
from policyopt.provenance import parse_time

_WHAT = 'the file of a run (/snapshots, /log)'
_FACTS = ('git_hash', 'host', 'machine', 'numerics', 'start_time', 'end_time')  # the root attributes in RunFile.facts


@dataclass(frozen=True)
class RunFile:
    """What stage 2 uses of a run file.

    snapshot, name: the snapshot that is evaluated, and its name. seed: None where the file has none. last_trueret: mean true return of
    the last training batch, NaN where the log has none. facts: {attribute: text} of where and when the run was trained. sha256: hash of
    the bytes of the file.
    """

    snapshot: Snapshot
    name: str
    seed: int | None
    last_trueret: float
    facts: dict[str, str]
    sha256: str


def read_run(path: str, rule: str = 'last') -> RunFile:
    """Read a run file of ours, of 2016, or of another program. `rule`, one of algorithms.RULES, chooses the snapshot.

    Raises UserError for anything unexpected, and says where it is. The file is opened once.
    """
    with open_hashed(path, _WHAT) as (h5, sha256):
        names = snapshot_groups(h5, path)
        odd = [n for n in names if not re.fullmatch('iter[0-9]{7,}', n)]
        if odd:
            raise UserError(f"{path}: /snapshots/{odd[0]}: a snapshot that is called '{odd[0]}'; expected iter0000100 for iteration 100")
        seed, facts = attr_text(h5.root, 'seed'), _facts_in(h5)
        if seed is not None and not re.fullmatch('[0-9]{1,18}', seed):
            raise UserError(f"{path}: the attribute 'seed' is {seed[:40]!r}; expected a whole number, or no such attribute")
        start, end = (parse_time(facts[key]) for key in ('start_time', 'end_time'))
        if start and end and end < start:
            seen = f"the attribute 'end_time' is {facts['end_time']}, before 'start_time', {facts['start_time']}"
            raise UserError(f'{path}: {seen}; expected it later')
        log = _columns(h5, path)
        name = names[-1]
        if rule != 'last':
            name = best_snapshot(log, names) if 'valacc' in log else None
            if name is None:
                raise UserError(f"{path}: no snapshot has a number in the column 'valacc' of its log; expected one. Use eval: last")
        snapshot = snapshot_in(h5, path, f'snapshots/{name}')
    returns = log.get('trueret', np.empty(0))
    return RunFile(
        snapshot=snapshot,
        name=name,
        seed=None if seed is None else int(seed),
        last_trueret=float(returns[-1]) if len(returns) else np.nan,
        facts=facts,
        sha256=sha256,
    )


def read_facts(path: str) -> dict[str, str]:
    """Only the `facts` of a run file."""
    with open_h5(path, _WHAT) as h5:
        return _facts_in(h5)


def _facts_in(h5: Any) -> dict[str, str]:
    return {key: attr_text(h5.root, key, '') for key in _FACTS}


def best_snapshot(log: Any, names: Iterable[str]) -> str | None:
    """The name of the snapshot with the highest `valacc` in a log, the first of several; None where no snapshot has a number there."""
    valacc = {f'iter{i:07d}': value for i, value in zip(log['iter'].tolist(), log['valacc'].tolist(), strict=True)}
    judged = [n for n in names if not np.isnan(valacc.get(n, np.nan))]
    return max(judged, key=valacc.__getitem__, default=None)


def best_snapshot_in(path: str) -> str | None:
    """As `best_snapshot`, for a run file; None where its log has no `valacc`."""
    with open_h5(path, _WHAT) as h5:
        log = _columns(h5, path)
        return best_snapshot(log, snapshot_groups(h5, path)) if 'valacc' in log else None


def _columns(h5: Any, path: str) -> dict[str, np.ndarray]:
    """The columns of /log that stage 2 uses: 'iter', and 'valacc' and 'trueret' if it has them; {} if there is no /log."""
    if '/log' not in h5:
        return {}
    rows = read_table(h5, 'log', 'one row per iteration')
    names = rows.dtype.names
    if 'iter' not in names:
        raise UserError(f"{path}: /log has no column 'iter'; expected the number of each iteration")
    columns = {name: rows[name] for name in ('iter', 'valacc', 'trueret') if name in names}
    for name in columns:
        kinds, expected = ('iu', 'a whole number') if name == 'iter' else ('biuf', 'a number')
        check_column(f'{path}: /log', rows, name, kinds, expected)
    if len(rows) and rows['iter'].min() < 0:
        raise UserError(f"{path}: the column 'iter' of /log holds {rows['iter'].min()}; expected 0, 1, 2, …")
    return columns


def fault_of(path: str) -> str | None:
    """Why stage 2 cannot evaluate a file; None if it can."""
    try:
        stat = os.stat(path)
        _check_run(path, stat.st_size, stat.st_mtime_ns)
    except (UserError, OSError) as e:
        return str(e)
    return None


@functools.lru_cache(maxsize=10000)
def _check_run(path: str, *_state: int) -> None:
    read_run(path)
