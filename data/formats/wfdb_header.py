"""Headers of WFDB records (`.hea`): text that says which channels lie in which file, in which format, gain and unit.

Format: https://physionet.org/physiotools/wag/header-5.htm. Dates are not parsed (those of CinC2017 and Georgia stop
the `wfdb` library), and a header without a sampling rate is refused (WFDB assumes 250 Hz). A gain of 0, or none, means
an uncalibrated channel, of which the caller has to say what a step is worth (WFDB assumes 200 steps a mV).
"""

import codecs
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from ...modeling.recording_input import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE
from .limits import read_file

MAX_HEADER_BYTES = 2**24
"""A header of all segments of weeks of a monitor has a few MB."""

MAX_CHANNELS = 512
# Bounds of what recorders do, far beyond them: a header must not decide how much memory is asked for.
MAX_SAMPLES_PER_FRAME, MAX_SKEW, MAX_SEGMENTS = 1_000_000, 100_000, 1_000_000

_FORMAT = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?$")
_GAIN = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?:\(([-+]?\d+)\))?(?:/(\S+))?$")


class WfdbSignal(NamedTuple):
    """One signal line of a header. `gain` is in steps per `unit`, 0 of an uncalibrated channel; `baseline` is the step
    that stands for 0 `unit`; `unit` is mV where a gain stands without one, and `""` where neither is stated."""

    file_name: str
    storage_format: str
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: float
    baseline: int
    unit: str
    initial_value: int
    checksum: int | None
    name: str


@dataclass(frozen=True, eq=False)
class WfdbLayout:
    """Part of the signal lines that the records of a corpus have in common. Equal lines give the same object, so that
    what follows from it is found by it.

    Args:
        parts (`tuple`): For each channel its format, samples a frame, skew, byte offset, gain, baseline and unit.
        names (`tuple[str, ...]`): Names of the channels.
        most_samples_per_frame (`int`): Largest number of samples a frame.
    """

    parts: tuple[tuple[str, int, int, int, float, int, str], ...]
    names: tuple[str, ...]
    most_samples_per_frame: int


class WholeSignals(Sequence):
    """The signals of a header whose lines are all complete. Each is made when it is asked for, which takes time and is
    seldom done where many records have one layout.

    Args:
        layout ([`WfdbLayout`]): Part that other records have too.
        file_names (`tuple[str, ...]`), checksums (`list[int]`): File and checksum of each channel.
    """

    def __init__(self, layout: WfdbLayout, file_names: tuple[str, ...], checksums: list[int]):
        self.layout, self.file_names, self.checksums = layout, file_names, checksums

    @cached_property
    def _signals(self) -> list[WfdbSignal]:
        columns = zip(self.file_names, self.layout.parts, self.checksums, self.layout.names, strict=True)
        return [WfdbSignal(file, *parts, 0, checksum, name) for file, parts, checksum, name in columns]

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, position):
        return self._signals[position]


_SIGNAL_LINE = re.compile(r"\S+((?:\s+\S+){4}\s+)\S+(\s+)-?\d+(\s+.*)")
MAX_KNOWN_LAYOUTS, MAX_LAYOUT_LENGTH = 8, 10_000
_KNOWN_LAYOUTS: list[tuple[re.Pattern, WfdbLayout]] = []
"""The first layouts that this process met, with patterns that find them in half the time of parsing: headers of a
corpus differ in names and checksums. Groups of a pattern: first line, signal file, checksums."""


class WfdbHeader(NamedTuple):
    """A parsed header. `sampling_rate` is that of frames, of which a channel has `samples_per_frame` samples each;
    `num_samples`, in frames, is `None` where the header leaves it to the length of the signal file; `folder` is what
    stands before the record's name."""

    num_segments: int | None
    sampling_rate: float
    num_samples: int | None
    signals: Sequence[WfdbSignal]
    segment_names: list[str]
    segment_lengths: list[int]
    comments: list[str]
    num_channels: int
    folder: str


