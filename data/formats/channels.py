"""Choice of the channels of a file and of their names: one rule for every format that names its channels.

A caller chooses by `leads`, renames by `rename_leads`, and means a channel by its name or by its position (from 0; in
text `channel_0`). Without a choice the ECG channels are taken. What is left out, and every name that was made up, is
said in a note.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, TypedDict

from ...modeling.leads import canonical_lead
from ...modeling.recording_input import DIMENSIONLESS
from ..records import known_lead_names, millivolts_per, stored_unit

_OTHER_SIGNALS = (
    *("ABP", "ART", "BP", "CVP", "PAP", "ICP", "UAP", "UVP", "LAP", "RAP", "PLETH", "PPG", "SPO2", "SAO2", "RESP"),
    *("EEG", "EOG", "EMG", "EDA", "GSR", "CO2", "ACC", "GYR", "TEMP", "FLOW", "NASAL", "THOR", "ABD", "SNORE", "PCG"),
)
"""How names of signals begin that monitors store beside an ECG, some of them in volts."""


class Channel(NamedTuple):
    """A channel as a file states it. `unit` is `""` where the file states none, `None` where it is decided
    elsewhere; `is_ecg` `None` leaves the decision to unit and name; `lead` is what the name means, if that is not the
    name itself."""

    name: str
    unit: str | None
    sampling_rate: float
    is_ecg: bool | None = None
    lead: str = ""


class ChosenChannels(NamedTuple):
    """Positions of the channels that are taken, their lead names, and what has to be said of the choice."""

    positions: tuple[int, ...]
    leads: tuple[str, ...]
    notes: tuple[str, ...]


class ChannelChoice(TypedDict, total=False):
    """Arguments by which a caller chooses channels, of every reader of a format that names its channels.

    Args:
        leads (`Sequence[str]`, *optional*):
            Channels to take, in this order: names as stored, lead names, or positions. By default all ECG channels:
            those in volts whose name is not that of another signal, at the rate that most of them have.
        rename_leads: See [`parse_renaming`]. A channel that is renamed is an ECG channel.
        unit (`str`, *optional*):
            Unit that the caller declared. It counts for channels that state none; `"dimensionless"` takes channels in
            any unit, if `leads` names them.
    """

    leads: Sequence[str | int] | None
    rename_leads: Mapping[str | int, str] | str | None
    unit: str | None


def parse_renaming(
    rename_leads: Mapping[str | int, str] | str | None,
    form: str = "rename_leads as stored:lead, such as MLII:II",
) -> dict[str | int, str]:
    """Names as stored (or positions) → lead names, from a mapping or from text such as `"MLII:II,1:V5"`.

    Raises:
        ValueError: for text of another form.
    """
    if isinstance(rename_leads, str):
        pairs = [pair.rpartition(":" if ":" in pair else "=") for pair in rename_leads.split(",") if pair.strip()]
        if not pairs or not all(old.strip() and new.strip() for old, _, new in pairs):
            raise ValueError(f"Expected {form}, got {rename_leads!r}.")
        return {old.strip(): new.strip() for old, _, new in pairs}
    return dict(rename_leads or {})


def numbered(names: Sequence[str]) -> list[str]:
    """Names that differ: the second `ECG` becomes `ECG_2`, and a channel without a name `channel_0`, its position.

    Known leads that come twice are left to [`known_lead_names`], which refuses them.
    """
    different: list[str] = []
    for position, name in enumerate(names):
        name = name.strip() or f"channel_{position}"
        new, number = name, 1
        while new in different and not is_lead(name):
            number += 1
            new = f"{name}_{number}"
        different.append(new)
    return different


def is_lead(name: str) -> bool:
    try:
        canonical_lead(name)
    except ValueError:
        return False
    return True


def is_voltage(unit: str) -> bool:
    try:
        millivolts_per(unit)
    except ValueError:
        return False
    return True


def choose_channels(
    path: str,
    channels: Sequence[Channel],
    leads: Sequence[str | int] | None = None,
    rename_leads: Mapping[str | int, str] | str | None = None,
    unit: str | None = None,
) -> ChosenChannels:
    """The channels of a file that make a recording.

    Args:
        channels: All of the file, in its order.
        leads, rename_leads, unit: See [`ChannelChoice`].

    Raises:
        ValueError: if no channel is an ECG, a wanted one is not there or no voltage, rates differ, or a lead comes
            twice; names the channels that there are.
    """
    if isinstance(leads, str):
        raise ValueError(f"Expected leads as a list of names, got the string {leads!r}.")
    wanted = None if leads is None else tuple(leads)
    renaming = tuple(parse_renaming(rename_leads).items())
    try:
        return _choose(tuple(channels), wanted, renaming, unit)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


@lru_cache(maxsize=256)  # a corpus has a handful of layouts and many records
def _choose(
    channels: tuple[Channel, ...],
    wanted: tuple[str | int, ...] | None,
    renaming: tuple[tuple[str | int, str], ...],
    unit: str | None,
) -> ChosenChannels:
    stored = numbered([channel.name for channel in channels])
    names, notes, renamed = numbered([channel.lead or channel.name for channel in channels]), [], set()
    for old, new in renaming:
        found = _position(old, stored, names)
        if found is None:
            notes.append(f"rename_leads names {old!r}, which the file lacks; it has {_shown(channels, stored)}")
        else:
            names[found] = new
            renamed.add(found)
    if wanted is not None:
        positions = [_position(lead, names, stored) for lead in wanted]
        absent = [lead for lead, position in zip(wanted, positions, strict=True) if position is None]
        if absent or not positions:
            raise ValueError(
                f"The leads {absent} are not among its channels {_shown(channels, stored)}. Choose by leads= from "
                "these names, or by position from 0."
            )
        refused = [p for p in positions if unit != DIMENSIONLESS and not _is_voltage(channels[p], unit)]
        if refused:
            raise ValueError(
                f"Expected channels in a voltage, got {_shown(channels, stored, refused)}. Leave them out of leads=, "
                "or, if they are no voltage, read all of leads= with unit='dimensionless'."
            )
    else:
        positions = [p for p, channel in enumerate(channels) if p in renamed or _is_ecg(channel, unit)]
        unclear = [p for p in positions if not _is_voltage(channels[p], unit)]
        unclear += [
            p for p, name in enumerate(names) if p not in positions and is_lead(name) and channels[p].is_ecg is None
        ]
        if unclear:
            raise ValueError(
                f"Unknown unit of {_shown(channels, stored, unclear)}. Expected a voltage: 'mV', 'uV', 'V' or 'nV'. "
                "Say unit= where the file states none, name other channels by leads=, or, if these are no voltage, "
                "name them by leads= with unit='dimensionless'."
            )
        if not positions:
            raise ValueError(
                f"None of its channels {_shown(channels, stored)} is an ECG lead in a voltage. Say which are by "
                "rename_leads= or leads=."
            )
        positions, left_out = _of_one_rate(channels, positions)
        if left_out:
            notes.append(
                f"left out {_shown(channels, stored, left_out)} of another sampling rate than most ECG channels; "
                "leads= chooses"
            )
        others = [p for p in range(len(channels)) if p not in positions and p not in left_out]
        if others:
            notes.append(f"left out {_shown(channels, stored, others)}: no ECG; leads= chooses")
    other = {channels[p].unit for p in positions if channels[p].unit and not _may_be(channels[p].unit, unit)}
    if other:
        raise ValueError(f"The file states the unit {sorted(other)}, not {unit!r}. Leave out unit=.")
    rates = {names[p]: channels[p].sampling_rate for p in positions}
    if len(set(rates.values())) > 1:
        raise ValueError(f"Expected leads of one sampling rate, got {rates} Hz. Choose those of one rate by leads=.")
    new = [
        f"{names[p]!r} (position {p})" for p in positions if stored[p] != channels[p].name.strip() and p not in renamed
    ]
    if new:
        notes.append(f"channels with equal or no names were numbered: {', '.join(new)}; rename_leads= renames them")
    return ChosenChannels(tuple(positions), known_lead_names(tuple(names[p] for p in positions)), tuple(notes))


def _position(name: str | int, *spellings: Sequence[str]) -> int | None:
    """Finds the channel that is meant by a name or a position; several of one name are a `ValueError`."""
    if isinstance(name, str):
        for names in spellings:
            for same in (str.__eq__, _are_one_lead):
                found = [position for position, stored in enumerate(names) if same(stored, name)]
                if len(found) > 1:
                    raise ValueError(
                        f"{name!r} comes {len(found)} times in {list(names)}. Name one by its position: {found}."
                    )
                if found:
                    return found[0]
        digits = name.removeprefix("channel_")
        name = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 5 else -1
    return name if 0 <= name < len(spellings[0]) else None


def _are_one_lead(name: str, other: str) -> bool:
    return is_lead(name) and is_lead(other) and canonical_lead(name) == canonical_lead(other)


def _is_ecg(channel: Channel, unit: str | None) -> bool:
    if channel.is_ecg is not None:
        return channel.is_ecg
    return _is_voltage(channel, unit) and not channel.name.strip().upper().startswith(_OTHER_SIGNALS)


def _is_voltage(channel: Channel, declared: str | None) -> bool:
    return channel.unit is None or is_voltage(channel.unit or declared or "")


def _may_be(stated: str, declared: str | None) -> bool:
    """Checks whether what the caller says of the unit, if anything, is no contradiction."""
    if declared is None or declared == DIMENSIONLESS:
        return declared is None or not is_voltage(stated)
    return stored_unit(stated) == stored_unit(declared)


def _of_one_rate(channels: Sequence[Channel], positions: Sequence[int]) -> tuple[list[int], list[int]]:
    """Positions at the rate that most have (of two, the higher one), and the others."""
    rates = [channels[p].sampling_rate for p in positions]
    rate = max(set(rates), key=lambda each: (rates.count(each), each))
    return [p for p in positions if channels[p].sampling_rate == rate], [
        p for p in positions if channels[p].sampling_rate != rate
    ]


def _shown(channels: Sequence[Channel], names: Sequence[str], positions: Sequence[int] | None = None) -> str:
    """`"II (mV), ABP (mmHg)"`, with rates where they differ."""
    with_rates = len({channel.sampling_rate for channel in channels}) > 1
    positions = range(len(channels)) if positions is None else positions
    rates = [f", {channel.sampling_rate:g} Hz" if with_rates else "" for channel in channels]
    units = ["" if channel.unit is None else f" ({channel.unit or 'no unit'}" for channel in channels]
    return ", ".join(f"{names[p]}{units[p] and units[p] + rates[p] + ')'}" for p in positions)
