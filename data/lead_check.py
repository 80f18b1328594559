"""Do the leads of a recording fit together? Limb leads against Einthoven's law, limb leads against chest leads.

Everything here is a suspicion with its evidence, never a correction: rare axes and rare hearts look like swapped
electrodes too. `docs/your_own_data.md` has the measured sensitivity and specificity.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..modeling.leads import DERIVED_LIMB_LEADS, derivation_weights
from .spectrum import band_pass

CHEST_LEADS = ("V1", "V2", "V3", "V4", "V5", "V6")

CHEST_TO_LIMB = np.array([[-0.395, 0.146, 0.074, -0.085, 0.124, 0.291], [-0.049, -0.054, 0.098, 0.074, 0.147, 0.313]])
"""Lead I and lead II as weighted sums of V1 to V6: least squares over folds 1-8 of the carried PTB-XL recordings,
0.7-35 Hz, each weighted by one over the root mean square of its I and II. (The idea, to reconstruct leads from others
and to compare, is that of Kors & van Herpen, J Electrocardiol 2001;34:215; the coefficients are ours.)"""

SWAP_MARGIN = 0.3
"""By how much the correlation with the reconstruction has to rise when a swap is undone. Ours: 0.2 to 0.4 were tried
on the carried PTB-XL recordings; at 0.3, one of 495 is suspected."""

EINTHOVEN_TOLERANCE = 0.15
"""Largest difference (root mean square) between a limb lead and what I and II give for it, as a share of the largest
limb lead. Ours: rounding stays below 0.01; a lead of another name or sign, or one recorded at another time, above."""

_BAND_HZ = (0.7, 35.0)
_SHORTEST_SECONDS, _LOWEST_RATE_HZ = 2.0, 80.0


@dataclass(frozen=True)
class LimbSwapCheck:
    """Whether the limb electrodes look interchanged.

    Args:
        suspected (`str`, *optional*): `"LA/RA"` (the arms) or `"RA/LL"` (right arm and left leg); `None`: neither.
        correlations (`dict`):
            Correlation of I, II and III with their reconstruction from V1 to V6, as recorded (`"as recorded"`) and
            with each swap undone.
        evidence (`str`): A sentence; empty if nothing is suspected.
    """

    suspected: str | None
    correlations: Mapping[str, float]
    evidence: str


@dataclass(frozen=True)
class LimbMisfit:
    """A limb lead that is not what I and II give for it.

    Args:
        difference (`float`): Root mean square, in the unit of the signal.
        looks_like (`str`, *optional*): The lead that it is by I and II, with a minus if upside down: `"-aVR"`.
    """

    difference: float
    looks_like: str | None


def check_limb_swap(signal_mv: np.ndarray, leads: Sequence[str], sampling_rate: float) -> LimbSwapCheck | None:
    """Compares lead I, II and III with their reconstruction from V1 to V6, as recorded and with each swap undone.

    A swap of the left arm and the left leg is tried, because it must not be taken for another one, but never
    suspected: it exchanges I and II, which a turn of the heart's axis does as well.

    Args:
        signal_mv (`np.ndarray` of shape `(num_leads, num_samples)`): In any one unit; mV by convention.
        leads (`Sequence[str]`): Standard names of the rows.
        sampling_rate (`float`): In Hz.

    Returns:
        `None` where it cannot be judged: without I, II and all chest leads, with missing samples in them, for less
        than 2 s, below 80 Hz, or where one side is flat.
    """
    wanted = ("I", "II", *CHEST_LEADS)
    leads = list(leads)
    if not set(wanted) <= set(leads) or sampling_rate < _LOWEST_RATE_HZ:
        return None
    signal = np.asarray(signal_mv, dtype=np.float64)[[leads.index(lead) for lead in wanted]]
    if signal.shape[1] < _SHORTEST_SECONDS * sampling_rate or not np.isfinite(signal).all():
        return None
    signal = band_pass(signal, sampling_rate, _BAND_HZ)
    expected = _with_third(*(CHEST_TO_LIMB @ signal[2:]))
    first, second = signal[0], signal[1]
    undone = {
        "as recorded": (first, second),
        "LA/RA": (-first, second - first),
        "RA/LL": (first - second, -second),
        "LA/LL": (second, first),
    }
    limb = {name: _with_third(*pair) for name, pair in undone.items()}
    if not expected.any() or not all(leads.any() for leads in limb.values()):
        return None
    correlations = {name: _correlation(leads, expected) for name, leads in limb.items()}
    best = max(("LA/RA", "RA/LL"), key=correlations.get)
    if correlations[best] - max(correlations["as recorded"], correlations["LA/LL"]) <= SWAP_MARGIN:
        return LimbSwapCheck(None, correlations, "")
    lead, row = {"LA/RA": ("I", 0), "RA/LL": ("II", 1)}[best]
    alone, avr = _correlation(signal[row], expected[row]), -(first + second)
    evidence = (
        f"against V1-V6 the limb leads correlate {correlations['as recorded']:.2f} as recorded and "
        f"{correlations[best]:.2f} with the swap undone; lead {lead} alone {alone:.2f}; "
        f"aVR points {'up' if avr.max() > -avr.min() else 'down'}"
    )
    return LimbSwapCheck(best, correlations, evidence)


def check_einthoven(signal_mv: np.ndarray, leads: Sequence[str]) -> dict[str, LimbMisfit]:
    """Limb leads that are not what I and II give for them (III = II - I, aVR = -(I + II) / 2, ...).

    Args:
        signal_mv (`np.ndarray` of shape `(num_leads, num_samples)`): In any one unit; samples with NaN are left out.
        leads (`Sequence[str]`): Standard names of the rows.

    Returns:
        name of the lead → its misfit. Constants are left out of the comparison: they are baselines.
    """
    leads = list(leads)
    recorded = [lead for lead in DERIVED_LIMB_LEADS if lead in leads]
    if not {"I", "II"} <= set(leads) or not recorded:
        return {}
    rows = np.asarray(signal_mv, dtype=np.float64)[[leads.index(lead) for lead in ("I", "II", *recorded)]]
    rows = rows[:, np.isfinite(rows).all(axis=0)]
    if not rows.shape[1]:
        return {}
    rows = rows - rows.mean(axis=1, keepdims=True)
    weights = {lead: derivation_weights(lead) for lead in DERIVED_LIMB_LEADS}
    given = {"I": rows[0], "II": rows[1]}
    given |= {lead: weight["I"] * rows[0] + weight["II"] * rows[1] for lead, weight in weights.items()}
    tolerance = EINTHOVEN_TOLERANCE * max(_rms(row) for row in rows)
    found = {}
    for lead, row in zip(recorded, rows[2:], strict=True):
        if _rms(row - given[lead]) <= tolerance:
            continue
        candidates = [(name, sign) for name in given for sign in (1, -1) if (name, sign) != (lead, 1)]
        name, sign = min(candidates, key=lambda candidate: _rms(row - candidate[1] * given[candidate[0]]))
        is_found = _rms(row - sign * given[name]) <= tolerance / 3
        looks_like = ("-" if sign < 0 else "") + name if is_found else None
        found[lead] = LimbMisfit(_rms(row - given[lead]), looks_like)
    return found


def leads_of_equal_range(signal: np.ndarray) -> bool:
    """Whether all of at least three leads span the same range within 1 %, as they do when each was scaled by itself.

    Amplitudes then cannot be compared between leads. (The limb leads of such recordings break Einthoven's law too.)

    Args:
        signal (`np.ndarray` of shape `(num_leads, num_samples)`): In any unit; flat leads are left out.
    """
    finite = [row[np.isfinite(row)] for row in np.asarray(signal, dtype=np.float64)]
    ranges = [float(np.ptp(row)) for row in finite if row.size and np.ptp(row) > 0]
    return len(ranges) >= 3 and max(ranges) <= 1.01 * min(ranges)


def duplicate_leads(signal: np.ndarray, leads: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of leads with equal samples, apart from flat ones.

    Args:
        signal (`np.ndarray` of shape `(num_leads, num_samples)`): In any unit; NaN equals NaN.
        leads (`Sequence[str]`): Names of the rows.
    """
    signal = np.asarray(signal)
    moving = [row for row in range(len(signal)) if np.isfinite(signal[row]).any() and np.nanstd(signal[row]) > 0]
    return [
        (leads[first], leads[second])
        for position, first in enumerate(moving)
        for second in moving[position + 1 :]
        if np.array_equal(signal[first], signal[second], equal_nan=True)
    ]


def _with_third(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.stack([first, second, second - first])


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Of signals without mean; over all rows at once, so that a small lead counts as little as it shows."""
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / scale) if scale > 0 else 0.0


def _rms(row: np.ndarray) -> float:
    return float(np.sqrt(np.mean(row**2)))
