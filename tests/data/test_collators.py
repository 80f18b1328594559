import functools
import logging

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from ecg_transformers.data import EcgDataCollator, EcgPretrainingCollator, label_names, load_ecg, sample_id
from ecg_transformers.data.builder import corpus_features
from ecg_transformers.data.collators import _stored_columns
from ecg_transformers.data.corpora.ptb_xl import PTB_XL_SAMPLE
from ecg_transformers.data.features import RecordTable
from ecg_transformers.data.records import EcgRecord
from ecg_transformers.modeling import EcgViTConfig, EcgViTForSequenceClassification
from ecg_transformers.modeling.feature_extraction_ecg import EcgFeatureExtractor
from ecg_transformers.modeling.leads import INDEPENDENT_LEADS, STANDARD_LEADS

LABEL2ID = {label: index for index, label in enumerate(label_names("ptb-xl"))}


UnlabelledCollator = functools.partial(EcgDataCollator, label2id={})


@pytest.fixture(scope="module")
def decoded():
    return load_ecg("ptb-xl-sample", split="test").select(range(6))


@pytest.fixture(scope="module")
def stored():
    return load_ecg("ptb-xl-sample", split="test", decode=False).select(range(6))


def extractor(**options):
    return EcgFeatureExtractor(**{"sampling_rate": 100, "num_samples": 1000, **options})


def row(record_id="made", leads=STANDARD_LEADS, num_samples=1000, sampling_rate=100, missing=0, seed=0):
    signal = np.random.default_rng(seed).normal(size=(len(leads), num_samples))
    signal[0, :missing] = np.nan
    return EcgRecord(record_id, signal, leads, sampling_rate, labels=["NORM"]).to_row()


def test_batch_has_inputs_and_multi_hot_labels(decoded):
    rows = list(decoded)
    batch = EcgDataCollator(extractor(), LABEL2ID)(rows)
    assert batch["input_values"].shape == (6, 8, 1000)
    assert batch["labels"].dtype == torch.float32
    named = [[label for label, hot in zip(LABEL2ID, line, strict=True) if hot] for line in batch["labels"]]
    assert named == [sorted(row["labels"]) for row in rows]


def test_labels_are_in_the_order_of_label2id_whatever_their_names():
    labels = EcgDataCollator(extractor(), {"STTC": 0, "NORM": 1, "CD": 2})([row()])["labels"]
    assert labels.tolist() == [[0.0, 1.0, 0.0]]
    labels = EcgDataCollator(extractor(), {"NORM": 2, "STTC": 0, "CD": 1})([row()])["labels"]
    assert labels.tolist() == [[0.0, 0.0, 1.0]]


def test_stored_and_decoded_rows_give_the_same_batch(decoded, stored):
    collator = EcgDataCollator(extractor(), LABEL2ID)
    torch.testing.assert_close(collator(list(decoded))["input_values"], collator(list(stored))["input_values"])


def test_an_empty_label2id_gives_no_labels(stored):
    assert set(EcgDataCollator(extractor(), {})(list(stored))) == {"input_values"}
    assert set(EcgDataCollator(extractor())([{**row(), "labels": []}])) == {"input_values"}


