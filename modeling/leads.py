"""Names, orders and algebra of the leads of the standard electrocardiogram.

This is the only place that knows which leads exist, how vendors spell them and in which order the published models
expect them. Everything else passes leads by name.

The limb leads are linear combinations of the three limb electrodes, so two of them determine the other four
(Einthoven, Goldberger); the twelve leads therefore carry eight independent signals.
"""

from collections.abc import Sequence

import numpy as np

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
INDEPENDENT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
DERIVED_LIMB_LEADS = ("III", "aVR", "aVL", "aVF")
FRANK_LEADS = ("VX", "VY", "VZ")
"""Vectorcardiogram leads: recorded in some corpora, never a substitute for a standard lead."""

LIMB_LEADS = STANDARD_LEADS[:6]
ELECTRODE_PLACEMENTS = ("standard", "mason_likar")
"""Where the limb electrodes lay: on the limbs, or on the torso as in exercise and Holter recordings (Mason and Likar,
1966). The QRS axis turns to the right between them and inferior Q waves may vanish, so that limb leads of the torso
have names of their own, `"I-ML"`, in records, rows and files: no model takes them for `"I"` unless asked to."""
_MASON_LIKAR = {lead: f"{lead}-ML" for lead in LIMB_LEADS}
_WITHOUT_PLACEMENT = {placed: lead for lead, placed in _MASON_LIKAR.items()}

# Each derived limb lead as (weight of I, weight of II).
_LIMB_LEAD_WEIGHTS = {
    "I": (1.0, 0.0),
    "II": (0.0, 1.0),
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}

# Spellings seen in recordings, in upper case and without separators. MDC codes are those of ISO/IEEE 11073-10101.
_ALIASES = {lead.upper(): lead for lead in STANDARD_LEADS + FRANK_LEADS}
_ALIASES.update({f"MDCECGLEAD{lead.upper()}": lead for lead in STANDARD_LEADS})
_ALIASES.update({f"LEAD{lead.upper()}": lead for lead in STANDARD_LEADS})
_ALIASES.update({f"LEAD{number}": lead for number, lead in (("1", "I"), ("2", "II"), ("3", "III"))})
_ALIASES.update({"1": "I", "2": "II", "3": "III", "D1": "I", "D2": "II", "D3": "III", "DI": "I", "DII": "II"})
_ALIASES.update({"DIII": "III", "C1": "V1", "C2": "V2", "C3": "V3", "C4": "V4", "C5": "V5", "C6": "V6"})
_ALIASES.update({"X": "VX", "Y": "VY", "Z": "VZ"})


def canonical_lead(name: str) -> str:
    """Returns the standard spelling of a lead name (`"AVR"`, `"avr"`, `"MDC_ECG_LEAD_aVR"` → `"aVR"`).

    Raises:
        ValueError: if the name is no known lead. `MLII` and `ML5` of the MIT-BIH database are among the unknown: they
            are modified leads, and taking them for lead II or V5 is a decision that the caller has to state.
    """
    if not isinstance(name, str):
        raise ValueError(f"Expected the name of a lead, such as 'II', got {name!r}.")
    key = name.strip().upper().replace("_", "").replace("-", "").replace(" ", "").removesuffix(".")
    if key not in _ALIASES:
        raise ValueError(
            f"Unknown lead {name!r}. Expected one of {list(STANDARD_LEADS)} (or a usual spelling of it). "
            "If the recording names its channels differently, rename them before you pass them in."
        )
    return _ALIASES[key]


