import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from ecg_transformers.data import EcgRecord, load_ecg, read_recording
from ecg_transformers.modeling import EcgFeatureExtractor, EcgJepaConfig, EcgViTConfig, EcgViTForSequenceClassification
from ecg_transformers.modeling.feature_extraction_ecg import average_windows

LEADS = ("I", "II", "V1")
LABELS = ("NORM", "MI", "CD")
CALIBRATION = {"labels": list(LABELS), "temperature": 2.0, "thresholds": {"NORM": 0.2, "MI": 0.9}}


def save_classifier(folder, **settings):
    torch.manual_seed(0)
    config = EcgViTConfig(
        leads=LEADS,
        sampling_rate=100,
        num_samples=500,
        patch_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        id2label=dict(enumerate(LABELS)),
        label2id={name: number for number, name in enumerate(LABELS)},
        **{"problem_type": "multi_label_classification"} | settings,
    )
    model = EcgViTForSequenceClassification(config).eval()
    torch.nn.init.normal_(model.classifier.weight)  # scores that differ
    model.save_pretrained(folder)
    EcgFeatureExtractor(leads=LEADS, sampling_rate=100, num_samples=500, long_records="all").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def classify(folder):
    return pipeline("ecg-classification", model=folder, device="cpu")


@pytest.fixture(scope="module")
def rows():
    return load_ecg("ptb-xl-sample", split="test").select(range(3))


@pytest.fixture
def long_recording():
    signal = np.random.default_rng(0).normal(size=(4, 2600))  # 13 s: two windows of 5 s and one from the end
    return {"array": signal, "sampling_rate": 200, "leads": ["V1", "aVR", "II", "I"], "unit": "mV"}


def scores_of(found):
    return {row["label"]: row["score"] for row in found}


def logits_by_hand(folder, recording):
    return average_windows(logits_by_window(folder, recording), torch.zeros(3, dtype=torch.long))[0]


def logits_by_window(folder, recording):
    extractor = EcgFeatureExtractor.from_pretrained(folder, long_records="all")
    inputs = extractor(recording["array"], **{key: recording[key] for key in ("sampling_rate", "leads", "unit")})
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        logits = model(inputs["input_values"]).logits
    assert len(logits) == 3
    return logits


def test_scores_are_those_of_extractor_model_and_mean_over_windows(classify, folder, long_recording):
    found = classify(long_recording)
    expected = logits_by_hand(folder, long_recording).sigmoid()
    assert scores_of(found) == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-6)
    assert [row["score"] for row in found] == sorted((row["score"] for row in found), reverse=True)
    assert set(found[0]) == {"label", "score", "quality"}  # nothing is said of thresholds that there are none of
    assert "noise" in [finding["name"] for finding in found[0]["quality"]]  # it is noise


def test_features_are_the_mean_over_windows_and_tokens_are_those_of_each(folder, long_recording):
    extract = pipeline("ecg-feature-extraction", model=folder, device="cpu")
    features, tokens = extract(long_recording), extract(long_recording, return_tokens=True)
    assert features.shape == (16,) and tokens.shape == (3, 30, 16)
    np.testing.assert_allclose(features, tokens.mean(axis=(0, 1)), atol=1e-6)


def test_windows_are_told_apart_with_their_starts(classify, folder, long_recording):
    found = classify(long_recording, windows=True, top_k=2)
    assert [window["start_seconds"] for window in found] == [0.0, 5.0, 8.0]
    expected = logits_by_window(folder, long_recording).sigmoid()
    for window, scores in zip(found, expected, strict=True):
        assert len(window["scores"]) == 2
        assert [row["score"] for row in window["scores"]] == pytest.approx(sorted(scores.tolist())[:-3:-1], abs=1e-5)
    extract = pipeline("ecg-feature-extraction", model=folder, device="cpu")
    features = extract([long_recording], windows=True, batch_size=2)[0]
    assert [window["start_seconds"] for window in features] == [0.0, 5.0, 8.0]
    mean = np.mean([window["features"] for window in features], axis=0)
    np.testing.assert_allclose(mean, extract(long_recording), rtol=1e-4, atol=1e-5)
    center = classify(long_recording, windows=True, long_records="center")
    assert [window["start_seconds"] for window in center] == [4.0]