def classifier_trainer(dataset, tmp_path, collator, **arguments):
    sizes = {"num_samples": 1000, "patch_size": 100, "hidden_size": 8, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "intermediate_size": 16, "problem_type": "multi_label_classification"}
    labels = {"label2id": LABEL2ID, "id2label": {number: label for label, number in LABEL2ID.items()}}
    model = EcgViTForSequenceClassification(EcgViTConfig(sampling_rate=100, **sizes, **labels))
    arguments |= {"max_steps": 1, "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
    arguments = TrainingArguments(tmp_path, **arguments)
    return Trainer(model, arguments, data_collator=collator, train_dataset=dataset)


def test_the_stock_trainer_without_label2id_gets_a_cure_that_works(decoded, tmp_path):
    with pytest.raises(ValueError, match="pass label2id=model.config.label2id to EcgDataCollator"):
        classifier_trainer(decoded, tmp_path, EcgDataCollator(extractor()), remove_unused_columns=False).train()
    collator = EcgDataCollator(extractor(), label2id=LABEL2ID)
    assert classifier_trainer(decoded, tmp_path, collator, remove_unused_columns=False).train().training_loss > 0


def test_the_stock_trainer_that_drops_the_recordings_gets_a_cure(decoded, tmp_path):
    with pytest.raises(ValueError, match=r"TrainingArguments\(remove_unused_columns=False\)"):
        more_columns = decoded.add_column("labels_", [0] * 6)
        classifier_trainer(more_columns, tmp_path, EcgDataCollator(extractor(), LABEL2ID)).train()
    for collator in (EcgDataCollator(extractor(), LABEL2ID), EcgPretrainingCollator(extractor())):
        with pytest.raises(ValueError, match="Rows without the column ecg"):
            collator([{"labels": ["NORM"]}])


@pytest.mark.parametrize(("values", "dtype"), [([1, 0], torch.int64), ([0.5, 2.0], torch.float32)])
def test_numeric_label_is_passed_on(values, dtype):
    rows = [{**row(), "label": value} for value in values]
    labels = EcgDataCollator(extractor())(rows)["labels"]
    assert labels.dtype == dtype
    assert labels.tolist() == values


def test_label_that_is_not_in_label2id_is_refused_by_name():
    with pytest.raises(ValueError, match=r"made has labels \['NORM'\]"):
        EcgDataCollator(extractor(), {"MI": 0})([row()])


def test_lead_mask_comes_with_an_extractor_that_masks():
    batch = EcgDataCollator(extractor(missing_leads="mask"), {})([row(leads=["I", "II"]), row()])
    assert batch["lead_mask"].tolist() == [[True, True] + [False] * 6, [True] * 8]


def test_records_of_different_layout_share_a_batch():
    rows = [row("a"), row("b", num_samples=5000, sampling_rate=500), row("c", leads=STANDARD_LEADS[::-1])]
    batch = EcgDataCollator(extractor(), {})(rows)
    assert batch["input_values"].shape == (3, 8, 1000)


def test_labels_are_repeated_for_every_window():
    batch = EcgDataCollator(extractor(num_samples=500, long_records="all"), LABEL2ID)([row(), row()])
    assert batch["input_values"].shape == (4, 8, 500)
    assert batch["labels"].shape == (4, 5)
    assert "window_record" not in batch


@pytest.mark.parametrize("collator_class", [UnlabelledCollator, EcgPretrainingCollator])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row("bad", missing=3), "3 .*samples"),
        (row("bad", leads=["I", "V1"]), "lacks"),
        (row("bad", num_samples=300), "lasts 3 s"),
    ],
)
def test_bad_record_is_left_out_named_and_counted(collator_class, bad, reason, caplog):
    collator = collator_class(extractor())
    with caplog.at_level(logging.WARNING):
        batch = collator([row("good"), bad, row("fine")])
    assert len(batch["signal" if "signal" in batch else "input_values"]) == 2
    assert list(collator.bad_records) == ["bad"]
    assert "Record bad is left out of its batch" in caplog.text
    with pytest.raises(ValueError, match=f"No record of this batch.*bad .*{reason}"):
        collator([bad])


@pytest.mark.parametrize("collator_class", [UnlabelledCollator, EcgPretrainingCollator])
def test_infinite_sample_is_reported_by_name(collator_class, decoded):
    rows = list(decoded)
    rows[1]["ecg"]["signal"][0, 0] = np.inf
    collator = collator_class(extractor())
    collator(rows)
    assert list(collator.bad_records) == [rows[1]["record_id"]]


def test_pretraining_batch_holds_the_stored_integers(stored):
    rows = list(stored)
    batch = EcgPretrainingCollator(extractor())(rows)
    assert batch["signal"].dtype == torch.int16
    assert batch["signal"].shape == (6, 8, 1000)
    assert batch["gain"].shape == (6, 8)
    assert batch["sampling_rate"] == 100.0
    steps = np.frombuffer(rows[2]["ecg"]["signal"], "<i2").reshape(12, 1000)
    order = [STANDARD_LEADS.index(lead) for lead in INDEPENDENT_LEADS]
    np.testing.assert_array_equal(batch["signal"][2], steps[order])


def test_pretraining_batch_becomes_the_input_of_the_other_collator(stored):
    feature_extractor = extractor(sampling_rate=250, num_samples=2500, highpass_hz=0.67, normalization="lead")
    batch = EcgPretrainingCollator(feature_extractor)(list(stored))
    on_device, _ = feature_extractor.process_batch(
        batch["signal"], batch["gain"], sampling_rate=batch["sampling_rate"]
    )
    on_cpu = EcgDataCollator(feature_extractor, {})(list(stored))["input_values"]
    torch.testing.assert_close(on_device, on_cpu, atol=1e-4, rtol=1e-4)


def test_decoded_rows_give_a_pretraining_batch_as_well(decoded, stored):
    collator = EcgPretrainingCollator(extractor())
    one, other = collator(list(decoded)), collator(list(stored))
    millivolts = [batch["signal"] * batch["gain"][..., None] for batch in (one, other)]
    torch.testing.assert_close(*millivolts, atol=2e-4, rtol=0)


