import itertools
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from transformers import EvalPrediction
from transformers.modeling_outputs import TokenClassifierOutput

from ecg_transformers.data import load_ecg
from ecg_transformers.data.corpora.ludb import LUDB
from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTConfig, EcgViTForTokenClassification, EcgViTModel
from ecg_transformers.train.delineation import training
from ecg_transformers.train.delineation.evaluation import delineate, evaluate_delineation, subject_folds
from ecg_transformers.train.delineation.masks import annotated_waves, mask_of_waves
from ecg_transformers.train.delineation.training import (
    AlteredWindows,
    DelineationSettings,
    crop_mask,
    masked_windows,
    mean_iou,
    token_classifier,
    train_delineator,
    windows_of,
)
from ecg_transformers.train.evaluate_metrics.delineation_scores import mask_scores

from ..conftest import tiny_encoder

LEADS = ("I", "II", "V3")
READ = {"leads": LEADS, "sampling_rate": 50, "num_samples": 200}
EXTRACTOR = READ | {"normalization": "lead"}


@pytest.fixture(scope="module")
def rows(shared_data_dir):
    entries = LUDB.index(shared_data_dir / "ludb", {})
    return [LUDB.read(entry, {}).to_row() for entry in entries[:2]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_encoder(folder, extractor={"normalization": "lead"}, **READ, patch_size=20, patching="all_leads")
    return str(folder)


class Oracle(EcgViTForTokenClassification):
    """Knows the mask of every window of some records by the first samples of its signal."""

    def answers_of(self, windows):
        self.answers = {tuple(item["input_values"].flatten()[:9].tolist()): item["labels"] for item in windows}
        return self

    def forward(self, input_values, **kwargs):
        labels = torch.stack([self.answers[tuple(window.flatten()[:9].tolist())] for window in input_values])
        logits = 10 * torch.nn.functional.one_hot(labels.clamp(min=0), 4).float()
        return TokenClassifierOutput(logits=logits)


def test_no_subject_is_in_two_folds(shared_data_dir):
    entries = LUDB.index(shared_data_dir / "ludb", {})
    columns = {"patient_id": [e.columns["patient_id"] for e in entries], "fold": [e.columns["fold"] for e in entries]}
    folds = subject_folds(Dataset.from_dict(columns))
    subjects = [subject for of_fold in folds.values() for subject in of_fold["patient_id"]]
    assert list(folds) == [1, 2, 3, 4, 5] and len(subjects) == len(set(subjects)) == len(entries)


def test_a_subject_in_two_folds_and_a_missing_fold_are_refused():
    rows = {"patient_id": ["a", "b", "c", "d", "a"], "fold": [1, 2, 3, 4, 5]}
    with pytest.raises(ValueError, match="'a'.*'fold 1' and 'fold 5'"):
        subject_folds(Dataset.from_dict(rows))
    with pytest.raises(ValueError, match=r"the folds \[5\] have none"):
        subject_folds(Dataset.from_dict({"patient_id": ["a", "b", "c", "d"], "fold": [1, 2, 3, 4]}))


def test_windows_carry_the_mask_of_their_samples(rows):
    extractor = EcgFeatureExtractor(**EXTRACTOR)
    windows = masked_windows(rows, extractor, stride=70)
    starts = [0, 70, 140, 210, 280, 300]  # of 500 samples
    assert len(windows) == 2 * len(starts)
    mask = mask_of_waves(annotated_waves(rows[1], LEADS), 500)
    filled = EcgFeatureExtractor(**EXTRACTOR | {"num_samples": 500, "normalization": None})([rows[1]["ecg"]])
    for number, start in enumerate(starts):
        item = windows[len(starts) + number]
        assert item["labels"].tolist() == mask[:, start : start + 200].tolist()
        cut = filled["input_values"][0, :, start : start + 200]
        expected = (cut - cut.mean(-1, keepdim=True)) / cut.std(-1, keepdim=True, correction=0)
        torch.testing.assert_close(item["input_values"], expected, rtol=0, atol=1e-4)


def test_what_a_short_record_is_padded_with_is_not_annotated():
    assert crop_mask(np.array([[0, 2, 2]]), [0], 5).tolist() == [[[0, 2, 2, -1, -1]]]


def test_windows_are_joined_to_the_waves_of_the_recording(rows):
    extractor = EcgFeatureExtractor(**EXTRACTOR)
    model = Oracle(EcgViTConfig(leads=LEADS, hidden_size=16, num_hidden_layers=0, num_attention_heads=2))
    model.answers_of(masked_windows(rows, extractor, stride=100))
    for row, found in zip(rows, delineate(model, extractor, rows), strict=True):
        assert (found.record_id, found.sampling_rate, found.num_samples) == (row["record_id"], 500.0, 5000)
        marked = annotated_waves(row, LEADS)
        for lead in LEADS:
            for kind in ("QRS", "T"):
                pairs = list(zip(found.of_lead(lead, kind), marked.of_lead(lead, kind), strict=True))
                off = [abs(a - b) for f, m in pairs for a, b in ((f.onset, m.onset), (f.offset, m.offset))]
                assert pairs and max(off) <= 5  # half a sample at 50 Hz


def test_recordings_of_any_corpus_are_delineated_in_the_leads_that_they_have(rows, checkpoint):
    extractor = EcgFeatureExtractor(**EXTRACTOR | {"missing_leads": "mask"})
    model = token_classifier(checkpoint, DelineationSettings())
    other = {"record_id": "x", "ecg": {"signal": np.zeros((2, 1000), np.float32), "leads": ["II", "I"]}}
    other["ecg"] |= {"sampling_rate": 100.0, "unit": "mV"}
    (found,) = delineate(model, extractor, [other])
    assert found.leads == ("I", "II") and found.num_samples == 1000 and found.subject == "record x"


def test_a_model_of_other_classes_is_refused(rows):
    model, extractor = tiny_encoder(None, EcgViTForTokenClassification, **READ, patch_size=20, num_labels=3)
    with pytest.raises(ValueError, match=r"'background', 'P', 'QRS', 'T'\], got one of 3"):
        delineate(model, extractor, rows)


def test_records_that_cannot_become_input_are_named(rows, checkpoint):
    extractor = EcgFeatureExtractor(**EXTRACTOR)
    model = token_classifier(checkpoint, DelineationSettings())
    short = {"record_id": "short", "ecg": {"signal": np.zeros((3, 50), np.float32), "leads": list(LEADS)}}
    short["ecg"] |= {"sampling_rate": 50.0, "unit": "mV"}
    with pytest.raises(ValueError, match="short"):
        delineate(model, extractor, [rows[0], short])
    left_out = {}
    assert [found.record_id for found in delineate(model, extractor, [rows[0], short], left_out)] == ["1"]
    assert list(left_out) == ["short"]


def test_the_mean_iou_of_selection_is_that_of_the_scores():
    generator = np.random.default_rng(0)
    truth, guess = generator.integers(-1, 4, (3, 2, 50)), generator.integers(0, 4, (3, 2, 50))
    found = mean_iou(EvalPrediction(predictions=guess.astype(np.int8), label_ids=truth))
    expected = mask_scores(truth.reshape(6, -1), guess.reshape(6, -1), 100)
    assert found["miou"] == pytest.approx(expected["miou"])


def test_heads_and_random_encoders_depend_on_the_seed_alone(checkpoint):
    state = torch.random.get_rng_state()
    first, again = (token_classifier(checkpoint, DelineationSettings(seed=1)) for _ in range(2))
    random = token_classifier(checkpoint, DelineationSettings(seed=1), random_encoder=True)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.token_classifier.weight, again.token_classifier.weight)
    stored = EcgViTModel.from_pretrained(checkpoint).embeddings.projection.weight
    assert torch.equal(first.ecg_vit.embeddings.projection.weight, stored)
    assert not torch.equal(random.ecg_vit.embeddings.projection.weight, stored)


