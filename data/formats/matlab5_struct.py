"""Reads from a MATLAB 5 file (`.mat`) a struct of numbers and texts, such as CPSC2018's, or an array of numbers.

Only that: objects, functions, cells, sparse and complex arrays are refused. Every size is checked against the bytes
that are there before anything is allocated, which `scipy.io.loadmat` does not do: there, one number in a small file
decides how much memory is asked for, and a wrong type ends the interpreter. The values equal those of `loadmat`.

Format: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf.
"""

import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np

MAX_BYTES = 2**26
"""Largest file and largest unpacked struct; the longest recording of CPSC2018 has 7 MB."""

_COMPRESSED, _MATRIX = 15, 14
_STRUCT, _CHAR, _NUMERIC = 2, 4, range(6, 16)
_CLASSES = dict(zip(_NUMERIC, ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), strict=True))
_HEAD_BYTES = 4096  # of a compressed array: enough for its class, shape and name
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_COMPLEX_FLAG = 0x0800
_MAX_DEPTH = 8  # of structs in structs


def read_struct(path: str | os.PathLike, name: str) -> dict[str, np.ndarray | str]:
    """The fields of the struct `name` of a MATLAB 5 file.

    Returns:
        field → array of numbers, two-dimensional as MATLAB has it, or text.

    Raises:
        ValueError: if the file does not exist, is no MATLAB 5 file, is truncated, or holds anything else.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            content = file.read() if os.fstat(file.fileno()).st_size <= MAX_BYTES else b""
    except OSError as error:
        raise ValueError(f"Cannot read MATLAB file {path}: {error.strerror}.") from None
    if len(content) < 128 or content[126:128] not in (b"IM", b"MI"):
        raise ValueError(f"{path} is no MATLAB 5 file of at most {MAX_BYTES} bytes: its header lacks 'IM' or 'MI'.")
    order = "<" if content[126:128] == b"IM" else ">"
    try:
        for kind, payload in _elements(memoryview(content)[128:], order):
            if kind == _COMPRESSED:
                kind, payload = next(_elements(_unpack(payload), order))
            if kind == _MATRIX:
                parts = _elements(payload, order)
                flags, _, found = next(parts), next(parts), _text(next(parts))
                if found == name:
                    return _fields(flags, parts, order)
    except StopIteration:
        raise ValueError(f"{path} is truncated: an array in it lacks a part.") from None
    except (ValueError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as a MATLAB 5 struct: {error}") from error
    raise ValueError(f"{path} holds no struct {name!r}.")


def read_array(content: bytes, choose_name: Callable[[list[str]], str], max_bytes: int) -> np.ndarray:
    """The array of numbers of a MATLAB 5 file that `choose_name` picks from the names of all that it holds.

    Args:
        content (`bytes`): Bytes of the file.
        choose_name: Gets the names of variables, and of fields of structs as `"ECG.data"`.
        max_bytes (`int`): Largest unpacked size of an array.

    Raises:
        ValueError: if the content is damaged, or `choose_name` raises it.
    """
    order = "<" if content[126:128] == b"IM" else ">"
    found = {}
    try:
        for kind, payload in _elements(memoryview(content)[128:], order):
            array, packed = payload, kind == _COMPRESSED
            if packed:
                head = memoryview(zlib.decompressobj().decompress(payload, _HEAD_BYTES))
                kind, array = (struct.unpack_from(order + "I", head)[0], head[8:]) if len(head) >= 8 else (0, head)
            if kind != _MATRIX:
                continue
            parts = _elements(array, order)
            flag, shape, name = _first_number(next(parts), order), _numbers(next(parts), order), _text(next(parts))
            if flag & 0xFF == _STRUCT:
                whole = next(_elements(_unpack(payload, max_bytes), order))[1] if packed else payload
                found |= {path: (field, False) for path, field in _fields_of(name, whole, order, 0)}
            elif flag & 0xFF in _NUMERIC and not flag & _COMPLEX_FLAG and math.prod(map(int, shape)):
                found[name] = (payload, packed)
        payload, packed = found[choose_name(list(found))]
        if packed:
            _, payload = next(_elements(_unpack(payload, max_bytes), order))
        return _array(payload, order)
    except StopIteration:
        raise ValueError("it is truncated: an array in it lacks a part") from None
    except (UnicodeDecodeError, zlib.error) as error:
        raise ValueError(str(error)) from error


def _fields_of(path: str, payload: memoryview, order: str, depth: int) -> Iterator[tuple[str, memoryview]]:
    """Paths and contents of the numeric fields of a struct and of structs in it; struct arrays have none."""
    parts = _elements(payload, order)
    _, shape, _ = next(parts), _numbers(next(parts), order), next(parts)
    if math.prod(map(int, shape)) != 1 or depth > _MAX_DEPTH:
        return
    for field, (kind, value) in zip(_field_names(parts, order), parts, strict=False):
        if kind == _MATRIX and len(value):
            flag = _first_number(next(_elements(value, order)), order)
            if flag & 0xFF == _STRUCT:
                yield from _fields_of(f"{path}.{field}", value, order, depth + 1)
            elif flag & 0xFF in _NUMERIC and not flag & _COMPLEX_FLAG:
                yield f"{path}.{field}", value


def _array(payload: memoryview, order: str) -> np.ndarray:
    parts = _elements(payload, order)
    flags, dimensions, _, content_part = next(parts), _numbers(next(parts), order), next(parts), next(parts)
    values = _numbers(content_part, order)
    shape = [int(size) for size in dimensions]
    if len(shape) < 2 or min(shape) < 0 or math.prod(shape) != len(values):
        raise ValueError(f"it declares the shape {shape} and has {len(values)} numbers")
    dtype = _CLASSES.get(_array_class(flags, order))  # small whole numbers of a double are stored as such
    return values.astype(dtype).reshape(shape, order="F")


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of the elements that lie one after the other in `data`."""
    position = 0
    while position < len(data):
        if len(data) - position < 8:
            raise ValueError("an element is cut off")
        first, size = struct.unpack_from(order + "II", data, position)
        kind, small = first & 0xFFFF, first >> 16
        start = position + 4 if small else position + 8
        size = small or size
        if small > 4 or size > len(data) - start:
            raise ValueError(f"an element of {size} bytes has only {len(data) - start}")
        yield kind, data[start : start + size]
        aligned = size if kind == _COMPRESSED else (size + 7) // 8 * 8
        position = position + 8 if small else start + aligned


