"""Training logs: options, one table row per iteration, policy snapshots, and the state from which a run resumes.

The log of a run in progress is `<log>.part`. It is replaced whole at every save, so it can be read at any time. `<log>` means done.
Files of 2016 are read too. Their `hash` depends only on the number of variables, so they count as unverified.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tables

from policyopt.errors import UserError
from policyopt.files.atomic import check_regular
from policyopt.files.hdf5 import DIGEST, attr_table, attr_text, attrs_of, open_h5, read_table, set_attrs, write_h5
from policyopt.files.names import part_path
from policyopt.interfaces import Fields


def legacy_hash(num_variables: int) -> str:
    """The hash of 2016: SHA-1 of the text '%s %s' once per variable, joined by '|'. Names and values make no difference."""
    return hashlib.sha1('|'.join(['%s %s'] * num_variables).encode()).hexdigest()


def content_hash(variables: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the names, shapes and float64 bytes of {name: array}, sorted by name."""
    sha = hashlib.sha256()
    for name in sorted(variables):
        array = np.ascontiguousarray(variables[name], dtype=np.float64)
        sha.update(f'{name} {array.shape}|'.encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


@dataclass(frozen=True)
class Snapshot:
    """A stored policy: options of its run, {variable name: array}, 'verified' or 'unverified', its file, and its path in the file."""

    args: dict[str, Any]
    variables: dict[str, np.ndarray]
    status: str
    file: str
    path: str


def split_policy_path(policy_path: str) -> tuple[str, str]:
    """('FILE.h5', 'snapshots/iter0000100') of a policy name: the longest prefix that is a file, and the path in that file."""
    file = policy_path
    while file and not os.path.isfile(file):
        if os.path.isfile(part := part_path(file)):
            inner = policy_path[len(file) :] or '/snapshots/last'
            raise UserError(f'{file}: no such file, since that run is not finished; play what it has so far with {part}{inner}')
        if not os.path.isdir(file):
            check_regular(file, 'a file with policies')
        file = os.path.dirname(file)
        if file in ('', '/'):
            raise UserError(f'{policy_path}: no such file; a policy is named FILE.h5/snapshots/iter0000100')
    inner = policy_path[len(file) :].strip('/')
    if not inner:
        raise UserError(f'{policy_path}: names a file, not a policy; add /snapshots/iter0000100 (or /snapshots/last)')
    return file, inner


def last_of(path: str) -> str:
    """The policy name of the last snapshot if `path` is a file; other names as they are."""
    return f'{path}/snapshots/last' if os.path.isfile(path) else path


def snapshot_groups(h5: Any, path: str, needed: bool = True) -> list[str]:
    """Sorted names of the snapshots in an open file. Raises UserError where there are none, unless `needed` is False."""
    there = '/snapshots' in h5 and isinstance(h5.root.snapshots, tables.Group)
    names = sorted(h5.root.snapshots._v_children) if there else []
    if needed and not names:
        raise UserError(f'{path}: holds no snapshots{" yet" if there else ""}; expected those of a training log')
    return names


def read_snapshot(policy_path: str | os.PathLike) -> Snapshot:
    """Read 'FILE.h5/snapshots/iter0000100' or '…/snapshots/last', of ours or of 2016.

    Raises UserError where there is no such file or snapshot, where it has no args, and where a content hash does not match.
    """
    file, inner = split_policy_path(str(policy_path))
    with open_h5(file, 'a training log with snapshots') as h5:
        return snapshot_in(h5, file, inner)


def snapshot_in(h5: Any, file: str, inner: str) -> Snapshot:
    """The snapshot 'snapshots/iter0000100' or 'snapshots/last' of an open file. Raises UserError as `read_snapshot`."""
    args = _args(h5, file)
    names = snapshot_groups(h5, file)
    if inner == 'snapshots/last':
        inner = f'snapshots/{names[-1]}'
    if f'/{inner}' not in h5 or not isinstance(h5.get_node(f'/{inner}'), tables.Group):
        raise UserError(f'{file}: has no {inner}; it holds {names[0]} to {names[-1]}')
    group = h5.get_node(f'/{inner}')
    variables = {name.removesuffix(':0'): array for name, array in _read_arrays(h5, group._v_pathname).items()}
    stored = attr_text(group, 'hash')
    for name, array in variables.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in 'biuf':
            raise UserError(f'{file}: {inner}{name} is not an array of numbers; the file is damaged or of another kind')
    if stored in (None, legacy_hash(len(variables))):
        status = 'unverified'
    elif stored == content_hash(variables):
        status = 'verified'
    else:
        raise UserError(f'{file}: {inner} is damaged: its contents do not match the stored hash; use another snapshot or retrain')
    return Snapshot(args, variables, status, file, inner)


def _args(h5: Any, path: str) -> dict[str, Any]:
    args = attr_table(h5.root, 'args')
    if args is None:
        raise UserError(f"{path}: has no attribute 'args'; expected a training log")
    return args


def snapshot_names(path: str, needed: bool = True) -> list[str]:
    """Sorted names ['iter0000000', …] of the snapshots in a log. Raises UserError where there are none, unless `needed` is False."""
    with open_h5(path, 'a training log') as h5:
        return snapshot_groups(h5, path, needed)


def read_state(path: str) -> dict[str, np.ndarray]:
    """{name: array} of the state from which a run of ours resumes; empty where the file has none."""
    with open_h5(path, 'a training log') as h5:
        return _read_arrays(h5, '/checkpoint') if '/checkpoint' in h5 else {}


def read_log(path: str) -> np.ndarray:
    """The table /log of a training log as a structured array."""
    with open_h5(path, 'a training log') as h5:
        return read_table(h5, 'log', 'a training log')


def number_fields(table: np.ndarray) -> list[str]:
    """The columns of a log with one number in each row. Logs of other programs may have other columns too."""
    return [n for n in table.dtype.names or () if table.dtype[n].kind in 'biuf']


def is_training_log(path: str) -> bool:
    """Whether a file holds the table of a training, and not for example results. Raises UserError when it cannot be read."""
    with open_h5(path, 'a training log') as h5:
        return '/log' in h5 and isinstance(h5.root.log, tables.Table) and 'iter' in h5.root.log.colnames


def read_root(path: str) -> dict[str, Any]:
    """The root attributes of a training log as a dict; args and versions are parsed."""
    with open_h5(path, 'a training log') as h5:
        attrs: dict[str, Any] = attrs_of(h5.root) | {'args': _args(h5, path)}
        if 'versions' in attrs:
            attrs['versions'] = attr_table(h5.root, 'versions')
        return attrs


def write_log(path: str, table: np.ndarray, attrs: Mapping[str, Any]) -> None:
    """Write a training log without snapshots: the table /log, and root attributes as from read_root. An existing file is replaced."""
    with write_h5(path, replace=True) as h5:
        h5.create_table('/', 'log', obj=table)
        set_attrs(h5.root, attrs)


class TrainingLog:
    """Rows and snapshots of one run, and their file.

    With path None nothing is written. Rows and snapshots are kept in memory. `save` writes all of them to `<path>.part`, with the state
    from which the run resumes. `finish` writes `<path>` and removes the part file. It replaces a finished file only if `extends` is set:
    the file is of the same run, with fewer iterations.
    """

    def __init__(self, path: str | None, attrs: Mapping[str, Any]):
        self.path: Any = path  # of the finished file, or None
        self.attrs: dict[str, Any] = dict(attrs)
        self.columns: list[tuple[str, type]] | None = None
        self.rows: list[tuple] = []
        self.snapshots: dict[str, dict[str, np.ndarray]] = {}
        self.extends = False  # whether the finished file is of this run, with fewer iterations
        self.restored = False  # whether the log was restored and has no new row yet

    @property
    def part_path(self) -> str:
        return part_path(self.path)

    def append(self, fields: Fields) -> None:
        """Add the row of one iteration: [(name, value, int|float)]; None is stored as NaN.

        If a restored log is older than a column, the column is added at its end, with NaN in the rows so far.
        """
        columns = [(name, np.int32 if kind is int else np.float32) for name, _, kind in fields]
        if self.columns is None:
            self.columns = columns
        added = [c for c in columns if c not in self.columns]
        if added and self.restored and all(kind is np.float32 for _, kind in added):
            self.columns = self.columns + added
            self.rows = [(*row, *[np.nan] * len(added)) for row in self.rows]
        self.restored = False
        if dict(columns) != dict(self.columns):
            raise ValueError(f'log columns changed from {self.columns} to {columns}')
        values = {name: np.nan if value is None else value for name, value, _ in fields}
        self.rows.append(tuple(values[name] for name, _ in self.columns))

    def table(self) -> np.ndarray:
        """The rows so far as a structured array."""
        return np.array(self.rows, dtype=self.columns)

    def add_snapshot(self, iteration: int, variables: dict[str, np.ndarray]) -> None:
        self.snapshots[f'iter{iteration:07d}'] = variables

    def save(self, state: Mapping[str, np.ndarray]) -> None:
        """Write the part file: log, snapshots and {name: array} of state under /checkpoint."""
        if self.path is not None:
            self._write(self.part_path, state, replace=True)

    def mark_part(self, attrs: Mapping[str, Any]) -> None:
        """Add attributes to the part file and change nothing else in it."""
        saved = TrainingLog(self.path, {})
        state = saved.restore(self.part_path)
        saved.attrs |= attrs
        saved.save(state)

    def finish(self, attrs: Mapping[str, Any], state: Mapping[str, np.ndarray] | None = None) -> None:
        """Write the finished file, with the state from which more iterations can resume, and remove the part file."""
        self.attrs |= attrs
        if self.path is not None:
            self._write(self.path, state or {}, replace=self.extends)
            if os.path.exists(self.part_path):
                os.unlink(self.part_path)

    def _write(self, path: str, state: Mapping[str, np.ndarray], replace: bool) -> None:
        with write_h5(path, replace) as h5:
            set_attrs(h5.root, self.attrs)
            if self.columns is not None:
                h5.create_table('/', 'log', obj=self.table())
            h5.create_group('/', 'snapshots')
            for name, variables in self.snapshots.items():
                group = h5.create_group('/snapshots', name)
                group._v_attrs['hash'] = content_hash(variables)
                _write_arrays(h5, f'/snapshots/{name}', variables)
            if state:
                _write_arrays(h5, '/checkpoint', state)

    def keep_last(self) -> None:
        """Rewrite the finished file with only its last snapshot, and without a state."""
        with open_h5(self.path, 'a training log') as h5:
            self._read(h5)
        self.snapshots = dict([max(self.snapshots.items())])
        self._write(self.path, {}, replace=True)

    def restore(self, path: str) -> dict[str, np.ndarray]:
        """Read the part file or the finished one back into this log and return its state. Its attributes replace those of this log.

        Raises UserError when the file is damaged, or has no digest or no state.
        """
        with open_h5(path, 'the log of a run') as h5:
            if '/checkpoint' not in h5 or DIGEST not in h5.root._v_attrs:
                raise UserError(f'{path}: holds no state to continue from; start the run again under another name, or delete this file')
            self._read(h5)
            self.restored = True
            return _read_arrays(h5, '/checkpoint')

    def _read(self, h5: Any) -> None:
        self.attrs = {key: text for key, text in attrs_of(h5.root).items() if key != DIGEST}
        if '/log' in h5:
            table = h5.root.log.read()
            self.columns = [(n, table.dtype[n].type) for n in table.dtype.names]
            self.rows = [tuple(row) for row in table]
        self.snapshots = {name: _read_arrays(h5, f'/snapshots/{name}') for name in sorted(h5.root.snapshots._v_children)}


def _write_arrays(h5: Any, where: str, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        folder, leaf = f'{where}/{name.lstrip("/")}'.rsplit('/', 1)
        h5.create_array(folder, leaf, obj=np.asarray(array), createparents=True)


def _read_arrays(h5: Any, where: str) -> dict[str, np.ndarray]:
    return {n._v_pathname[len(where) :]: n.read() for n in h5.walk_nodes(where, 'Array')}
