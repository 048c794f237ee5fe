"""Write HDF5 files whole or not at all, with checksums, and check them when they are read.

Two checksums let a reader reject a changed byte instead of taking it for a number:

* The seal is `SEAL` and a SHA-256 of all bytes before it. It stands behind the HDF5 data, where the HDF5 library ignores it. It is
  checked before the library opens the file, because on damaged bytes the library may crash, hang, or fail in any way.
* The root attribute `content_sha256` is a digest over the name, type, shape and bytes of every dataset and attribute. It
  is for files that have lost their seal, as happens when another program opens one for writing.

A reader checks the seal, or if there is none, the digest. Files with neither (of 2016, or of other programs) are accepted unchecked.
A checksum shows that a file is as its author made it, not that its author means well: guard.py limits what any file may do.

Two more checksums cover parts of a file. Trajectory files have HDF5's own fletcher32, which other programs check by themselves. The
`hash` of a snapshot belongs to the format of 2016, and is kept when a policy is copied into another file.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import fcntl
import hashlib
import json
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tables

from policyopt.errors import RunFailed, UserError
from policyopt.files.atomic import check_regular, writing
from policyopt.files.guard import check_contents, decoded, no_code

DIGEST = 'content_sha256'
SEAL = b'\nSHA-256 of the bytes above: '
SEAL_SIZE = len(SEAL) + 64 + 1
BLOCK = 1 << 20
LONGEST_ATTR = 60000  # bytes; an attribute of HDF5 is smaller than 64 kB
LONG_TEXTS = 'long_attributes'  # the group with longer texts as datasets of UTF-8 bytes
ALTERED = 'its contents do not match the checksum stored in it; restore or recreate it'


def content_digest(h5: tables.File) -> str:
    """SHA-256 over all datasets and user attributes of an open file, without the digest attribute itself."""
    sha = hashlib.sha256()

    def feed(name, value):
        value = np.asarray(value)
        sha.update(f'{name}|{value.dtype.str if value.dtype.names is None else value.dtype.descr}|{value.shape}|'.encode())
        sha.update(np.ascontiguousarray(value).tobytes())

    nodes: list[Any] = list(h5.walk_nodes('/'))
    for node in sorted(nodes, key=lambda n: n._v_pathname):
        path = node._v_pathname
        for key in sorted(node._v_attrs._f_list('user')):
            if (path, key) != ('/', DIGEST):
                feed(f'{path}@{key}', node._v_attrs[key])
        if not isinstance(node, tables.Group):
            feed(path, node.read())
    return sha.hexdigest()


def seal(image: bytes) -> bytes:
    """The seal to append to the bytes of a whole HDF5 file."""
    return SEAL + hashlib.sha256(image).hexdigest().encode() + b'\n'


def read_seal(path: str) -> tuple[bool | None, str]:
    """(whether the seal fits the bytes of a file, None if it has no seal; SHA-256 of all its bytes)."""
    with open(path, 'rb') as f:
        num = max(0, f.seek(0, os.SEEK_END) - SEAL_SIZE)
        f.seek(0)
        sha = hashlib.sha256()
        for start in range(0, num, BLOCK):
            sha.update(f.read(min(BLOCK, num - start)))
        sealed, end = SEAL + sha.hexdigest().encode() + b'\n', f.read()
    sha.update(end)
    return (end == sealed if end.startswith(SEAL) else None), sha.hexdigest()


@contextlib.contextmanager
def write_h5(path: str, replace: bool = False) -> Iterator[Any]:
    """Yield a new open HDF5 file that becomes `path`, with both checksums, when the block ends without an error.

    It is built in memory and written at once, because the HDF5 library can lose the error of a full disk when it closes a file.
    Raises OSError, which says what to do, when the disk is full, and RunFailed when a file exists at `path`, unless `replace`.
    """
    # this driver needs a name, but creates no file
    with (
        tables.open_file(f'{path}.image', 'w', driver='H5FD_CORE', driver_core_backing_store=0) as h5,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter('ignore', tables.NaturalNameWarning)  # a column's name need not be a Python name
        yield h5
        h5.root._v_attrs[DIGEST] = content_digest(h5)
        image = h5.get_file_image()
    try:
        with writing(path, replace) as tmp, open(tmp, 'wb') as f:
            f.write(image)
            f.write(seal(image))
    except FileExistsError as e:
        seen = 'exists by now, and finished data is never overwritten; it is kept, and what was made here is not'
        raise RunFailed(f'{path}: {seen}. Choose another name, or move that file away') from e
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            what = f'{os.strerror(e.errno)} while writing; nothing was changed. Free some space and continue with --resume'
            raise OSError(e.errno, what, str(path)) from e
        raise


@contextlib.contextmanager
def open_h5(path: object, what: str) -> Iterator[Any]:
    """Yield an HDF5 file open for reading. Raises UserError when it is missing, truncated or altered.

    `what` names what the file should be ("an expert trajectory file").
    """
    with open_hashed(path, what) as (h5, _):
        yield h5


@contextlib.contextmanager
def open_hashed(path: object, what: str) -> Iterator[tuple[Any, str]]:
    """As `open_h5`, but yield (the open file, SHA-256 of its bytes). The bytes are read once for the seal and this hash."""
    path = str(path)
    if not os.path.exists(path):
        raise UserError(f'{path}: no such file; expected {what}')
    check_regular(path, what)
    with no_code(path):
        with refusing_damage(path, f'not a readable HDF5 file (truncated, damaged, or of another kind); expected {what}', _check_free):
            intact, sha256 = read_seal(path)
            if intact is False:
                _check_free(path)
                raise UserError(f'{path}: damaged: {ALTERED}')
            if intact is None and not _survives(path):
                raise ValueError('the HDF5 library crashes or hangs on it')
            h5 = _open(path)
        with h5:
            with refusing_damage(path, f'damaged: its structure cannot be read; restore or recreate {what}', _check_free):
                check_contents(h5, path)
            if intact is None:
                _verify(h5, path)
            try:
                yield h5, sha256
            except tables.HDF5ExtError as e:
                raise UserError(f'{path}: damaged: its data cannot be read; restore or recreate {what}') from e
            except tables.NoSuchNodeError as e:
                raise UserError(f'{path}: incomplete: {e.args[0] if e.args else e}; expected {what}') from e


@contextlib.contextmanager
def refusing_damage(path: str, seen: str, rule_out: Callable[[str], None] | None = None) -> Iterator[None]:
    """Turn any error of the block into a UserError with the text `seen`: on damaged bytes libraries raise errors of any type.

    rule_out: called with the path first; it raises a UserError of its own if something else than damage is the cause.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as e:
        if rule_out is not None:
            rule_out(path)
        raise UserError(f'{path}: {seen}') from e


