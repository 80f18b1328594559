"""Reads WFDB records: a header file (`.hea`) of text beside one or more signal files.

Formats 16 and 212, and the MATLAB-4 files of the PhysioNet/CinC challenges (format 16 after 24 bytes), are decoded
here and stay 16-bit integers. All other formats, and multi-segment records, go through the `wfdb` library, which is
imported only then, and become floats. The results equal `wfdb.rdrecord` sample by sample.

Where we differ from the library: checksums are verified, and no file outside the header's folder is opened.

Format: https://physionet.org/physiotools/wag/signal-5.htm.
"""

import os

import numpy as np

from ..records import INVALID_SAMPLE, EcgRecord, known_lead_names, millivolts_per
from ..safe_paths import inside
from .limits import LIBRARY_ERRORS, check_num_values
from .wfdb_header import WfdbHeader, WfdbSignal, read_header

COMPRESSED = ("508", "516", "524")  # FLAC, of 8, 16 and 24 bits
MAX_GAPS = 100
"""Values of a record of segments for each byte of its signal files: gaps between segments take no bytes."""


def read_record(
    path: str | os.PathLike,
    record_id: str | None = None,
    rename_leads: dict[str, str] | None = None,
    verify_checksum: bool = True,
) -> tuple[EcgRecord, list[str]]:
    """Reads the WFDB record at `path`.

    Args:
        path (`str`): Path of the record, with or without `.hea`.
        record_id (`str`, *optional*): Defaults to the file name without its ending.
        rename_leads (`dict`, *optional*): Channel names as stored → lead names, e.g. `{"MLII": "II"}`.
        verify_checksum (`bool`): Compare the samples with the header's checksums. Checksums that are 0 in all channels
            (CinC2017) or absent count as not stated.

    Returns:
        the record in mV, signal int16 where the stored samples fit after the baseline is subtracted and float32 where
        they do not, and the comment lines of its header.

    Raises:
        ValueError: if header or signal file is missing, malformed, truncated, fails its checksum, is measured in no
            voltage, or if the header names a file outside its folder.
    """
    path = os.fspath(path).removesuffix(".hea")
    header = read_header(path)
    folder = os.path.dirname(path)
    record_id = record_id or os.path.basename(path)
    if header.num_segments is not None or not all(_is_decoded_here(signal, header) for signal in header.signals):
        record = _read_with_library(path, folder, header, record_id, rename_leads)
    else:
        steps = _read_steps(folder, header)
        if verify_checksum:
            _verify_checksums(steps, header)
        record = EcgRecord(
            record_id=record_id,
            signal=steps,
            leads=_lead_names([signal.name for signal in header.signals], rename_leads),
            sampling_rate=header.sampling_rate,
            gain=np.array([millivolts_per(signal.unit) / signal.gain for signal in header.signals], dtype=np.float32),
            offset=np.array([signal.baseline for signal in header.signals]),
        )
    return record, header.comments


def _is_decoded_here(signal: WfdbSignal, header: WfdbHeader) -> bool:
    plain = signal.samples_per_frame == 1 and signal.skew == 0
    return plain and (signal.storage_format == "16" or (signal.storage_format == "212" and signal.byte_offset == 0))


def _lead_names(names: list[str], rename_leads: dict[str, str] | None) -> tuple[str, ...]:
    return known_lead_names(tuple(rename_leads.get(name, name) for name in names) if rename_leads else tuple(names))


def _read_steps(folder: str, header: WfdbHeader) -> np.ndarray:
    """int16 samples of shape `(num_leads, num_samples)`; invalid samples of any format are `INVALID_SAMPLE`."""
    groups: list[tuple[WfdbSignal, int]] = []  # consecutive channels of one file, in the order of the header
    for signal in header.signals:
        if groups and groups[-1][0].file_name == signal.file_name:
            groups[-1] = (groups[-1][0], groups[-1][1] + 1)
        else:
            groups.append((signal, 1))
    names = [signal.file_name for signal, _ in groups]
    if len(set(names)) != len(names):
        raise ValueError(f"Expected the channels of one file to follow each other, got the files {names}.")
    parts = [_read_file(inside(folder, s.file_name), s, n, header.num_samples) for s, n in groups]
    if len(parts) == 1:
        return np.ascontiguousarray(parts[0].T)
    lengths = sorted({len(part) for part in parts})
    if len(lengths) > 1:
        raise ValueError(f"Signal files differ in length ({lengths} samples) and the header states none.")
    return np.ascontiguousarray(np.concatenate(parts, axis=1).T)


