"""What is left with fewer leads: training, validation and test records that have the leads of a subset and no others.

The other leads are removed from the recording, they are not zeros in it. The feature extractor of the subset has
`missing_leads="mask"`: the encoder leaves absent leads out of attention and pooling (patches of one lead), or out of
the projection (patches of all leads). Where a subset holds I and II, limb leads that the model reads are derived from
them, as the feature extractor does for everybody (unless its `derive_limb_leads` is off): they hold nothing that I and
II do not. Hence 12 and 8 leads give a model of 12 leads the same input up to the rounding of the recorder, and so do 6
and 2; each entry says what was `derived` and what is `absent`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow.compute as pc
import torch
from transformers import FeatureExtractionMixin, PreTrainedModel
from transformers.utils import logging

from ecg_transformers.modeling.lead_plan import plan_leads
from ecg_transformers.modeling.leads import without_placement

from ..features import decoded, embed
from ..predictions import ProtocolResult
from ..tasks.labelled_splits import LabelledSplits
from ..tasks.lead_subsets import LEAD_SUBSETS, keep_leads
from .encoder_pair import check_encoders, judge_pair, make_entry, refused
from .protocols import embed_splits, linear_protocol

logger = logging.get_logger(__name__)

ROWS_AT_ONCE = 1000


def masking_missing_leads(feature_extractor: FeatureExtractionMixin) -> FeatureExtractionMixin:
    """The same feature extractor, but for `missing_leads="mask"`."""
    return type(feature_extractor).from_dict(feature_extractor.to_dict() | {"missing_leads": "mask"})


def lead_subset_scores(
    model_by_encoder: Mapping[str, PreTrainedModel],
    feature_extractor: FeatureExtractionMixin,
    splits: LabelledSplits,
    subsets: Mapping[str, Sequence[str]] | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    linear: Mapping[str, ProtocolResult] | None = None,
) -> list[dict[str, Any]]:
    """The protocol `linear` learnt, chosen and tested on records of fewer leads, by both encoders.

    Args:
        model_by_encoder (`Mapping[str, PreTrainedModel]`), feature_extractor, splits: See `EncoderPair`.
        subsets (`Mapping[str, Sequence[str]]`, *optional*, defaults to `LEAD_SUBSETS`): Leads by name of the subset.
        batch_size, device, num_resamples, seed: Of embedding and of the bootstrap.
        linear (`Mapping[str, ProtocolResult]`, *optional*):
            The protocol on the whole recordings, for subsets of which the model reads the same as of these.

    Returns:
        `list[dict]`: an entry of setting `leads` a subset, see `encoder_pair`, with `leads`, `derived` and `absent`.
        Of subsets that give the model the same input, the first is embedded and the others repeat its numbers. A
        subset that the recordings lack, or that an encoder cannot take, is `refused` with the reason.
    """
    check_encoders(model_by_encoder)
    masking = masking_missing_leads(feature_extractor)
    recorded, some_row = _recorded_leads(splits), _readable_row(splits, masking)
    whole = {str(_input_of(masking, names)) for by_leads in recorded.values() for names in by_leads}
    found = {whole.pop(): {e: [linear[e]] for e in model_by_encoder}} if linear is not None and len(whole) == 1 else {}
    entries = []
    for name, leads in (LEAD_SUBSETS if subsets is None else subsets).items():
        label, facts = ", ".join(leads), {"leads": list(leads)}
        formulas = _input_of(masking, leads)
        reason = _reason_of_records(recorded, leads)
        if reason is None and str(formulas) not in found:
            reason = _reason_of_encoders(model_by_encoder, masking, keep_leads(some_row, leads), device)
        if reason is not None:
            entries.append(refused("leads", name, label, reason, **facts))
            continue
        facts["derived"] = [lead for lead, formula in formulas.items() if len(formula) > 1]
        facts["absent"] = [lead for lead, formula in formulas.items() if not formula]
        if str(formulas) not in found:
            found[str(formulas)] = {
                encoder: [_linear_on(encoder, model, masking, splits, leads, batch_size, device)]
                for encoder, model in model_by_encoder.items()
            }
        judged = judge_pair(found[str(formulas)], num_resamples=num_resamples, seed=seed)
        entries.append(make_entry("leads", name, label, judged | facts))
    return entries


def _linear_on(encoder, model, feature_extractor, splits, leads, batch_size, device) -> ProtocolResult:
    """The protocol on records of these leads alone."""
    logger.info(f"{encoder}: leads {', '.join(leads)}")
    change = partial(_keep_leads_of_split, leads=leads)
    return linear_protocol(embed_splits(model, feature_extractor, splits, batch_size, change, device))


def _keep_leads_of_split(split: str, row: dict, leads: Sequence[str]) -> dict:
    return keep_leads(row, leads)


def _input_of(feature_extractor: FeatureExtractionMixin, leads: Sequence[str]) -> dict[str, dict[str, float]]:
    """What each lead of the model is made of, as weights of recorded leads: nothing where it is absent."""
    plan = plan_leads(tuple(feature_extractor.leads), tuple(leads), feature_extractor.derive_limb_leads, "any")
    recorded = [leads[position] for position in plan.sources]
    return {
        lead: {recorded[position]: weight for position, weight in weights.items()}
        for lead, weights in zip(feature_extractor.leads, plan.weights, strict=True)
    }


def _recorded_leads(splits: LabelledSplits) -> dict[str, dict[tuple[str, ...], list[str]]]:
    """Of each split, the ids of the records by their leads, read without the signals."""
    found = {}
    for split, rows in splits.items():
        found[split] = {}
        for batch in rows.select_columns(["record_id", "ecg"]).with_format("arrow").iter(ROWS_AT_ONCE):
            leads = pc.struct_field(batch["ecg"].combine_chunks(), "leads").to_pylist()
            for record_id, of_record in zip(batch["record_id"].to_pylist(), leads, strict=True):
                names = tuple(without_placement(lead) for lead in of_record)
                found[split].setdefault(names, []).append(record_id)
    return found


def _reason_of_records(recorded: Mapping[str, Mapping], leads: Sequence[str]) -> str | None:
    """Why the recordings have no such subset, if they have not."""
    for split, by_leads in recorded.items():
        without = [record for names, records in by_leads.items() if not set(leads) <= set(names) for record in records]
        if without:
            total = sum(len(records) for records in by_leads.values())
            return f"{len(without)} of {total} records of the {split} split lack some of {list(leads)}: {without[:3]}."
    return None


def _readable_row(splits: LabelledSplits, feature_extractor) -> dict:
    """The first training record that can become input; where none can, the first."""
    rows = decoded(splits.train)
    for row in rows:
        try:
            feature_extractor([row["ecg"]])
        except ValueError:
            continue
        return row
    return rows[0]


def _reason_of_encoders(model_by_encoder, feature_extractor, row: dict, device) -> str | None:
    """Why an encoder cannot take such a row, if it cannot."""
    try:
        feature_extractor([row["ecg"]])
        for model in model_by_encoder.values():
            embed(model, feature_extractor, [row], 1, device, progress=False)
    except ValueError as error:
        return str(error)
    return None
