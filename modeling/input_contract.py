"""The part of the input contract that needs no signal processing: which recordings a model reads, and which part.

Neither torch nor transformers is imported, so that to look at a recording ([`InputContract.describe`]) takes no time.
"""

import copy
from collections.abc import Sequence

import numpy as np

from .input_checks import describe_input, millivolts
from .lead_plan import LeadPlan, plan_leads
from .leads import DERIVED_LIMB_LEADS, ELECTRODE_PLACEMENTS, FRANK_LEADS, INDEPENDENT_LEADS
from .recording_input import DIMENSIONLESS, Recording, check_sampling_rate, scale_of

LARGEST_VALUE = 1e9
"""What is larger (in mV, or dimensionless) was never recorded, and its square is soon infinite in float32."""
# Beyond any use: a saved setting must not decide alone how long one waits and how much memory is taken.
_MOST_SAMPLES = 2**26
# How far `resample_to_length` may shift the rate: 4096 samples at 400 Hz to 2500 (CODE-15) is 2.3 %.
_LARGEST_RATE_SHIFT = 0.05

CHOICES = {
    "missing_leads": ("raise", "mask"),
    "long_records": ("first", "center", "all"),
    "short_records": ("raise", "zero_pad"),
    "nan_policy": ("raise", "interpolate"),
    "electrode_placement": (*ELECTRODE_PLACEMENTS, "any"),
}

CALL_SETTINGS = ("missing_leads", "derive_limb_leads", "nan_policy", "short_records", "long_records")
CALL_SETTINGS += ("resample_to_length",)
"""Settings that a call of the extractor or of a pipeline may change: which recordings are taken, and which part."""


