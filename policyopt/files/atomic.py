"""Files that are written whole or not at all, and the checks that come before the work."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator

from policyopt.errors import UserError, printable
from policyopt.provenance import process_name

_KINDS = {stat.S_IFDIR: 'a folder', stat.S_IFIFO: 'a pipe', stat.S_IFCHR: 'a device', stat.S_IFBLK: 'a device', stat.S_IFSOCK: 'a socket'}
_NO_HARD_LINKS = errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK  # errors of a file system without hard links


@contextlib.contextmanager
def writing(path: str, replace: bool = False) -> Iterator[str]:
    """Yield a temporary path next to `path`. On success the file is flushed to disk and renamed to `path`; otherwise it is removed.

    A reader of `path` sees the old file or the whole new one, never a part. Without `replace`, a file that exists at `path` by then
    is kept, and FileExistsError is raised.
    """
    # a random number, because on a shared disk a process of another container may have the same name
    tmp = f'{path}.{process_name()}.{int.from_bytes(os.urandom(3), "big")}.tmp'
    try:
        yield tmp
        fd = os.open(tmp, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        if replace:
            os.replace(tmp, path)
        else:
            _create_from(tmp, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tmp)


def _create_from(tmp: str, path: str) -> None:
    """Give a file its final name unless that is taken. This is atomic, on network disks too: of two processes only one succeeds."""
    try:
        os.link(tmp, path)
    except FileExistsError:
        if not _same_file(tmp, path):  # NFS can make the link and lose the reply
            raise
    except OSError as e:
        if e.errno not in _NO_HARD_LINKS:
            raise
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        os.replace(tmp, path)


def replacing(path: str) -> contextlib.AbstractContextManager[str]:
    """As `writing`, but replace the file at `path`. For checkpoints, tables and pictures, never for finished data."""
    return writing(path, replace=True)


def check_regular(path: str, what: str) -> None:
    """Raise UserError if the file to read is a folder, a pipe, a device or a socket: opening or reading some of these never ends.

    Call it before any file of a user is opened. `what` names what the file should be. A missing file is left to the caller.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # the file is missing, or the name cannot be one of a file
        return
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), 'no regular file')
        raise UserError(f'{path}: is {kind}; expected {what} in a regular file')


def read_utf8(path: str, what: str, most: int | None = None) -> str:
    """The text of a file, at most its first `most` characters. Raises UserError where it is not UTF-8."""
    check_regular(path, what)
    with open(path, encoding='utf-8', errors='surrogateescape') as f:
        text = f.read(most)
    if odd := re.search('[\udc80-\udcff]', text):
        line = text.count('\n', 0, odd.start()) + 1
        raise UserError(f'{path}: line {line}: byte 0x{ord(odd[0]) - 0xDC00:02x} is not UTF-8 text; expected {what}')
    return text


def write_text(path: str, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as tmp, open(tmp, 'w', encoding='utf-8') as f:
        f.write(text)


def check_writable_dir(path: str, what: str) -> None:
    """Raise UserError unless files can be created in the folder of `path` (which need not exist yet)."""
    folder = os.path.dirname(path) or '.'  # not normalised: the system needs the folder x of x/../out.h5
    if not os.path.isdir(folder):
        raise UserError(f"{path}: the folder '{folder}' for {what} does not exist; create it first")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{path}: cannot write {what} into '{folder}' (no write permission); choose another folder")


def check_output(path: str, what: str, inputs: Iterable[str | None] = (), others: Iterable[str] = (), begins: str | None = None) -> None:
    """Raise UserError unless a file can be written at `path` without the loss of an input or of finished data; call it before the work.

    Any HDF5 file that exists counts as finished data. Other regular files may be replaced.

    Args:
        inputs: files that the command reads.
        others: further files that it writes.
        begins: if given, only a file that begins with this text, or an empty one, may be replaced.
    """
    name = os.path.basename(path)
    if name in ('', '.', '..') or os.path.isdir(path):
        raise UserError(f"'{path}': expected the name of a file for {what}, not of a folder")
    if printable(path, keep='\u200c\u200d') != path:  # the spelling of some languages needs these joiners
        seen = 'control characters, marks of direction or bytes that are not UTF-8 text'
        raise UserError(f'{path!r}: the name for {what} has {seen}; choose another name')
    longest = 255 - len(f'.lock.12345678.{process_name()}.12345678.tmp')  # room for the ending of its lock or temporary file
    if len(name.encode()) > longest or len(os.path.abspath(path).encode()) > 4000:
        raise UserError(f'{path}: the name for {what} is too long; give at most {longest} characters, and 4000 with its folders')
    check_writable_dir(path, what)
    for given in inputs:
        if given and (os.path.realpath(path) == os.path.realpath(given) or _same_file(path, given)):
            raise UserError(f'{path}: is an input of this command and would be lost; choose another file for {what}')
    if os.path.realpath(path) in map(os.path.realpath, others):
        raise UserError(f'{path}: is named for two outputs; choose another file for {what}')
    check_link(path, what)
    if os.path.islink(path):  # even /dev/stdout, if it leads to a file: the link itself would be replaced
        raise UserError(f'{path}: is a link to another file ({os.readlink(path)}); give the name of the file itself for {what}')
    if os.path.exists(path):
        if not os.path.isfile(path):
            raise UserError(f'{path}: exists and is no regular file; choose another file for {what}')
        if begins_as_hdf5(path):
            raise UserError(f'{path}: is an HDF5 file, and finished data is never overwritten; choose another file for {what}')
        if begins and os.path.getsize(path):
            with open(path, 'rb') as f:
                if f.read(len(begins.encode())) != begins.encode():
                    raise UserError(f'{path}: is there, and is not {what} of an earlier run; choose another file, or remove it')


def check_link(path: str, what: str) -> None:
    """Raise UserError if a path is a link to nothing, for example to a disk that is not mounted: no file can be created there."""
    if os.path.islink(path) and not os.path.exists(path):
        raise UserError(
            f'{path}: is a link to nothing ({os.readlink(path)}); give the name of the file itself for {what}, or remove the link'
        )


def _same_file(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them does not exist
        return False


def begins_as_hdf5(path: str) -> bool:
    """Whether a path is a regular file that begins with the signature of HDF5."""
    if not os.path.isfile(path):
        return False
    with open(path, 'rb') as f:
        return f.read(8) == b'\x89HDF\r\n\x1a\n'
