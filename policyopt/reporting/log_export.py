"""Training logs for other programs: one CSV table, TensorBoard's event files, or files without snapshots, also while the training runs."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from policyopt.errors import UserError
from policyopt.files.atomic import check_output, write_text
from policyopt.files.names import KEYS, current_path, is_part, name_of, parts_of
from policyopt.files.training_log import number_fields, read_log, read_root, write_log
from policyopt.provenance import parse_time


def log_names(paths: Sequence[str]) -> dict[str, str]:
    """{path: name} of logs: the file's name without its ending, where two would be called the same with its folders below a common one."""
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


class CsvTable:
    """A CSV file with a line for every iteration of every log; run ids are taken apart into columns."""

    def __init__(self, path: str, paths: Sequence[str]):
        self.path, self.names = path, log_names(paths)
        self.tables: dict[str, np.ndarray] = {}

    def update(self, path: str, file: str) -> int:
        """Take what a log holds by now, named as `path` and standing at `file`; returns the number of its rows."""
        self.tables[path] = read_log(file)
        return len(self.tables[path])

    def write(self) -> None:
        parts = {path: parts_of(name_of(path)) for path in self.tables}
        keys = [k for k in KEYS if any(k in p for p in parts.values())]
        fields = list(dict.fromkeys(n for table in self.tables.values() for n in table.dtype.names or ()))
        out = io.StringIO()
        writer = csv.writer(out, lineterminator='\n')
        writer.writerow(['log', *keys, *fields])
        for path, table in self.tables.items():
            who = [self.names[path], *(parts[path].get(k, '') for k in keys)]
            for row in table:
                writer.writerow([*who, *(_cell(row[f]) if f in (table.dtype.names or ()) else '' for f in fields)])
        write_text(self.path, out.getvalue())

    def close(self) -> None:
        """Nothing is left open."""


def _cell(value: Any) -> str:
    return '' if isinstance(value, np.floating) and np.isnan(value) else str(value)


class BareLogs:
    """Every log as an HDF5 file of its own, without the snapshots, which are nearly all of a run's file."""

    def __init__(self, folder: str, paths: Sequence[str]):
        self.paths = {path: os.path.join(folder, f'{name}.h5') for path, name in log_names(paths).items()}
        for out in self.paths.values():
            _make_folder(os.path.dirname(out))
            check_output(out, 'a log without its snapshots', paths)
        self.logs: dict[str, tuple[np.ndarray, dict[str, Any]]] = {}

    def update(self, path: str, file: str) -> int:
        """Take what a log holds by now; returns the number of its rows."""
        self.logs[path] = read_log(file), read_root(file)
        return len(self.logs[path][0])

    def write(self) -> None:
        for path, (table, attrs) in self.logs.items():
            write_log(self.paths[path], table, attrs)

    def close(self) -> None:
        """Nothing is left open."""


class TensorBoard:
    """Event files of TensorBoard, one folder a log; only rows that are new are added, and nothing before all logs have been read."""

    def __init__(self, folder: str, paths: Sequence[str]):
        try:
            # tensorboard is an extra, and its protocol buffers have no stubs
            from tensorboard.summary.writer.event_file_writer import EventFileWriter  # pyright: ignore[reportMissingImports]
        except ImportError as e:
            raise UserError(f"--tensorboard needs the package tensorboard ({e}); install it: pip install -e '.[tensorboard]'") from e
        self.make_writer, self.rows = EventFileWriter, dict.fromkeys(paths, 0)
        self.writers: dict[str, Any] = {}
        self.waiting: dict[str, list[Any]] = {path: [] for path in paths}
        self.folders = {path: os.path.join(folder, name) for path, name in log_names(paths).items()}
        for place in self.folders.values():
            if os.path.isdir(place) and any('tfevents' in n for n in os.listdir(place)):
                raise UserError(f'{place}: holds an export already, and nothing is written twice; choose another folder, or delete it')

    def update(self, path: str, file: str) -> int:
        """Take the new rows of a log, at the times at which the run had come so far; returns the number of its rows."""
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

        table = read_log(file)
        fields = number_fields(table)
        start = parse_time(read_root(file).get('start_time', ''))
        began = 0.0 if start is None else start.timestamp()
        seconds_T = table['ttotal'].astype(float) if 'ttotal' in fields else np.arange(len(table), dtype=float)
        for i in range(self.rows[path], len(table)):
            row = table[i]
            values = [Summary.Value(tag=f, simple_value=float(row[f])) for f in fields if f != 'iter' and np.isfinite(row[f])]
            self.waiting[path].append(Event(step=int(row['iter']), wall_time=began + seconds_T[i], summary=Summary(value=values)))
        self.rows[path] = len(table)
        return len(table)

    def write(self) -> None:
        for path, events in self.waiting.items():
            if path not in self.writers:
                _make_folder(self.folders[path])
                self.writers[path] = self.make_writer(self.folders[path])
            for event in events:
                self.writers[path].add_event(event)
            events.clear()
            self.writers[path].flush()

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()


def export(paths: Sequence[str], exporters: Sequence[Any], interval: float | None = None) -> int:
    """Hand logs to exporters; with an interval in seconds again and again until all runs are complete.

    Returns the number of rows of all logs.
    """
    num = {}
    try:
        while True:
            files = {path: current_path(path) for path in paths}
            for path, file in files.items():
                for exporter in exporters:
                    try:
                        num[path] = exporter.update(path, file)
                    except UserError:
                        if current_path(path) == file:
                            raise
                        num[path] = exporter.update(path, current_path(path))  # it has been finished just now
            for exporter in exporters:
                exporter.write()
            if interval is None or not any(map(is_part, files.values())):
                return sum(num.values())
            time.sleep(interval)
    finally:
        for exporter in exporters:
            exporter.close()