def test_missing_samples_reach_an_extractor_that_interpolates():
    feature_extractor = extractor(nan_policy="interpolate")
    batch = EcgPretrainingCollator(feature_extractor)([row(missing=3), row()])
    values, _ = feature_extractor.process_batch(batch["signal"], batch["gain"], sampling_rate=100.0)
    assert len(values) == 2
    assert values.isfinite().all()


def test_mixed_layouts_are_brought_to_one_by_the_extractor():
    rows = [row("a"), row("b", num_samples=5000, sampling_rate=500)]
    batch = EcgPretrainingCollator(extractor())(rows)
    assert set(batch) == {"input_values", "sample_id", "record_id"}
    assert batch["input_values"].shape == (2, 8, 1000)
    assert batch["sample_id"].tolist() == [sample_id("a"), sample_id("b")]


def test_lead_that_has_to_be_derived_goes_through_the_extractor():
    feature_extractor = extractor(leads=("I", "II", "aVF"))
    batch = EcgPretrainingCollator(feature_extractor)([row(leads=["I", "II"])])
    assert batch["input_values"].shape == (1, 3, 1000)


def test_sample_id_never_changes():
    assert sample_id("00017") == 2250633719073190566
    assert 0 <= sample_id("00017") < 2**63
    assert len({sample_id(f"{number:05d}") for number in range(20000)}) == 20000


def test_collators_draw_no_random_numbers(stored):
    before = torch.get_rng_state()
    for collator in (EcgDataCollator(extractor(), LABEL2ID), EcgPretrainingCollator(extractor())):
        collator(list(stored))
    assert torch.equal(torch.get_rng_state(), before)


def test_tables_of_a_stream_give_the_batches_of_their_rows():
    """Tables are the fast path; rows, one after the other, are the slow one."""
    stored = load_ecg("ptb-xl-sample", split="train", decode=False, streaming=True)
    rows = list(stored.take(6))
    collator = EcgPretrainingCollator(extractor())
    expected = collator(rows)
    (table,) = stored.with_format("arrow").take(6).iter(batch_size=6)
    (loaded,) = DataLoader(stored.with_format("arrow").take(6), batch_size=6, collate_fn=collator)
    for batch in (collator(table), loaded):
        assert batch.keys() == expected.keys()
        assert torch.equal(batch["signal"], expected["signal"]) and torch.equal(batch["gain"], expected["gain"])
        assert batch["sample_id"].tolist() == expected["sample_id"].tolist()
        assert batch["record_id"].tolist() == [row["record_id"] for row in rows]


@pytest.mark.parametrize("leads", [STANDARD_LEADS, INDEPENDENT_LEADS, ("V5", "II")])
@pytest.mark.parametrize("missing", [0, 3])
def test_slices_of_tables_give_the_batches_of_their_rows(leads, missing):
    collator = EcgPretrainingCollator(extractor(leads=leads, nan_policy="interpolate"))
    records = [EcgRecord.from_row(row(f"r{number}", seed=number, missing=missing)) for number in range(6)]
    rows = [record.to_row() for record in records]
    features = corpus_features(PTB_XL_SAMPLE)
    whole = RecordTable(features, features.arrow_schema)
    for record in records:
        whole.add(record)
    table = whole.finish()
    parts = [table.slice(4, 1), table.slice(0, 0), table.slice(1, 2)]
    batch, expected = collator(pa.concat_tables(parts)), collator([rows[4], rows[1], rows[2]])
    assert batch["record_id"].tolist() == ["r4", "r1", "r2"]
    assert batch["is_complete"] is expected["is_complete"] is (not missing or "I" not in leads)
    torch.testing.assert_close(batch["signal"], expected["signal"], rtol=0, atol=0)
    torch.testing.assert_close(batch["gain"], expected["gain"], rtol=0, atol=0)


