"""From the whole numbers that a file stores, with a scale and an offset for each lead, to an `EcgRecord`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..records import MAX_STEP, EcgRecord, millivolts_per
from .channels import Channel, ChannelChoice, choose_channels


def record_of_steps(
    record_id: str,
    steps: np.ndarray,
    leads: Sequence[str],
    sampling_rate: float,
    unit: str,
    gain: Sequence[float],
    zero: Sequence[float] | None = None,
    **columns: Any,
) -> EcgRecord:
    """A record of `(steps - zero) * gain`, kept as int16 where that is exact and as float32 where it is not.

    Args:
        steps (`np.ndarray` of shape `(num_leads, num_samples)`):
            Whole numbers of any width. Every one is a measured value: -32768, which stands for a missing sample in an
            `EcgRecord`, makes the record float.
        gain (`Sequence[float]`): `unit` per step of each lead.
        zero (`Sequence[float]`, *optional*): The step of each lead that stands for 0 `unit`.
        columns: Further fields of the record.
    """
    gain = np.asarray(gain, dtype=np.float64)
    zero = np.zeros(len(gain)) if zero is None else np.asarray(zero, dtype=np.float64)
    if not (np.isfinite(gain).all() and gain.all() and np.isfinite(zero).all()):
        raise ValueError(
            f"Record {record_id}: expected finite gains other than 0 and finite offsets, got {gain}, {zero}."
        )
    whole = np.rint(zero)
    if np.abs(zero - whole).max(initial=0.0) < 1e-6 and np.abs(whole).max(initial=0.0) < 2**31:
        # 64 bits hold any 32-bit step less any offset.
        shifted = steps.astype(np.int64) - whole.astype(np.int64)[:, None] if whole.any() else steps
        if shifted.size and -MAX_STEP <= shifted.min() and shifted.max() <= MAX_STEP:
            shifted = shifted.astype(np.int16, copy=False)
            return EcgRecord(record_id, shifted, leads, sampling_rate, unit, gain.astype(np.float32), **columns)
        zero = whole
    signal = ((steps - zero[:, None]) * gain[:, None]).astype(np.float32)
    return EcgRecord(record_id, signal, leads, sampling_rate, unit, **columns)


def record_of_channels(
    path: str,
    record_id: str,
    channels: Sequence[Channel],
    steps: np.ndarray,
    gain: Sequence[float],
    zero: Sequence[float],
    choice: ChannelChoice,
    notes: Sequence[str] = (),
    **columns: Any,
) -> EcgRecord:
    """A record of the channels that [`choose_channels`] takes of a file that holds all of them at one rate.

    Args:
        steps (`np.ndarray` of shape `(num_channels, num_samples)`), gain, zero: See [`record_of_steps`], of each
            channel in its own unit. The record has that unit, or mV where units differ.
        choice ([`ChannelChoice`]): Channels that the caller takes.
        notes (`Sequence[str]`): Sentences for the record, beside those on the choice.
    """
    chosen, unit = choose_channels(path, channels, **choice), choice.get("unit")
    taken = list(chosen.positions)
    units = {channels[position].unit or unit for position in taken}
    if len(units) > 1:
        scale, common = [millivolts_per(channels[position].unit or unit) for position in taken], "mV"
    else:
        scale, common = [1.0] * len(taken), units.pop()
    return record_of_steps(
        record_id,
        steps if taken == list(range(len(channels))) else steps[taken],
        chosen.leads,
        channels[taken[0]].sampling_rate,
        common,
        [gain[position] * factor for position, factor in zip(taken, scale, strict=True)],
        [zero[position] for position in taken],
        notes=(*notes, *chosen.notes),
        **columns,
    )
