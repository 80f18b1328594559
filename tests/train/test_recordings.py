"""`encode`, `predict`, and the commands `embed` and `classify` on files."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
import wfdb
from transformers import pipeline

from ecg_transformers import carried_model, encode, load_ecg, predict, read_recording
from ecg_transformers.train import inference, recordings
from ecg_transformers.train.cli import main
from ecg_transformers.train.features import EmbeddingTable
from ecg_transformers.train.inference import outputs_of
from ecg_transformers.train.recordings import Recordings

RATE = 100
CLASSIFIER = "ecg-small-superdiagnostic"


@pytest.fixture(scope="module")
def rows():
    return [load_ecg("ptb-xl-sample", split="test")[number] for number in range(4)]


@pytest.fixture(scope="module")
def folder(rows, tmp_path_factory):
    """Two tables of samples, one below, one that is no recording though it looks like one, labels and a note."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "ward").mkdir()
    for name, row in zip(("a.csv", "ward/b.csv"), rows, strict=False):
        ecg = row["ecg"]
        np.savetxt(
            folder / name, ecg["signal"].T, delimiter=",", header=",".join(ecg["leads"]), comments="", fmt="%.6f"
        )
    (folder / "short.csv").write_text("I,II\n0.1,0.2\n0.2,0.1\n0.3,0.1\n")
    (folder / "labels.csv").write_text("path,label\na.csv,NORM\nward/b.csv,MI\n")
    (folder / "LICENSE").write_text("Free for all.")
    return folder


def test_encode_of_rows_is_what_the_pipeline_gives_for_each(rows):
    extract = pipeline("ecg-feature-extraction", model=carried_model("ecg-small"), device="cpu")
    features = encode(rows, progress=False, batch_size=3)
    assert features.flags.writeable and features.flags.c_contiguous
    assert features.shape == (4, 448) and features.dtype == np.float32
    np.testing.assert_allclose(features, np.stack(extract(rows)), rtol=1e-4, atol=1e-5)


def test_predict_of_rows_is_what_the_pipeline_gives_for_each(rows):
    scores = predict(rows, progress=False, batch_size=3)
    found = pipeline("ecg-classification", model=carried_model(CLASSIFIER), device="cpu")(rows)
    assert list(scores.index) == [row["record_id"] for row in rows]
    for of_record, (_, line) in zip(found, scores.iterrows(), strict=True):
        for one in of_record:
            assert line[one["label"]] == pytest.approx(one["score"], abs=1e-5)
        above = {one["label"] for one in of_record if one["above_threshold"]}
        assert set(filter(None, line["above_threshold"].split(", "))) == above
        assert line["threshold_MI"] == pytest.approx(0.21288294645817815)


@pytest.mark.parametrize("form", ["arrays", "stack", "dictionaries", "records", "slice", "stream", "generator"])
def test_every_form_of_a_recording_has_the_same_features(rows, form, folder):
    dataset = load_ecg("ptb-xl-sample", split="test")
    arrays = [row["ecg"]["signal"] for row in rows]
    stated = {"sampling_rate": RATE, "leads": rows[0]["ecg"]["leads"], "unit": "mV"}
    record = read_recording(folder / "a.csv", sampling_rate=RATE, unit="mV")
    forms = {
        "arrays": (arrays, stated),
        "stack": (np.stack(arrays), stated),
        "dictionaries": ([{"array": array, **stated} for array in arrays], {}),
        "records": ([record], {}),
        "slice": (dataset[:4], {}),
        "stream": (load_ecg("ptb-xl-sample", split="test", streaming=True).take(4), {}),
        "generator": ((row for row in rows), {}),
    }
    given, stated = forms[form]
    found = encode(given, progress=False, **stated)
    np.testing.assert_allclose(found, encode(rows[: len(found)], progress=False), rtol=1e-3, atol=1e-4)
    assert len(found) == (1 if form == "records" else 4)


def test_a_folder_is_all_its_recordings_and_says_which_could_not_be_read(folder, rows):
    scores = predict(folder, sampling_rate=RATE, unit="mV", progress=False)
    assert list(scores.index) == ["a.csv", "short.csv", "ward/b.csv"]
    assert "Not read:" in scores.loc["short.csv", "warnings"] and "Record 0" not in scores.loc["short.csv", "warnings"]
    assert scores.loc["short.csv", ["MI", "NORM", "threshold_MI"]].isna().all()
    expected = predict(rows[:2], progress=False)
    np.testing.assert_allclose(scores.loc[["a.csv", "ward/b.csv"], "MI"], expected["MI"], atol=1e-3)


def test_a_recording_that_cannot_be_read_keeps_its_place(folder, rows):
    files = [folder / "short.csv", folder / "a.csv"]
    stated = {"sampling_rate": RATE, "unit": "mV", "progress": False}
    features = encode(files, **stated)
    assert np.isnan(features[0]).all() and np.isfinite(features[1]).all()
    frame = encode(files, as_frame=True, **stated)
    assert list(frame.index) == [str(file) for file in files]
    assert frame["quality"].iloc[0].startswith("Not read:") and frame["quality"].iloc[1] == ""
    np.testing.assert_array_equal(frame.filter(like="feature_").to_numpy(), features)


