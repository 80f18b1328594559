import base64
import io
import logging
import re

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from ecg_transformers.data import EcgRecord, load_ecg
from ecg_transformers.hub import space_page
from ecg_transformers.hub.space_model import NeighbourIndex, SpaceModel, sample_rows
from ecg_transformers.hub.space_page import Shown, SpacePage
from ecg_transformers.modeling import EcgViTModel
from ecg_transformers.train.features import EmbeddingTable

from .space_inputs import CLASSES, drawn_model, millivolts

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
CALIBRATION = {"labels": CLASSES, "temperature": 1.5, "thresholds": {"NORM": 0.25, "MI": 0.99}}


@pytest.fixture(scope="module")
def index():
    rows = load_ecg("ptb-xl-sample", split="train", decode=False).select_columns(["record_id", "labels"])[:40]
    features = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    return NeighbourIndex(EmbeddingTable(features, rows["record_id"], [None] * 40, rows["labels"], [None] * 40))


@pytest.fixture(scope="module")
def page(index):
    return SpacePage(SpaceModel(*drawn_model(calibration=CALIBRATION)), index)


@pytest.fixture(scope="module")
def shown(page):
    return page.open_sample(next(iter(page.samples)))


def recording(signal=None, leads=LEADS, sampling_rate=100):
    return EcgRecord("recording", millivolts() if signal is None else signal, leads, sampling_rate)


def pictures(html):
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("L")) for content in found]


def test_samples_are_of_the_test_fold_and_always_the_same():
    rows = sample_rows()
    assert [row["record_id"] for row in rows] == ["00009", "00065", "00063", "00116", "00162"]
    assert {row["fold"] for row in rows} == {10}
    assert [row["labels"] for row in rows[:4]] == [["NORM"], ["CD"], ["MI"], ["STTC"]] and len(rows[4]["labels"]) > 1


def test_bars_show_the_scores_of_the_pipeline_and_say_how_they_are_calibrated(page, shown):
    classify = pipeline("ecg-classification", model=page.model.model, feature_extractor=page.model.feature_extractor)
    expected = classify(load_ecg("ptb-xl-sample", split="test")[0])
    html, best = page.scores(shown)
    assert "ecg-error" not in html  # which a clean recording does not get
    assert re.findall(r'class="number">([\d.]+%)', html) == [f"{row['score']:.1%}" for row in expected]
    assert re.findall(r'class="label">(\w+)', html) == [row["label"] for row in expected]
    assert best == expected[0]["label"] and "temperature 1.50" in html
    above = {row["label"]: row["above_threshold"] for row in expected}
    assert above["NORM"] is True and above["MI"] is False
    assert html.count('class="below"') == 1 and 'style="left: 25.00%"' in html


def test_scores_without_calibration_are_not_called_calibrated():
    html = space_page.scores_html([{"label": "MI", "score": 0.5}], "single_label_classification", None, "x")
    assert "Not calibrated" in html and "temperature" not in html and "threshold" not in html


def test_a_flat_recording_has_a_red_box_above_pale_bars(page):
    html, _ = page.scores(Shown(recording(np.zeros((12, 1000), np.float32)), False, "flat"))
    assert html.index("ecg-error") < html.index("ecg-scores") and "There is no signal" in html
    assert 'class="above"' not in html and 'class="ecg-bar"' in html and "<i " not in html
    assert "Calibrated by" not in html


def test_scores_with_masked_leads_are_not_called_calibrated(page):
    html, _ = page.scores(Shown(recording(millivolts()[:2], LEADS[:2]), True, "two leads"))
    assert "Not recorded, the model does without: V1" in html and "Not calibrated" in html
    assert 'class="above"' not in html


def test_an_encoder_says_what_was_found_below_the_trace(index):
    page = SpacePage(SpaceModel(*drawn_model(EcgViTModel)), index)
    assert "There is no signal" in page.trace(Shown(recording(np.zeros((12, 1000), np.float32)), False, "flat"))


def test_a_regression_shows_values_and_no_bars():
    html = space_page.scores_html([{"label": "age_years", "score": 61.234}], "regression", None, "x")
    assert ">61.2<" in html and "age_years" in html and "%" not in html and "ecg-bar" not in html


@pytest.mark.slow
def test_an_encoder_has_a_trace_a_map_and_neighbours_but_no_scores(index, shown):
    page = SpacePage(SpaceModel(*drawn_model(EcgViTModel)), index)
    assert page.scores(shown) == ("", None) and page.model.classes == []
    assert page.model.explain(shown.record, "integrated_gradients").target == "the length of the feature"
    assert len(page.neighbours.nearest(page.model.features(shown.record))) == 4


def test_the_trace_has_ink_and_says_what_the_model_reads(page, shown):
    html = page.trace(shown)
    (picture,) = pictures(html)
    assert (picture < 60).sum() > 3000 and picture.shape[1] > 1000
    assert "12 leads, 10 s at 100 Hz." in html and "2 windows of 5 s" in html
    assert "Not read by the model: III, aVR, aVL, aVF, V3, V4, V6." in html