def test_one_window_where_asked(classify, folder, long_recording):
    extractor = EcgFeatureExtractor.from_pretrained(folder, long_records="center")
    fields = {key: long_recording[key] for key in ("sampling_rate", "leads", "unit")}
    inputs = extractor(long_recording["array"], **fields)
    with torch.no_grad():
        expected = classify.model(**inputs).logits[0].sigmoid()
    found = scores_of(classify(long_recording, long_records="center"))
    assert found == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-6)
    assert found != scores_of(classify(long_recording))


def test_a_recording_of_more_windows_than_one_pass_takes(classify, long_recording, monkeypatch):
    expected = scores_of(classify(long_recording))
    monkeypatch.setattr("ecg_transformers.modeling.pipeline_ecg.WINDOWS_PER_PASS", 2)
    assert scores_of(classify(long_recording)) == pytest.approx(expected)


def test_every_form_of_one_recording_gives_the_same(classify, rows):
    row = rows[0]
    ecg = row["ecg"]
    fields = {key: ecg[key] for key in ("leads", "sampling_rate", "unit")}
    forms = {
        "row": row,
        "stored row": load_ecg("ptb-xl-sample", split="test", decode=False)[0],
        "column": ecg,
        "array": {"array": ecg["signal"], **fields},
        "tensor": {"array": torch.tensor(ecg["signal"]), **fields},
        "record": EcgRecord(record_id="a", signal=np.asarray(ecg["signal"]), **fields),
    }
    expected = scores_of(classify(row))
    for form, recording in forms.items():
        assert scores_of(classify(recording)) == pytest.approx(expected, abs=1e-6), form


@pytest.mark.parametrize("batch_size", [1, 2])
def test_every_form_of_several_recordings_gives_the_same_in_order(classify, rows, long_recording, batch_size):
    expected = [scores_of(classify(row)) for row in rows]
    several = {
        "list": list(rows),
        "tuple": tuple(rows),
        "dataset": rows,
        "slice": rows[:3],
        "key": KeyDataset(rows, "ecg"),
        "generator": (row for row in rows),
        "stream": rows.to_iterable_dataset(),
    }
    for form, inputs in several.items():
        found = [scores_of(result) for result in classify(inputs, batch_size=batch_size)]
        assert len(found) == 3, form
        for result, truth in zip(found, expected, strict=True):
            assert result == pytest.approx(truth, abs=1e-6), form
    mixed = classify([long_recording, rows[0]], batch_size=2)  # different numbers of windows
    assert scores_of(mixed[0]) == pytest.approx(scores_of(classify(long_recording)), abs=1e-6)
    assert scores_of(mixed[1]) == pytest.approx(expected[0], abs=1e-6)
    assert classify([]) == []


def test_a_dataset_is_read_as_the_results_are_taken(classify, rows):
    results = classify(row if number < 2 else {"array": None} for number, row in enumerate(rows))
    assert len([next(results), next(results)]) == 2
    with pytest.raises(ValueError, match="Item 2"):
        next(results)


def test_a_path_is_read_where_the_package_is_installed(classify):
    header = Path(__file__).parents[1] / "fixtures" / "wfdb" / "ptb-xl" / "records100" / "00000" / "00001_lr.hea"
    for path in (str(header), header.with_suffix("")):
        assert scores_of(classify(path)) == pytest.approx(scores_of(classify(read_recording(header))), abs=1e-6)
    with pytest.raises(ValueError, match=r"Item 1 \(.*r2.hea\)"):
        classify([header, header.with_name("r2.hea")])


def test_top_k_and_other_functions(classify, folder, long_recording):
    assert [row["label"] for row in classify(long_recording, top_k=1)] == [classify(long_recording)[0]["label"]]
    logits = logits_by_hand(folder, long_recording)
    for name, values in {"none": logits, "softmax": logits.softmax(0)}.items():
        expected = dict(zip(LABELS, values.tolist(), strict=True))
        assert scores_of(classify(long_recording, function_to_apply=name)) == pytest.approx(expected, abs=1e-5)


