"""Plan of the leads of a model: the rows of a recording that make them, computed where they have to be, or missing."""

from functools import lru_cache
from typing import NamedTuple

from .leads import DERIVED_LIMB_LEADS, LIMB_LEADS, derivation_weights, electrode_placement_of, without_placement
from .recording_input import is_known_lead


class LeadPlan(NamedTuple):
    sources: tuple[int, ...]  # rows of the recording that are needed
    weights: tuple[dict[int, float], ...]  # for each lead of the model: position in `sources` -> factor
    missing: tuple[str, ...]  # leads of the model that the recording cannot give
    unknown: tuple[str, ...]  # channels of the recording that are no leads
    has_torso_electrodes: bool  # limb leads of the Mason-Likar placement are used

    @property
    def is_identity(self) -> bool:
        return self.weights == tuple({row: 1.0} for row in range(len(self.sources)))


@lru_cache(maxsize=256)
def plan_leads(
    wanted: tuple[str, ...], recorded: tuple[str, ...], derive_limb_leads: bool, electrode_placement: str
) -> LeadPlan:
    """Plans by name; `electrode_placement` is what the model admits (`"any"`: both, as if they were the same).

    Raises:
        ValueError: if the limb leads of the recording are of a placement that the model does not admit.
    """
    placement = electrode_placement_of(recorded)
    names = tuple(without_placement(lead) for lead in recorded)
    can_derive = derive_limb_leads and {"I", "II"} <= set(names)
    formulas = []
    for lead in wanted:
        if lead in names:
            formulas.append({lead: 1.0})
        else:
            formulas.append(derivation_weights(lead) if can_derive and lead in DERIVED_LIMB_LEADS else {})
    sources = list(dict.fromkeys(name for formula in formulas for name in formula))
    uses_limb_leads = not set(LIMB_LEADS).isdisjoint(sources)
    if uses_limb_leads and electrode_placement not in ("any", placement):
        raise ValueError(
            f"The model reads limb leads of the {electrode_placement} electrode placement, the recording's "
            f"{[lead for lead in recorded if without_placement(lead) in LIMB_LEADS]} are of the {placement} one; "
            "their waves differ. Choose other recordings or another model, or set electrode_placement='any' in the "
            "feature extractor to take both for the same."
        )
    return LeadPlan(
        sources=tuple(names.index(name) for name in sources),
        weights=tuple({sources.index(name): factor for name, factor in formula.items()} for formula in formulas),
        missing=tuple(lead for lead, formula in zip(wanted, formulas, strict=True) if not formula),
        unknown=tuple(name for name in names if not is_known_lead(name)),
        has_torso_electrodes=uses_limb_leads and placement == "mason_likar",
    )