@pytest.mark.parametrize("frozen", [True, False])
def test_training_moves_the_head_and_the_encoder_only_where_it_is_not_frozen(rows, checkpoint, frozen):
    settings = DelineationSettings(frozen=frozen, max_steps=3, batch_size=4)
    windows = masked_windows(rows, EcgFeatureExtractor(**EXTRACTOR), stride=100)
    model = token_classifier(checkpoint, settings)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    facts = train_delineator(model, windows, windows, settings)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert "token_classifier.weight" in moved
    assert any(name.startswith("ecg_vit.") for name in moved) != frozen
    assert 1 <= facts["best_step"] <= 3 and 0 <= facts["validation_miou"] <= 1


def test_without_validation_a_training_ends_with_its_last_weights(rows, checkpoint, monkeypatch):
    looks = itertools.count(1)
    monkeypatch.setattr(training, "mean_iou", lambda prediction: {"miou": float(next(looks))})  # the last is the best
    settings = DelineationSettings(frozen=False, max_steps=3, batch_size=4)
    windows = masked_windows(rows, EcgFeatureExtractor(**EXTRACTOR), stride=100)
    alone, selected = token_classifier(checkpoint, settings), token_classifier(checkpoint, settings)
    assert train_delineator(alone, windows, None, settings) == {}
    assert train_delineator(selected, windows, windows, settings)["best_step"] == 3
    weights = selected.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in alone.state_dict().items())


