"""Reads WFDB records: a header file (`.hea`) of text beside one or more signal files, or a list of such records.

Every channel is read at its own rate, which is that of the frames times its samples a frame. Samples of up to 16 bits
stay whole numbers; wider ones, and records of several segments, become floats.

Where we differ from the `wfdb` library: names, units and gains are those that the header states, in UTF-8 or Latin-1;
channels are never averaged to the rate of the frames; an uncalibrated channel is refused unless the caller says what a
step is worth; checksums are verified; no file outside the header's folder is opened.

Format: https://physionet.org/physiotools/wag/signal-5.htm.
"""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import numpy as np

from ...modeling.recording_input import DIMENSIONLESS
from ..records import INVALID_SAMPLE, EcgRecord, new_steps, stored_unit
from ..safe_paths import inside
from .channels import Channel, ChosenChannels, choose_channels
from .limits import check_num_values
from .wfdb_header import WfdbHeader, WfdbLayout, WfdbSignal, WholeSignals, read_header
from .wfdb_samples import INVALID, read_frames, read_samples

MAX_GAPS = 100
"""Values of a record of segments for each byte of its signal files: gaps between segments take no bytes."""
_GAP = "~"
GROUP_BYTES = 512 << 10  # of samples of records that are read together: the cache of a core holds them twice


class _Declared(NamedTuple):
    """Statement of the caller on channels that state no gain: `unit` a step."""

    step: float | None
    unit: str | None


def read_record(
    path: str | os.PathLike,
    record_id: str | None = None,
    rename_leads: Mapping[str | int, str] | str | None = None,
    verify_checksum: bool = True,
    leads: Sequence[str | int] | None = None,
    step: float | None = None,
    unit: str | None = None,
) -> tuple[EcgRecord, list[str]]:
    """Reads the ECG channels of the WFDB record at `path`.

    Args:
        path (`str`): Path of the record, with or without `.hea`.
        record_id (`str`, *optional*): Defaults to the file name without its ending.
        rename_leads (`dict` or `str`, *optional*):
            Channel names as stored → lead names, e.g. `{"MLII": "II"}` or `"MLII:II"`. See [`choose_channels`].
        verify_checksum (`bool`): Compare the samples with the header's checksums. Checksums that are 0 in all channels
            (CinC2017) or absent count as not stated.
        leads (`Sequence[str]`, *optional*): Channels to take, by name or position; by default those that are ECG.
        step (`float`, *optional*): `unit` per step of channels without a gain. Those that state one keep it.
        unit (`str`, *optional*): Unit of `step`. A unit that contradicts the header is refused.

    Returns:
        the record in mV (or dimensionless, if that was declared), signal int16 where the stored samples fit after the
        baseline is subtracted and float32 where they do not, and the comment lines of its header. `record.notes` says
        which channels were left out.

    Raises:
        ValueError: if header or signal file is missing, malformed, truncated, fails its checksum, if no channel is an
            ECG in a voltage, a channel is uncalibrated, or if the header names a file outside its folder.
    """
    path = os.fspath(path).removesuffix(".hea")
    folder, name = os.path.split(path)
    header = read_header(path)
    if leads is None and step is None and verify_checksum and isinstance(rename_leads, str | None):
        plain = _plain_layout(header, rename_leads, unit)
        steps = None if plain is None else _read_plain_steps([path], [header], plain)
        if steps is not None:
            return plain.record.with_steps(record_id or name, steps[0], plain.offset), header.comments
    declared = _Declared(step, unit)
    if header.num_segments is not None:
        segments = _read_segment_headers(folder, header)
        layout = _layout(header, segments)
    else:
        segments, layout = {}, header.signals
    channels = [  # of an uncalibrated channel, what a step is worth is asked for once it is chosen
        Channel(s.name, s.unit or ("" if s.gain else unit or "mV"), header.sampling_rate * s.samples_per_frame)
        for s in layout
    ]
    chosen = choose_channels(path, channels, leads, rename_leads, unit)
    if step is not None and all(layout[position].gain for position in chosen.positions):
        raise ValueError(f"{path} states how its values lie and what they are worth: leave out step=.")
    if header.num_segments is not None:
        signal, gain, offset = _join_segments(folder, header, segments, layout, chosen, declared, path), None, None
    else:
        rows = _read_rows(folder, header, chosen.positions, verify_checksum)
        signals = [layout[position] for position in chosen.positions]
        scales = [_scale(each, declared, path) for each in signals]
        if (rows.dtype if isinstance(rows, np.ndarray) else np.result_type(*rows)) == np.int16:
            signal = _as_steps(rows, signals)
            baselines = [each.baseline for each in signals]
            gain, offset = np.array(scales, dtype=np.float32), np.array(baselines) if any(baselines) else None
        else:
            signal = np.stack([_as_floats(*each) for each in zip(rows, signals, scales, strict=True)])
            gain = offset = None
    record = EcgRecord(
        record_id=record_id or name,
        signal=signal,
        leads=chosen.leads,
        sampling_rate=channels[chosen.positions[0]].sampling_rate,
        unit=DIMENSIONLESS if unit == DIMENSIONLESS else "mV",
        gain=gain,
        offset=offset,
        notes=chosen.notes,
    )
    return record, header.comments