@pytest.mark.parametrize("is_one_chunk", [True, False])
@pytest.mark.parametrize(
    "other",
    [
        {},
        {"leads": STANDARD_LEADS[::-1]},
        {"leads": STANDARD_LEADS[:6], "num_samples": 2000},  # as many bytes
        {"leads": STANDARD_LEADS[:6]},
        {"num_samples": 1010},
        {"sampling_rate": 50},
    ],
)
def test_tables_of_two_layouts_give_the_batches_of_their_rows(other, is_one_chunk):
    collator = EcgPretrainingCollator(extractor(leads=("II", "V1") if "leads" not in other else ("II", "I")))
    rows = [row("a", seed=1), row("b", seed=2), row("c", seed=3, **other)]
    features = corpus_features(PTB_XL_SAMPLE)
    tables = [RecordTable(features, features.arrow_schema) for _ in rows]
    for number, of in enumerate(rows):
        tables[0 if is_one_chunk else number].add(EcgRecord.from_row(of))
    table = pa.concat_tables([table.finish() for table in tables if table.rows])
    batch, expected = collator(table), collator(rows)
    assert batch.keys() == expected.keys()
    for name in {"signal", "gain", "input_values"} & batch.keys():
        assert torch.equal(batch[name], expected[name])
    assert batch["record_id"].tolist() == expected["record_id"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("column", ["gain", "leads", "unit", "sampling_rate", "signal"])
def test_a_table_with_a_missing_fact_is_not_read_as_a_whole(column):
    rows = [row("a"), row("b")]
    rows[1]["ecg"][column] = None
    features = corpus_features(PTB_XL_SAMPLE)
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
    chunks = table["ecg"].chunks
    assert _stored_columns([chunk.slice(0, 1) for chunk in chunks]) is not None
    assert _stored_columns(chunks) is None


def test_tables_that_need_the_feature_extractor_give_the_batches_of_their_rows():
    stored = load_ecg("ptb-xl-sample", split="train", decode=False, streaming=True)
    collator = EcgPretrainingCollator(extractor(num_samples=1200, short_records="zero_pad"))
    (table,) = stored.with_format("arrow").take(3).iter(batch_size=3)
    batch, expected = collator(table), collator(list(stored.take(3)))
    assert batch.keys() == expected.keys() and torch.equal(batch["input_values"], expected["input_values"])


FLOAT_SETTINGS = [
    {},
    {"leads": ("V5", "II"), "normalization": "lead", "highpass_hz": 0.5},
    {"num_samples": 250, "long_records": "all", "missing_leads": "mask"},
    {"sampling_rate": 50, "num_samples": 500, "unit": "uV"},
    {"leads": ("I", "II", "aVR"), "num_samples": 1200, "short_records": "zero_pad"},
]


@pytest.mark.parametrize("settings", FLOAT_SETTINGS)
def test_floats_of_a_table_are_those_of_its_integers_and_of_its_rows(settings):
    feature_extractor = extractor(**settings)
    stored = load_ecg("ptb-xl-sample", split="train", decode=False, streaming=True).take(9)
    (table,) = stored.with_format("arrow").iter(batch_size=9)
    collator = EcgPretrainingCollator(feature_extractor, return_input_values=True)
    batch, of_rows, integers = (
        collator(table),
        collator(list(stored)),
        EcgPretrainingCollator(feature_extractor)(table),
    )
    assert batch.keys() == of_rows.keys() and batch["record_id"].tolist() == of_rows["record_id"].tolist()
    assert torch.equal(batch["input_values"], of_rows["input_values"])
    assert len(batch["record_id"]) == len(batch["sample_id"]) == len(batch["input_values"])
    if "signal" in integers:
        values, lead_mask = feature_extractor.process_batch(integers["signal"], integers["gain"], sampling_rate=100.0)
        assert torch.equal(batch["input_values"], values)
        assert lead_mask is None or torch.equal(batch["lead_mask"], lead_mask)


@pytest.mark.parametrize("policy", ["raise", "interpolate"])
@pytest.mark.parametrize("fault", ["gap", "gain"])
def test_floats_of_a_table_with_a_fault_are_those_of_its_rows(policy, fault):
    rows = [row("a"), row("b", missing=3 if fault == "gap" else 0), row("c")]
    if fault == "gain":
        rows[1]["ecg"]["gain"][0] = 1e36
    table = pa.Table.from_pylist(rows, schema=corpus_features(PTB_XL_SAMPLE).arrow_schema)
    collator = EcgPretrainingCollator(extractor(nan_policy=policy), return_input_values=True)
    batch, expected = collator(table), collator(rows)
    assert torch.equal(batch["input_values"], expected["input_values"])
    assert batch["record_id"].tolist() == (
        ["a", "b", "c"] if (policy, fault) == ("interpolate", "gap") else ["a", "c"]
    )


def test_a_batch_says_whether_samples_are_missing():
    rows = [dict(row) for row in load_ecg("ptb-xl-sample", split="train").select(range(2))]
    feature_extractor = extractor()
    assert EcgPretrainingCollator(feature_extractor)(rows)["is_complete"] is True
    rows[1]["ecg"]["signal"][1, 70:80] = np.nan
    changed = feature_extractor.changed(nan_policy="interpolate")
    batch = EcgPretrainingCollator(changed)(rows)
    assert batch["is_complete"] is False
    values, _ = changed.process_batch(batch["signal"], batch["gain"], sampling_rate=batch["sampling_rate"])
    whole = {"sampling_rate": batch["sampling_rate"], "is_complete": True}
    known, _ = changed.process_batch(batch["signal"][:1], batch["gain"][:1], **whole)
    assert torch.equal(values[:1], known) and values.isfinite().all()