@pytest.mark.slow
def test_maps_of_two_classes_and_two_methods_differ(page, shown):
    chosen = [("integrated_gradients", "NORM"), ("integrated_gradients", "MI"), ("attention_rollout", "NORM")]
    maps = [page.model.explain(shown.record, *choice) for choice in chosen]
    assert [found.target for found in maps] == ["the output NORM", "the output MI", None]
    first, second, third = (np.nan_to_num(found.values) for found in maps)
    assert not np.allclose(first, second) and not np.allclose(first, third)


def test_neighbours_are_those_of_a_slow_search(page, shown, index):
    feature = page.model.features(shown.record).astype(np.float64)
    table = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32).astype(np.float64)
    mean, std = table.mean(axis=0), table.std(axis=0)
    ours = (feature - mean) / std
    distances = []
    for row in table:
        other = (row - mean) / std
        distances.append(1 - float(ours @ other) / np.sqrt(float(ours @ ours) * float(other @ other)))
    found = index.nearest(page.model.features(shown.record))
    assert [distance for _, distance in found] == pytest.approx(sorted(distances)[:4])
    nearest = index.places[int(np.argmin(distances))]
    row, distance = found[0]
    assert row["record_id"] == index.carried["record_id"][nearest]
    html = page.nearest(shown)
    assert len(pictures(html)) == 4 and f"PTB-XL {row['record_id']}" in html and f"distance {distance:.2f}" in html


def test_an_index_of_another_model_is_refused(index):
    with pytest.raises(ValueError, match="that of another model"):
        index.nearest(np.zeros(5, dtype=np.float32))


def test_missing_leads_are_masked_by_name_only_where_somebody_says_so(page):
    record = recording(millivolts()[[1, 0]], ["II", "I"])
    with pytest.raises(ValueError, match="lacks .'V1', 'V2', 'V5'.*tick “Go on without"):
        page.model.check(record, mask_missing_leads=False)
    assert page.model.check(record, mask_missing_leads=True)[:1] == ["2 leads, 10 s at 100 Hz."]
    extractor = page.model.feature_extractor
    assert extractor.missing_leads == "raise"
    scores = page.model.scores(record, mask_missing_leads=True)
    zeros = recording(np.concatenate([millivolts()[[0, 1]], np.zeros((3, 1000))]), ["I", "II", "V1", "V2", "V5"])
    assert scores != page.model.scores(zeros)  # absent is not flat
    assert page.model.explain(record, "integrated_gradients", "MI", mask_missing_leads=True).leads == ("I", "II")


def test_another_rate_order_and_length_follow_the_feature_extractor(page):
    signal = np.repeat(millivolts(), 3, axis=1)
    notes = page.model.check(recording(signal, sampling_rate=200), mask_missing_leads=False)
    assert notes[:3] == [
        "12 leads, 15 s at 200 Hz.",
        "Resampled to 100 Hz for the model.",
        "The model reads 3 windows of 5 s; their mean counts.",
    ]
    assert "Drawn: the first 10 s." in page.trace(Shown(recording(signal, sampling_rate=200), False, "x"))
    turned = recording(millivolts()[::-1].copy(), LEADS[::-1])
    assert page.model.scores(turned) == page.model.scores(recording())
    assert "1000 times too large" in page.scores(Shown(recording(millivolts() * 1e3), False, "x"))[0]


def test_an_unexpected_error_is_a_plain_sentence_and_its_message_stays_out_of_the_log(page, shown, caplog):
    def fail(_):
        raise RuntimeError("Jane Roe, born 1950")

    with caplog.at_level(logging.DEBUG):
        found, message = page.guarded(fail, shown)
    assert found is None and space_page.FAILED in message
    (entry,) = caplog.records
    assert "RuntimeError" in entry.getMessage() and "Jane" not in caplog.text
    assert page.piece(fail, None) == "" and space_page.FAILED in page.piece(fail, shown)


def test_sentences_labels_and_findings_are_escaped_and_cut(page):
    _, message = page.guarded(page.open_upload, [], False, None)
    assert message.startswith('<div class="ecg-error" role="alert">Choose a file first')
    hostile = "<img src=x onerror=alert(1)>"
    html = space_page.message_html(hostile + "I, " * 10**6)
    assert "<img" not in html and len(html) < 600 and html.endswith("…</div>")
    html = space_page.quality_html([{"name": "unit", "leads": [], "sentence": hostile + "a" * 10_000}])
    assert "<img" not in html and len(html) < 1000
    scores = [{"label": hostile, "score": 0.5}]
    assert "<img" not in space_page.scores_html(scores, "multi_label_classification", None, "<b>")


def test_names_that_look_like_formulas_are_drawn_as_they_are(page):
    leads = ["I", "II", "V1", "V2", "V5", "$\\frac$"]
    odd = Shown(recording(millivolts()[:6], leads), False, "$\\frac$")
    assert pictures(page.trace(odd))
    assert pictures(page.explanation(odd, "Attention rollout", None))


def test_reading_an_upload_does_not_wait_for_the_model(page, index):
    other = SpacePage(page.model, index, read=lambda paths, declared: recording())
    with other.lock:
        found, message = other.guarded(other.open_upload, [], False, None)
    assert message == "" and found.record.record_id == "recording"