def _unpack(payload: memoryview, max_bytes: int = MAX_BYTES) -> memoryview:
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(payload, max_bytes)
    if unpacker.unconsumed_tail:
        raise ValueError(f"it unpacks to more than {max_bytes} bytes")
    if not unpacker.eof:
        raise ValueError("its packed part is cut off")
    return memoryview(unpacked)


def _fields(flags: tuple[int, memoryview], parts: Iterator, order: str) -> dict[str, np.ndarray | str]:
    if _array_class(flags, order) != _STRUCT:
        raise ValueError(f"it is an array of class {_array_class(flags, order)}, not a struct")
    return {field: _value(next(parts), field, order) for field in _field_names(parts, order)}


def _field_names(parts: Iterator, order: str) -> list[str]:
    length = _first_number(next(parts), order)
    names = bytes(next(parts)[1])
    if length <= 0 or not names or len(names) % length:
        raise ValueError("the names of its fields are damaged")
    return [names[start : start + length].split(b"\0")[0].decode() for start in range(0, len(names), length)]


def _value(element: tuple[int, memoryview], field: str, order: str) -> np.ndarray | str:
    kind, payload = element
    if kind != _MATRIX:
        raise ValueError(f"its field {field!r} is no array")
    parts = _elements(payload, order)
    flags, dimensions = next(parts), _numbers(next(parts), order)
    next(parts)  # the name of a field's array is empty
    array_class, content = _array_class(flags, order), next(parts)
    if array_class == _CHAR:
        return _text(content, order)
    if array_class not in _NUMERIC:
        raise ValueError(f"its field {field!r} is an array of class {array_class}; expected numbers or a text")
    values = _numbers(content, order)
    shape = [int(size) for size in dimensions]
    if len(shape) != 2 or min(shape) < 0 or shape[0] * shape[1] != len(values):
        raise ValueError(f"its field {field!r} has {len(values)} numbers for the shape {shape}")
    return values.reshape(shape, order="F")


def _array_class(flags: tuple[int, memoryview], order: str) -> int:
    flag = _first_number(flags, order)
    if flag & _COMPLEX_FLAG:
        raise ValueError("it holds complex numbers")
    return flag & 0xFF


def _numbers(element: tuple[int, memoryview], order: str) -> np.ndarray:
    kind, payload = element
    if kind not in _NUMBERS:
        raise ValueError(f"expected numbers, got the type {kind}")
    dtype = np.dtype(order + _NUMBERS[kind])
    if len(payload) % dtype.itemsize:
        raise ValueError(f"{len(payload)} bytes are no whole number of {dtype}")
    return np.frombuffer(payload, dtype)


def _first_number(element: tuple[int, memoryview], order: str) -> int:
    numbers = _numbers(element, order)
    if not len(numbers):
        raise ValueError("a number is missing")
    return int(numbers[0])


def _text(element: tuple[int, memoryview], order: str = "<") -> str:
    kind, payload = element
    if kind == 1:
        return bytes(payload).decode("ascii")
    if kind not in _TEXTS:
        raise ValueError(f"expected a text, got the type {kind}")
    encoding = _TEXTS[kind]
    return bytes(payload).decode(encoding if encoding == "utf-8" else encoding + ("-le" if order == "<" else "-be"))
