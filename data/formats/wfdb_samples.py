"""Samples of WFDB signal files in every storage format, as whole numbers. Equal to `wfdb`'s, sample by sample.

Format: https://physionet.org/physiotools/wag/signal-5.htm. FLAC files (508, 516, 524) are decoded by `soundfile`.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ..records import new_steps
from .limits import LIBRARY_ERRORS, check_file, check_num_values, max_values, read_file
from .wfdb_header import WfdbSignal

COMPRESSED = {"508": "int16", "516": "int16", "524": "int32"}
INVALID = {"80": -128, "508": -128, "212": -2048, "310": -512, "311": -512, "24": -(2**23), "524": -(2**23)}
INVALID |= {"32": -(2**31), **dict.fromkeys(("16", "61", "160", "516"), -32768)}
"""The value that stands for a sample that was not recorded. Format 8 has none."""


def read_samples(path: str, signals: Sequence[WfdbSignal], num_frames: int | None) -> Sequence[np.ndarray]:
    """The samples of each channel of a signal file; one array of all where they have one rate and no skew.

    Args:
        path (`str`): The file.
        signals: All channels of the file, in their order, of one format and byte offset.
        num_frames (`int`, *optional*): Length of the record; by default what the file holds.

    Returns:
        int16 or int32 arrays of `num_frames * samples_per_frame` samples, the file's own marks of invalid ones kept. A
        channel that is skewed ends in invalid samples.

    Raises:
        ValueError: if the file is missing, shorter than `num_frames`, or damaged, or the format is unknown.
    """
    first = signals[0]
    kinds = {(signal.storage_format, signal.byte_offset) for signal in signals}
    if len(kinds) > 1:
        raise ValueError(f"Expected the channels of {path} to have one format and offset, got {sorted(kinds)}.")
    sizes = [signal.samples_per_frame for signal in signals]
    if first.storage_format in COMPRESSED:
        frames = _read_flac(path, first, sizes, num_frames)
    else:
        frames = read_frames(path, first, sum(sizes), num_frames)
    if frames.shape[1] == len(signals) and first.storage_format != "8" and not any(signal.skew for signal in signals):
        rows = (
            new_steps(frames.shape[::-1]) if frames.dtype == np.int16 else np.empty(frames.shape[::-1], frames.dtype)
        )
        rows[...] = frames.T
        return rows
    rows, start = [], 0
    for signal in signals:
        row = frames[:, start : start + signal.samples_per_frame].flatten()
        start += signal.samples_per_frame
        if first.storage_format == "8":  # stored as differences
            row = np.cumsum(row, dtype=np.int32) + np.int32(signal.initial_value)
        rows.append(_shift(row, signal))
    return rows


def read_frames(path: str, signal: WfdbSignal, frame_size: int, num_frames: int | None) -> np.ndarray:
    """Samples `(num_frames, frame_size)` of an uncompressed file as they lie in it; arguments and errors are those of
    [`read_samples`]."""
    if signal.storage_format not in _DECODERS:
        known = sorted((*_DECODERS, *COMPRESSED), key=int)
        raise ValueError(f"{path} has the format {signal.storage_format}. Expected one of {known}.")
    samples_per_block, bytes_per_block, decode = _DECODERS[signal.storage_format]
    try:
        content = read_file(path, 4 * max_values() + signal.byte_offset)
    except OSError as error:
        raise ValueError(f"Cannot read signal file {path}: {error.strerror}.") from None
    available = max(len(content) - signal.byte_offset, 0) * samples_per_block // bytes_per_block
    if num_frames is None:
        num_frames = available // frame_size
    count = num_frames * frame_size
    if available < count or count == 0:
        raise ValueError(
            f"Signal file {path} is truncated or empty: expected {num_frames or '> 0'} frames of {frame_size} "
            f"samples, got {len(content)} bytes."
        )
    return decode(content, signal.byte_offset, count).reshape(num_frames, frame_size)


def _blocks(content: bytes, offset: int, count: int, samples: int, num_bytes: int) -> np.ndarray:
    """The bytes of whole blocks of samples, a row for each byte of a block; the last one is filled up."""
    num_blocks = -(-count // samples)
    end = offset + num_blocks * num_bytes
    if end > len(content):
        content = bytes(content).ljust(end, b"\0")
    return np.frombuffer(content, np.uint8, num_blocks * num_bytes, offset).reshape(num_blocks, num_bytes).T


def _decode_212(content: bytes, offset: int, count: int) -> np.ndarray:
    """Two 12-bit samples in three bytes: low byte, both high nibbles, low byte."""
    low, nibbles, high = (column.astype(np.int16) for column in _blocks(content, offset, count, 2, 3))
    samples = np.empty(2 * len(low), dtype=np.int16)
    samples[0::2] = low | (nibbles & 0x0F) << 8
    samples[1::2] = high | (nibbles & 0xF0) << 4
    samples[samples > 2047] -= 4096
    return samples[:count]


def _decode_24(content: bytes, offset: int, count: int) -> np.ndarray:
    samples = np.zeros((count, 4), dtype=np.uint8)
    samples[:, 1:] = _blocks(content, offset, count, 1, 3).T
    return samples.view("<i4").ravel() >> 8


def _decode_310(content: bytes, offset: int, count: int) -> np.ndarray:
    """Three 10-bit samples in two words: 10 bits of each above its lowest, and the two upper fives."""
    first, second = _words(content, offset, count)
    upper = (first >> 11) | (second >> 11) << 5
    return _signed_10(((first >> 1) & 1023, (second >> 1) & 1023, upper), count)


def _decode_311(content: bytes, offset: int, count: int) -> np.ndarray:
    """Three 10-bit samples one after the other in 32 bits."""
    first, second = _words(content, offset, count)
    both = first | second << 16
    return _signed_10((both & 1023, (both >> 10) & 1023, (both >> 20) & 1023), count)


def _words(content: bytes, offset: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    a, b, c, d = (column.astype(np.int64) for column in _blocks(content, offset, count, 3, 4))
    return a | b << 8, c | d << 8


def _signed_10(parts: Sequence[np.ndarray], count: int) -> np.ndarray:
    samples = np.stack(parts, axis=1).ravel()[:count].astype(np.int16)
    samples[samples > 511] -= 1024
    return samples


def _plain(dtype: str, zero: int = 0) -> Callable[[bytes, int, int], np.ndarray]:
    def decode(content: bytes, offset: int, count: int) -> np.ndarray:
        samples = np.frombuffer(content, dtype, count, offset)
        return samples if not zero else (samples.astype(np.int32) - zero).astype(np.int16)

    return decode


# Samples in a block, bytes of a block, and what decodes (content, byte offset, number of samples).
_DECODERS = {
    "8": (1, 1, _plain("i1")),
    "16": (1, 2, _plain("<i2")),
    "24": (1, 3, _decode_24),
    "32": (1, 4, _plain("<i4")),
    "61": (1, 2, _plain(">i2")),
    "80": (1, 1, _plain("u1", 128)),
    "160": (1, 2, _plain("<u2", 32768)),
    "212": (2, 3, _decode_212),
    "310": (3, 4, _decode_310),
    "311": (3, 4, _decode_311),
}


def _read_flac(path: str, signal: WfdbSignal, sizes: list[int], num_frames: int | None) -> np.ndarray:
    import soundfile

    if len(set(sizes)) > 1:
        raise ValueError(f"Expected the channels of the FLAC file {path} to have one rate, got {sizes} a frame.")
    if num_frames is not None:  # before a byte is decoded
        check_num_values(path, (len(sizes), num_frames * sizes[0]))
    check_file(path)
    size, dtype = sizes[0], COMPRESSED[signal.storage_format]
    try:
        with soundfile.SoundFile(path) as file:
            available = max(file.frames - signal.byte_offset, 0)  # of FLAC files the offset is in samples
            num_frames = available // size if num_frames is None else num_frames
            check_num_values(path, (len(sizes), num_frames * size))
            bits = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}.get(file.subtype, 99)
            if file.format != "FLAC" or file.channels != len(sizes) or bits > int(signal.storage_format) - 500:
                raise ValueError(f"it holds {file.channels} channels of {file.format} {file.subtype}")
            if available < num_frames * size:
                raise ValueError(f"it is truncated: expected {num_frames * size} samples, got {available}")
            file.seek(signal.byte_offset)
            parts, left = [], num_frames * size
            while left:  # in parts: libsndfile fails beyond 2^24 samples at once
                part = file.read(min(left, 2**20), dtype=dtype, always_2d=True)
                if not len(part):
                    raise ValueError("it is truncated")
                parts.append(part)
                left -= len(part)
    except LIBRARY_ERRORS as error:
        raise ValueError(f"Signal file {path} cannot be read as FLAC: {error}") from error
    samples = np.concatenate(parts) >> (16 if dtype == "int16" else 32) - bits
    return samples.reshape(num_frames, size, len(sizes)).transpose(0, 2, 1).reshape(num_frames, -1)


def _shift(row: np.ndarray, signal: WfdbSignal) -> np.ndarray:
    """A channel that was sampled `skew` frames later than the others, brought in line with them."""
    if not signal.skew:
        return row
    if signal.storage_format == "8":
        raise ValueError(
            "A channel of format 8 with a skew cannot be brought in line: it has no mark of a missing end."
        )
    distance = min(signal.skew * signal.samples_per_frame, len(row))
    shifted = np.full_like(row, INVALID[signal.storage_format])
    shifted[: len(row) - distance] = row[distance:]
    return shifted