def _read_file(path: str, signal: WfdbSignal, num_channels: int, num_samples: int | None) -> np.ndarray:
    try:
        with open(path, "rb", buffering=0) as file:
            content = file.read()
    except OSError as error:
        raise ValueError(f"Cannot read signal file {path}: {error.strerror}.") from None
    num_bytes = len(content) - signal.byte_offset
    available = num_bytes // 2 if signal.storage_format == "16" else num_bytes * 2 // 3
    if num_samples is None:
        num_samples = max(available, 0) // num_channels
    wanted = num_samples * num_channels
    if available < wanted or wanted == 0:
        raise ValueError(
            f"Signal file {path} is truncated or empty: expected {num_channels} channels x {num_samples or '> 0'} "
            f"samples, got {len(content)} bytes."
        )
    if signal.storage_format == "16":
        samples = np.frombuffer(content, dtype="<i2", count=wanted, offset=signal.byte_offset)
    else:
        samples = _decode_212(content, wanted)
    return samples.reshape(num_samples, num_channels)


def _decode_212(content: bytes, count: int) -> np.ndarray:
    """Two 12-bit samples in three bytes: low byte, both high nibbles, low byte."""
    num_pairs = (count + 1) // 2
    triplets = np.frombuffer(content.ljust(3 * num_pairs, b"\0"), dtype=np.uint8, count=3 * num_pairs)
    low, nibbles, high = (column.astype(np.int16) for column in triplets.reshape(-1, 3).T)
    samples = np.empty(2 * num_pairs, dtype=np.int16)
    samples[0::2] = low | (nibbles & 0x0F) << 8
    samples[1::2] = high | (nibbles & 0xF0) << 4
    samples[samples > 2047] -= 4096
    samples[samples == -2048] = INVALID_SAMPLE
    return samples[:count]


def _verify_checksums(steps: np.ndarray, header: WfdbHeader):
    stated = [signal.checksum for signal in header.signals]
    if not any(stated):
        return
    # Wrapping 16-bit sums are what the format defines.
    sums = np.add.reduce(steps.view(np.uint16), axis=1, dtype=np.uint16).tolist()
    for row, (signal, checksum) in enumerate(zip(header.signals, stated, strict=True)):
        if checksum is None or sums[row] == checksum & 0xFFFF:
            continue
        if signal.storage_format == "212":  # its invalid samples were replaced; the file holds -2048
            invalid = int((steps[row] == INVALID_SAMPLE).sum())
            if (sums[row] + invalid * (-2048 - INVALID_SAMPLE)) & 0xFFFF == checksum & 0xFFFF:
                continue
        raise ValueError(
            f"Checksum of channel {signal.name!r} is {sums[row]}, the header says {checksum & 0xFFFF}: "
            f"{signal.file_name} is damaged or belongs to another header."
        )


def _read_with_library(
    path: str, folder: str, header: WfdbHeader, record_id: str, rename_leads: dict[str, str] | None
) -> EcgRecord:
    num_bytes = 0
    for name in dict.fromkeys(header.segment_names):
        if name == "~":  # a gap
            continue
        inside(folder, name)
        segment = read_header(os.path.join(folder, name))
        if segment.num_segments is not None:
            raise ValueError(f"Segment {name} consists of segments itself.")
        num_bytes += _check_files(folder, segment)
    num_bytes += _check_files(folder, header)
    if header.num_segments is not None:
        shape = (header.num_channels, header.num_samples or 0)
        check_num_values(path, shape)
        if shape[0] * shape[1] > MAX_GAPS * num_bytes:
            raise ValueError(f"{path} declares the shape {shape}, and its segments have {num_bytes} bytes of samples.")
    import wfdb

    try:
        record = wfdb.rdrecord(path, physical=True)
    except LIBRARY_ERRORS as error:
        raise ValueError(f"`wfdb` cannot read {path}: {type(error).__name__}: {error}") from error
    if record.p_signal is None or record.p_signal.size == 0:
        raise ValueError(f"{path} holds no samples.")
    scale = np.array([millivolts_per(unit) for unit in record.units])
    return EcgRecord(
        record_id=record_id,
        signal=(record.p_signal * scale).T.astype(np.float32),
        leads=_lead_names([name or "" for name in record.sig_name], rename_leads),
        sampling_rate=header.sampling_rate,
    )


def _check_files(folder: str, header: WfdbHeader) -> int:
    """The size of the signal files, all of them. They lie inside the folder and can hold what the header promises: the
    library allocates by the header."""
    sizes = {}
    for signal in header.signals:
        if signal.file_name == "~":
            continue
        path = inside(folder, signal.file_name)
        if not os.path.isfile(path):
            raise ValueError(f"Cannot read signal file {path}: there is none.")
        sizes[path] = os.path.getsize(path)
        if signal.storage_format in COMPRESSED:  # whatever the size of the file
            check_num_values(path, (sum(each.samples_per_frame for each in header.signals), header.num_samples or 0))
        elif (header.num_samples or 0) * signal.samples_per_frame > sizes[path]:
            raise ValueError(f"Signal file {path} is truncated: expected {header.num_samples} samples.")
    return sum(sizes.values())