def parse_header(text: str) -> WfdbHeader:
    """Parses the text of a header file.

    Raises:
        ValueError: says which line is wrong and what was expected there.
    """
    signals = None
    for pattern, layout in _KNOWN_LAYOUTS:
        if match := pattern.match(text):
            first_line, file_name, *checksums = match.groups()
            signals = WholeSignals(layout, (file_name,) * len(checksums), list(map(int, checksums)))
            text = first_line + text[match.end() :]
            break
    lines, comments = list(filter(None, map(str.strip, text.splitlines()))), []
    if "#" in text:
        comments = [line[1:].strip() for line in lines if line[0] == "#"]
        lines = [line for line in lines if line[0] != "#"]
    if not lines:
        raise ValueError("The header is empty.")
    fields = lines[0].split()
    if len(fields) < 3:
        raise ValueError(f"Expected 'name channels sampling_rate [samples]' in the first line, got {lines[0]!r}.")
    folder, num_segments = _parse_name(fields[0], lines[1:])
    try:
        num_channels = int(fields[1])
        sampling_rate = float(fields[2].partition("/")[0].partition("(")[0])
        num_samples = int(fields[3]) if len(fields) > 3 else None
    except ValueError as error:
        raise ValueError(f"Expected numbers in the first line, got {lines[0]!r} ({error}).") from None
    if not (0 < num_channels <= MAX_CHANNELS and 0 < sampling_rate <= MAX_SAMPLING_RATE):
        raise ValueError(
            f"Expected 1 to {MAX_CHANNELS} channels and a sampling rate > 0 (up to {MAX_SAMPLING_RATE:g} Hz), "
            f"got {lines[0]!r}."
        )
    if num_samples is not None and num_samples <= 0:
        if num_samples < 0 or num_segments is not None:
            raise ValueError(f"Expected a number of samples > 0, got {num_samples}.")
        num_samples = None  # 0 stands for "not stated"
    if num_segments is not None:
        segments = [_parse_segment(line) for line in lines[1:]]
        if len(segments) != num_segments:
            raise ValueError(f"Expected {num_segments} segment lines, got {len(segments)}.")
        names, lengths = [name for name, _ in segments], [length for _, length in segments]
        return WfdbHeader(num_segments, sampling_rate, num_samples, [], names, lengths, comments, num_channels, folder)
    if signals is None:
        if len(lines) - 1 < num_channels:
            raise ValueError(f"Expected {num_channels} signal lines, got {len(lines) - 1}.")
        signals = _parse_signals(lines[1 : num_channels + 1])
        if isinstance(signals, WholeSignals) and len(_KNOWN_LAYOUTS) < MAX_KNOWN_LAYOUTS:
            _remember(lines[1 : num_channels + 1], signals)
    if isinstance(signals, WholeSignals):
        highest = sampling_rate * signals.layout.most_samples_per_frame
    else:
        highest = sampling_rate * max([signal.samples_per_frame for signal in signals])
    if not MIN_SAMPLING_RATE <= highest <= MAX_SAMPLING_RATE:
        raise ValueError(f"Expected {MIN_SAMPLING_RATE:g} to {MAX_SAMPLING_RATE:g} samples a second, got {highest:g}.")
    return WfdbHeader(None, sampling_rate, num_samples, signals, [], [], comments, num_channels, folder)


def _remember(lines: list[str], signals: WholeSignals):
    """Adds the layout of signal lines of usual length to those that are known, if their channels lie in one file."""
    parts = [_SIGNAL_LINE.fullmatch(line) for line in lines]
    if len(set(signals.file_names)) == 1 and all(parts) and sum(map(len, lines)) <= MAX_LAYOUT_LENGTH:
        facts = [rf"{re.escape(part[1])}\S+{re.escape(part[2])}(-?\d{{1,9}}){re.escape(part[3])}" for part in parts]
        first_line = rf"([^\s/#]+ {len(lines)} [ -~]*)"  # a name without a folder
        pattern = rf"{first_line}\r?\n([^\s#]\S*)" + r"\r?\n\2".join(facts) + r"(?=\r?\n|\Z)"
        _KNOWN_LAYOUTS.append((re.compile(pattern), signals.layout))


def _parse_name(name: str, lines: list[str]) -> tuple[str, int | None]:
    """The folder before a record's name, and its number of segments: `m/3` has three, `medians/00003` is a name."""
    folder, slash, last = name.rpartition("/")
    if not slash:
        return "", None
    is_number = last.isascii() and last.isdigit() and not last.startswith("0")
    if is_number and (len(lines) == int(last) or all(len(line.split()) == 2 for line in lines)):
        return folder.rpartition("/")[0], int(last)
    return folder, None


def _parse_segment(line: str) -> tuple[str, int]:
    fields = line.split()
    try:
        length = int(fields[1])
    except (IndexError, ValueError):
        raise ValueError(f"Expected 'name samples' in the line of a segment, got {line!r}.") from None
    if length < 0:
        raise ValueError(f"Expected a number of samples >= 0 in the line of a segment, got {line!r}.")
    return fields[0], length


