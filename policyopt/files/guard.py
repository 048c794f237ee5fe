"""Guard against files from strangers: reading one must not run code, open another file, or fill the memory.

PyTables unpickles every row of a VLArray of objects. It also unpickles every byte-string attribute that ends in '.', as soon as the
attributes of its node are read. Unpickling can run any program that the file's author chose. Neither a checksum nor a seal protects
from that, because the author can write both. So `no_code` replaces the module pickle inside PyTables by one that refuses, and nothing
is unpickled by a thread that is inside it. Outside, PyTables works as usual, since other programs in the same process may rely on
pickled attributes (pandas does).

Links, external storage and virtual datasets make the HDF5 library open other files, under a name that the file's author chose.
PyTables does not show external storage and virtual datasets. The HDF5 library is asked for them before PyTables opens a dataset.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import pickle
import pickletools
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import tables
from tables import atom, attributeset, hdf5extension  # pyright: ignore[reportAttributeAccessIssue] (a compiled module)

from policyopt.errors import UserError, printable

MAX_DEPTH = 64  # levels of groups; our files have ten
MAX_RATIO = 1032  # deflate cannot pack more bytes into one byte
SMALL = 1 << 24  # bytes that a dataset may declare, however few it stores
CHUNKED, VIRTUAL = 2, 3  # H5D_layout_t


class _Reading(threading.local):
    """The faults of the attributes that this thread has read inside `no_code`; None outside."""

    found: list[str] | None = None


_reading = _Reading()


class _NoPickle:
    """Takes the place of the module pickle inside PyTables."""

    def __getattr__(self, name):
        return getattr(pickle, name)

    @staticmethod
    def loads(data: bytes, **options: Any) -> Any:
        if _reading.found is not None:
            raise pickle.UnpicklingError('a file from a stranger is not unpickled')
        return pickle.loads(data, **options)


atom.pickle = attributeset.pickle = _NoPickle()
_getattr = attributeset.AttributeSet.__getattr__


def _checked_getattr(self, name):
    """AttributeSet.__getattr__, which inside `no_code` also notes each attribute that is a pickle, or bytes that are not text."""
    if _reading.found is not None and name in self._v_attrnames:
        try:
            value = self._g_getattr(self._v_node, name)
            if isinstance(value, bytes) and value.endswith(b'.') and _is_pickle(value):  # numpy.bytes_ is a kind of bytes
                _reading.found.append(
                    f"the attribute '{name}' of {self._v__nodepath} is a pickled Python object, which could run any program when it is "
                    'read; attributes must be text or numbers'
                )
        except UnicodeDecodeError as e:
            _reading.found.append(f"the attribute '{name}' of {self._v__nodepath} is not UTF-8 text")
            raise AttributeError(_reading.found[-1]) from e
    return _getattr(self, name)


attributeset.AttributeSet.__getattr__ = _checked_getattr


def _is_pickle(value: bytes) -> bool:
    """Whether bytes are a valid sequence of pickle opcodes, which are not executed. A text that ends in a full stop is not."""
    try:
        pickletools.dis(value, out=io.StringIO())
    except Exception:  # any error of the disassembler means that this is no pickle
        return False
    return True


@contextlib.contextmanager
def no_code(path: str) -> Iterator[None]:
    """Let PyTables unpickle nothing in this thread, and not warn. Raises UserError, which names it, for an attribute that is a pickle."""
    outer, _reading.found = _reading.found, []
    try:
        with warnings.catch_warnings():
            for category in (tables.NaturalNameWarning, tables.DataTypeWarning, tables.PerformanceWarning, tables.FiltersWarning):
                warnings.simplefilter('ignore', category)
            warnings.filterwarnings('ignore', category=UserWarning, module='tables')  # about nodes that it does not know
            try:
                yield
            except Exception as e:
                _refuse_found(path, e)  # the cause of this error
                raise
            _refuse_found(path)
    finally:
        _reading.found = outer


def _refuse_found(path: str, consequence: Exception | None = None) -> None:
    if _reading.found:
        raise UserError(f'{path}: {_reading.found[0]}') from consequence


class _Stat(ctypes.Structure):
    """H5G_stat_t."""

    _fields_ = [
        ('fileno', ctypes.c_ulong * 2), ('objno', ctypes.c_ulong * 2), ('nlink', ctypes.c_uint), ('type', ctypes.c_int),
        ('mtime', ctypes.c_long), ('linklen', ctypes.c_size_t), ('space', ctypes.c_size_t * 4),
    ]  # fmt: skip


def _library() -> ctypes.CDLL:
    """The HDF5 library that PyTables uses; it is loaded together with its extension module."""
    lib = ctypes.CDLL(hdf5extension.__file__)
    hid, text, size = ctypes.c_int64, ctypes.c_char_p, ctypes.c_uint64
    for name, result, arguments in (
        ('H5Dopen2', hid, [hid, text, hid]),
        ('H5Dget_create_plist', hid, [hid]),
        ('H5Dget_space', hid, [hid]),
        ('H5Dget_type', hid, [hid]),
        ('H5Dget_storage_size', size, [hid]),
        ('H5Pget_layout', ctypes.c_int, [hid]),
        ('H5Pget_external_count', ctypes.c_int, [hid]),
        ('H5Pget_nfilters', ctypes.c_int, [hid]),
        ('H5Pget_filter2', ctypes.c_int, [hid, ctypes.c_uint, *[ctypes.c_void_p] * 3, ctypes.c_size_t, text, ctypes.c_void_p]),
        ('H5Zfilter_avail', ctypes.c_int, [ctypes.c_int]),
        ('H5Sget_simple_extent_npoints', ctypes.c_int64, [hid]),
        ('H5Tget_size', ctypes.c_size_t, [hid]),
        ('H5Gget_objinfo', ctypes.c_int, [hid, text, ctypes.c_int, ctypes.c_void_p]),
        ('H5Idec_ref', ctypes.c_int, [hid]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


_lib = _library()


def check_contents(h5: tables.File, path: str) -> None:
    """Raise UserError unless an open file is a tree of groups and datasets, all stored in it, none larger than its bytes allow."""
    size = os.path.getsize(path)
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    groups: list[tuple[Any, int]] = [(h5.root, 0)]
    leaves, seen = [], set()
    while groups:
        group, depth = groups.pop()
        if depth > MAX_DEPTH:
            raise UserError(f'{path}: its groups are nested more than {MAX_DEPTH} deep; the file is damaged or not one of ours')
        # PyTables opens hidden nodes by itself too: the index of a table
        for name in [*group._v_children, *group._v_hidden]:
            where = f'{group._v_pathname.rstrip("/")}/{name}'
            if name in group._v_links:
                raise UserError(f"{path}: '{where}' is a link, which may lead to another file; copy what it points to into the file")
            stat = _Stat()
            if _lib.H5Gget_objinfo(group._v_objectid, name.encode(), 0, ctypes.byref(stat)) < 0 or tuple(stat.objno) in seen:
                raise UserError(f"{path}: '{where}' is damaged, or the same object under a second name; restore or recreate the file")
            seen.add(tuple(stat.objno))
            if name in group._v_groups or (name in group._v_hidden and stat.type == 0):
                groups.append((h5.get_node(where), depth + 1))
            elif stat.type == 1:
                _check_dataset(path, group._v_objectid, name, where=where, file_size=size, memory=memory)
                leaves.append(where)
            else:
                raise UserError(f"{path}: '{where}' is neither a group nor a dataset; expected nothing else in a file of ours")
    for where in leaves:
        node = h5.get_node(where)
        node._v_attrs  # noqa: B018 (reading them checks them)
        if isinstance(node, tables.VLArray) and isinstance(node.atom, tables.ObjectAtom):
            raise UserError(
                f"{path}: '{where}' is an array of pickled Python objects, which could run any program when it is read; "
                'store numbers or text'
            )
    _refuse_found(path)


def _check_dataset(path: str, group_id: int, name: str, where: str, file_size: int, memory: int) -> None:
    """Raise UserError where a dataset takes its bytes from another file or declares too many. No other file is opened for that."""
    dataset = _lib.H5Dopen2(group_id, name.encode(), 0)
    if dataset < 0:
        raise UserError(f"{path}: damaged: the dataset '{where}' cannot be opened; restore or recreate the file")
    try:
        plist = _lib.H5Dget_create_plist(dataset)
        layout, num_external = _lib.H5Pget_layout(plist), _lib.H5Pget_external_count(plist)
        unknown = _unknown_filter(plist)
        _lib.H5Idec_ref(plist)
        if unknown:
            raise UserError(
                f"{path}: the dataset '{where}' needs the filter {unknown}, which this HDF5 library does not have; "
                f'expected gzip or none. Convert the file where it was made: h5repack -f GZIP=4 OLD.h5 NEW.h5'
            )
        if layout == VIRTUAL or num_external > 0:
            raise UserError(f"{path}: the dataset '{where}' takes its numbers from another file; copy them into this one")
        space, kind = _lib.H5Dget_space(dataset), _lib.H5Dget_type(dataset)
        declared = max(_lib.H5Sget_simple_extent_npoints(space), 0) * _lib.H5Tget_size(kind)
        _lib.H5Idec_ref(space)
        _lib.H5Idec_ref(kind)
        stored = min(_lib.H5Dget_storage_size(dataset), file_size)
    finally:
        _lib.H5Idec_ref(dataset)
    allowed = max(stored * MAX_RATIO if layout == CHUNKED else file_size, SMALL)
    if declared > min(allowed, memory):
        held = f'the file stores {stored} for it' if declared > allowed else f'this computer has {memory}'
        raise UserError(f"{path}: the dataset '{where}' declares {declared} bytes, but {held}; it is damaged or made to fill the memory")


def _unknown_filter(plist: int) -> str | None:
    """The name and number of the first filter of a dataset that the HDF5 library lacks, or None."""
    for i in range(_lib.H5Pget_nfilters(plist)):
        name = ctypes.create_string_buffer(64)
        number = _lib.H5Pget_filter2(plist, i, None, None, None, len(name), name, None)
        if number >= 0 and _lib.H5Zfilter_avail(number) <= 0:
            return f"'{printable(name.value.decode(errors='replace'))}' (number {number})"
    return None


def decoded(value: Any, what: str) -> str:
    """An attribute's value as str: a text, or UTF-8 bytes as in files of 2016. Raises UserError, which names `what`, for other bytes."""
    if not isinstance(value, (bytes, np.bytes_)):
        return str(value)
    try:
        return value.decode('utf-8')
    except UnicodeDecodeError as e:
        raise UserError(f'{what} is not UTF-8 text (byte {e.start}); the file is damaged or of another kind') from e