@pytest.fixture
def stairs():
    """A window of three leads whose signal is its own mask; the third lead is absent."""
    labels = torch.arange(60).div(7, rounding_mode="floor").remainder(2).expand(3, -1)
    shown = torch.tensor([True, True, False])
    return [{"input_values": labels.float() * shown[:, None], "lead_mask": shown, "labels": labels}]


def test_altered_windows_keep_signal_and_mask_together(stairs, monkeypatch):
    monkeypatch.setattr(training, "GAIN_STD", 0.0)
    monkeypatch.setattr(training, "MOST_NOISE", 0.0)
    altered = AlteredWindows(stairs, seed=0)
    drawn = [altered[0] for _ in range(100)]
    for item in drawn:
        values, labels = item["input_values"][item["lead_mask"]], item["labels"][item["lead_mask"]]
        inside = labels >= 0
        assert ((values - labels)[inside].abs() <= 0.5 + 1e-5).all()  # between two samples the nearer decides
        assert not values[~inside].any()
    assert any((item["labels"] < 0).any() for item in drawn)
    assert len({tuple(item["labels"][0].tolist()) for item in drawn}) > 90


def test_altered_windows_hide_some_leads_and_show_no_absent_one(stairs):
    altered = AlteredWindows(stairs, seed=0)
    drawn = [altered[0] for _ in range(200)]
    assert all(item["lead_mask"].any() and not item["lead_mask"][2] for item in drawn)
    assert all(not item["input_values"][~item["lead_mask"]].any() for item in drawn)
    hidden = sum(not item["lead_mask"][:2].all() for item in drawn) / len(drawn)
    assert 0.1 < hidden < 0.5  # half are of few leads, of these a third of one


def test_altered_windows_depend_on_the_seed_alone(stairs):
    state = torch.random.get_rng_state()
    first, again, other = (AlteredWindows(stairs, seed=seed) for seed in (0, 0, 1))
    for _ in range(3):
        a, b, c = (windows[0]["input_values"] for windows in (first, again, other))
        assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_training_on_altered_windows_moves_another_way(rows, checkpoint):
    windows, found = masked_windows(rows, EcgFeatureExtractor(**EXTRACTOR), stride=100), []
    for altered in (False, True, True):
        settings = DelineationSettings(frozen=False, max_steps=2, batch_size=4, altered=altered)
        found.append(token_classifier(checkpoint, settings))
        train_delineator(found[-1], windows, None, settings)
    plain, first, again = (model.token_classifier.weight for model in found)
    assert torch.equal(first, again) and not torch.equal(plain, first)


@pytest.mark.slow
def test_the_evaluation_writes_scores_of_both_encoders_and_their_waves(shared_data_dir, checkpoint, tmp_path):
    folder = tmp_path / "ludb"
    (folder / "data").mkdir(parents=True)
    shutil.copy(shared_data_dir / "ludb" / "ludb.csv", folder)
    for subject in range(1, 6):  # one of each fold
        for path in (shared_data_dir / "ludb" / "data").glob(f"{subject}.*"):
            shutil.copy(path, folder / "data")
    rows = load_ecg("ludb", data_dir=str(folder), split="all", decode=False)
    result = evaluate_delineation(checkpoint, rows, tmp_path / "out", num_folds=2, max_steps=2, num_resamples=20)
    assert json.loads((tmp_path / "out" / "delineation_linear.json").read_text()) == result
    judged = result["pretrained"]["delineation_linear"]
    assert judged["num_subjects"] == 2 and judged["num_rows"] == 6
    assert [(fold["test"], fold["validation"], fold["train"]) for fold in judged["details"]["folds"]] == [
        (1, 2, [3, 4, 5]),
        (2, 3, [1, 4, 5]),
    ]
    assert result["difference"]["delineation_linear"]["miou"]["difference"] == pytest.approx(
        judged["miou"] - result["random_encoder"]["delineation_linear"]["miou"]
    )
    waves = pq.read_table(tmp_path / "out" / "delineation_linear_waves.parquet")
    assert set(waves["record_id"].to_pylist()) <= {"1", "2"}


def test_windows_are_cut_at_any_stride_whatever_the_extractor_does():
    extractor = windows_of(EcgFeatureExtractor(**EXTRACTOR | {"long_records": "center"}), 60)
    assert extractor.window_starts(500) == [0, 60, 120, 180, 240, 300]
