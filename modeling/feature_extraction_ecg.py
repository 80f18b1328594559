"""`EcgFeatureExtractor`: the input contract of a model, saved beside its weights as `preprocessor_config.json`.

A model knows nothing of files, units or rates: it reads float32 `(batch, num_leads, num_samples)`. Everything between
a recording and that tensor is stated here, once. What the caller has to know about a recording (its leads, its
sampling rate, its unit) has no default, because a wrong guess does not fail: it silently costs accuracy.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin, ProcessorMixin
from transformers.utils import TensorType, logging

from .beat_channels import BEAT_CHANNELS, check_channel_names, compute_beat_channels
from .input_checks import (
    FLAT_STD_MV,
    INVALID_SAMPLE,  # noqa: F401  (part of this module's interface)
    PLAUSIBLE_PEAK_MV,
    check_inputs,
    describe_input,
)
from .input_contract import (
    CALL_SETTINGS,  # noqa: F401  (part of this module's interface)
    LARGEST_VALUE,
    InputContract,
)
from .lead_plan import LeadPlan
from .leads import INDEPENDENT_LEADS, canonical_leads
from .masking import on_device
from .recording_input import DIMENSIONLESS, check_sampling_rate, read_recordings, recorded_leads, scale_of
from .signal_processing import (
    average_windows,  # noqa: F401  (part of this module's interface)
    butterworth_sos,
    cut_windows,
    filter_zero_phase,
    interpolate_gaps,
    notch_sos,
    resample,
    running_median,
    to_millivolts,
)

logger = logging.get_logger(__name__)

# Beyond any use: a saved setting must not decide alone how long one waits.
_MOST_FILTER_ORDER = 20

# What `transformers` puts, or once put, into a file beside our own settings.
_FOREIGN_SETTINGS = ("feature_size", "padding_value", "padding_side", "return_attention_mask", "processor_class")

_NORMALIZATIONS = (None, "record", "lead", "lead_range", "fixed")
_DECLARED = ("sampling_rate", "leads", "unit", "gain", "offset", "electrode_placement")


class EcgFeatureExtractor(InputContract, FeatureExtractionMixin):
    r"""
    Turns recordings into the input of a model: leads by name, one unit, one rate, one length.

    The order of the steps is fixed: volts from digital values; gaps; resampling; high-pass, then low-pass; leads in
    the model's order, limb leads derived; windows; normalisation of each window; clipping; padding.

    Args:
        leads (`Sequence[str]`, *optional*, defaults to the eight independent leads):
            Names of the leads of `input_values`, in order.
        sampling_rate (`float`, *optional*, defaults to 250):
            Rate of `input_values`, in Hz.
        num_samples (`int`, *optional*, defaults to 2500):
            Length of `input_values`, in samples.
        unit (`str`, *optional*, defaults to `"mV"`):
            Unit of `input_values` before normalisation: `"mV"`, `"uV"` or `"V"`; or `"dimensionless"` for a model of
            values that are no voltage any more, such as z-scores. Such a model refuses recordings in volts, and a
            model of volts refuses dimensionless ones.
        derive_limb_leads (`bool`, *optional*, defaults to `True`):
            Whether III, aVR, aVL and aVF are computed from I and II where a recording lacks them.
        missing_leads (`str`, *optional*, defaults to `"raise"`):
            `"raise"`: refuse a recording that lacks a lead. `"mask"`: put zeros and say so in `lead_mask`.
        resample_to_length (`bool`, *optional*, defaults to `False`):
            Parity with Kim's treatment of CODE-15: the whole recording is resampled to `num_samples` even though its
            rate then differs from `sampling_rate` (4096 samples at 400 Hz become 2500, which is 244 Hz). Refused where
            the rate would be off by more than 5 %.
        highpass_hz (`float`, *optional*), lowpass_hz (`float`, *optional*):
            Cutoffs of zero-phase Butterworth filters, in Hz; `None` leaves a filter out. They run one after the other
            over the whole recording, at `sampling_rate`. (Kim's fine-tuning and ST-MEM: 0.67 and 40, order 5.)
        filter_order (`int`, *optional*, defaults to 5):
            Order of both filters; running both ways doubles its effect.
        filter_windows (`bool`, *optional*, defaults to `False`):
            Parity with ST-MEM, whose filters run over each window instead of the whole recording: the window then
            holds their transients, which at 0.67 Hz reach a second and more into it.
        notch_hz (`float`, *optional*):
            Mains frequency that a zero-phase notch of quality 30 takes out before the other filters (ECGFounder: 50).
        median_baseline_seconds (`float`, *optional*):
            Width of the running median of each lead of the whole recording that is subtracted after the filters
            (ECGFounder: 0.4). It takes part of the slow waves too, and takes time: 0.1 s and more for 10 s.
        normalization (`str`, *optional*):
            `None`: none (Kim). `"record"`: one mean and one standard deviation over leads and time (ST-MEM). `"lead"`:
            one of each for every lead. `"lead_range"`: every lead from -1 at its smallest value to 1 at its largest
            (HuBERT-ECG). `"fixed"`: `lead_means` and `lead_stds` (Weimann). Flat signals become zeros.
        normalize_recordings (`bool`, *optional*, defaults to `False`):
            Parity with ECG-FM and HuBERT-ECG, which normalise the whole recording and cut it then; a window alone has
            other means, deviations and ranges.
        lead_means, lead_stds (`Sequence[float]`, *optional*):
            Constants of `"fixed"`, in `unit`, in the order of `leads`.
        clip (`float`, *optional*):
            Largest absolute value after normalisation (Weimann: 5).
        long_records (`str`, *optional*, defaults to `"first"`):
            Part of a recording longer than `num_samples` that is taken: its `"first"` or `"center"` window, or `"all"`
            windows; the last of them ends with the recording, so that nothing is lost.
        window_stride_samples (`int`, *optional*, defaults to `num_samples`):
            Distance between the starts of the windows of `"all"`, in samples.
        short_records (`str`, *optional*, defaults to `"raise"`):
            `"raise"`: refuse a recording shorter than `num_samples`. `"zero_pad"`: append zeros after normalisation
            and report the recorded part in `sample_mask`. The encoders read padding as a flat signal.
        nan_policy (`str`, *optional*, defaults to `"raise"`):
            `"raise"`: refuse NaN and infinite samples in a lead that is used. `"interpolate"`: straight lines between
            the neighbours, the nearest sample at the edges; a lead without any finite sample counts as missing.
        electrode_placement (`str`, *optional*, defaults to `"standard"`):
            Limb leads that the model reads: `"standard"` or, from electrodes on the torso, `"mason_likar"`; the other
            kind is refused, as their waves differ. `"any"` takes both for the same and says so in the report.
        beat_channels (`bool` or `Sequence[str]`, *optional*, defaults to `False`):
            Rows after the leads for hybrid input (`True`: all of [`BEAT_CHANNELS`]): beats, rates, intervals and
            wavelets of lead II, measured in mV on each window and scaled by constants. The model needs as many
            `extra_channels`.

    Raises:
        ValueError: for an unknown setting or choice, or settings that contradict each other.

    Example:

    ```python
    >>> import numpy as np
    >>> from ecg_transformers.modeling import EcgFeatureExtractor

    >>> feature_extractor = EcgFeatureExtractor(leads=["I", "II", "III"])
    >>> signal = np.random.default_rng(0).normal(size=(2, 5000)) * 300
    >>> inputs = feature_extractor(signal, sampling_rate=500, leads=["II", "I"], unit="uV")
    >>> tuple(inputs["input_values"].shape)
    (1, 3, 2500)
    ```
    """

    model_input_names = ["input_values", "lead_mask"]
    # `save_pretrained` ships the source files too, so that `trust_remote_code` loads a folder without this package.
    _auto_class = "AutoFeatureExtractor"

    def __init__(
        self,
        leads: Sequence[str] = INDEPENDENT_LEADS,
        sampling_rate: float = 250,
        num_samples: int = 2500,
        unit: str = "mV",
        derive_limb_leads: bool = True,
        missing_leads: str = "raise",
        resample_to_length: bool = False,
        highpass_hz: float | None = None,
        lowpass_hz: float | None = None,
        filter_order: int = 5,
        filter_windows: bool = False,
        normalization: str | None = None,
        lead_means: Sequence[float] | None = None,
        lead_stds: Sequence[float] | None = None,
        clip: float | None = None,
        long_records: str = "first",
        window_stride_samples: int | None = None,
        short_records: str = "raise",
        nan_policy: str = "raise",
        electrode_placement: str = "standard",
        beat_channels: bool | Sequence[str] = False,
        normalize_recordings: bool = False,
        notch_hz: float | None = None,
        median_baseline_seconds: float | None = None,
        **kwargs,
    ):
        unknown = sorted(set(kwargs) - {*_FOREIGN_SETTINGS, "feature_extractor_type", "auto_map"})
        if unknown:
            raise ValueError(
                f"EcgFeatureExtractor has no setting {unknown}. Its settings are listed in its docstring."
            )
        auto_map = {key: value for key, value in kwargs.items() if key == "auto_map"}
        super().__init__(**auto_map)
        self.leads = canonical_leads(leads)
        self.sampling_rate = sampling_rate
        self.num_samples = num_samples
        self.unit = unit
        self.derive_limb_leads = derive_limb_leads
        self.missing_leads = missing_leads
        self.resample_to_length = resample_to_length
        self.highpass_hz = highpass_hz
        self.lowpass_hz = lowpass_hz
        self.filter_order = filter_order
        self.filter_windows = filter_windows
        self.normalization = normalization
        self.lead_means = None if lead_means is None else tuple(lead_means)
        self.lead_stds = None if lead_stds is None else tuple(lead_stds)
        self.clip = clip
        self.long_records = long_records
        self.window_stride_samples = window_stride_samples
        self.short_records = short_records
        self.nan_policy = nan_policy
        self.electrode_placement = electrode_placement
        if isinstance(beat_channels, bool):
            beat_channels = BEAT_CHANNELS if beat_channels else ()
        check_channel_names(beat_channels)
        self.beat_channels = tuple(beat_channels)
        self.normalize_recordings = normalize_recordings
        self.notch_hz = notch_hz
        self.median_baseline_seconds = median_baseline_seconds
        self._check_settings()

    def _check_settings(self) -> None:
        super()._check_settings()
        for name in ("filter_windows", "normalize_recordings"):
            if not isinstance(vars(self)[name], bool):
                raise ValueError(f"{name} is True or False, got {vars(self)[name]!r}.")
        if self.normalization not in _NORMALIZATIONS:
            raise ValueError(f"normalization is {self.normalization!r}. Choose from {list(_NORMALIZATIONS)}.")
        if not 1 <= self.filter_order <= _MOST_FILTER_ORDER:
            raise ValueError(f"Expected filter_order of 1 to {_MOST_FILTER_ORDER}, got {self.filter_order}.")
        if self.beat_channels and ("II" not in self.leads or self.unit == DIMENSIONLESS):
            raise ValueError(
                f"beat_channels are measured in lead II, in volts; the leads are {list(self.leads)}, the unit is "
                f"{self.unit}. Add lead II, or leave beat_channels out."
            )
        if self.normalize_recordings and (self.normalization is None or self.filter_windows or self.beat_channels):
            raise ValueError(
                "normalize_recordings needs a normalization, and neither filter_windows nor beat_channels, which come "
                f"before it; got {self.normalization!r}, {self.filter_windows} and {list(self.beat_channels)}."
            )
        if self.median_baseline_seconds is not None and (self.median_baseline_seconds <= 0 or self.filter_windows):
            raise ValueError(
                "median_baseline_seconds is a width above 0 s, without filter_windows; got "
                f"{self.median_baseline_seconds} and {self.filter_windows}."
            )
        is_fixed = self.normalization == "fixed"
        for name in ("lead_means", "lead_stds"):
            values = vars(self)[name]
            if is_fixed and (values is None or len(values) != len(self.leads)):
                raise ValueError(f"normalization='fixed' needs {name} for {list(self.leads)}, in order; got {values}.")
            if not is_fixed and values is not None:
                raise ValueError(f"{name} are used by normalization='fixed' only, which is {self.normalization!r}.")
        if is_fixed and not (np.isfinite(self.lead_means).all() and all(0 < std < np.inf for std in self.lead_stds)):
            raise ValueError(
                f"lead_means must be finite, lead_stds must be positive; got {self.lead_means}, {self.lead_stds}."
            )
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive or None, got {self.clip}.")
        cutoffs = [cutoff for cutoff in (self.highpass_hz, self.lowpass_hz) if cutoff is not None]
        if len(cutoffs) == 2 and not cutoffs[0] < cutoffs[1]:
            raise ValueError(
                f"highpass_hz ({cutoffs[0]}) must lie below lowpass_hz ({cutoffs[1]}): nothing would pass."
            )
        self._filters()

    def to_dict(self) -> dict[str, Any]:
        """The settings, with the names of the classes that load them."""
        values = super().to_dict() | {"processor_class": EcgProcessor.__name__}
        if "auto_map" in values:
            module = type(self).__module__.split(".")[-1]
            values["auto_map"] = values["auto_map"] | {"AutoProcessor": f"{module}.{EcgProcessor.__name__}"}
        return values

    def __call__(
        self,
        signals: Any,
        *,
        sampling_rate: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
        gain: Any = None,
        offset: Any = None,
        electrode_placement: str | None = None,
        return_report: bool = False,
        return_tensors: str | TensorType | None = "pt",
        **settings,
    ) -> BatchFeature:
        r"""
        Args:
            signals:
                One recording or several. Arrays or tensors: `(num_leads, num_samples)`, a batch `(batch, num_leads,
                num_samples)`, or a list of arrays of any lengths. Or recordings that declare themselves: rows of
                [`load_ecg`] (decoded or stored), their `ecg` column, or `EcgRecord`s.
            sampling_rate (`float`), leads (`Sequence[str]`), unit (`str`):
                Statement on the arrays: rate in Hz, name of each row, and `"mV"`, `"uV"`, `"V"` or `"adc"`. Needed for
                arrays, for which they have no default; not accepted for recordings that declare them.
            gain (`float` or array of shape `(num_leads,)` or `(batch, num_leads)`, *optional*):
                `unit` per step of integer arrays (millivolts per step for `unit="adc"`).
            offset (as `gain`, *optional*): steps that stand for zero volts, of integer arrays.
            electrode_placement (`str`, *optional*, defaults to `"standard"`):
                Placement in arrays: `"mason_likar"` if the limb leads were recorded from the torso (exercise, Holter).
            return_report (`bool`, *optional*, defaults to `False`):
                Whether to add `report`: for each recording a list of sentences, what was done to it and what is odd.
            return_tensors (`str`, *optional*, defaults to `"pt"`): `"pt"` or `"np"`.
            settings (*optional*): Those of [`CALL_SETTINGS`], such as `missing_leads="mask"`, for this call alone.

        Returns:
            [`BatchFeature`] with

            - **input_values** -- float32 `(num_windows, num_leads + num_beat_channels, num_samples)`; one window a
              recording unless `long_records="all"`.
            - **lead_mask** -- bool `(num_windows, num_leads)`, `True` = recorded; with `missing_leads="mask"`.
            - **window_record** -- int64 `(num_windows,)`, the recording of each window; with `long_records="all"`. See
              [`average_windows`].
            - **sample_mask** -- bool `(num_windows, num_samples)`, `True` = recorded; with `short_records="zero_pad"`.

            Models take the first two; take the others out before `model(**inputs)`.

        Raises:
            ValueError: says which recording, what was expected, what came, and what to do.
        """
        declared = (sampling_rate, leads, unit, gain, offset, electrode_placement)
        if settings:
            return self.changed(**settings)(
                signals,
                **dict(zip(_DECLARED, declared, strict=True)),
                return_report=return_report,
                return_tensors=return_tensors,
            )
        recordings = read_recordings(signals, *declared)
        for unit in {recording.unit for recording in recordings}:
            self.check_unit(unit)
        layouts: dict[tuple, list[int]] = {}
        for number, recording in enumerate(recordings):
            layouts.setdefault(recording.layout, []).append(number)
        processed: list[_Processed | None] = [None] * len(recordings)
        for numbers in layouts.values():
            members = [recordings[number] for number in numbers]
            signal = torch.from_numpy(np.stack([member.signal for member in members]))
            gains = None if members[0].gain is None else torch.from_numpy(np.stack([m.gain for m in members]))
            batch = self._process(signal, gains, members[0].leads, members[0].sampling_rate, None, numbers, True)
            for position, number in enumerate(numbers):
                windows = slice(position * batch.num_windows, (position + 1) * batch.num_windows)
                mask = None if batch.lead_mask is None else batch.lead_mask[windows]
                processed[number] = _Processed(batch.input_values[windows], mask, batch.num_windows)

        features: dict[str, Any] = {"input_values": torch.cat([record.input_values for record in processed])}
        if self.missing_leads == "mask":
            features["lead_mask"] = torch.cat([record.lead_mask for record in processed])
        window_record = torch.arange(len(recordings)).repeat_interleave(
            torch.tensor([record.num_windows for record in processed])
        )
        if self.long_records == "all":
            features["window_record"] = window_record
        if self.short_records == "zero_pad":
            lengths = torch.tensor([self.resampled_length(r.signal.shape[1], r.sampling_rate) for r in recordings])
            features["sample_mask"] = torch.arange(self.num_samples) < lengths[window_record][:, None]
        if return_report:
            features["report"] = [describe_input(self, recording) for recording in recordings]
        return BatchFeature(features, tensor_type=return_tensors, skip_tensor_conversion=["report"])

    def check(self, signals: Any, **declared) -> list[dict[str, Any]]:
        """Checks recordings by [`check_inputs`]; arguments are those of the call."""
        return check_inputs(self, read_recordings(signals, **declared))

    def process_batch(
        self,
        signal: torch.Tensor,
        gain: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        sampling_rate: float | None = None,
        lead_mask: torch.Tensor | None = None,
        window_starts: torch.Tensor | None = None,
        is_complete: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The contract for recordings of one layout, batched on the device of `signal`; what `__call__` uses.

        Args:
            signal (`torch.Tensor` of shape `(batch, num_source_leads, num_source_samples)`):
                Millivolts as floats, or integers with `gain`. In int16, -32768 means "not recorded".
            gain (`torch.Tensor` of shape `(batch, num_source_leads)`, *optional*): mV per step of `signal`.
            leads (`Sequence[str]`, *optional*): names of the rows; `None` only for rows that already are `self.leads`.
            sampling_rate (`float`): Rate of `signal`, in Hz. No default.
            lead_mask (bool `torch.Tensor` of shape `(batch, num_source_leads)`, *optional*): `True` = recorded.
            window_starts (integer `torch.Tensor` of shape `(batch,)`, *optional*):
                Start of one window of each record instead of `long_records`, in samples at the model's rate.
            is_complete (`bool`, *optional*, defaults to `False`):
                Whether all samples are known to be finite; otherwise they are looked at, and a host waits for its GPU.

        Returns:
            `input_values`, float32 `(batch * num_windows, num_leads + num_beat_channels, num_samples)`, windows of a
            record side by side, and `lead_mask`, bool `(batch * num_windows, num_leads)`, or `None` with
            `missing_leads="raise"`.

        Raises:
            ValueError: as `__call__`; records are numbered from 0 within the batch.
        """
        if sampling_rate is None:
            raise ValueError("process_batch needs sampling_rate, in Hz. A guess would silently stretch the signal.")
        check_sampling_rate(sampling_rate)
        leads = self.leads if leads is None else recorded_leads(tuple(leads))
        if signal.ndim != 3 or signal.shape[1] != len(leads) or 0 in signal.shape:
            raise ValueError(
                f"Expected a signal of shape (batch, {len(leads)}, num_samples > 0) for the leads {list(leads)}, got "
                f"{tuple(signal.shape)}."
            )
        if not signal.is_floating_point() and gain is None:
            raise ValueError(f"A signal of {signal.dtype} needs `gain`, the mV per step of each lead.")
        numbers = range(len(signal))
        batch = self._process(
            signal, gain, leads, float(sampling_rate), lead_mask, numbers, False, window_starts, is_complete
        )
        return batch.input_values, batch.lead_mask

    @torch.no_grad()
    def _process(
        self,
        signal: torch.Tensor,
        gain: torch.Tensor | None,
        leads: tuple[str, ...],
        sampling_rate: float,
        lead_mask: torch.Tensor | None,
        record_numbers: Sequence[int],
        check_amplitude: bool,
        window_starts: torch.Tensor | None = None,
        is_complete: bool = False,
    ) -> "_Processed":
        plan = self.lead_plan(leads)
        length = self.resampled_length(signal.shape[-1], sampling_rate)
        self.check_length(length, f"Record {record_numbers[0]}")
        # The caller may train in mixed precision; the input must not depend on it.
        with torch.autocast(signal.device.type, enabled=False):
            values = to_millivolts(signal, gain, plan.sources, is_complete)
            present = None if lead_mask is None else lead_mask[:, list(plan.sources)]
            if not is_complete:
                values, present = self._fill_gaps(values, present, [leads[i] for i in plan.sources], record_numbers)
            values = resample(values, length)
            if not self.filter_windows:
                values = self._filter(values)
            # Everything up to here is linear, so that limb leads may as well be derived after the expensive part.
            values, present = self._arrange_leads(values, present, plan)
            if check_amplitude:
                _warn_of_implausible_amplitude(values)
            if self.median_baseline_seconds is not None:  # not linear: of the derived leads themselves
                values = values - running_median(values, self._median_taps)
            if self.normalize_recordings:
                values = self._normalize(values / scale_of(self.unit), present)
            starts = self.window_starts(length) if window_starts is None else window_starts
            num_windows = len(starts) if window_starts is None else 1
            values = cut_windows(values, starts, self.num_samples)
            present = None if present is None else present.repeat_interleave(num_windows, dim=0)
            if self.filter_windows:
                values = self._filter(values)
            if not self.normalize_recordings:
                beats = self._beat_channels(values, present)
                if self.unit != "mV":
                    values = values / scale_of(self.unit)
                values = self._normalize(values, present)
                values = torch.cat((values, *beats), dim=1) if beats else values
        if length < self.num_samples:
            values = torch.nn.functional.pad(values, (0, self.num_samples - length))
        if self.missing_leads == "mask" and present is None:
            present = torch.ones(len(values), len(self.leads), dtype=torch.bool, device=values.device)
        return _Processed(values, present if self.missing_leads == "mask" else None, num_windows)

    def lead_plan(self, leads: tuple[str, ...]) -> LeadPlan:
        plan = super().lead_plan(leads)
        if plan.unknown:
            logger.warning_once(
                f"Channels {list(plan.unknown)} are no leads that I know; they are left out. If they are leads, give "
                f"their names: rename_leads='{plan.unknown[0]}:II' for a file, leads= for an array."
            )
        return plan

    def _fill_gaps(
        self, values: torch.Tensor, present: torch.Tensor | None, leads: list[str], record_numbers: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Applies `nan_policy`; leads that are not present are zeros and never looked at."""
        if present is not None:
            values = values.masked_fill(~present[..., None], 0.0)
        if (torch.stack(torch.aminmax(values)).abs() <= LARGEST_VALUE).all():
            self._check_any_present(present, record_numbers)
            return values, present
        finite = values.abs() <= LARGEST_VALUE
        recorded = finite.any(-1)
        for number, of_record in zip(record_numbers, finite.cpu().numpy(), strict=True):
            self.check_finite(of_record, leads, f"Record {number}")
        values = interpolate_gaps(values.masked_fill(~finite, torch.nan)).masked_fill(~recorded[..., None], 0.0)
        present = recorded if present is None else present & recorded
        self._check_any_present(present, record_numbers)
        return values, present

    def _check_any_present(self, present: torch.Tensor | None, record_numbers: Sequence[int]) -> None:
        if present is not None and not present.any(-1).all():
            record = record_numbers[int((~present.any(-1)).nonzero()[0])]
            raise ValueError(f"Record {record} has none of the leads {list(self.leads)}. Leave it out.")

    def _arrange_leads(
        self, values: torch.Tensor, present: torch.Tensor | None, plan: LeadPlan
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Puts the source leads into the model's order and derives limb leads; what is missing stays zero."""
        if plan.is_identity:
            return values, present
        arranged = values.new_zeros(values.shape[0], len(self.leads), values.shape[-1])
        if present is None:
            present = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        mask = torch.zeros(arranged.shape[:2], dtype=torch.bool, device=values.device)
        for target, weights in enumerate(plan.weights):
            if not weights:
                continue
            rows, factors = zip(*weights.items(), strict=True)
            arranged[:, target] = sum(factor * values[:, row] for row, factor in weights.items())
            mask[:, target] = present[:, list(rows)].all(-1)
            if len(rows) > 1:
                arranged[:, target] *= mask[:, target, None]  # half of a derivation is no lead
        return arranged, mask

    def _beat_channels(self, values: torch.Tensor, present: torch.Tensor | None) -> list[torch.Tensor]:
        """The rows after the leads, of windows in mV; zeros for a record without lead II."""
        if not self.beat_channels:
            return []
        row = self.leads.index("II")
        channels = compute_beat_channels(values[:, row], self.sampling_rate, self.beat_channels)
        return [channels if present is None else channels.masked_fill(~present[:, row, None, None], 0.0)]

    def _normalize(self, values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        if self.normalization == "fixed":
            constants = torch.tensor([self.lead_means, self.lead_stds], dtype=values.dtype)[..., None]
            means, stds = on_device(constants, values.device)
            values = (values - means) / stds
        elif self.normalization == "lead_range":
            lowest, highest = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
            flat = highest - lowest < FLAT_STD_MV / scale_of(self.unit)
            values = (2 * (values - lowest) / (highest - lowest).masked_fill(flat, 1.0) - 1).masked_fill(flat, 0.0)
        elif self.normalization is not None:
            dims = (-2, -1) if self.normalization == "record" else (-1,)
            if present is None:
                total = values[0].numel() if self.normalization == "record" else values.shape[-1]
                centred = values - values.sum(dims, keepdim=True) / total
                std = (centred.square().sum(dims, keepdim=True) / total).sqrt()
            else:
                weight = present[..., None].to(values.dtype)
                total = weight.expand_as(values).sum(dims, keepdim=True).clamp(min=1)
                centred = values - (values * weight).sum(dims, keepdim=True) / total
                std = ((centred.square() * weight).sum(dims, keepdim=True) / total).sqrt()
            flat = std < FLAT_STD_MV / scale_of(self.unit)
            values = centred.div_(std.masked_fill(flat, 1.0)).masked_fill_(flat, 0.0)
        if self.clip is not None:
            values = values.clamp(-self.clip, self.clip)
        return values if present is None else values.masked_fill(~present[..., None], 0.0)

    def _filter(self, values: torch.Tensor) -> torch.Tensor:
        for sos in self._filters():
            values = filter_zero_phase(values, sos)
        return values

    def _filters(self) -> list[np.ndarray]:
        notch = [] if self.notch_hz is None else [notch_sos(float(self.notch_hz), float(self.sampling_rate))]
        return notch + [
            butterworth_sos(self.filter_order, float(cutoff), float(self.sampling_rate), kind)
            for kind, cutoff in (("highpass", self.highpass_hz), ("lowpass", self.lowpass_hz))
            if cutoff is not None
        ]

    @property
    def _median_taps(self) -> int:
        """The odd number of samples around each whose median is the baseline."""
        return int(self.median_baseline_seconds * self.sampling_rate) // 2 * 2 + 1


class EcgProcessor(ProcessorMixin):
    r"""
    The [`EcgFeatureExtractor`] of a folder under the name that `AutoProcessor` knows: same call, same file.

    Args:
        feature_extractor ([`EcgFeatureExtractor`]): The input contract of the model.

    Example:

    ```python
    >>> from ecg_transformers.modeling import EcgFeatureExtractor, EcgProcessor

    >>> processor = EcgProcessor(EcgFeatureExtractor(leads=["I", "II"]))
    >>> processor.model_input_names
    ['input_values', 'lead_mask']
    ```
    """

    _auto_class = "AutoProcessor"

    def __init__(self, feature_extractor: EcgFeatureExtractor):
        super().__init__(feature_extractor)

    def __call__(self, signals: Any, **kwargs) -> BatchFeature:
        """Calls the [`EcgFeatureExtractor`]."""
        return self.feature_extractor(signals, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        return self.feature_extractor.model_input_names

    def save_pretrained(self, save_directory: str, push_to_hub: bool = False, **kwargs) -> list[str]:
        """Writes `preprocessor_config.json`, which `AutoProcessor` and `AutoFeatureExtractor` load."""
        return self.feature_extractor.save_pretrained(save_directory, push_to_hub, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs) -> "EcgProcessor":
        """Reads the feature extractor of a folder or id of the Hub; settings may be given to differ from it."""
        return cls(EcgFeatureExtractor.from_pretrained(pretrained_model_name_or_path, **kwargs))


class _Processed(NamedTuple):
    input_values: torch.Tensor  # (records * num_windows, leads, samples)
    lead_mask: torch.Tensor | None  # (records * num_windows, leads)
    num_windows: int  # of each record


def _warn_of_implausible_amplitude(values: torch.Tensor) -> None:
    """Says it where the peaks of recordings `(batch, leads, samples)`, in mV, are not those of an ECG."""
    peaks = values.abs().amax((-2, -1))
    lowest, highest = PLAUSIBLE_PEAK_MV
    implausible = peaks[(peaks < lowest) | (peaks > highest)]
    if len(implausible):
        logger.warning_once(  # one digit, so that it is said once for each kind of mistake
            f"Recordings with peaks of about {float(implausible[0]):.0e} mV, which should lie between {lowest} and "
            f"{highest} mV: check the declared unit and gain. They go through unchanged; return_report=True tells "
            "which."
        )