def test_calibrated_scores_come_with_their_thresholds(tmp_path, long_recording):
    folder = save_classifier(tmp_path, calibration=CALIBRATION)
    calibrated = pipeline("ecg-classification", model=folder, device="cpu")
    found = calibrated(long_recording)
    logits = logits_by_hand(folder, long_recording)
    expected = dict(zip(LABELS, (logits / 2).sigmoid().tolist(), strict=True))
    assert scores_of(found) == pytest.approx(expected, abs=1e-6)
    above = {row["label"]: row["above_threshold"] for row in found}
    assert above == {"NORM": expected["NORM"] >= 0.2, "MI": expected["MI"] >= 0.9, "CD": None}
    raw = calibrated(long_recording, function_to_apply="none")
    assert scores_of(raw) == pytest.approx(dict(zip(LABELS, logits.tolist(), strict=True)), abs=1e-5)


def beats(num_leads=4, rate=200, seconds=13):
    """A QRS of about 1 mV and a T wave each second, of another size in each lead."""
    phase = np.arange(rate * seconds) / rate % 1
    beat = np.exp(-(((phase - 0.3) / 0.02) ** 2)) + 0.3 * np.exp(-(((phase - 0.6) / 0.05) ** 2))
    beat += 0.02 * np.sin(2 * np.pi * phase)  # no line is straight
    return np.outer(1 + 0.2 * np.arange(num_leads), beat)


@pytest.fixture
def clean_recording():
    array = beats()
    array[1] = -(array[2] + array[3]) / 2  # aVR of II and I
    return {"array": array, "sampling_rate": 200, "leads": ["V1", "aVR", "II", "I"], "unit": "mV"}


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    folder = save_classifier(tmp_path_factory.mktemp("calibrated"), calibration=CALIBRATION)
    return pipeline("ecg-classification", model=folder, device="cpu")


def names_of(found):
    return [finding["name"] for finding in found[0].get("quality", [])]


def test_a_clean_recording_has_no_word_on_its_quality(calibrated, clean_recording):
    for row in calibrated(clean_recording):
        assert set(row) == {"label", "score", "above_threshold"}


@pytest.mark.parametrize("level", [0.0, 1.7])
def test_a_flat_recording_is_above_no_threshold(calibrated, clean_recording, level):
    found = calibrated(clean_recording | {"array": np.full((4, 2600), level)})
    assert {row["above_threshold"] for row in found} == {None}
    assert {"no_signal", "flat_leads"} <= set(names_of(found))
    assert all(row["quality"] == found[0]["quality"] for row in found)


def test_a_flat_recording_says_so_where_a_model_has_no_thresholds(classify, clean_recording):
    found = classify(clean_recording | {"array": np.zeros((4, 2600))})
    assert {row["above_threshold"] for row in found} == {None} and "no_signal" in names_of(found)


def test_only_the_part_that_is_read_counts(calibrated, clean_recording):
    array = clean_recording["array"].copy()
    array[:, :1000] = 0  # of 13 s the first five
    found = calibrated(clean_recording | {"array": array}, long_records="first")
    assert "no_signal" in names_of(found)
    assert "no_signal" not in names_of(calibrated(clean_recording | {"array": array}, long_records="center"))


def test_a_flat_lead_that_is_not_read_does_not_matter(calibrated, clean_recording):
    array = np.vstack([clean_recording["array"], np.zeros(2600)])
    more = clean_recording | {"array": array, "leads": [*clean_recording["leads"], "V6"]}
    assert names_of(calibrated(more)) == []


@pytest.mark.parametrize("factor", [1000, 0.001])
def test_a_wrong_unit_is_above_no_threshold(calibrated, clean_recording, factor):
    found = calibrated(clean_recording | {"array": clean_recording["array"] * factor})
    assert {row["above_threshold"] for row in found} == {None} and "unit" in names_of(found)


def test_a_wrong_unit_does_not_matter_where_amplitudes_do_not_count(calibrated, clean_recording):
    extractor = EcgFeatureExtractor(**calibrated.feature_extractor.to_dict() | {"normalization": "lead"})
    of_shapes = pipeline("ecg-classification", model=calibrated.model, feature_extractor=extractor)
    found = of_shapes(clean_recording | {"array": clean_recording["array"] * 1000})
    assert None not in {row["above_threshold"] for row in found if row["label"] != "CD"}
    assert "unit" in names_of(found)