def canonical_leads(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the standard spelling of several leads; a lead that comes twice is a `ValueError`."""
    if isinstance(names, str):
        raise ValueError(f"Expected a sequence of lead names, got the string {names!r}. Write [{names!r}].")
    leads = tuple(canonical_lead(name) for name in names)
    repeated = sorted({lead for lead in leads if leads.count(lead) > 1})
    if repeated:
        raise ValueError(f"Leads {repeated} come more than once in {list(names)}. Keep one channel for each lead.")
    return leads


def placed_leads(leads: Sequence[str], electrode_placement: str) -> tuple[str, ...]:
    """Lead names that say where the limb electrodes lay: `"mason_likar"` makes `"I"` to `"I-ML"`; others stay.

    Raises:
        ValueError: for an unknown placement.
    """
    if electrode_placement not in ELECTRODE_PLACEMENTS:
        raise ValueError(
            f"Unknown electrode_placement {electrode_placement!r}. Choose from {list(ELECTRODE_PLACEMENTS)}."
        )
    names = _MASON_LIKAR if electrode_placement == "mason_likar" else {}
    return tuple(names.get(lead, lead) for lead in leads)


def electrode_placement_of(leads: Sequence[str]) -> str | None:
    """Placement of the limb electrodes of a recording, by the names of its leads; `None` if it has no limb lead.

    Raises:
        ValueError: if limb leads of both placements are among them.
    """
    on_torso = [lead for lead in leads if lead in _WITHOUT_PLACEMENT]
    on_limbs = [lead for lead in leads if lead in LIMB_LEADS]
    if on_torso and on_limbs:
        raise ValueError(
            f"Limb leads {on_torso} from the torso (Mason-Likar) and {on_limbs} from the limbs come in one recording. "
            "Keep those of one placement."
        )
    return "mason_likar" if on_torso else "standard" if on_limbs else None


def without_placement(lead: str) -> str:
    """The lead that a name of either placement stands for (`"I-ML"` → `"I"`); other names stay."""
    return _WITHOUT_PLACEMENT.get(lead, lead)


def lead_indices(wanted: Sequence[str], available: Sequence[str]) -> list[int]:
    """Positions of the leads `wanted` in `available`, by name.

    Raises:
        ValueError: if a wanted lead is not available; says which, and whether it can be derived.
    """
    available = canonical_leads(available)
    missing = [lead for lead in canonical_leads(wanted) if lead not in available]
    if missing:
        derivable = [lead for lead in missing if lead in DERIVED_LIMB_LEADS and {"I", "II"} <= set(available)]
        cure = f" {derivable} can be derived from I and II: set `derive_limb_leads=True`." if derivable else ""
        raise ValueError(f"Leads {missing} are not among the available leads {list(available)}.{cure}")
    return [available.index(lead) for lead in canonical_leads(wanted)]


def limb_lead_matrix(leads: Sequence[str] = STANDARD_LEADS) -> np.ndarray:
    """The matrix of shape `(len(leads), 8)` that maps the eight independent leads to `leads`.

    Rows follow `leads`, columns follow `INDEPENDENT_LEADS`. `limb_lead_matrix() @ independent` gives the twelve leads.
    """
    matrix = np.zeros((len(leads), len(INDEPENDENT_LEADS)))
    for row, lead in enumerate(canonical_leads(leads)):
        if lead in _LIMB_LEAD_WEIGHTS:
            matrix[row, :2] = _LIMB_LEAD_WEIGHTS[lead]
        elif lead in INDEPENDENT_LEADS:
            matrix[row, INDEPENDENT_LEADS.index(lead)] = 1.0
        else:
            raise ValueError(f"Lead {lead} is no linear combination of the independent leads {INDEPENDENT_LEADS}.")
    return matrix


def derivation_weights(lead: str) -> dict[str, float]:
    """Weights by which a limb lead follows from I and II, as `{"I": weight, "II": weight}`.

    Raises:
        ValueError: for a lead that does not follow from I and II.
    """
    if lead not in DERIVED_LIMB_LEADS:
        raise ValueError(f"Lead {lead} cannot be derived from I and II; only {list(DERIVED_LIMB_LEADS)} can.")
    weight_i, weight_ii = _LIMB_LEAD_WEIGHTS[lead]
    return {"I": weight_i, "II": weight_ii}
