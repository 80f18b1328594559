"""Views of a record: batched transforms of tensors, on any device (LeJEPA-ECG).

A view is a record after, in this order: crop, amplitude, noise, baseline wander, shift in time, dropout of leads. What
chance decides is drawn apart from what is computed: [`draw_views`] makes a [`ViewDraws`] from one generator a record,
so that a record's views depend neither on the batch around it nor on the device (but for the values of the noise);
[`corrected_views`] and [`published_views`] are functions of the signal and the draws alone.

Where we differ from the authors' code, by default ("corrected"):

* the crop is real: a window of `crop_scale` of the record is cut and stretched back to the full length by straight
  lines between samples. Shipped, its length is floored at the input's own, so that it does nothing;
* the shift moves the window and repeats the record's edge where it ends; shipped, it is circular, which puts a step
  into the middle of the signal;
* the wander has the frequency that it says; shipped, 500 Hz is written into the code.

By both laws the amplitude and the wander of a view are those of all its leads; the noise is each sample's own.

Another family, [`make_window_views`], shows a shorter window of the record as it is (or a little faster or slower),
and alters each lead by itself; no authors' code lies behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

AMPLITUDE_CHANCE = 0.8
NOISE_CHANCE = 0.5
WANDER_CHANCE = 0.3
SHIFT_CHANCE = 0.3
LEAD_DROPOUT_CHANCE = 0.2
WANDER_HZ = (0.1, 0.5)
PUBLISHED_SAMPLING_RATE = 500

NUM_UNIFORMS = 11
"""Uniform draws of one view, before those of its leads."""

RECORDS_AT_A_TIME = 4
"""On a CPU: the intermediate tensors of so many records stay in its cache."""


@dataclass(frozen=True)
class ViewSettings:
    """Settings of the views of a configuration; the fields are those of [`LeJepaConfig`]."""

    num_views: int
    augmentation: str
    crop_scale: tuple[float, float]
    amplitude_scale: tuple[float, float]
    noise_std: float
    wander_amplitude: float
    max_shift: float
    lead_dropout: float
    sampling_rate: float


@dataclass
class ViewDraws:
    """Random part of the views of a batch; tensors of shape `(batch, num_views)` unless said otherwise.

    Args:
        crop_start, crop_length (`torch.LongTensor`): Window of the record that a view shows, in samples.
        final_start (`torch.LongTensor`): Start of the published law's output in a longer crop, in samples.
        amplitude (`torch.FloatTensor`): Factor, 1 where there is none.
        noise (`torch.FloatTensor` of shape `(batch, num_views, num_leads, num_samples)`): Zeros where there is none;
            by the published law its first `crop_length` samples count.
        wander_amplitude, wander_hz, wander_phase (`torch.FloatTensor`): Sine added to all leads; amplitude 0 where
            there is none; phase in radians.
        shift (`torch.LongTensor`): Samples by which the view is late; negative: early; 0 where there is none.
        keep_leads (`torch.FloatTensor` of shape `(batch, num_views, num_leads)`, *optional*): 0 for a dropped lead.
    """

    crop_start: torch.Tensor
    crop_length: torch.Tensor
    final_start: torch.Tensor
    amplitude: torch.Tensor
    noise: torch.Tensor
    wander_amplitude: torch.Tensor
    wander_hz: torch.Tensor
    wander_phase: torch.Tensor
    shift: torch.Tensor
    keep_leads: torch.Tensor | None = None


def make_views(
    input_values: torch.Tensor, settings: ViewSettings, generators: Sequence[torch.Generator]
) -> torch.FloatTensor:
    """Views of a batch, `(batch, num_views, num_leads, num_samples)` in float32 on the device of `input_values`.

    Args:
        input_values (`torch.FloatTensor` of shape `(batch, num_leads, num_samples)`): Signal in the settings' unit.
        generators (`Sequence[torch.Generator]`): CPU generators, one a record, keyed by (seed, epoch, record).
    """
    if len(generators) != len(input_values):
        raise ValueError(
            f"Expected one generator for each of {len(input_values)} records, got {len(generators)}. Give the "
            "sample_id of every row of the batch."
        )
    at_a_time = RECORDS_AT_A_TIME if input_values.device.type == "cpu" else max(len(input_values), 1)
    views = input_values.new_empty(len(input_values), settings.num_views, *input_values.shape[1:], dtype=torch.float32)
    for start in range(0, len(input_values), at_a_time):
        records = input_values[start : start + at_a_time].float()
        draws = draw_views(
            settings, generators[start : start + at_a_time], *records.shape[1:], device=input_values.device
        )
        if settings.augmentation == "published":
            views[start : start + at_a_time] = published_views(records, draws)
        else:
            views[start : start + at_a_time] = corrected_views(records, draws, settings.sampling_rate)
    return views


def draw_views(
    settings: ViewSettings,
    generators: Sequence[torch.Generator],
    num_leads: int,
    num_samples: int,
    device: torch.device | str = "cpu",
) -> ViewDraws:
    """Draws the views of a batch, one generator a record, always the same number of uniforms from each.

    The noise comes from generators of the device, seeded by the record's: its values differ between CPU and GPU.
    """
    width = NUM_UNIFORMS + num_leads
    uniforms = torch.stack([torch.rand(settings.num_views, width, generator=generator) for generator in generators])
    (
        scale,
        start,
        amplitude_coin,
        amplitude,
        noise_coin,
        wander_coin,
        wander_hz,
        phase,
        shift_coin,
        shift,
        lead_coin,
    ) = uniforms[..., :NUM_UNIFORMS].unbind(-1)
    if settings.augmentation == "published":  # floored at the length of the output, which is that of the record
        crop_length = torch.full_like(scale, num_samples, dtype=torch.long)
    else:
        crop_length = (num_samples * _between(scale, settings.crop_scale)).long().clamp(min=2)
    crop_start = (start * (num_samples - crop_length + 1)).long()
    most = int(settings.max_shift * num_samples)
    shift = (shift * (2 * most + 1)).long() - most
    keep_leads = None
    if settings.lead_dropout > 0:
        keep_leads = uniforms[..., NUM_UNIFORMS:] >= settings.lead_dropout
        keep_leads |= (lead_coin >= LEAD_DROPOUT_CHANCE)[..., None]
        if settings.augmentation == "corrected":
            keep_leads |= ~keep_leads.any(dim=-1, keepdim=True)  # a view without a lead would show nothing
        keep_leads = keep_leads.float().to(device)
    noise = torch.zeros(*uniforms.shape[:2], num_leads, num_samples, device=device)
    noisy = (noise_coin < NOISE_CHANCE) & (settings.noise_std > 0)
    for record, generator in enumerate(generators):
        of_device = torch.Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        for view in noisy[record].nonzero().flatten().tolist():
            noise[record, view].normal_(0.0, settings.noise_std, generator=of_device)
    amplitude = torch.where(amplitude_coin < AMPLITUDE_CHANCE, _between(amplitude, settings.amplitude_scale), 1.0)
    return ViewDraws(
        crop_start=crop_start.to(device),
        crop_length=crop_length.to(device),
        final_start=torch.zeros_like(crop_start, device=device),
        amplitude=amplitude.to(device),
        noise=noise,
        wander_amplitude=((wander_coin < WANDER_CHANCE) * float(settings.wander_amplitude)).to(device),
        wander_hz=_between(wander_hz, WANDER_HZ).to(device),
        wander_phase=(2 * torch.pi * phase).to(device),
        shift=torch.where(shift_coin < SHIFT_CHANCE, shift, 0).to(device),
        keep_leads=keep_leads,
    )


def corrected_views(input_values: torch.Tensor, draws: ViewDraws, sampling_rate: float) -> torch.FloatTensor:
    """The default law; see the head of this file. Shapes as in [`make_views`].

    Args:
        sampling_rate (`float`): Rate of `input_values`, in Hz.
    """
    num_samples = input_values.shape[-1]
    places = torch.arange(num_samples, device=input_values.device, dtype=torch.float32)
    # Sample j of a view lies at crop_start + j (crop_length - 1) / (num_samples - 1) of the record, less the shift.
    stretch = (draws.crop_length - 1).float() / (num_samples - 1)
    positions = (draws.crop_start - draws.shift).float()[..., None] + stretch[..., None] * places
    views = sample_between(input_values, positions.clamp_(0, num_samples - 1))
    views = torch.addcmul(draws.noise, views, draws.amplitude[..., None, None])
    angles = draws.wander_phase[..., None] + (2 * torch.pi / sampling_rate) * draws.wander_hz[..., None] * places
    views += (draws.wander_amplitude[..., None] * angles.sin_())[:, :, None]
    return _drop_leads(views, draws)


def published_views(input_values: torch.Tensor, draws: ViewDraws, num_output: int | None = None) -> torch.FloatTensor:
    """The law as shipped, for parity.

    Args:
        num_output (`int`, *optional*, defaults to the length of `input_values`):
            Length of a view, in samples; where it is below the crop's, it is cut out of it at `final_start`.
    """
    num_samples = input_values.shape[-1]
    num_output = num_samples if num_output is None else num_output
    inside = torch.arange(num_samples, device=input_values.device)  # places in the crop, of which `length` count
    length = draws.crop_length[..., None]
    views = input_values[:, None]
    is_cropped = bool(draws.crop_length.lt(num_samples).any())
    if is_cropped:
        views = views.expand(-1, draws.shift.shape[1], -1, -1)
        views = _take(views, (draws.crop_start[..., None] + inside).clamp(max=num_samples - 1))
    views = torch.addcmul(draws.noise, views, draws.amplitude[..., None, None])
    period = 2 * torch.pi * draws.wander_hz[..., None] * length / PUBLISHED_SAMPLING_RATE
    angles = period * inside / (length - 1) + draws.wander_phase[..., None]
    views += (draws.wander_amplitude[..., None] * angles.sin_())[:, :, None]
    if num_output == num_samples and not is_cropped and views.device.type == "cpu":  # faster than an index a sample
        for record, view in draws.shift.nonzero().tolist():
            views[record, view] = views[record, view].roll(int(draws.shift[record, view]), -1)
        return _drop_leads(views, draws)
    # Where each sample of the output lies in the crop: the shift is circular within it.
    places = (inside[:num_output] + draws.final_start[..., None] - draws.shift[..., None]) % length
    if num_output < num_samples:
        views = _take(views, places)
    else:
        shifted = draws.shift.ne(0)
        views[shifted] = _take(views[shifted], places[shifted])
    return _drop_leads(views, draws)


@dataclass(frozen=True)
class WindowViewSettings:
    """Settings of the windowed views of a configuration; the fields are those of [`KernelResponseConfig`]."""

    num_views: int
    view_samples: int
    time_warp: float
    lead_gain_std: float
    wander_amplitude: float
    noise_std: float
    time_mask_ratio: float
    num_time_masks: int
    lead_dropout: float
    few_leads_chance: float
    sampling_rate: float


MOST_OF_FEW_LEADS = 3
"""A view of few leads shows one to so many."""


def make_window_views(
    input_values: torch.Tensor, settings: WindowViewSettings, generators: Sequence[torch.Generator]
) -> tuple[torch.FloatTensor, torch.BoolTensor]:
    """Altered windows of a batch, and the leads that they show: float32 `(batch, num_views, num_leads, view_samples)`
    and bool `(batch, num_views, num_leads)`, on the device of `input_values`.

    In this order: a window at a random place, up to `time_warp` faster or slower; a gain and a wandering baseline of
    each lead; white noise of a random strength; stretches of time set to 0; leads that are not shown, at least one is.

    Args:
        input_values (`torch.FloatTensor` of shape `(batch, num_leads, num_samples)`): Signal in the settings' unit.
        generators (`Sequence[torch.Generator]`): CPU generators, one a record, keyed by (seed, epoch, record).
    """
    if len(generators) != len(input_values):
        raise ValueError(
            f"Expected one generator for each of {len(input_values)} records, got {len(generators)}. Give the "
            "sample_id of every row of the batch."
        )
    at_a_time = RECORDS_AT_A_TIME if input_values.device.type == "cpu" else max(len(input_values), 1)
    starts = range(0, len(input_values), at_a_time)
    parts = [_windows(input_values[at : at + at_a_time], settings, generators[at : at + at_a_time]) for at in starts]
    views, kept = zip(*parts, strict=True)
    return torch.cat(views), torch.cat(kept)


def _windows(
    input_values: torch.Tensor, settings: WindowViewSettings, generators: Sequence[torch.Generator]
) -> tuple[torch.FloatTensor, torch.BoolTensor]:
    num_leads, num_samples = input_values.shape[1:]
    num_views, length, num_masks = settings.num_views, settings.view_samples, settings.num_time_masks
    device = input_values.device
    sizes = (1, 1, 1, 1, 1, num_masks, num_masks, 1, 1, 1, num_leads, num_leads)
    uniforms = torch.stack([torch.rand(num_views, sum(sizes), generator=generator) for generator in generators])
    normals = torch.stack([torch.randn(num_views, 2, num_leads, generator=generator) for generator in generators])
    gain, wander = normals.to(device)[..., None].unbind(2)
    warp, start, hertz, phase, strength, width, place, dropout, few, count, lead, order = uniforms.to(device).split(
        sizes, dim=-1
    )
    steps = torch.arange(length, device=device, dtype=torch.float32)

    span = ((1 + settings.time_warp * (2 * warp - 1)) * length).clamp(max=num_samples).floor()
    first = (start * (num_samples - span + 1)).floor()
    views = sample_between(input_values.float(), first + steps * ((span - 1) / (length - 1)))
    if settings.lead_gain_std:
        views = views * torch.exp(settings.lead_gain_std * gain)
    if settings.wander_amplitude:
        angles = 2 * torch.pi * (phase + _between(hertz, WANDER_HZ) * steps / settings.sampling_rate)
        views = views + settings.wander_amplitude * wander * angles.sin()[:, :, None]
    if settings.noise_std:
        noise = torch.empty_like(views)
        for record, generator in enumerate(generators):
            of_device = torch.Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
            noise[record].normal_(generator=of_device)
        views = torch.addcmul(views, noise, settings.noise_std * strength[..., None])
    if settings.time_mask_ratio:
        width = 2 * settings.time_mask_ratio * length / num_masks * width  # of all together the mean is the ratio
        begin = (place * (length + width) - width)[..., None]
        hidden = ((steps >= begin) & (steps < begin + width[..., None])).any(dim=2)
        views = views.masked_fill(hidden[:, :, None], 0.0)
    kept = lead >= 2 * settings.lead_dropout * dropout
    rank = order.argsort(dim=-1).argsort(dim=-1)
    is_among_few = rank < 1 + (count * min(MOST_OF_FEW_LEADS, num_leads)).floor()
    kept = torch.where(few < settings.few_leads_chance, is_among_few, kept)
    kept = kept | (~kept.any(dim=-1, keepdim=True) & (rank == 0))
    return views * kept[..., None], kept


def _between(uniform: torch.Tensor, bounds: tuple[float, float]) -> torch.Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * uniform


def _take(signal: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """`(..., leads, samples)` at `places` `(..., samples out)`, the same in all leads."""
    return signal.gather(-1, places[..., None, :].expand(*signal.shape[:-1], -1))


def sample_between(signal: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """`(batch, leads, samples)` at fractional `positions` `(batch, views, samples)`, by straight lines."""
    left = positions.floor().long().clamp_(max=signal.shape[-1] - 2)
    fraction = (positions - left)[:, :, None]
    signal = signal[:, None].expand(-1, positions.shape[1], -1, -1)
    return torch.lerp(_take(signal, left), _take(signal, left + 1), fraction)


def _drop_leads(views: torch.Tensor, draws: ViewDraws) -> torch.Tensor:
    return views if draws.keep_leads is None else views.mul_(draws.keep_leads[..., None])
