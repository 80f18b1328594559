"""Signal processing on batched tensors: Fourier resampling, Butterworth design, zero-phase filtering, gaps.

Every function works along the last axis of a tensor of shape `(..., num_samples)`, on any device, without a loop over
records or leads. The results are those of `scipy.signal` (`resample`, `butter`, `sosfiltfilt`), which the published
models were trained with; `tests/modeling/test_signal_processing.py` holds the comparisons. SciPy itself is not needed.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from .input_checks import INVALID_SAMPLE

# How the recursive filter cuts a record: samples in a block, blocks in a group. They set the speed, not the result.
_BLOCK_SIZE = 48
_GROUP_SIZE = 12
_ROWS_AT_ONCE = 128
"""Leads that a CPU filters together: with those of a large batch at once it would wait for memory."""


def to_millivolts(
    signal: torch.Tensor, gain: torch.Tensor | None, sources: tuple[int, ...], is_complete: bool = False
) -> torch.Tensor:
    """Float32 millivolts of the rows `sources` of `(batch, num_source_leads, num_samples)`; `is_complete` where no
    sample is missing."""
    if sources != tuple(range(signal.shape[1])):
        signal = signal[:, list(sources)]
        gain = None if gain is None else gain[:, list(sources)]
    values = signal.float()
    if gain is not None:
        gain = gain.to(values.device, torch.float32)[..., None]
        values = values * gain if values is signal else values.mul_(gain)
    if signal.dtype == torch.int16 and not is_complete:
        values.masked_fill_(signal == INVALID_SAMPLE, torch.nan)
    return values


def resample(signal: torch.Tensor, num_samples: int) -> torch.Tensor:
    """Resamples to `num_samples` by cutting or extending the spectrum, as `scipy.signal.resample` does.

    The record is taken as one period, so a jump between its end and its start rings at both edges.

    Args:
        signal (`torch.Tensor` of shape `(..., num_source_samples)`): float32 or float64.
        num_samples (`int`): length of the result, in samples.

    Returns:
        `torch.Tensor` of shape `(..., num_samples)`, same dtype and device.

    Raises:
        ValueError: for another dtype, an empty record or a length below 1.
    """
    _require_float(signal, "resample")
    num_source_samples = signal.shape[-1]
    if num_source_samples < 1 or num_samples < 1:
        raise ValueError(f"Cannot resample {num_source_samples} samples to {num_samples}: both must be at least 1.")
    if num_samples == num_source_samples:
        return signal
    # norm="forward" divides by the old length here and by nothing on the way back: the amplitude is kept.
    spectrum = torch.fft.rfft(signal, norm="forward")
    num_shared = min(num_source_samples, num_samples)
    spectrum = spectrum[..., : num_shared // 2 + 1]
    if num_shared % 2 == 0:
        # The Nyquist bin of the shorter side stands for both +f and -f: it is folded on the way down and split on the
        # way up.
        spectrum[..., -1] *= 2.0 if num_samples < num_source_samples else 0.5
    return torch.fft.irfft(spectrum, n=num_samples, norm="forward")


def interpolate_gaps(signal: torch.Tensor) -> torch.Tensor:
    """Replaces NaN and infinite samples by the straight line between their finite neighbours, as `numpy.interp` does.

    Before the first and after the last finite sample the nearest one is repeated. A row without any finite sample
    stays as it is: there is nothing to interpolate from.

    Args:
        signal (`torch.Tensor` of shape `(..., num_samples)`): any floating dtype and unit.
    """
    num_samples = signal.shape[-1]
    finite = signal.isfinite()
    position = torch.arange(num_samples, device=signal.device).expand(signal.shape)
    before = position.where(finite, -1).cummax(-1).values
    after = position.where(finite, num_samples).flip(-1).cummin(-1).values.flip(-1)
    nearest_before = before.where(before >= 0, after).clamp(max=num_samples - 1)
    nearest_after = after.where(after < num_samples, before).clamp(min=0)
    left, right = signal.gather(-1, nearest_before), signal.gather(-1, nearest_after)
    distance = (nearest_after - nearest_before).clamp(min=1)
    fraction = ((position - nearest_before).to(signal.dtype) / distance).clamp(0, 1)
    return signal.where(finite, left + (right - left) * fraction)


@lru_cache(maxsize=64)
def butterworth_sos(
    order: int, cutoff_hz: float | tuple[float, float], sampling_rate: float, kind: str = "lowpass"
) -> np.ndarray:
    """Designs a digital Butterworth filter, equal to `scipy.signal.butter(..., output="sos")`.

    Args:
        order (`int`): order of the analogue prototype; a band-pass has twice as many poles.
        cutoff_hz (`float`, or `(float, float)` for a band-pass): -3 dB points, in Hz.
        sampling_rate (`float`): Rate in Hz.
        kind (`str`, *optional*, defaults to `"lowpass"`): `"lowpass"`, `"highpass"` or `"bandpass"`.

    Returns:
        float64 `numpy.ndarray` of shape `(sections, 6)`, read-only: b0, b1, b2, 1, a1, a2 of each section.

    Raises:
        ValueError: for an unknown kind, an order below 1, or cutoffs outside 0 Hz to half the sampling rate.
    """
    if kind not in ("lowpass", "highpass", "bandpass"):
        raise ValueError(f"Unknown kind of filter {kind!r}. Expected 'lowpass', 'highpass' or 'bandpass'.")
    if order < 1:
        raise ValueError(f"The order of a filter must be at least 1, got {order}.")
    cutoffs = np.atleast_1d(np.asarray(cutoff_hz, dtype=np.float64))
    num_cutoffs = 2 if kind == "bandpass" else 1
    inside = np.all(np.diff(np.concatenate([[0.0], cutoffs, [sampling_rate / 2]])) > 0)
    if len(cutoffs) != num_cutoffs or not inside:
        raise ValueError(
            f"A {kind} filter needs {num_cutoffs} increasing cutoff(s) between 0 and {sampling_rate / 2} Hz (half the "
            f"sampling rate of {sampling_rate} Hz), got {cutoff_hz}."
        )

    # Prototype with poles on the unit circle; cutoffs warped so that the bilinear transform (at rate 2) meets them.
    prototype = -np.exp(1j * np.pi * np.arange(1 - order, order, 2) / (2 * order))
    warped = 4.0 * np.tan(np.pi * cutoffs / sampling_rate)
    if kind == "lowpass":
        poles, zeros, gain = warped[0] * prototype, np.zeros(0), warped[0] ** order
    elif kind == "highpass":
        poles, zeros, gain = warped[0] / prototype, np.zeros(order), 1.0 / np.prod(-prototype).real
    else:
        bandwidth, centre = warped[1] - warped[0], np.sqrt(warped[0] * warped[1])
        scaled = prototype * bandwidth / 2
        offset = np.sqrt(scaled**2 - centre**2)
        poles, zeros, gain = np.concatenate([scaled + offset, scaled - offset]), np.zeros(order), bandwidth**order
    gain = gain * (np.prod(4.0 - zeros) / np.prod(4.0 - poles)).real
    zeros = np.concatenate([(4.0 + zeros) / (4.0 - zeros), -np.ones(len(poles) - len(zeros))])
    poles = (4.0 + poles) / (4.0 - poles)

    sections = _pair_into_sections(zeros, poles)
    sections[0, :3] *= gain
    sections.setflags(write=False)  # the array is cached
    return sections


@lru_cache(maxsize=16)
def notch_sos(notch_hz: float, sampling_rate: float, quality: float = 30.0) -> np.ndarray:
    """Designs a notch, equal to `scipy.signal.iirnotch` as one second-order section.

    Args:
        notch_hz (`float`): frequency that is removed, in Hz.
        sampling_rate (`float`): Rate in Hz.
        quality (`float`, *optional*, defaults to 30): `notch_hz` over the width of the notch at -3 dB.

    Returns:
        float64 `numpy.ndarray` of shape `(1, 6)`, read-only.

    Raises:
        ValueError: for a frequency outside 0 Hz to half the sampling rate.
    """
    if not 0 < notch_hz < sampling_rate / 2:
        raise ValueError(f"A notch needs a frequency between 0 and {sampling_rate / 2} Hz, got {notch_hz}.")
    angle = 2 * np.pi * notch_hz / sampling_rate
    gain = 1 / (1 + np.tan(angle / quality / 2))
    cosine = np.cos(angle)
    sections = np.array([[gain, -2 * gain * cosine, gain, 1.0, -2 * gain * cosine, 2 * gain - 1]])
    sections.setflags(write=False)  # the array is cached
    return sections


def running_median(signal: torch.Tensor, num_taps: int) -> torch.Tensor:
    """Median of the `num_taps` samples around each, equal to `scipy.signal.medfilt`: zeros lie beyond both ends.

    Args:
        signal (`torch.Tensor` of shape `(..., num_samples)`): any floating dtype and unit, finite.
        num_taps (`int`): odd.

    Raises:
        ValueError: for an even number of taps.
    """
    if num_taps < 1 or num_taps % 2 == 0:
        raise ValueError(f"A running median needs an odd number of taps, got {num_taps}.")
    rows = torch.nn.functional.pad(signal.reshape(-1, signal.shape[-1]), (num_taps // 2, num_taps // 2))
    # Row by row: the windows of one lead of 10 s at 500 Hz take 4 MB.
    medians = [row.unfold(0, num_taps, 1).median(dim=-1).values for row in rows]
    return torch.stack(medians).reshape(signal.shape)


def filter_zero_phase(signal: torch.Tensor, sos: np.ndarray) -> torch.Tensor:
    """Filters forwards and backwards, equal to `scipy.signal.sosfiltfilt` with its odd extension at both ends.

    The cascade is one linear state-space system, advanced by blocks: the outputs of a block are a fixed matrix times
    its inputs plus a fixed matrix times the state at its start. Only the small states are carried from block to
    block, in float64; everything else is two matrix products over all records, leads and blocks at once.

    Args:
        signal (`torch.Tensor` of shape `(..., num_samples)`): float32 or float64, any unit. On CUDA a float32 signal
            is filtered in float64, so that TF32 products do not enter.
        sos (`numpy.ndarray` of shape `(sections, 6)`): second-order sections, as from [`butterworth_sos`].

    Returns:
        `torch.Tensor` of the shape, dtype and device of `signal`.

    Raises:
        ValueError: for another dtype, malformed sections, or a record shorter than the extension.
    """
    _require_float(signal, "filter_zero_phase")
    sos = np.ascontiguousarray(sos, dtype=np.float64)
    if sos.ndim != 2 or sos.shape[1] != 6 or not np.all(sos[:, 3] == 1):
        raise ValueError(f"Expected second-order sections of shape (sections, 6) with a0 = 1, got shape {sos.shape}.")
    num_taps = 2 * len(sos) + 1 - min(int((sos[:, 2] == 0).sum()), int((sos[:, 5] == 0).sum()))
    num_extra = 3 * num_taps
    if signal.shape[-1] <= num_extra:
        raise ValueError(
            f"A record of {signal.shape[-1]} samples is too short for this filter, which extends it by {num_extra} at "
            f"each end. Give records of more than {num_extra} samples, or switch the filter off."
        )
    dtype = torch.float64 if signal.is_cuda else signal.dtype
    system = _block_system(sos.tobytes(), len(sos), dtype, signal.device)
    rows = signal.reshape(-1, signal.shape[-1])
    filtered = torch.empty_like(rows)
    rows_at_once = len(rows) if signal.is_cuda else _ROWS_AT_ONCE
    for start in range(0, len(rows), max(rows_at_once, 1)):
        some = slice(start, start + rows_at_once)
        filtered[some] = _filter_rows(rows[some].to(dtype), num_extra, system)
    return filtered.view(signal.shape)


def _filter_rows(rows: torch.Tensor, num_extra: int, system: "_BlockSystem") -> torch.Tensor:
    num_samples = rows.shape[-1]
    num_extended = num_samples + 2 * num_extra
    num_blocks = -(-num_extended // (_BLOCK_SIZE * _GROUP_SIZE)) * _GROUP_SIZE
    extended = rows.new_zeros(len(rows), num_blocks * _BLOCK_SIZE)
    extended[:, :num_extra] = 2 * rows[:, :1] - rows[:, 1 : num_extra + 1].flip(-1)
    extended[:, num_extra : num_extra + num_samples] = rows
    extended[:, num_extra + num_samples : num_extended] = 2 * rows[:, -1:] - rows[:, -num_extra - 1 : -1].flip(-1)

    blocks = extended.view(len(rows), num_blocks, _BLOCK_SIZE)
    forward = _filter_blocks(blocks, blocks[:, 0, 0], system.forward, system)
    last_block, last_offset = divmod(num_extended - 1, _BLOCK_SIZE)
    last = forward[:, last_block, last_offset].clone()
    # The samples that only fill up the last block continue the last one: the backward pass enters the record in the
    # steady state, as if it had begun there.
    forward[:, last_block, last_offset:] = last[:, None]
    forward[:, last_block + 1 :] = last[:, None, None]
    both_ways = _filter_blocks(forward, last, system.backward, system).flatten(1)
    return both_ways[:, num_extra : num_extra + num_samples]


def cut_windows(signal: torch.Tensor, starts: list[int] | torch.Tensor, num_samples: int) -> torch.Tensor:
    """Windows of records `(batch, leads, samples)`, those of a record side by side: `(batch * windows, leads,
    num_samples)`.

    Args:
        starts (`list[int]` or `torch.LongTensor` of shape `(batch,)`):
            First samples of the windows of every record, or of the one window of each.
    """
    if isinstance(starts, torch.Tensor):
        index = starts[:, None] + torch.arange(num_samples, device=signal.device)
        return signal.gather(-1, index[:, None].expand(-1, signal.shape[1], -1))
    windows = [signal[..., start : start + num_samples] for start in starts]
    return windows[0].contiguous() if len(windows) == 1 else torch.stack(windows, dim=1).flatten(0, 1)


def _require_float(signal: torch.Tensor, operation: str) -> None:
    if signal.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{operation} needs float32 or float64, got {signal.dtype}. Convert with `.float()` first.")


def _pair_into_sections(zeros: np.ndarray, poles: np.ndarray) -> np.ndarray:
    """Pairs conjugate poles, and to each pair the two nearest zeros (all real here); the sharpest pair comes last."""
    if len(poles) % 2:
        zeros, poles = np.append(zeros, 0.0), np.append(poles, 0.0)
    is_real = np.abs(poles.imag) <= 100 * np.finfo(np.float64).eps * np.abs(poles)
    complex_poles = np.sort_complex(poles[~is_real & (poles.imag > 0)])
    remaining = [*complex_poles, *np.sort(poles[is_real].real).astype(complex)]
    free_zeros = list(np.sort(zeros.real))
    sections = np.zeros((len(poles) // 2, 6))
    for row in reversed(range(len(sections))):
        pole = remaining.pop(int(np.argmin(np.abs(1 - np.abs(remaining)))))
        partner = pole.conj()
        if pole.imag == 0:
            real = [index for index, other in enumerate(remaining) if other.imag == 0]
            partner = remaining.pop(real[int(np.argmin(np.abs(1 - np.abs([remaining[index] for index in real]))))])
        nearest = [free_zeros.pop(int(np.argmin(np.abs(pole - np.asarray(free_zeros))))) for _ in range(2)]
        sections[row, :3] = np.poly(nearest)
        sections[row, 3:] = np.poly([pole, partner]).real
    return sections


class _Direction(NamedTuple):
    """Contributions of a block of inputs and the state before it to the block of outputs, in one direction of time."""

    from_inputs: torch.Tensor  # (block, block + states): to the outputs, and to the state after the block
    from_state: torch.Tensor  # (states, block)
    is_reversed: bool


class _BlockSystem(NamedTuple):
    """A recursive filter, advanced by blocks of samples and by groups of blocks."""

    forward: _Direction
    backward: _Direction
    block_power: torch.Tensor  # (states, states) : carries a state over one block
    group_power: torch.Tensor  # (states, states) : carries a state over one group of blocks
    within_group: torch.Tensor  # (states, group * states) : carries a state to each block of its group
    steady_state: torch.Tensor  # (states,) : where a constant input of 1 settles


@lru_cache(maxsize=32)
def _block_system(sos_bytes: bytes, num_sections: int, dtype: torch.dtype, device: torch.device) -> _BlockSystem:
    """Builds the block matrices of a cascade of second-order sections (each in transposed direct form II)."""
    sos = np.frombuffer(sos_bytes).reshape(num_sections, 6)
    transition, drive, readout, through = np.zeros((0, 0)), np.zeros(0), np.zeros(0), 1.0
    steady_state, level = np.zeros(0), 1.0  # the level is the output of the sections so far to a constant 1
    for b0, b1, b2, _, a1, a2 in sos:
        own_gain = (b0 + b1 + b2) / (1.0 + a1 + a2)
        own_steady_state = np.array([own_gain - b0, b2 - a2 * own_gain])
        own_transition = np.array([[-a1, 1.0], [-a2, 0.0]])
        own_drive = np.array([b1 - a1 * b0, b2 - a2 * b0])
        # Coordinates in which the length of a state is the energy of the output still to come: in them no transition
        # amplifies a rounding error, however close to the unit circle the poles lie.
        energy = np.eye(4) - np.kron(own_transition.T, own_transition.T)
        scale = np.linalg.cholesky(np.linalg.solve(energy, [1.0, 0.0, 0.0, 0.0]).reshape(2, 2)).T
        own_transition = scale @ own_transition @ np.linalg.inv(scale)
        own_drive, own_readout = scale @ own_drive, np.linalg.inv(scale)[0]

        above_own = np.zeros((len(drive), 2))
        transition = np.block([[transition, above_own], [np.outer(own_drive, readout), own_transition]])
        drive = np.concatenate([drive, own_drive * through])
        readout, through = np.concatenate([b0 * readout, own_readout]), b0 * through
        steady_state = np.concatenate([steady_state, level * scale @ own_steady_state])
        level *= own_gain

    observations, drives = [readout], [drive]
    for _ in range(_BLOCK_SIZE - 1):
        observations.append(observations[-1] @ transition)
        drives.append(transition @ drives[-1])
    impulse_response = np.concatenate([[through], np.array(observations[:-1]) @ drive])
    lag = np.subtract.outer(np.arange(_BLOCK_SIZE), np.arange(_BLOCK_SIZE))
    inputs_to_outputs = np.where(lag >= 0, impulse_response[np.abs(lag)], 0.0).T
    from_inputs = np.concatenate([inputs_to_outputs, np.array(drives[::-1])], axis=1)
    from_inputs_reversed = np.concatenate([inputs_to_outputs.T, np.array(drives)], axis=1)
    state_to_outputs = np.array(observations).T
    block_power = np.linalg.matrix_power(transition, _BLOCK_SIZE).T
    powers = [np.linalg.matrix_power(block_power, count) for count in range(_GROUP_SIZE + 1)]

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.tensor(np.ascontiguousarray(array), dtype=dtype, device=device)

    return _BlockSystem(
        forward=_Direction(tensor(from_inputs), tensor(state_to_outputs), False),
        backward=_Direction(tensor(from_inputs_reversed), tensor(state_to_outputs[:, ::-1]), True),
        block_power=tensor(block_power),
        group_power=tensor(powers[-1]),
        within_group=tensor(np.concatenate(powers[:-1], axis=1)),
        steady_state=tensor(steady_state),
    )


def _filter_blocks(
    blocks: torch.Tensor, first: torch.Tensor, direction: _Direction, system: _BlockSystem
) -> torch.Tensor:
    """Filters `(rows, blocks, block size)` in one direction, from the state that has settled on the value `first`."""
    num_rows, num_blocks, block_size = blocks.shape
    combined = blocks.flatten(0, 1) @ direction.from_inputs  # (rows * blocks, block size + states)
    outputs, pushes = combined[:, :block_size], combined[:, block_size:].reshape(num_rows, num_blocks, -1)
    start = first[:, None] * system.steady_state
    if direction.is_reversed:
        states = _states_before_blocks(pushes.flip(1), start, system).flip(1)
    else:
        states = _states_before_blocks(pushes, start, system)
    outputs.addmm_(states.flatten(0, 1), direction.from_state)
    return outputs.view(num_rows, num_blocks, block_size)


def _states_before_blocks(pushes: torch.Tensor, start: torch.Tensor, system: _BlockSystem) -> torch.Tensor:
    """Runs state -> state @ block_power + push over the blocks; returns the state before each, `(rows, blocks, n)`.

    Groups of blocks advance side by side from a zero state, then the group starts are carried from group to group:
    the number of steps grows with group size plus number of groups instead of their product.
    """
    num_rows, num_blocks, num_states = pushes.shape
    num_groups = num_blocks // _GROUP_SIZE
    pushes = pushes.view(num_rows * num_groups, _GROUP_SIZE, num_states).transpose(0, 1).contiguous()
    local = torch.zeros_like(pushes[0])
    locals_before = []
    for push in pushes:
        locals_before.append(local)
        local = torch.addmm(push, local, system.block_power)
    group_pushes = local.view(num_rows, num_groups, num_states).transpose(0, 1).contiguous()
    state, group_starts = start, []
    for push in group_pushes:
        group_starts.append(state)
        state = torch.addmm(push, state, system.group_power)
    carried = torch.stack(group_starts, dim=1).flatten(0, 1) @ system.within_group
    states = torch.stack(locals_before, dim=1) + carried.view(-1, _GROUP_SIZE, num_states)
    return states.view(num_rows, num_blocks, num_states)


def average_windows(values: torch.Tensor, window_record: torch.Tensor) -> torch.Tensor:
    """Means over the windows of each recording: logits `(num_windows, ...)` → `(num_recordings, ...)`.

    `window_record` is that of [`EcgFeatureExtractor.__call__`] with `long_records="all"`.
    """
    counts = torch.bincount(window_record).to(values.dtype)
    sums = values.new_zeros(len(counts), *values.shape[1:]).index_add_(0, window_record, values)
    return sums / counts.view(-1, *[1] * (values.ndim - 1))