def _parse_signals(lines: list[str]) -> Sequence[WfdbSignal]:
    """Parses signal lines; those that are all complete together, by a layout that was parsed before."""
    try:
        columns = zip(*[line.split(None, 8) for line in lines], strict=True)
        file_names, formats, gains, _, zeros, _, checksums, _, names = columns
        layout = _parse_layouts(formats, gains, zeros, names)
        if layout is not None:
            return WholeSignals(layout, file_names, list(map(int, checksums)))
    except ValueError:
        pass  # lines with fewer fields, or one that is wrong, of which the next line says what
    return [_parse_signal(line) for line in lines]


@lru_cache(maxsize=256)
def _parse_layouts(
    formats: tuple[str, ...], gains: tuple[str, ...], zeros: tuple[str, ...], names: tuple[str, ...]
) -> WfdbLayout | None:
    """The layout of signal lines, but `None` for differences, whose initial values count (format 8)."""
    parts = []
    for storage_format, gain, zero in zip(formats, gains, zeros, strict=True):
        storage, gain, baseline, unit = _parse_layout(storage_format, gain)
        if storage[0] == "8":
            return None
        parts.append((*storage, gain, int(zero) if baseline is None else baseline, unit))
    return WfdbLayout(tuple(parts), names, max([per_frame for _, per_frame, *_ in parts]))


def _parse_signal(line: str) -> WfdbSignal:
    fields = line.split(None, 8)
    num_fields = len(fields)
    if num_fields < 2:
        raise ValueError(f"Expected 'file format ...' in a signal line, got {line!r}.")
    storage, gain, baseline, unit = _parse_layout(fields[1], fields[2] if num_fields > 2 else "0")
    try:
        if baseline is None:
            baseline = int(fields[4]) if num_fields > 4 else 0  # the ADC zero stands in
        initial_value = int(fields[5]) if storage[0] == "8" and num_fields > 5 else 0
        if abs(initial_value) >= 2**31:
            raise ValueError("beyond 32 bits")
        checksum = int(fields[6]) if num_fields > 6 else None
    except ValueError:
        raise ValueError(f"Expected whole numbers for ADC zero, initial value and checksum, got {line!r}.") from None
    name = fields[8] if num_fields > 8 else ""
    return WfdbSignal(fields[0], *storage, gain, baseline, unit, initial_value, checksum, name)


# The channels of a corpus repeat a few spellings, so parsing each once halves the cost of a header.
@lru_cache(maxsize=1024)
def _parse_layout(storage_format: str, gain: str) -> tuple[tuple[str, int, int, int], float, int | None, str]:
    return _parse_format(storage_format), *_parse_gain(gain)


def _parse_format(text: str) -> tuple[str, int, int, int]:
    match = _FORMAT.match(text)
    if match is None:
        raise ValueError(f"Expected a format such as '16', '212' or '16+24', got {text!r}.")
    samples_per_frame, skew, byte_offset = int(match[2] or 1), int(match[3] or 0), int(match[4] or 0)
    if samples_per_frame > MAX_SAMPLES_PER_FRAME or skew > MAX_SKEW:
        raise ValueError(
            f"Expected at most {MAX_SAMPLES_PER_FRAME} samples a frame and {MAX_SKEW} of skew, got {text!r}."
        )
    return match[1], samples_per_frame, skew, byte_offset


def _parse_gain(text: str) -> tuple[float, int | None, str]:
    match = _GAIN.match(text)
    if match is None:
        raise ValueError(f"Expected 'gain[(baseline)][/unit]', got {text!r}.")
    gain = float(match[1])
    if not math.isfinite(gain):
        raise ValueError(f"Expected a finite gain, got {text!r}.")
    return gain, int(match[2]) if match[2] else None, match[3] or ("mV" if gain else "")


def read_header(path: str | os.PathLike) -> WfdbHeader:
    """Reads the header file at `path` (with or without `.hea`).

    Raises:
        ValueError: if the file does not exist or is no valid header.
    """
    path = os.fspath(path)
    if not path.endswith(".hea"):
        path += ".hea"
    try:
        content = read_file(path, MAX_HEADER_BYTES)
    except OSError as error:
        raise ValueError(f"Cannot read header file {path}: {error.strerror}.") from None
    return parse_header(decode_text(content))


def decode_text(content: bytes) -> str:
    """Text in UTF-8 or else Latin-1, the two in which recorders write `µV`."""
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")