def uncalibrated(calibrated, recording, **settings):
    """The sigmoid of the logits, by hand."""
    extractor = calibrated.feature_extractor.changed(**settings)
    inputs = extractor(recording["array"], **{key: value for key, value in recording.items() if key != "array"})
    kept = {key: inputs[key] for key in ("input_values", "lead_mask") if key in inputs}
    with torch.no_grad():
        logits = calibrated.model(**kept).logits.mean(0)
    return dict(zip(LABELS, logits.sigmoid().tolist(), strict=True))


def test_calibration_is_off_with_masked_leads_and_the_result_says_so(calibrated, clean_recording):
    some = clean_recording | {"array": clean_recording["array"][2:], "leads": ["II", "I"]}
    found = calibrated(some, missing_leads="mask")
    assert names_of(found) == ["missing_leads", "not_calibrated"]
    assert found[0]["quality"][0]["leads"] == ["V1"]
    assert {row["above_threshold"] for row in found} == {None}
    assert scores_of(found) == pytest.approx(uncalibrated(calibrated, some, missing_leads="mask"), abs=1e-6)


def test_calibration_is_off_for_other_windows(calibrated, clean_recording):
    found = calibrated(clean_recording, long_records="center")
    assert names_of(found) == ["not_calibrated"]
    assert scores_of(found) == pytest.approx(
        uncalibrated(calibrated, clean_recording, long_records="center"), abs=1e-6
    )
    one_window = clean_recording | {"array": clean_recording["array"][:, :1000]}
    assert names_of(calibrated(one_window, long_records="center")) == []  # there is only one


def test_calibration_is_off_for_a_padded_recording(calibrated, clean_recording):
    found = calibrated(clean_recording | {"array": clean_recording["array"][:, :900]}, short_records="zero_pad")
    assert names_of(found) == ["not_calibrated"] and {row["above_threshold"] for row in found} == {None}


def test_calibration_is_off_for_another_electrode_placement(calibrated, clean_recording):
    extractor = EcgFeatureExtractor(**calibrated.feature_extractor.to_dict() | {"electrode_placement": "any"})
    tolerant = pipeline("ecg-classification", model=calibrated.model, feature_extractor=extractor)
    assert names_of(tolerant(clean_recording)) == []
    found = tolerant(clean_recording | {"electrode_placement": "mason_likar"})
    assert names_of(found) == ["electrode_placement", "not_calibrated"]
    assert {row["above_threshold"] for row in found} == {None}


def test_a_calibration_measured_on_these_leads_counts(tmp_path, clean_recording):
    subset = {"leads": ["II", "I"], "temperature": 3.0, "thresholds": {"NORM": 0.0}}
    folder = save_classifier(tmp_path, calibration=CALIBRATION | {"subsets": [subset]})
    calibrated = pipeline("ecg-classification", model=folder, device="cpu")
    some = clean_recording | {"array": clean_recording["array"][2:], "leads": ["II", "I"]}
    found = calibrated(some, missing_leads="mask")
    raw = uncalibrated(calibrated, some, missing_leads="mask")
    expected = {label: 1 / (1 + (1 / score - 1) ** (1 / 3)) for label, score in raw.items()}
    assert scores_of(found) == pytest.approx(expected, abs=1e-6)
    assert {row["label"]: row["above_threshold"] for row in found} == {"NORM": True, "MI": None, "CD": None}
    assert names_of(found) == ["missing_leads"]


def test_quality_goes_with_its_recording_in_a_batch(calibrated, clean_recording):
    flat = clean_recording | {"array": np.zeros((4, 2600))}
    found = calibrated([clean_recording, flat, clean_recording], batch_size=2)
    assert [bool(names_of(of)) for of in found] == [False, True, False]


def test_what_a_file_does_not_say_is_given_in_the_call(calibrated, clean_recording, tmp_path):
    np.save(tmp_path / "r.npy", clean_recording["array"])
    with pytest.raises(ValueError, match="sampling_rate"):
        calibrated(tmp_path / "r.npy")
    declared = {key: clean_recording[key] for key in ("sampling_rate", "leads", "unit")}
    found = calibrated(tmp_path / "r.npy", axes="lead,sample", **declared)
    assert scores_of(found) == pytest.approx(scores_of(calibrated(clean_recording)), abs=1e-6)
    assert scores_of(calibrated(clean_recording["array"], **declared)) == scores_of(found)


