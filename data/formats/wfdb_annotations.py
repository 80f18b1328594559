"""Annotation files of WFDB records in the MIT format (`.atr`, LUDB's `.i` to `.v6`): beats, rhythms, wave marks.

Pairs of bytes: six bits say what it is, ten bits how many samples after the last one. A few of the codes carry further
bytes (a long interval, a text) or change a field of the annotation before them.

Format: https://physionet.org/physiotools/wag/annot-5.htm. The result equals `wfdb.rdann` annotation by annotation.
"""

import os
from typing import NamedTuple

import numpy as np

MAX_FILE_SIZE = 8 * 2**20  # bytes; a day of beats is under 1 MB
_NO_ANNOTATION, _NOTE, _SKIP, _NUM, _SUB, _CHN, _AUX = 0, 22, 59, 60, 61, 62, 63

# By code; the codes that are not here stand for nothing in the format's own table.
_SYMBOLS = (
    {_NO_ANNOTATION: ""}
    | dict(enumerate("NLRaVFJASEj/Q~", start=1))
    | {16: "|", 18: "s", 19: "T", 20: "*", 21: "D", 22: '"'}
)
_SYMBOLS |= {23: "=", 24: "p", 25: "B", 26: "^", 27: "t", 28: "+", 29: "u", 30: "?", 31: "!", 32: "[", 33: "]"}
_SYMBOLS |= {34: "e", 35: "n", 36: "@", 37: "x", 38: "f", 39: "(", 40: ")", 41: "r"}


class WfdbAnnotations(NamedTuple):
    """Marks in a record, in the order of time.

    Args:
        samples (`np.ndarray` of shape `(num_annotations,)`): int64 positions, from 0, at the record's sampling rate.
        symbols (`list[str]`): One character each: `"N"` a normal beat, `"("` an onset, `"+"` a change of rhythm ...
        notes (`list[str]`): The text that comes with an annotation, such as the rhythm `"(AFIB"`; mostly empty.
    """

    samples: np.ndarray
    symbols: list[str]
    notes: list[str]


def read_annotations(path: str | os.PathLike) -> WfdbAnnotations:
    """Reads an annotation file (its path with the annotator's name as ending, `"100.atr"`).

    Notes in which the file describes itself (`## time resolution: 200`, at sample 0) are left out.

    Raises:
        ValueError: if there is no such file, or it is too large, cut off, or holds an unknown code.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise ValueError(f"Cannot read annotation file {path}: {error.strerror}.") from None
    if len(content) > MAX_FILE_SIZE:
        raise ValueError(f"Annotation file {path} is larger than {MAX_FILE_SIZE} bytes.")
    try:
        return parse_annotations(content)
    except ValueError as error:
        raise ValueError(f"Annotation file {path}: {error}") from None


def parse_annotations(content: bytes) -> WfdbAnnotations:
    """Parses the bytes of an annotation file.

    Raises:
        ValueError: as `read_annotations`.
    """
    words = np.frombuffer(content, dtype="<u2", count=len(content) // 2)
    codes, values = (words >> 10).tolist(), (words & 0x3FF).tolist()
    samples: list[int] = []
    symbols: list[str] = []
    notes: list[str] = []
    sample, position, after_skip, ended = 0, 0, False, False
    while position < len(codes):
        code, value = codes[position], values[position]
        position += 1
        if code == value == 0 and not after_skip:
            ended = True
            break
        after_skip = code == _SKIP
        if code == _SKIP:
            if position + 2 > len(codes):
                raise ValueError("it ends within a long interval.")
            high, low = int(words[position]), int(words[position + 1])
            interval = high << 16 | low
            sample += interval - (1 << 32 if high & 0x8000 else 0)
            position += 2
        elif code in (_NUM, _SUB, _CHN):
            continue
        elif code == _AUX:
            start = 2 * position
            if not notes or start + value > len(content):
                raise ValueError("it ends within a text, or a text comes before the first annotation.")
            notes[-1] = content[start : start + value].split(b"\0")[0].decode("utf-8", errors="replace")
            position += (value + 1) // 2
        else:
            if code not in _SYMBOLS:
                raise ValueError(f"expected a code of the format, got {code} after sample {sample}.")
            sample += value
            samples.append(sample)
            symbols.append(_SYMBOLS[code])
            notes.append("")
    if not ended:
        raise ValueError("it is cut off: the mark of its end is missing.")
    kept = [i for i, note in enumerate(notes) if symbols[i] and not _describes_file(samples[i], symbols[i], note)]
    return WfdbAnnotations(
        np.array([samples[i] for i in kept], dtype=np.int64), [symbols[i] for i in kept], [notes[i] for i in kept]
    )


def _describes_file(sample: int, symbol: str, note: str) -> bool:
    return sample == 0 and symbol == _SYMBOLS[_NOTE] and note.startswith("## ")
