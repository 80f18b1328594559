from dataclasses import replace

import numpy as np
import pytest
import torch

from ecg_transformers.data import EcgRecord
from ecg_transformers.train.evaluation.protocols import embed_splits, linear_protocol
from ecg_transformers.train.evaluation.settings import EncoderPair, lead_subset_scores
from ecg_transformers.train.features import decoded, random_encoder_like
from ecg_transformers.train.tasks.lead_subsets import LEAD_SUBSETS, keep_leads

from ..conftest import tiny_encoder


@pytest.fixture(scope="module")
def entries(tiny_pair):
    subsets = {name: leads for name, leads in LEAD_SUBSETS.items() if name not in ("I", "II")}
    found = lead_subset_scores(replace(tiny_pair, num_resamples=20), subsets)
    return {entry["value"]: entry for entry in found}


def test_subsets_have_the_leads_that_their_names_say():
    sizes = {name: len(leads) for name, leads in LEAD_SUBSETS.items()}
    assert sizes == {"12": 12, "8": 8, "6": 6, "2": 2, "II+V1": 2, "I": 1, "II": 1}
    assert LEAD_SUBSETS["2"] == ("I", "II") and LEAD_SUBSETS["II+V1"] == ("II", "V1")
    assert set(LEAD_SUBSETS["6"]) == {"I", "II", "III", "aVR", "aVL", "aVF"}


def test_leads_that_are_left_out_are_gone_from_the_recording(few_splits):
    row = decoded(few_splits.test)[0]
    kept = keep_leads(row, ("V1", "II"))
    assert kept["ecg"]["leads"] == ["V1", "II"] and kept["ecg"]["signal"].shape == (2, 1000)
    np.testing.assert_array_equal(kept["ecg"]["signal"][1], row["ecg"]["signal"][1])
    assert len(row["ecg"]["leads"]) == 12  # as it was
    with pytest.raises(ValueError, match=r"lacks \['V1'\]"):
        keep_leads(keep_leads(row, ("I", "II")), ("V1",))


def test_scores_are_those_of_a_probe_learned_chosen_and_tested_on_the_subset(entries, tiny_pair):
    masking = tiny_pair.feature_extractor.changed(missing_leads="mask")
    assert tiny_pair.feature_extractor.missing_leads == "raise" and masking.missing_leads == "mask"
    tables = embed_splits(
        tiny_pair.models["pretrained"], masking, tiny_pair.splits, change=lambda row: keep_leads(row, ("II", "V1"))
    )
    evaluated = linear_protocol(tables).evaluate(num_resamples=20)
    assert entries["II+V1"]["pretrained"]["macro_auroc"] == pytest.approx(evaluated["macro_auroc"])
    assert entries["II+V1"]["pretrained"]["macro_auroc_ci95"] == pytest.approx(evaluated["macro_auroc_ci95"])
    assert entries["II+V1"]["num_train_records"] == 28 and entries["II+V1"]["num_test_records"] == 16


def test_an_absent_lead_is_as_if_the_encoder_had_never_had_it(tiny_pair):
    row = keep_leads(decoded(tiny_pair.splits.test)[0], ("II", "V1"))
    model, extractor = tiny_pair.models["pretrained"], tiny_pair.feature_extractor
    masked = extractor.changed(missing_leads="mask")([row["ecg"]])
    signal = torch.tensor(row["ecg"]["signal"][None, :, :500])
    with torch.inference_mode():
        got, expected = model(**masked).pooler_output, model(signal, leads=["II", "V1"]).pooler_output
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_entries_say_what_is_absent_and_equal_inputs_give_equal_numbers(entries):
    assert entries["II+V1"]["absent"] == ["I", "V2", "V3", "V4", "V5", "V6"] and entries["8"]["absent"] == []
    assert all(entry["derived"] == [] for entry in entries.values())  # a model of eight leads
    assert entries["12"]["pretrained"] == entries["8"]["pretrained"]
    assert entries["6"]["random_encoder"] == entries["2"]["random_encoder"]
    assert entries["2"]["label"] == "I, II" and entries["2"]["leads"] == ["I", "II"]


def test_all_leads_that_the_model_reads_give_the_numbers_of_whole_recordings(entries, tiny_pair):
    evaluated = tiny_pair.clean["pretrained"].evaluate(num_resamples=20)
    assert entries["12"]["pretrained"]["macro_auroc"] == pytest.approx(evaluated["macro_auroc"])


def test_a_model_of_patches_of_all_leads_takes_subsets_with_limb_leads_derived_from_I_and_II(few_splits):
    fields = {"position_embedding": "sincos_halves", "attention_pattern": "full", "patching": "all_leads"}
    model, extractor = tiny_encoder(leads=("I", "aVF", "V1"), **fields)
    models = {"pretrained": model, "random_encoder": random_encoder_like(model)}
    subsets = {"2": ("I", "II"), "II": ("II",)}
    two, one = lead_subset_scores(EncoderPair(models, extractor, few_splits, {}, num_resamples=20), subsets)
    assert two["derived"] == ["aVF"] and two["absent"] == ["V1"]
    assert "The model reads the leads" in one["refused"] and "pretrained" not in one


def test_recordings_without_the_leads_are_named(few_splits, tiny_pair):
    row = keep_leads(decoded(few_splits.test)[0], ("I", "II"))
    single = few_splits.test.select([0])
    stored = EcgRecord.from_row(row).to_row()["ecg"]
    two_leads = single.remove_columns("ecg").add_column("ecg", [stored], feature=single.features["ecg"])
    splits = replace(few_splits, test=two_leads)
    (entry,) = lead_subset_scores(replace(tiny_pair, splits=splits), {"8": LEAD_SUBSETS["8"]})
    assert entry["refused"].startswith(f"Record {row['record_id']} has the leads ['I', 'II'] and lacks ['V1'")