class _PlainLayout(NamedTuple):
    """Channels of format 16 that are all taken, and a record of them without its samples."""

    first: WfdbSignal
    record: EcgRecord
    offset: np.ndarray | None


class RecordGroup(NamedTuple):
    """Records that were read together: one of their leads, sampling rate, unit and gain, int16 steps `(num_records,
    num_leads, num_samples)`, and comment lines of each header."""

    record: EcgRecord
    steps: np.ndarray
    comments: list[list[str]]


def _plain_layout(header: WfdbHeader, rename_leads: str | None, unit: str | None) -> _PlainLayout | None:
    """The layout of the usual record: one file of format 16, one rate, no skew, every channel an ECG with a gain.
    `None` for any other, and for a wrong one: reading it step by step raises its error."""
    signals = header.signals
    if not isinstance(signals, WholeSignals) or signals.file_names.count(signals.file_names[0]) < len(signals):
        return None
    return _find_plain_layout(signals.layout, header.sampling_rate, rename_leads, unit)


@lru_cache(maxsize=64)  # a corpus has a handful of layouts and many records
def _find_plain_layout(
    layout: WfdbLayout, sampling_rate: float, rename_leads: str | None, unit: str | None
) -> _PlainLayout | None:
    count = len(layout.names)
    signals = WholeSignals(layout, ("",) * count, [0] * count)
    if len({signal.byte_offset for signal in signals}) > 1 or not all(
        signal[1:4] == ("16", 1, 0) and signal.gain for signal in signals
    ):
        return None
    try:
        channels = [Channel(signal.name, signal.unit, sampling_rate) for signal in signals]
        chosen = choose_channels("", channels, None, rename_leads, unit)
        if chosen.positions != tuple(range(count)):
            return None
        gain, steps = [_scale(signal, _Declared(None, unit), "") for signal in signals], np.zeros((count, 1), np.int16)
        known = {"unit": DIMENSIONLESS if unit == DIMENSIONLESS else "mV", "gain": gain, "notes": chosen.notes}
        record = EcgRecord("", steps, chosen.leads, sampling_rate, **known)
    except ValueError:
        return None
    baselines = np.array([signal.baseline for signal in signals])
    return _PlainLayout(signals[0], record, baselines if baselines.any() else None)


