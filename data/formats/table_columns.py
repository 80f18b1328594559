"""Columns of a table of one recording, by their names: leads, their units, and the time of each sample.

Columns that are no known lead (a counter, a pressure) are never taken for one: the caller names the leads to take, or
renames them. A column of times is no lead; it gives the sampling rate, or is compared with the declared one.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .array_reader import ArrayDeclaration
from .channels import Channel, choose_channels, is_lead, is_voltage, parse_renaming

MAX_RATE_ERROR = 0.005
"""How far a declared rate may be from that of the times: the clocks of phone and sensor differ."""
_UNIT = re.compile(r"(.+?)[\s_]*[\[(]([^\])]+)[\])]$")
_TIME = re.compile(
    r"(?:.*[\s_])?(?:time|timestamps?|datetime|elapsed|seconds?|secs?|milliseconds?|zeit|temps|tiempo|tempo)"
    r"(?:[\s_](?:s|sec|ms|us|ns|seconds?|milliseconds?))?|t|ms",
    re.IGNORECASE,
)
_SECONDS = {"s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "milliseconds": 1e-3}
_SECONDS |= {"us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_SCALES = (1.0, 1e-3, 1e-6, 1e-9)
_RATES = (40.0, 20_000.0)  # Hz, of ECGs: of the four scales one at most gives a rate in between


class Columns(NamedTuple):
    """Positions, lead names and units (`""` where none is stated) of the columns of leads, and those of times."""

    positions: tuple[int, ...]
    leads: tuple[str, ...]
    units: tuple[str, ...]
    times: tuple[int, ...]
    notes: tuple[str, ...]


class Times(NamedTuple):
    """Statement of a column of times: the rate in Hz, what is odd about it (`""` if nothing), and how uneven it is."""

    sampling_rate: float
    fault: str
    unevenness: float


def choose_columns(
    path: str,
    names: Sequence[str],
    wanted: Sequence[str | int] | None,
    rename_leads: Mapping[str | int, str] | str | None = None,
    all_named: bool = False,
) -> Columns:
    """The columns that are leads: those wanted, or all but times if all of these are known leads.

    Args:
        names: Names of the columns; a unit may stand behind a name in brackets, as in `ecg [uV]`.
        all_named (`bool`): Whether the caller named all columns, so that none is unknown.

    Raises:
        ValueError: if a wanted lead is not there, or nobody said what a column is.
    """
    parts = [_UNIT.fullmatch(name.strip()) for name in names]
    bases = [part[1] if part else name.strip() for part, name in zip(parts, names, strict=True)]
    units = [part[2].strip() if part else "" for part in parts]
    renaming = parse_renaming(rename_leads)
    renamed = {p for p, name in enumerate(names) if {name, bases[p], p, str(p), f"channel_{p}"} & set(renaming)}
    times = tuple(p for p, base in enumerate(bases) if _TIME.fullmatch(base) and p not in renamed)
    known = [all_named or is_lead(base) or base.upper().startswith(("ECG", "EKG")) for base in bases]
    unknown = [names[p] for p, is_known in enumerate(known) if not (is_known or p in times or p in renamed)]
    if wanted is None and unknown:
        raise ValueError(
            f"{path}: the columns {unknown} are no known leads. Name the leads to take by leads=, or say what the "
            "columns are by rename_leads=; lines of text before a table are left out by skip_lines=."
        )
    channels = [Channel(name, None, 1.0, known[p] and p not in times, bases[p]) for p, name in enumerate(names)]
    chosen = choose_channels(path, channels, wanted, rename_leads)
    notes = tuple(note for note in chosen.notes if not note.startswith("left out"))
    return Columns(chosen.positions, chosen.leads, tuple(units[p] for p in chosen.positions), times, notes)


def unit_of_columns(path: str, columns: Columns, declared: ArrayDeclaration) -> str:
    """The unit of the columns of leads, stated or declared; a rate is asked for as well where no times give one.

    Raises:
        ValueError: if there is none, or they differ.
    """
    needed = ["unit"] * ("" in columns.units) + ["sampling_rate"] * (not columns.times)
    declared.require(path, *needed)
    units = {unit or declared.unit for unit in columns.units}
    for unit in units - {declared.unit}:
        if not is_voltage(unit) or declared.unit is not None:
            raise ValueError(
                f"{path} states the unit {unit!r}, not {declared.unit or 'a voltage'!r}. Rename the column."
            )
    if len(units) > 1:
        raise ValueError(f"{path}: expected leads in one unit, got {sorted(units)}. Choose those of one by leads=.")
    return units.pop()


def rate_of_columns(
    path: str, times: Mapping[str, np.ndarray], declared: ArrayDeclaration
) -> tuple[float, tuple[str, ...]]:
    """The sampling rate in Hz, declared or by the columns of times, and notes on it.

    Args:
        times: Name of each column → its values: numbers or `datetime64`.

    Raises:
        ValueError: if no rate is declared and no column gives one; if the times have a gap, or contradict the
            declared rate.
    """
    found = {name: evaluated for name, values in times.items() if (evaluated := _times_of(values, name)) is not None}
    rate = declared.sampling_rate
    if not found:
        declared.require(path, "sampling_rate")
        return float(rate), tuple(f"the column {name!r} holds no times that can be read" for name in times)
    name, best = min(found.items(), key=lambda item: (bool(item[1].fault), item[1].unevenness))
    if best.fault and rate is None:
        raise ValueError(
            f"{path}: the times of the column {name!r} {best.fault}. Cut the recording there, or declare "
            "sampling_rate= to read the samples as if they followed each other."
        )
    if best.fault:
        return float(rate), (f"the times of the column {name!r} {best.fault}; the declared rate counts",)
    if rate is not None and abs(rate / best.sampling_rate - 1) > MAX_RATE_ERROR:
        raise ValueError(
            f"{path}: the column {name!r} gives {best.sampling_rate:g} Hz, not {rate:g} Hz. Leave out "
            "sampling_rate=, or drop the column."
        )
    if rate is not None:
        return float(rate), ()
    return best.sampling_rate, (f"{best.sampling_rate:g} Hz follow from the column {name!r}",)


def _times_of(values: np.ndarray, name: str) -> Times | None:
    """`None` for a column that holds no times of samples."""
    scale = None
    if values.dtype.kind == "M":
        values, scale = values.astype("datetime64[ns]").astype(np.int64), 1e-9
    if len(values) < 3 or not np.isfinite(values).all():
        return None
    relative = (values - values[0]).astype(np.float64)
    distances = np.diff(relative)
    typical = float(np.median(distances))
    if typical <= 0:
        return None
    scale = scale or _stated_scale(name)
    scales = [scale] if scale else [one for one in _SCALES if _RATES[0] <= 1 / (typical * one) <= _RATES[1]]
    if not scales:
        return None
    resolution = next((10.0**-k for k in range(10) if np.array_equal(relative, np.round(relative, k))), 0.0)
    regular = (distances >= 0) & (distances <= 1.5 * typical + 0.5 * resolution)
    mean = float(distances[regular].mean())
    rate = 1 / (mean * scales[0])
    if abs(rate / max(round(rate), 1) - 1) < resolution / (mean * len(values)) + 1e-6:
        rate = float(round(rate))  # what the last digit of the times cannot tell apart
    fault = ""
    if not regular.all():
        first = int(np.argmin(regular))
        fault = f"have {int((~regular).sum())} gaps or steps back, the first after sample {first}"
    return Times(round(rate, 6), fault, float(distances[regular].std()) / typical)


def _stated_scale(name: str) -> float | None:
    """Seconds in the unit that a name states: `time [ms]`, `time (s)`, `time_ms`."""
    part = _UNIT.fullmatch(name.strip())
    word = part[2] if part else re.split(r"[\s_]", name.strip())[-1]
    return _SECONDS.get(word.strip().lower())


def parse_times(cells: Sequence[str]) -> np.ndarray:
    """Times written as `2021-04-02T09:12:00.008`, with a space or a zone, or times of day; empty for others."""
    texts = [re.sub(r"(?:Z|[+-]\d\d:?\d\d)$", "", cell.strip().replace(" ", "T")) for cell in cells]
    if texts and re.match(r"\d{1,2}:", texts[0]):
        texts = [f"1970-01-01T{text:0>8}" if text[1:2] != ":" else f"1970-01-01T0{text}" for text in texts]
    try:
        return np.array(texts, dtype="datetime64[ns]")
    except ValueError:
        return np.array([])