def _check_free(path: str) -> None:
    """Raise UserError where reading a file is not permitted, or another program has it open for writing. Neither is damage."""
    try:
        with open(path, 'rb') as f:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)  # a program that writes HDF5 holds the exclusive lock
    except BlockingIOError as e:
        raise UserError(f'{path}: is in use: another program (a viewer?) has it open for writing; close it there and try again') from e
    except PermissionError as e:
        raise UserError(f'{path}: cannot be read ({e.strerror}); ask its owner, or copy it') from e
    except OSError:
        pass  # the file system has no locks; nothing is wrong with the file


def _open(path: str) -> tables.File:
    """tables.open_file for reading. By itself that leaves a file open when it fails at the attributes of the root."""
    open_before = set(tables.file._open_files.handlers)
    try:
        return tables.open_file(path, 'r')
    except Exception as e:
        for handle in tables.file._open_files.get_handlers_by_name(path) - open_before:
            handle.close()
        if 'unable to lock file' not in str(e):
            raise
    _check_free(path)
    # The file system has no locks. Reading needs none, as our files are never changed in place; HDF5 asks for none in memory.
    with open(path, 'rb') as f:
        image = f.read()
    name = f'{path} (read without locks)'  # this driver rejects the name of an existing file
    return tables.open_file(name, 'r', driver='H5FD_CORE', driver_core_image=image, driver_core_backing_store=0)


def _survives(path: str) -> bool:
    """Whether the HDF5 library reads a file without a crash or a hang. A fork tries it, since damaged bytes can end the process."""
    pid = os.fork()
    if pid == 0:
        try:
            faulthandler.disable()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60 + os.path.getsize(path) // 10_000_000)
            with no_code(path), _open(path) as h5:
                check_contents(h5, path)
                leaves: list[Any] = list(h5.walk_nodes('/', 'Leaf'))
                for node in leaves:
                    if not isinstance(node, tables.UnImplemented):  # PyTables cannot read its type, e.g. texts of h5py
                        node.read()
        finally:
            os._exit(0)  # an error in Python is raised again in the parent
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) >= 0