def read_group(
    paths: Sequence[str], num_bytes: int, rename_leads: str | None = None, unit: str | None = None
) -> RecordGroup | None:
    """Reads the first of some records of the usual layout together, with `num_bytes` of samples or one: by fewer calls
    than one after the other. `None` where one has another layout or length, a step that is not zero for zero volts, or
    something wrong, which [`read_record`] says; its arguments are these too."""
    try:
        header = read_header(paths[0])
        plain, num_samples = _plain_layout(header, rename_leads, unit), header.num_samples
        if plain is None or plain.offset is not None:
            return None
        size = 2 * len(header.signals) * (num_samples or num_bytes)
        paths = paths[: max(1, min(-(-num_bytes // size), GROUP_BYTES // size))]
        headers = [header, *map(read_header, paths[1:])]
        for each in headers[1:]:
            if each.num_samples != num_samples or _plain_layout(each, rename_leads, unit) is not plain:
                return None
        steps = _read_plain_steps(paths, headers, plain)
    except (ValueError, OSError, MemoryError, OverflowError):
        return None
    return None if steps is None else RecordGroup(plain.record, steps, [each.comments for each in headers])


def _read_plain_steps(paths: Sequence[str], headers: Sequence[WfdbHeader], plain: _PlainLayout) -> np.ndarray | None:
    """Int16 `(num_records, num_leads, num_samples)` of records of a plain layout; `None` where a checksum differs."""
    steps = None
    for number, (path, header) in enumerate(zip(paths, headers, strict=True)):
        file = signal_path(os.path.dirname(path), header, header.signals.file_names[0])
        frames = read_frames(file, plain.first, len(header.signals), header.num_samples)
        if steps is None:  # now that a file is known to be of that length
            steps = new_steps((len(paths), *frames.shape[::-1]))
        steps[number] = frames.T
    sums = np.add.reduce(steps.view(np.uint16), axis=2, dtype=np.uint16).tolist()
    for of_record, header in zip(sums, headers, strict=True):
        stated = header.signals.checksums
        if of_record != stated and any(stated) and of_record != [total & 0xFFFF for total in stated]:
            return None
    return steps


def _scale(signal: WfdbSignal, declared: _Declared, path: str) -> float:
    """Millivolts (or, of what is no voltage, units) per step."""
    if signal.gain:
        return (1.0 if declared.unit == DIMENSIONLESS else stored_unit(signal.unit)[1]) / signal.gain
    unit = signal.unit or declared.unit
    if declared.step is None or not unit:
        raise ValueError(
            f"{path}: the channel {signal.name!r} is uncalibrated (its header states no gain). Say what a step is "
            "worth by step= and unit=, such as step=0.005 and unit='mV' for 200 steps a millivolt, or choose other "
            "channels by leads=."
        )
    return declared.step * stored_unit(unit)[1]


def _as_steps(rows: Sequence[np.ndarray], signals: Sequence[WfdbSignal]) -> np.ndarray:
    steps = rows if isinstance(rows, np.ndarray) else np.stack(rows)
    for number, signal in enumerate(signals):
        mark = INVALID[signal.storage_format]
        if mark != INVALID_SAMPLE:
            steps[number, steps[number] == mark] = INVALID_SAMPLE
    return steps


def _as_floats(row: np.ndarray, signal: WfdbSignal, scale: float) -> np.ndarray:
    values = (row.astype(np.float64) - signal.baseline) * scale
    if signal.storage_format in INVALID:
        values[row == INVALID[signal.storage_format]] = np.nan
    return values.astype(np.float32)


def _read_rows(
    folder: str, header: WfdbHeader, positions: Sequence[int], verify_checksum: bool
) -> Sequence[np.ndarray]:
    """Whole numbers of the channels at these positions. Files that hold none of them are not opened."""
    everything = list(range(len(header.signals)))
    files = [signal.file_name for signal in header.signals]
    # Consecutive channels of one file, in the order of the header.
    groups = [list(group) for _, group in groupby(everything, key=files.__getitem__)]
    names = [files[group[0]] for group in groups]
    if len(set(names)) != len(names):
        raise ValueError(f"Expected the channels of one file to follow each other, got the files {names}.")
    rows = {}
    for name, group in zip(names, groups, strict=True):
        if not set(group).isdisjoint(positions):
            signals = [header.signals[position] for position in group]
            samples = read_samples(signal_path(folder, header, name), signals, header.num_samples)
            if isinstance(samples, np.ndarray) and list(positions) == everything == group:
                if verify_checksum:
                    _verify_checksums(samples, header)
                return samples  # the usual record: one file, one rate, nothing to pick
            rows |= zip(group, samples, strict=True)
    if verify_checksum:
        for position in positions:
            _verify_checksums(rows[position][None], header, position)
    chosen = [rows[position] for position in positions]
    lengths = sorted({len(row) for row in chosen})
    if len(lengths) > 1:
        raise ValueError(f"Signal files differ in length ({lengths} samples) and the header states none.")
    return chosen


def signal_path(folder: str, header: WfdbHeader, name: str) -> str:
    """Path of a signal file: in the folder of the header, below it, or beside the header if the header's own name
    has the folder that stands before the file's."""
    path = inside(folder, name)
    if header.folder and not os.path.isfile(path):
        return inside(folder, name.removeprefix(f"{header.folder}/"))
    return path


def _verify_checksums(rows: np.ndarray, header: WfdbHeader, first: int = 0):
    """Compares rows, channels of the header from `first` on, with its checksums; 0 in all channels states none."""
    if not any([signal.checksum for signal in header.signals]):
        return
    # Wrapping 16-bit sums are what the format defines.
    rows = rows.view(np.uint16) if rows.dtype == np.int16 else rows.astype(np.uint16)
    sums = np.add.reduce(rows, axis=1, dtype=np.uint16).tolist()
    for total, signal in zip(sums, header.signals[first : first + len(sums)], strict=True):
        if signal.checksum is not None and not signal.skew and total != signal.checksum & 0xFFFF:
            raise ValueError(
                f"Checksum of channel {signal.name!r} is {total}, the header says {signal.checksum & 0xFFFF}: "
                f"{signal.file_name} is damaged or belongs to another header."
            )


def _read_segment_headers(folder: str, header: WfdbHeader) -> dict[str, WfdbHeader]:
    segments, num_bytes = {}, 0
    for name in dict.fromkeys(header.segment_names):
        if name == _GAP:
            continue
        segment = read_header(inside(folder, name))
        if segment.num_segments is not None:
            raise ValueError(f"Segment {name} consists of segments itself.")
        if segment.sampling_rate != header.sampling_rate:
            raise ValueError(f"Segment {name} has {segment.sampling_rate} Hz, the record {header.sampling_rate} Hz.")
        segments[name] = segment
        files = {inside(folder, signal.file_name) for signal in segment.signals if signal.file_name != _GAP}
        num_bytes += sum(os.path.getsize(file) for file in files if os.path.isfile(file))
    num_samples = sum(header.segment_lengths)
    if header.num_samples not in (None, num_samples):
        raise ValueError(f"The record declares the length {header.num_samples}, its segments have {num_samples}.")
    shape = (header.num_channels, num_samples)
    check_num_values(folder, shape)
    if shape[0] * shape[1] > MAX_GAPS * num_bytes:
        raise ValueError(f"The record declares the shape {shape}, and its segments have {num_bytes} bytes of samples.")
    return segments


def _layout(header: WfdbHeader, segments: Mapping[str, WfdbHeader]) -> list[WfdbSignal]:
    """The channels of a record of segments: those of its layout, a first segment without samples, or of all segments.

    Unit and samples a frame are those of the segments that hold a channel, where the layout states none.
    """
    layout = segments.get(header.segment_names[0])
    if layout is None or header.segment_lengths[0]:
        if not segments:
            raise ValueError("Expected a record with samples, got gaps only.")
        return next(iter(segments.values())).signals
    held = {}
    for name, segment in segments.items():
        if name != header.segment_names[0]:
            for key, signal in zip(_keys(segment.signals), segment.signals, strict=True):
                held.setdefault(key, signal)
    keys = _keys(layout.signals)
    return [
        signal._replace(unit=held[key].unit, samples_per_frame=held[key].samples_per_frame) if key in held else signal
        for key, signal in zip(keys, layout.signals, strict=True)
    ]


def _keys(signals: Sequence[WfdbSignal]) -> list[tuple[str, int]]:
    """Name of each channel, and how many of that name come before it."""
    names = [signal.name for signal in signals]
    return [(name, names[:position].count(name)) for position, name in enumerate(names)]


def _join_segments(
    folder: str,
    header: WfdbHeader,
    segments: Mapping[str, WfdbHeader],
    layout: Sequence[WfdbSignal],
    chosen: ChosenChannels,
    declared: _Declared,
    path: str,
) -> np.ndarray:
    """Float32 `(num_leads, num_samples)` in mV, NaN in gaps and where a segment lacks a channel."""
    per_frame = layout[chosen.positions[0]].samples_per_frame
    shape = (len(chosen.positions), sum(header.segment_lengths) * per_frame)
    check_num_values(path, shape)
    is_variable = header.segment_lengths[0] == 0
    wanted = [(_keys(layout)[position] if is_variable else position) for position in chosen.positions]
    signal, start, found = np.full(shape, np.nan, dtype=np.float32), 0, False
    for name, length in zip(header.segment_names, header.segment_lengths, strict=True):
        end = start + length * per_frame
        if name != _GAP and length:
            segment = segments[name]
            if not is_variable and len(segment.signals) != len(layout):
                raise ValueError(f"Segment {name} has {len(segment.signals)} channels, the first {len(layout)}.")
            keys = _keys(segment.signals) if is_variable else range(len(layout))
            places = {key: place for place, key in enumerate(keys)}
            rows = {row: places[key] for row, key in enumerate(wanted) if key in places}
            found = found or bool(rows)
            if segment.num_samples not in (None, length):
                raise ValueError(f"Segment {name} has {segment.num_samples} samples, the record says {length}.")
            segment = segment._replace(num_samples=length)
            values = _read_rows(folder, segment, list(rows.values()), True) if rows else []
            for (row, place), steps in zip(rows.items(), values, strict=True):
                channel = segment.signals[place]
                if channel.samples_per_frame != per_frame:
                    raise ValueError(f"Segment {name} has {channel.name!r} at another rate than the record.")
                signal[row, start:end] = _as_floats(steps, channel, _scale(channel, declared, path))
        start = end
    if not found:
        raise ValueError(f"{path} holds no samples.")
    return signal
