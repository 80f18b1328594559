"""Limits on what a file may ask of the machine, whatever its size fields say, and the errors of format libraries."""

import os
import stat
import struct
import tokenize
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MAX_VALUES = 2**30
"""Most values (leads x samples) of one recording: a day of twelve leads at 1000 Hz."""

MAX_TEXT_BYTES = 2**28
"""Largest XML file, and largest line-by-line table."""

_MOST_VALUES: ContextVar[int] = ContextVar("most_values", default=MAX_VALUES)

MAX_FILE_BYTES = 2**36
"""Largest file that is opened at all, in places that read it piece by piece; a file with holes may claim any size."""

LIBRARY_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    tokenize.TokenError,
    struct.error,
    zlib.error,
)
"""What libraries raise on damaged files. Caught around one call of the library and raised again as `ValueError`."""


def max_values() -> int:
    """Most values of one recording here: `MAX_VALUES`, or fewer inside of [`at_most`]."""
    return _MOST_VALUES.get()


@contextmanager
def at_most(num_values: int) -> Iterator[None]:
    """Lowers what a recording may hold, for files that strangers send.

    Args:
        num_values (`int`): Most values (leads x samples) of a recording that is read inside of the `with`.
    """
    token = _MOST_VALUES.set(num_values)
    try:
        yield
    finally:
        _MOST_VALUES.reset(token)


def check_num_values(path: str, shape: tuple[int, ...]):
    """Raises `ValueError` if an array of this shape is empty or larger than [`max_values`]."""
    count = 1
    for length in shape:
        count *= int(length)
    if not 0 < count <= max_values():
        raise ValueError(f"{path}: expected 1 to {max_values()} values, the file declares the shape {tuple(shape)}.")


def check_file(path: str | os.PathLike, most_bytes: int = MAX_FILE_BYTES) -> int:
    """Accepts a regular file of a size that can be, which it returns: no pipe, which waits for ever, and no device.

    Raises:
        ValueError: for anything else, a link to itself among it, and for a file larger than `most_bytes`.
    """
    path = os.fspath(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.") from None
    return _check_status(path, status, most_bytes)


def _check_status(path: str, status: os.stat_result, most_bytes: int) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"Cannot read {path}: it is a folder, pipe or device, and no regular file.")
    if status.st_size > most_bytes:
        raise ValueError(f"Cannot read {path}: it has {status.st_size} bytes, at most {most_bytes} are read.")
    return status.st_size


# Without waiting for the other end of a pipe, which is closed again.
_OPENING = os.O_RDONLY | (os.O_NONBLOCK if os.name == "posix" else os.O_BINARY)


def _open_file(path: str, most_bytes: int) -> tuple[int, int]:
    """Descriptor and size of a file that [`check_file`] accepts."""
    try:
        descriptor = os.open(path, _OPENING)
    except (OSError, ValueError):
        check_file(path, most_bytes)
        raise
    try:
        return descriptor, _check_status(path, os.fstat(descriptor), most_bytes)
    except ValueError:
        os.close(descriptor)
        raise


def read_file(path: str | os.PathLike, most_bytes: int) -> bytes:
    """The content of a regular file of at most `most_bytes`, by one read of its size: twice as fast as without it."""
    descriptor, num_bytes = _open_file(os.fspath(path), most_bytes)
    try:
        content = os.read(descriptor, num_bytes)
        while len(content) < num_bytes and (part := os.read(descriptor, num_bytes - len(content))):
            content += part  # one read gives 2 GB at most
        return content
    finally:
        os.close(descriptor)


def read_bytes(path: str | os.PathLike, max_bytes: int, what: str) -> bytes:
    """The content of a file of at most `max_bytes`.

    Raises:
        ValueError: if it cannot be opened or is larger.
    """
    if check_file(path) > max_bytes:
        raise ValueError(
            f"{what} {os.fspath(path)} is larger than {max_bytes} bytes. Split it, or convert it to WFDB."
        )
    try:
        return read_file(path, max_bytes)
    except OSError as error:
        raise ValueError(f"Cannot read {what} {os.fspath(path)}: {error.strerror}.") from None


def check_expansion(path: str, num_bytes: int, file_bytes: int) -> None:
    """Raises `ValueError` for a file that unpacks to much more than recordings do: beyond 64 MB, to over 200 times its
    size."""
    if num_bytes > 2**26 and num_bytes > 200 * file_bytes:
        raise ValueError(f"{path} has {file_bytes} bytes and would unpack to {num_bytes}, which no recordings do.")


def missing_library(library: str, extra: str) -> ValueError:
    """The error for a format whose optional library is not installed."""
    return ValueError(f'Reading this format needs {library}. Install it by pip install "ecg-transformers[{extra}]".')