def test_windows_are_rows_with_their_start(rows):
    ecg = rows[0]["ecg"] | {"signal": np.tile(rows[0]["ecg"]["signal"], 3)[:, :2500]}
    frame = encode([{"record_id": "long", "ecg": ecg}, rows[1]], as_frame=True, windows=True, progress=False)
    assert list(frame.index) == ["long"] * 3 + [rows[1]["record_id"]]
    assert list(frame["start_seconds"]) == [0.0, 10.0, 15.0, 0.0]
    whole = encode({"record_id": "long", "ecg": ecg}, progress=False)[0]
    np.testing.assert_allclose(frame.filter(like="feature_").iloc[:3].mean(), whole, rtol=1e-4, atol=1e-5)


def test_a_long_recording_goes_through_the_model_in_parts():
    sizes, windows = [], torch.arange(7.0)

    def model(input_values):
        sizes.append(len(input_values))
        return {"logits": 2 * input_values}

    assert torch.equal(outputs_of(model, {"input_values": windows}, "logits", 3), 2 * windows)
    assert sizes == [3, 3, 1]


def test_a_day_of_ecg_is_a_batch_of_its_own(rows, monkeypatch):
    monkeypatch.setattr(inference, "MOST_VALUES", 25_000)
    sizes = []
    input_batches = inference.input_batches

    def counted(*args):
        for batch in input_batches(*args):
            sizes.append(len(batch.rows))
            yield batch

    monkeypatch.setattr(recordings, "input_batches", counted)
    predict(rows, progress=False)  # 12,000 values each
    assert sizes == [3, 1]


def test_a_flat_recording_has_no_label_and_a_warning(rows):
    flat = {"array": np.zeros((12, 1000)), "sampling_rate": RATE, "leads": rows[0]["ecg"]["leads"], "unit": "mV"}
    scores = predict([flat, rows[0]], progress=False)
    assert "There is no signal" in scores["warnings"].iloc[0] and pd.isna(scores["above_threshold"].iloc[0])
    assert pd.isna(scores["threshold_MI"].iloc[0]) and not pd.isna(scores["threshold_MI"].iloc[1])
    assert list(scores.index) == ["0", rows[0]["record_id"]]


def test_thresholds_are_those_of_the_leads_that_there_are(rows):
    signal, leads = rows[0]["ecg"]["signal"], list(rows[0]["ecg"]["leads"])
    lead_ii = {"array": signal[[leads.index("II")]], "sampling_rate": RATE, "leads": ["II"], "unit": "mV"}
    assert predict(lead_ii, progress=False)["threshold_MI"].iloc[0] == pytest.approx(0.2386871755815721)


def test_the_same_name_twice_is_told_apart(folder):
    source = Recordings([folder / "a.csv"] * 2, {"sampling_rate": RATE, "unit": "mV"})
    assert [row["record_id"] for row in source] == [f"{folder}/a.csv", f"{folder}/a.csv (2)"]


def test_several_recordings_of_a_file_are_numbered(rows, tmp_path):
    np.save(tmp_path / "stack.npy", np.stack([row["ecg"]["signal"] for row in rows[:2]]))
    stated = {"sampling_rate": RATE, "unit": "mV", "leads": rows[0]["ecg"]["leads"], "axes": "record,lead,sample"}
    assert list(predict(tmp_path, progress=False, **stated).index) == ["stack.npy-0", "stack.npy-1"]


@pytest.mark.parametrize(
    "given, stated, message",
    [
        ("nosuch.csv", {}, "There is no file or folder nosuch.csv"),
        (["nosuch.hea"], {}, "There is no file or folder nosuch.hea"),
        ([], {}, "at least one recording"),
        (3, {}, "Expected recordings, files or a folder, got int"),
        (np.zeros((12, 1000)), {}, "Arrays do not say what they hold"),
        (np.zeros((12, 1000)), {"sampling_hz": 5}, r"Unknown arguments \['sampling_hz'\]"),
        (np.zeros((12, 1000)), {"model": "no/where/at/all"}, "There is no folder no/where/at/all"),
    ],
)
def test_what_cannot_work_is_said_at_once(given, stated, message):
    with pytest.raises(ValueError, match=message):
        predict(given, progress=False, **stated)


def test_a_folder_without_recordings_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here\n")
    with pytest.raises(ValueError, match="holds no recordings; `ecg-transformers info"):
        encode(tmp_path)


def test_an_encoder_is_no_classifier(rows):
    with pytest.raises(ValueError, match="no trained classifier"):
        predict(rows, model="ecg-small", progress=False)