def test_a_calibration_of_other_labels_is_not_applied(tmp_path, long_recording):
    folder = save_classifier(tmp_path, calibration=CALIBRATION | {"labels": [*LABELS, "STTC"]})
    found = pipeline("ecg-classification", model=folder, device="cpu")(long_recording)
    expected = dict(zip(LABELS, logits_by_hand(folder, long_recording).sigmoid().tolist(), strict=True))
    assert scores_of(found) == pytest.approx(expected, abs=1e-6)
    assert "above_threshold" not in found[0]


def test_one_label_a_record_uses_the_softmax_and_a_regression_the_values(tmp_path, long_recording):
    of_one = save_classifier(tmp_path / "one", problem_type="single_label_classification")
    found = pipeline("ecg-classification", model=of_one, device="cpu")(long_recording)
    assert sum(row["score"] for row in found) == pytest.approx(1)
    of_values = save_classifier(tmp_path / "values", problem_type="regression")
    found = pipeline("ecg-classification", model=of_values, device="cpu")(long_recording)
    assert [row["label"] for row in found] == list(LABELS)  # the order of the targets
    values = logits_by_hand(of_values, long_recording).tolist()
    assert [row["score"] for row in found] == pytest.approx(values, abs=1e-5)


def test_a_model_that_does_not_say_what_its_labels_are_is_asked_for_it(tmp_path, long_recording):
    folder = save_classifier(tmp_path, problem_type=None)
    with pytest.raises(ValueError, match="problem_type"):
        pipeline("ecg-classification", model=folder, device="cpu")(long_recording)


def test_an_encoder_without_a_classifier_is_refused(tmp_path, folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder).ecg_vit
    model.save_pretrained(tmp_path)
    EcgFeatureExtractor.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no trained classifier"):
        pipeline("ecg-classification", model=str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sampling_rate": None}, "sampling_rate"),
        ({"unit": None}, "unit"),
        ({"leads": ["I", "II", "V2", "V3"]}, "lacks"),
        ({"array": np.zeros((4, 900))}, "lasts 4.5 s"),
        ({"array": np.zeros((2, 4, 2000))}, "several recordings"),
        ({"unt": "mV"}, "unt"),
        ({"array": np.zeros((4, 2600), dtype=int)}, "gain"),
        ({"array": np.zeros((4, 2600), dtype=complex)}, "complex128"),
        ({"array": None}, "Expected floats"),
        ({"leads": [0, 1, 2, 3]}, "names of leads"),
        ({"sampling_rate": float("nan")}, "sampling rate in Hz"),
    ],
)
def test_a_bad_recording_in_a_list_is_named(classify, long_recording, change, sentence):
    bad = long_recording | {"record_id": "r17"} | change
    with pytest.raises(ValueError, match=sentence) as caught:
        classify([long_recording, bad], batch_size=2)
    assert "Item 1 (r17)" in str(caught.value)


def test_a_bad_recording_in_a_worker_is_told_without_its_trace_back(classify, long_recording):
    with pytest.raises(ValueError, match="^Item 1: .*unit"):
        classify([long_recording, long_recording | {"unit": None}], num_workers=1)


@pytest.mark.parametrize("kind", [np.float16, np.float32, torch.float16, torch.bfloat16, list, "numbers"])
def test_every_kind_of_numbers_is_read(classify, long_recording, kind):
    signal = long_recording["array"]
    if kind is list:
        array = signal.tolist()
    elif kind == "numbers":  # of a converter
        array = (signal * 1000).round().astype(np.int16)
        long_recording |= {"unit": "adc", "gain": 0.001}
    else:
        array = torch.tensor(signal, dtype=kind) if isinstance(kind, torch.dtype) else signal.astype(kind)
    found = scores_of(classify(long_recording | {"array": array}))
    assert found == pytest.approx(
        scores_of(classify(long_recording | {"array": signal, "unit": "mV", "gain": None})), abs=0.02
    )


