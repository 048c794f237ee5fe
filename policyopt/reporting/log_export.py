"""Training logs for other programs: one CSV table, TensorBoard's event files, or files without snapshots, also while the training runs."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from policyopt.errors import UserError
from policyopt.files.atomic import check_output, write_text
from policyopt.files.names import KEYS, name_of, parts_of
from policyopt.files.training_log import number_fields
from policyopt.provenance import parse_time


def log_names(paths: Sequence[str]) -> dict[str, str]:
    """{path: name} of logs: the file name without suffix; equal names get their folders in front, from a common folder on."""
    names = {path: name_of(path) for path in paths}
    twice = [path for path, n in names.items() if list(names.values()).count(n) > 1]
    folders = {path: os.path.realpath(os.path.dirname(path)) for path in twice}
    common = os.path.commonpath(folders.values()) if folders else ''
    names |= {path: os.path.join(os.path.relpath(folders[path], common), names[path]) for path in twice}
    names = {path: os.path.normpath(n) for path, n in names.items()}
    if len(set(names.values())) < len(paths):
        raise UserError(f'{paths[0]}: two of these {len(paths)} logs are the same; name every log once')
    return names


def _make_folder(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as e:
        raise UserError(f'{path}: cannot be a folder for logs ({e.strerror}); choose another one') from e


def write_csv(path: str, tables: Mapping[str, np.ndarray]) -> None:
    """Write {name: table of a log} as one CSV file with a line for every iteration; run ids are split into columns."""
    parts = {name: parts_of(os.path.basename(name)) for name in tables}
    keys = [k for k in KEYS if any(k in p for p in parts.values())]
    fields = list(dict.fromkeys(n for table in tables.values() for n in table.dtype.names or ()))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(['log', *keys, *fields])
    for name, table in tables.items():
        who = [name, *(parts[name].get(k, '') for k in keys)]
        for row in table:
            writer.writerow([*who, *(_cell(row[f]) if f in (table.dtype.names or ()) else '' for f in fields)])
    write_text(path, out.getvalue())


def _cell(value: Any) -> str:
    return '' if isinstance(value, np.floating) and np.isnan(value) else str(value)


def bare_paths(folder: str, names: Mapping[str, str]) -> list[str]:
    """The paths for copies of logs {path: name} without snapshots (most of a run's file); makes the folders."""
    out = [os.path.join(folder, f'{name}.h5') for name in names.values()]
    for path in out:
        _make_folder(os.path.dirname(path))
        check_output(path, 'a log without its snapshots', names)
    return out


class TensorBoard:
    """Event files of TensorBoard, one folder a log; only rows that are new are added."""

    def __init__(self, folder: str, names: Sequence[str]):
        try:
            # tensorboard is an extra, and its protocol buffers have no stubs
            from tensorboard.summary.writer.event_file_writer import EventFileWriter  # pyright: ignore[reportMissingImports]
        except ImportError as e:
            raise UserError(f"--tensorboard needs the package tensorboard ({e}); install it: pip install -e '.[tensorboard]'") from e
        self.make_writer = EventFileWriter
        self.writers: dict[str, Any] = {}
        self.rows = dict.fromkeys((os.path.join(folder, name) for name in names), 0)
        for place in self.rows:
            if os.path.isdir(place) and any('tfevents' in n for n in os.listdir(place)):
                raise UserError(f'{place}: holds an export already, and nothing is written twice; choose another folder, or delete it')

    def write(self, tables: Sequence[np.ndarray], roots: Sequence[Mapping[str, Any]]) -> None:
        """Add the new rows of every log, with the times at which the run logged them; roots: root attributes of the logs."""
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

        for folder, table, root in zip(self.rows, tables, roots, strict=True):
            fields = number_fields(table)
            start = parse_time(root.get('start_time', ''))
            began = 0.0 if start is None else start.timestamp()
            seconds_T = table['ttotal'].astype(float) if 'ttotal' in fields else np.arange(len(table), dtype=float)
            if folder not in self.writers:
                _make_folder(folder)
                self.writers[folder] = self.make_writer(folder)
            for row, seconds in zip(table[self.rows[folder] :], seconds_T[self.rows[folder] :], strict=True):
                values = [Summary.Value(tag=f, simple_value=float(row[f])) for f in fields if f != 'iter' and np.isfinite(row[f])]
                event = Event(step=int(row['iter']), wall_time=began + seconds, summary=Summary(value=values))
                self.writers[folder].add_event(event)
            self.rows[folder] = len(table)
            self.writers[folder].flush()

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()
