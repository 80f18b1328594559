"""The setting `leads`: training, validation and test records that have the leads of a subset and no others.

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
from transformers import FeatureExtractionMixin
from transformers.utils import logging

from ecg_transformers.modeling.lead_plan import plan_leads
from ecg_transformers.modeling.leads import without_placement

from ..features import decoded, embed
from ..tasks.labelled_splits import LabelledSplits
from ..tasks.lead_subsets import LEAD_SUBSETS, keep_leads
from .encoder_pair import EncoderPair, refused
from .protocols import embed_splits, linear_protocol

logger = logging.get_logger(__name__)

ROWS_AT_ONCE = 1000


def lead_subset_scores(pair: EncoderPair, subsets: Mapping[str, Sequence[str]] = LEAD_SUBSETS) -> list[dict[str, Any]]:
    """Runs the protocol `linear` on training, validation and test records of fewer leads.

    Returns:
        `list[dict]`: an entry of setting `leads` a subset, see `encoder_pair`, with `leads`, `derived` and `absent`.
        Where subsets give the model the same input, the first is embedded and the others repeat its numbers, which are
        those of the whole recordings (`pair.linear`) if these give it too. A subset that the recordings lack, or that
        an encoder cannot take, is `refused` with the reason.
    """
    masking = pair.feature_extractor.changed(missing_leads="mask")
    recorded, some_row = _recorded_leads(pair.splits), _readable_row(pair.splits, masking)
    whole = {str(_input_of(masking, names)) for by_leads in recorded.values() for names in by_leads}
    found = {whole.pop(): pair.linear} if pair.linear is not None and len(whole) == 1 else {}
    entries = []
    for name, leads in subsets.items():
        label, facts = ", ".join(leads), {"leads": list(leads)}
        formulas = _input_of(masking, leads)
        change, reason = partial(keep_leads, leads=leads), _reason_of_records(recorded, leads)
        if reason is None and str(formulas) not in found:
            reason = _reason_of_encoders(pair.models, masking, change(some_row))
        if reason is not None:
            entries.append(refused("leads", name, label, reason, **facts))
            continue
        facts["derived"] = [lead for lead, formula in formulas.items() if len(formula) > 1]
        facts["absent"] = [lead for lead, formula in formulas.items() if not formula]
        if str(formulas) not in found:
            logger.info(f"leads {label}")
            found[str(formulas)] = {
                encoder: linear_protocol(embed_splits(model, masking, pair.splits, pair.batch_size, change))
                for encoder, model in pair.models.items()
            }
        entries.append(pair.entry("leads", name, label, found[str(formulas)], **facts))
    return entries


def _input_of(feature_extractor: FeatureExtractionMixin, leads: Sequence[str]) -> dict[str, dict[str, float]]:
    """Weights of the recorded leads in each lead of the model; none where it is absent."""
    plan = plan_leads(tuple(feature_extractor.leads), tuple(leads), feature_extractor.derive_limb_leads, "any")
    recorded = [leads[position] for position in plan.sources]
    return {
        lead: {recorded[position]: weight for position, weight in weights.items()}
        for lead, weights in zip(feature_extractor.leads, plan.weights, strict=True)
    }


def _recorded_leads(splits: LabelledSplits) -> dict[str, dict[tuple[str, ...], list[str]]]:
    """Ids of the records of each split by their leads, read without the signals."""
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
    """The reason why the recordings have no such subset, if they have not."""
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


def _reason_of_encoders(models: Mapping, feature_extractor, row: dict) -> str | None:
    """The reason why an encoder cannot take such a row, if it cannot."""
    try:
        feature_extractor([row["ecg"]])
        for model in models.values():
            embed(model, feature_extractor, [row], 1, progress=False)
    except ValueError as error:
        return str(error)
    return None