def test_sets_and_views_of_recordings_are_several(classify, long_recording):
    expected = [classify(long_recording)]
    assert classify({"a": long_recording}.values()) == expected
    with pytest.raises(ValueError, match="Item 0"):
        classify({1})


@pytest.mark.parametrize("bad", [np.zeros((4, 2600)), torch.zeros(4, 2600), {"signals": 1}, 7, None, b"abc"])
def test_what_does_not_say_what_it_holds_is_refused(classify, bad):
    with pytest.raises(ValueError, match="'sampling_rate': Hz"):
        classify(bad)


def test_unknown_settings_are_refused(classify, long_recording):
    counts = [{"top_k": value} for value in (0, "3", 2.0, True)]
    for settings in ({"windows": 3}, {"topk": 1}, {"function_to_apply": "tanh"}, {"long_records": "last"}, *counts):
        with pytest.raises(ValueError, match=next(iter(settings))):
            classify(long_recording, **settings)
    with pytest.raises(ValueError, match=r"Pass leads .*, unit"):
        classify(long_recording["array"], sampling_rate=200)
    with pytest.raises(ValueError, match="in the call. Leave them out"):
        classify(long_recording, sampling_rate=200)
    assert len(classify(long_recording, top_k=np.int64(2))) == 2
    extract = pipeline("ecg-feature-extraction", model=classify.model, feature_extractor=classify.feature_extractor)
    with pytest.raises(ValueError, match="return_tokens to be True or False"):
        extract(long_recording, return_tokens="yes")


def test_the_configuration_names_the_pipelines_only_where_their_code_lies(folder):
    stored = json.loads((Path(folder) / "config.json").read_text())
    assert stored["custom_pipelines"]["ecg-classification"]["impl"] == "pipeline_ecg.EcgClassificationPipeline"
    assert "custom_pipelines" not in EcgJepaConfig().to_dict()
    # Otherwise `pipeline` would ask for trust although the package is installed.
    assert "custom_pipelines" not in vars(AutoConfig.from_pretrained(folder))


WITHOUT_THE_PACKAGE = """
import json
import sys
sys.modules["ecg_transformers"] = None  # importing the package fails, as if it were not installed
import numpy as np
import torch
from transformers import pipeline
folder, again = sys.argv[1:]
torch.set_num_threads(1)
kwargs = {"model": folder, "trust_remote_code": True, "device": "cpu"}
classify, extract = pipeline("ecg-classification", **kwargs), pipeline("ecg-feature-extraction", **kwargs)
assert type(classify).__module__.startswith("transformers_modules."), type(classify).__module__
signal = np.sin(np.arange(3000).reshape(3, 1000) / 20)
recording = {"array": signal, "sampling_rate": 100, "leads": ["II", "I", "V1"], "unit": "mV"}
print(json.dumps(classify(recording)))
print(float(extract([recording, recording], batch_size=2)[1].sum()))
try:
    classify("some.hea")
except ValueError as error:
    print(error)
classify.save_pretrained(again)  # what was loaded as remote code ships its code too
print(json.dumps(pipeline("ecg-classification", model=again, trust_remote_code=True, device="cpu")(recording)))
"""


@pytest.mark.slow
def test_a_folder_brings_its_pipelines_along_where_the_package_is_not_installed(tmp_path):
    folder = save_classifier(tmp_path / "model", calibration=CALIBRATION)
    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE, folder, str(tmp_path / "again")]
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert finished.returncode == 0, finished.stderr[-3000:]
    scores, feature_sum, sentence, again = finished.stdout.splitlines()
    signal = np.sin(np.arange(3000).reshape(3, 1000) / 20)
    recording = {"array": signal, "sampling_rate": 100, "leads": ["II", "I", "V1"], "unit": "mV"}
    expected = pipeline("ecg-classification", model=folder, device="cpu")(recording)
    features = pipeline("ecg-feature-extraction", model=folder, device="cpu")(recording)
    for found in (json.loads(scores), json.loads(again)):
        assert scores_of(found) == pytest.approx(scores_of(expected), abs=1e-5)
        assert [row["above_threshold"] for row in found] == [row["above_threshold"] for row in expected]
    assert float(feature_sum) == pytest.approx(features.sum(), abs=1e-4)
    assert "needs the package ecg-transformers, installed from its source" in sentence
