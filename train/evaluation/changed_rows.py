"""Changed recordings: a decoded row with noise, of another rate, in another unit, or cut, as the settings test it.

Noise is that of the MIT-BIH Noise Stress Test Database: half an hour of real baseline wander, electrode motion or
muscle artefact (Moody et al., Computers in Cardiology 1984;11:381). The signal-to-noise ratio is the plain ratio of
powers, 10 log10(variance of the recording / variance of the noise), over the whole recording. The database's own
program `nst` takes an eighth of the squared peak-to-peak amplitude of the QRS complexes for the power of the signal,
so that the same noise would be called about 7 dB more (4 to 9; measured on the carried recordings of PTB-XL): -6 dB
here is about 1 dB there. A ratio of powers needs no beats and no unit: dimensionless recordings are treated alike.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from ecg_transformers.data.collators import sample_id
from ecg_transformers.data.corpora.nstdb import NOISES, NSTDB
from ecg_transformers.data.formats.wfdb_reader import read_record
from ecg_transformers.modeling.leads import LIMB_LEADS, limb_lead_matrix, without_placement
from ecg_transformers.modeling.recording_input import DIMENSIONLESS

from ..tasks.lead_subsets import with_ecg

LARGEST_DENOMINATOR = 10_000
UNITS = {"uV": 1e3, "V": 1e-3}
"""Declared unit → how many of it are a millivolt."""


class NoiseRecordings:
    """The noise recordings of the database (`bw`, `em` and `ma` in a folder, `.hea` and `.dat`), at any rate."""

    def __init__(self, data_dir: str | Path | None):
        if data_dir is None:
            raise ValueError(f"Noise needs the folder of the noise recordings, nstdb_dir. {NSTDB.where_to_get()}")
        self.folder = Path(data_dir).expanduser()
        missing = [kind for kind in NOISES if not (self.folder / f"{kind}.hea").is_file()]
        if missing:
            raise ValueError(f"The folder {self.folder} has no noise recordings {missing}. {NSTDB.where_to_get()}")
        self.at_rate = lru_cache(maxsize=3 * len(NOISES))(self._at_rate)

    def _at_rate(self, kind: str, sampling_rate: float) -> np.ndarray:
        """float64 `(2, num_samples)` in mV, without its first and last second, where resampling has an edge."""
        record = read_record(self.folder / kind)[0]
        up, down = rate_ratio(record.sampling_rate, sampling_rate)
        noise = resample_poly(record.to_millivolts().astype(np.float64), up, down, axis=1)
        edge = int(np.ceil(sampling_rate))
        return noise[:, edge:-edge]


def add_noise(
    signal: np.ndarray, leads: Sequence[str], noise: np.ndarray, snr_db: float, generator: np.random.Generator
) -> np.ndarray:
    """A recording with noise.

    The two channels of one stretch of noise are the noise of I and II; the other limb leads get what follows from
    these (Einthoven, Goldberger), so that the six stay consistent. All six share one factor: the ratio holds for the
    sum of their powers, not for each. Every other channel has a stretch of its own, of a channel drawn by lot, and a
    factor of its own. Stretches have mean 0. Missing samples stay missing.

    Args:
        signal (`np.ndarray` of shape `(num_leads, num_samples)`): Recording in any unit; NaN marks missing samples.
        leads (`Sequence[str]`): Names of the rows.
        noise (`np.ndarray` of shape `(2, num_noise_samples)`): Noise at the rate of the signal.
        snr_db (`float`): Variance of the signal over variance of the noise, in dB. A flat lead gets no noise.
        generator (`np.random.Generator`): Draws the stretches, the same for all `snr_db`.

    Returns:
        float32 `(num_leads, num_samples)`.

    Raises:
        ValueError: if the recording is longer than the noise.
    """
    num_samples = signal.shape[1]
    if num_samples > noise.shape[1]:
        raise ValueError(
            f"The recording has {num_samples} samples, the noise at its rate {noise.shape[1]}: noise is not repeated. "
            "Cut the recordings into shorter ones."
        )

    def stretch() -> np.ndarray:
        start = generator.integers(noise.shape[1] - num_samples + 1)
        part = noise[:, start : start + num_samples]
        return part - part.mean(axis=1, keepdims=True)

    names = [without_placement(lead) for lead in leads]
    limb_rows = [row for row, name in enumerate(names) if name in LIMB_LEADS]
    others = [row for row in range(len(names)) if row not in limb_rows]
    added = np.zeros(signal.shape)
    if limb_rows:
        added[limb_rows] = limb_lead_matrix([names[row] for row in limb_rows])[:, :2] @ stretch()
    for row in others:
        added[row] = stretch()[generator.integers(len(noise))]
    for rows in (limb_rows, *([row] for row in others)):
        power = sum(_variance(signal[row]) for row in rows)
        of_noise = added[rows].var(axis=1).sum()
        if power > 0 and of_noise == 0:
            raise ValueError("The noise stands still for as long as the recording lasts: no factor makes it louder.")
        added[rows] *= np.sqrt(power / of_noise / 10 ** (snr_db / 10)) if power > 0 else 0.0
    return (signal + added).astype(np.float32)


def noisy_row(row: dict, recordings: NoiseRecordings, kind: str, snr_db: float, seed: int) -> dict:
    """A decoded row with noise; the stretches depend on the seed, the kind and the id of the record alone."""
    ecg = row["ecg"]
    key = [seed, list(NOISES).index(kind), sample_id(row["record_id"])]
    noise = recordings.at_rate(kind, float(ecg["sampling_rate"]))
    return with_ecg(row, signal=add_noise(ecg["signal"], ecg["leads"], noise, snr_db, np.random.default_rng(key)))


def white_noise_row(row: dict, snr_db: float, seed: int) -> dict:
    """A decoded row with white noise in every lead, in which the lead's variance is `snr_db` above that of the noise.

    The noise depends on the seed and the id of the record alone; a flat lead gets none.
    """
    signal = row["ecg"]["signal"]
    generator = np.random.default_rng([seed, sample_id(row["record_id"])])
    deviations = np.sqrt([[_variance(lead)] for lead in signal]) / 10 ** (snr_db / 20)
    return with_ecg(row, signal=(signal + generator.standard_normal(signal.shape) * deviations).astype(np.float32))


def _variance(lead: np.ndarray) -> float:
    finite = lead[np.isfinite(lead)].astype(np.float64)
    return float(finite.var()) if len(finite) else 0.0


def in_unit(row: dict, unit: str) -> dict:
    """A decoded row whose values are in another unit, and say so."""
    if row["ecg"]["unit"] in (unit, DIMENSIONLESS):  # a dimensionless record of a mixed corpus has none
        return row
    return with_ecg(row, signal=row["ecg"]["signal"] * np.float32(UNITS[unit]), unit=unit)


def scaled(row: dict, factor: float) -> dict:
    """A decoded row whose values are not in the unit that it declares."""
    return with_ecg(row, signal=row["ecg"]["signal"] * np.float32(factor))


def renamed(row: dict, names: Mapping[str, str]) -> dict:
    """A decoded row with some leads under other names."""
    return with_ecg(row, leads=[names.get(lead, lead) for lead in row["ecg"]["leads"]])


def first_seconds(row: dict, seconds: float) -> dict:
    """A decoded row cut to its first seconds."""
    ecg = row["ecg"]
    return with_ecg(row, signal=ecg["signal"][:, : round(seconds * ecg["sampling_rate"])])


def rate_ratio(old_rate: float, new_rate: float) -> tuple[int, int]:
    """The ratio of two rates (Hz) in whole numbers, `up` and `down`."""
    ratio = (Fraction(new_rate) / Fraction(old_rate)).limit_denominator(LARGEST_DENOMINATOR)
    return ratio.numerator, ratio.denominator


def at_rate(row: dict, sampling_rate: float) -> dict:
    """A decoded row at another rate, declared as such; a row at this rate is itself.

    A finite filter against aliasing (`scipy.signal.resample_poly`), edges continued by their last sample: not the
    Fourier method of the feature extractor, which would undo itself. Missing samples (NaN) widen by the filter.
    """
    ecg = row["ecg"]
    if ecg["sampling_rate"] == sampling_rate:
        return row
    up, down = rate_ratio(ecg["sampling_rate"], sampling_rate)
    signal = resample_poly(np.asarray(ecg["signal"], dtype=np.float64), up, down, axis=1, padtype="edge")
    return with_ecg(row, signal=signal.astype(np.float32), sampling_rate=float(sampling_rate))