def _verify(h5: tables.File, path: str) -> None:
    attrs = h5.root._v_attrs
    with refusing_damage(path, 'damaged: its data cannot be read; restore or recreate it'):
        if DIGEST in attrs and str(attrs[DIGEST]) != content_digest(h5):
            raise UserError(f'{path}: damaged: {ALTERED}')


def numbers(h5: tables.File, name: str, what: str) -> np.ndarray:
    """The dataset of numbers /name of an open file, with at least one axis. Raises UserError where it is missing or something else."""
    node = h5.get_node(f'/{name}') if f'/{name}' in h5 else None
    if not isinstance(node, tables.Array) or node.dtype.kind not in 'biuf':
        raise UserError(f'{h5.filename}: {name} is not an array of numbers; expected {what}')
    return np.atleast_1d(node.read())


def read_table(h5: tables.File, name: str, what: str) -> Any:
    """The rows of the table /name of an open file as a structured array. Raises UserError where it is missing or something else."""
    node = h5.get_node(f'/{name}') if f'/{name}' in h5 else None
    if not isinstance(node, tables.Table):
        raise UserError(f'{h5.filename}: holds no table /{name}; expected {what}')
    return node.read()


def check_column(where: str, rows: np.ndarray, name: str, kinds: str, expected: str, num_axes: int = 0) -> None:
    """Raise UserError unless each row of a column holds values of these kinds: one, or an array with `num_axes` axes."""
    held = rows.dtype[name]
    if held.base.kind not in kinds or len(held.shape) != num_axes:
        seen = f'{held.base} of shape {held.shape}' if held.shape else held
        raise UserError(f"{where}: the column '{name}' holds {seen}; expected {expected} in each row")


def set_attrs(node: Any, attrs: Mapping[str, Any]) -> None:
    """Store a dict as attributes of an HDF5 group: strings as they are, other values as JSON, long texts as datasets below the group.

    HDF5 stores UTF-8. Other bytes, which a command line or a file name may hold, are escaped.
    """
    for key, value in attrs.items():
        text = (value if isinstance(value, str) else json.dumps(value)).encode('utf-8', 'backslashreplace')
        if len(text) <= LONGEST_ATTR:
            node._v_attrs[key] = text.decode()
        else:
            where = f'{node._v_pathname.rstrip("/")}/{LONG_TEXTS}'
            node._v_file.create_carray(where, key, obj=np.frombuffer(text, np.uint8), filters=tables.Filters(1), createparents=True)


def attrs_of(node: Any) -> dict[str, str]:
    """All attributes of a group as texts, including the long ones."""
    long = sorted(node._v_groups[LONG_TEXTS]._v_children) if LONG_TEXTS in node._v_groups else []
    return {key: attr_text(node, key) for key in [*node._v_attrs._f_list('user'), *long]}


def attr_text(node: Any, key: str, default: str | None = None) -> Any:
    """An attribute as str, stored as text, as bytes (files of 2016) or as a long text; `default` if there is none."""
    what = f"{node._v_file.filename}: the attribute '{key}' of {node._v_pathname}"
    if key in node._v_attrs:
        return decoded(node._v_attrs[key], what)
    where = f'{node._v_pathname.rstrip("/")}/{LONG_TEXTS}/{key}'
    if where not in node._v_file:
        return default
    long = node._v_file.get_node(where)
    if not isinstance(long, tables.Array) or long.dtype != np.uint8:
        raise UserError(f'{what} is not a text; the file is damaged or not one of ours')
    return decoded(long.read().tobytes(), what)


def attr_table(node: Any, key: str) -> dict[str, Any] | None:
    """The JSON table in an attribute; None if there is no such attribute. Raises UserError for anything else."""
    text = attr_text(node, key)
    if text is None:
        return None
    what = f"{node._v_file.filename}: the attribute '{key}' of {node._v_pathname}"
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as e:  # also for a number of thousands of digits, and for brackets nested too deeply
        raise UserError(f'{what} is not JSON ({e}); the file is damaged or of another kind') from e
    if not isinstance(table, dict):
        raise UserError(f'{what} is {text[:40]!r}; expected a table as JSON, {{"key": value}}')
    return table