class InputContract:
    r"""
    Base of [`EcgFeatureExtractor`], where its settings are explained. By itself it has their defaults, and those that
    say which recordings are taken, and which part.

    Example:

    ```python
    >>> import numpy as np
    >>> from ecg_transformers.modeling.input_contract import InputContract
    >>> from ecg_transformers.modeling.recording_input import read_recordings

    >>> signal = np.random.default_rng(0).normal(size=(8, 5000)).astype(np.float32)
    >>> leads = ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]
    >>> recording = read_recordings(signal, sampling_rate=500, leads=leads, unit="mV")[0]
    >>> InputContract().describe(recording)
    ['Resampled 5000 samples at 500 Hz to 2500 at 250 Hz.']
    ```
    """

    leads: tuple[str, ...] = INDEPENDENT_LEADS
    sampling_rate: float = 250
    num_samples: int = 2500
    unit: str = "mV"
    derive_limb_leads: bool = True
    missing_leads: str = "raise"
    resample_to_length: bool = False
    long_records: str = "first"
    window_stride_samples: int | None = None
    short_records: str = "raise"
    nan_policy: str = "raise"
    electrode_placement: str = "standard"
    # Treatment of the signal, which only an extractor has.
    notch_hz = highpass_hz = lowpass_hz = median_baseline_seconds = normalization = None

    def _check_settings(self) -> None:
        for name in ("derive_limb_leads", "resample_to_length"):
            if not isinstance(vars(self)[name], bool):
                raise ValueError(f"{name} is True or False, got {vars(self)[name]!r}.")
        for name, choices in CHOICES.items():
            if vars(self)[name] not in choices:
                raise ValueError(f"{name} is {vars(self)[name]!r}. Choose from {list(choices)}.")
        frank = [lead for lead in self.leads if lead in FRANK_LEADS]
        if frank or not self.leads:
            raise ValueError(
                f"Expected standard leads, got {list(self.leads)}. Frank leads {frank} are not among them."
            )
        check_sampling_rate(self.sampling_rate)
        scale_of(self.unit)
        if self.num_samples > _MOST_SAMPLES:
            raise ValueError(f"Expected num_samples of at most {_MOST_SAMPLES}, got {self.num_samples}.")
        if self.num_samples < 1 or (self.window_stride_samples is not None and self.window_stride_samples < 1):
            raise ValueError(
                f"num_samples ({self.num_samples}) and window_stride_samples ({self.window_stride_samples}) are "
                "counts of samples, at least 1."
            )

    def changed(self, **settings):
        """A copy with other settings, of those that a call may change.

        Args:
            settings: Settings in [`CALL_SETTINGS`], by their names and values in the constructor.

        Raises:
            ValueError: for another name or a wrong value.
        """
        unknown = sorted(set(settings) - set(CALL_SETTINGS))
        if unknown:
            raise ValueError(
                f"A call may change {list(CALL_SETTINGS)}, got {unknown}. What else a model reads is part of it: "
                "EcgFeatureExtractor.from_pretrained(FOLDER, NAME=VALUE) makes another extractor, for another model."
            )
        extractor = copy.copy(self)
        vars(extractor).update(settings)
        extractor._check_settings()
        return extractor

    def describe(self, recording: Recording, name: str = "Record 0") -> list[str]:
        """Sentences on what is done to a recording, and what is odd about it.

        Raises:
            ValueError: for a recording that is not taken; `name` is its name there.
        """
        self.check_unit(recording.unit)
        plan = self.lead_plan(recording.leads)
        self.check_length(self.resampled_length(recording.signal.shape[1], recording.sampling_rate), name)
        values = millivolts(recording)[list(plan.sources)]
        self.check_finite(np.abs(values) <= LARGEST_VALUE, [recording.leads[row] for row in plan.sources], name)
        return describe_input(self, recording)

    def check_unit(self, unit: str) -> None:
        """Refuses dimensionless recordings for a model of volts, and volts for a model of dimensionless values."""
        if (unit == DIMENSIONLESS) != (self.unit == DIMENSIONLESS):
            raise ValueError(
                f"The model reads {self.unit}, the recording is in {unit}: one cannot be made of the other. Give the "
                f"recording in the model's unit, or set unit={unit!r} in the feature extractor of a new model."
            )

    def check_length(self, length: int, name: str) -> None:
        """Refuses a recording of `length` samples at the model's rate where it is too short."""
        if length < self.num_samples and self.short_records == "raise":
            raise ValueError(
                f"{name} lasts {length / self.sampling_rate:g} s ({length} samples at "
                f"{self.sampling_rate} Hz), the model reads {self.num_samples / self.sampling_rate:g} s "
                f"({self.num_samples}). Give longer recordings, or set short_records='zero_pad'."
            )

    def check_finite(self, finite: np.ndarray, leads: Sequence[str], name: str) -> None:
        """Refuses gaps that `nan_policy` and `missing_leads` do not admit, in `finite`, bool `(leads, samples)`."""
        if self.nan_policy == "raise" and not finite.all():
            row = int((~finite).any(-1).argmax())
            raise ValueError(
                f"{name}: {int((~finite[row]).sum())} of {finite.shape[-1]} samples of lead {leads[row]} are "
                "NaN or infinite (or beyond 1e9). Repair or leave out the recording, or set nan_policy='interpolate'."
            )
        recorded = finite.any(-1)
        if self.missing_leads == "raise" and not recorded.all():
            raise ValueError(
                f"{name}: lead {leads[int((~recorded).argmax())]} has no finite sample. Leave the recording out, "
                "or set missing_leads='mask' to let the model go without the lead."
            )

    def lead_plan(self, leads: tuple[str, ...]) -> LeadPlan:
        """The rows of a recording with these leads that make those of the model.

        Raises:
            ValueError: if they do not.
        """
        plan = plan_leads(self.leads, leads, self.derive_limb_leads, self.electrode_placement)
        if len(plan.missing) == len(self.leads) or (plan.missing and self.missing_leads == "raise"):
            derivable = [lead for lead in plan.missing if lead in DERIVED_LIMB_LEADS]
            cures = ["Check the names of its channels"]
            if derivable and {"I", "II"} <= set(leads):
                cures.append(f"set derive_limb_leads=True to compute {derivable} from I and II")
            if plan.unknown:
                cures.append(f"rename leads of a file by rename_leads='{plan.unknown[0]}:II'")
            if self.missing_leads == "raise":
                cures.append("set missing_leads='mask'")
            raise ValueError(
                f"The model reads the leads {list(self.leads)}; the recording has {list(leads)} and lacks "
                f"{list(plan.missing)}. {', '.join(cures)}, or choose a model of other leads."
            )
        return plan

    def resampled_length(self, num_samples: int, sampling_rate: float) -> int:
        """Length of a record at the model's rate, before windows are cut or padding is added."""
        if not self.resample_to_length:
            return max(1, round(num_samples * self.sampling_rate / sampling_rate))
        rate = sampling_rate * self.num_samples / num_samples
        if abs(rate / self.sampling_rate - 1) > _LARGEST_RATE_SHIFT:
            raise ValueError(
                f"resample_to_length would turn {num_samples} samples at {sampling_rate:g} Hz into {self.num_samples} "
                f"at {rate:g} Hz, more than 5 % off the model's {self.sampling_rate} Hz. Cut the recording to about "
                f"{self.num_samples / self.sampling_rate:g} s, or set resample_to_length=False."
            )
        return self.num_samples

    def window_starts(self, length: int) -> list[int]:
        """Starts of the windows that `long_records` cuts of a record of `length` samples at the model's rate."""
        last = max(0, length - self.num_samples)
        if self.long_records == "all":
            starts = list(range(0, last + 1, self.window_stride_samples or self.num_samples))
            return starts if starts[-1] == last else [*starts, last]
        return [last // 2 if self.long_records == "center" else 0]
