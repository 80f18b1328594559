"""Recordings of fewer leads: the other leads are removed from the recording, they are not zeros in it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.leads import (
    INDEPENDENT_LEADS,
    LIMB_LEADS,
    STANDARD_LEADS,
    electrode_placement_of,
    without_placement,
)

LEAD_SUBSETS: dict[str, tuple[str, ...]] = {
    "12": STANDARD_LEADS,
    "8": INDEPENDENT_LEADS,
    "6": LIMB_LEADS,
    "2": ("I", "II"),
    "II+V1": ("II", "V1"),
    "I": ("I",),
    "II": ("II",),
}
"""Leads by the name of their subset. 12, 6 (limb leads) and 2 (I and II) are lead sets of the PhysioNet/CinC Challenge
2021; 8 are the independent leads; II, and II with V1, are those of Kim (arXiv 2410.08559); I is that of watches."""


def with_ecg(row: dict, **changed) -> dict:
    """A decoded row whose recording differs in some fields."""
    return row | {"ecg": row["ecg"] | changed}


def keep_leads(row: dict, leads: Sequence[str]) -> dict:
    """A decoded row with these leads alone, in this order; a `ValueError` names those that the recording lacks."""
    ecg = row["ecg"]
    names = [without_placement(lead) for lead in ecg["leads"]]
    missing = [lead for lead in leads if lead not in names]
    if missing:
        raise ValueError(f"Record {row['record_id']} has the leads {list(ecg['leads'])} and lacks {missing}.")
    order = [names.index(lead) for lead in leads]
    return with_ecg(row, signal=ecg["signal"][order], leads=[ecg["leads"][position] for position in order])


def given_leads(feature_extractor: EcgFeatureExtractor, recorded: Sequence[str]) -> list[str]:
    """Leads of a model that a recording with these leads gives it, recorded or derived, in the model's order."""
    plan = feature_extractor.changed(missing_leads="mask").lead_plan(tuple(recorded))
    return [lead for lead in feature_extractor.leads if lead not in plan.missing]


def usual_input(rows: Dataset, feature_extractor: EcgFeatureExtractor) -> dict[str, Any]:
    """The input that most rows give a model, for `config.calibration["input"]`: `leads`, `electrode_placement`,
    `long_records`."""
    counts: Counter = Counter()
    for ecg in rows["ecg"]:
        try:
            counts[tuple(given_leads(feature_extractor, ecg["leads"])), electrode_placement_of(ecg["leads"])] += 1
        except ValueError:  # a recording that cannot become input is not measured on either
            continue
    (leads, placement), _ = counts.most_common(1)[0]
    return {
        "leads": list(leads),
        "electrode_placement": placement or "standard",
        "long_records": feature_extractor.long_records,
    }


def chosen_subsets(names: Sequence[str] | None) -> Mapping[str, tuple[str, ...]]:
    """Subsets by their names in `LEAD_SUBSETS`, or by their leads (`"V1,V2"`); any other name is a `ValueError`."""
    found = {}
    for name in names or ():
        leads = LEAD_SUBSETS.get(str(name)) or tuple(str(name).split(","))
        unknown = [lead for lead in leads if lead not in STANDARD_LEADS]
        if unknown:
            raise ValueError(f"Expected lead subsets of {list(LEAD_SUBSETS)} or leads as I,V2, got {name!r}.")
        found[str(name)] = leads
    return found