def test_classify_writes_the_table_of_predict(folder, tmp_path, capsys):
    output = tmp_path / "scores.csv"
    command = ["classify", str(folder), "--sampling_rate", "100", "--unit", "mV", "--output"]
    assert main([*command, str(output)]) == 0
    scores = pd.read_csv(output, index_col="record_id")
    expected = predict(folder, sampling_rate=RATE, unit="mV", progress=False)
    pd.testing.assert_frame_equal(scores[["MI", "NORM"]], expected[["MI", "NORM"]], atol=6e-5)
    assert "3 recordings, 1 with warnings" in capsys.readouterr().err
    assert main([*command, str(output)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "scores.parquet")]) == 0
    table = pd.read_parquet(tmp_path / "scores.parquet")
    cures = [expected.pop("warnings")["short.csv"], table.pop("warnings")["short.csv"]]
    pd.testing.assert_frame_equal(table, expected, check_exact=False)
    assert [re.search(r"\S*short_records\S* ?\w*", cure)[0] for cure in cures] == [
        "short_records='zero_pad'.",
        "--short_records zero_pad",
    ]


def test_classify_prints_the_table_without_an_output(folder, capsys):
    assert main(["classify", str(folder / "a.csv"), "--sampling_rate", "100", "--unit", "mV"]) == 0
    assert capsys.readouterr().out.startswith("record_id,CD,HYP,MI,NORM,STTC,above_threshold,threshold_CD,")


def test_what_a_file_does_not_say_is_asked_for_as_a_flag(folder, capsys):
    assert main(["classify", str(folder / "a.csv")]) == 1
    error = capsys.readouterr().err
    assert "--sampling_rate" in error and "--unit" in error


def test_embed_takes_files(folder, tmp_path):
    command = ["embed", str(folder), "--sampling_rate", "100", "--unit", "mV", "--output_dir", str(tmp_path)]
    assert main(command) == 0
    table = EmbeddingTable.load(tmp_path / "embeddings.parquet")
    assert table.record_ids == ["a.csv", "ward/b.csv"]
    expected = encode(folder, sampling_rate=RATE, unit="mV", progress=False)
    np.testing.assert_array_equal(table.features, expected[[0, 2]])


def test_global_generators_are_left_as_they_are(rows):
    before = torch.random.get_rng_state()
    encode(rows[:1], progress=False)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.fixture
def holter_folder(tmp_path):
    """One channel `MLII` a record, with labels and splits."""
    folder, lines = tmp_path / "holter", ["path,patient_id,split,labels"]
    folder.mkdir()
    names = ["train"] * 16 + ["validation"] * 8 + ["test"] * 8
    rows = load_ecg("ptb-xl-sample", split="all").select(range(len(names)))
    for number, (row, split) in enumerate(zip(rows, names, strict=True)):
        signal = row["ecg"]["signal"][[list(row["ecg"]["leads"]).index("II")]].T.astype(float)
        wfdb.wrsamp(f"r{number:02d}", 100, ["mV"], ["MLII"], signal, fmt=["16"], write_dir=str(folder))
        lines.append(f"r{number:02d}.hea,p{number},{split},{'NORM' if number % 2 else 'OTHER'}")
    (folder / "records.csv").write_text("\n".join(lines) + "\n")
    return folder


RENAMED = ["--options", "rename_leads=MLII:II", "leads=II"]


def test_a_renamed_lead_is_classified_and_embedded(holter_folder, tmp_path):
    scores = predict(holter_folder / "r00.hea", rename_leads="MLII:II", progress=False)
    assert "not calibrated" not in scores["warnings"].iloc[0] and scores["threshold_MI"].iloc[0] < 1
    command = ["embed", str(holter_folder), "--rename_leads", "MLII:II", "--output_dir", str(tmp_path / "out")]
    assert main(command) == 0
    assert len(EmbeddingTable.load(tmp_path / "out" / "embeddings.parquet")) == 32


def test_a_channel_that_is_left_out_is_named_beside_the_leads_that_are_missing(rows):
    ecg = rows[0]["ecg"]
    scores = predict(ecg["signal"][[1, 10]], sampling_rate=RATE, leads=["MLII", "V5"], unit="mV", progress=False)
    assert "MLII" in scores["warnings"].iloc[0]


def test_a_channel_whose_name_is_no_lead_is_refused_with_the_flag_that_renames_it(holter_folder, tmp_path, capfd):
    command = ["embed", str(holter_folder / "r00.hea"), "--output_dir", str(tmp_path / "out")]
    assert main(command) == 1
    flag = re.search(r"--rename_leads \S+:II", capfd.readouterr().err)
    assert main([*command, *flag[0].split()]) == 0


@pytest.mark.slow
def test_a_renamed_lead_is_fine_tuned_and_evaluated(holter_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    corpus = ["--dataset", "ecgfolder", "--data_dir", str(holter_folder), *RENAMED]
    training = ["--config", "finetune_cpu", "--max_steps", "2", "--use_cpu", "true", "--disable_tqdm", "true"]
    assert main(["finetune", *corpus, *training, "--output_dir", str(tmp_path / "classes")]) == 0
    assert len(predict(holter_folder, tmp_path / "classes", rename_leads="MLII:II", progress=False)) == 32
    assert main(["evaluate", *corpus, "--output_dir", str(tmp_path / "evaluation")]) == 0
    assert (tmp_path / "evaluation" / "metrics.json").is_file()
