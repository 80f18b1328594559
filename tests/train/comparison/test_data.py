import csv
import json
from pathlib import Path

import numpy as np
import pytest

from ecg_transformers.data import EcgRecord, load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.train.comparison.data import ExtraSource, load_comparison_data, record_key

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
PROCESSING = {"sampling_rate": 200, "num_samples": 2000, "highpass_hz": 0.5, "normalization": "lead"}
PATIENTS = {1: "15709", 2: "13243"}  # two of the carried records of PTB-XL, folds 3 and 2


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def make_dump(tmp_path):
    """An array of z-scores of the records `{ecg_id: (patient, fold)}` with its declaration."""

    def make(records, processing=PROCESSING, array=None):
        folder = tmp_path / "dump"
        folder.mkdir()
        if array is None:
            array = np.random.default_rng(0).normal(0, 1000, (len(records), 12, 1000)).clip(-32000, 32000)
        np.save(folder / "signals.npy", array.astype(np.int16))
        with open(folder / "labels.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["ecg_id", "patient", "fold", "MI", "NORM"])
            writer.writerows(
                [ecg_id, patient, fold, ecg_id % 2, 1 - ecg_id % 2] for ecg_id, (patient, fold) in records.items()
            )
        declaration = {
            "array": "signals.npy",
            "table": "labels.csv",
            "axes": "record,lead,sample",
            "leads": LEADS,
            "sampling_rate": 100,
            "unit": "dimensionless",
            "step": 0.001,
            "record_id": "ecg_id",
            "patient_id": "patient",
            "fold": "fold",
            "labels": ["NORM", "MI"],
            "processing": processing,
        }
        (folder / "dump.json").write_text(json.dumps(declaration))
        return str(folder)

    return make


@pytest.fixture
def ptb_xl():
    """Five carried records in the layout of PTB-XL: 1, 2, 3, 8 and 9, of the folds 3, 2, 5, 9 and 10."""
    return f"ptb-xl:{Path(__file__).parents[2] / 'fixtures' / 'wfdb' / 'ptb-xl'}:100"


SPREAD = {20: ("a", 1), 21: ("b", 2), 30: ("c", 9), 31: ("d", 9), 40: ("e", 10), 41: ("f", 10)}


def ids(dataset):
    return sorted(dataset["record_id"])


def test_extra_recordings_take_the_form_of_the_dump_and_only_train(make_dump, ptb_xl, tmp_path):
    data = load_comparison_data("npy", make_dump(SPREAD), [ExtraSource.parse(ptb_xl)])
    assert ids(data.pretraining) == ["00001", "00002", "00003", "20", "21"]
    assert ids(data.train) == ["20", "21"] and ids(data.validation) == ["30", "31"] and ids(data.test) == ["40", "41"]
    assert data.left_out == {"of fold 9 or 10": 2} and data.label_names == ["MI", "NORM"]

    row = data.pretraining[list(data.pretraining["record_id"]).index("00001")]
    record = EcgRecord.from_row(row | {"labels": []})
    assert record.unit == "dimensionless" and record.sampling_rate == 100 and list(record.leads) == LEADS
    raw = next(iter(load_ecg("ptb-xl", ptb_xl.split(":")[1], split="train", streaming=True)))
    processed = EcgFeatureExtractor(leads=LEADS, **PROCESSING)(raw)["input_values"]
    expected = EcgFeatureExtractor(leads=LEADS, sampling_rate=100, num_samples=1000, unit="dimensionless")(
        processed.numpy(), sampling_rate=200, leads=LEADS, unit="dimensionless"
    )["input_values"][0]
    signal = record.signal * record.gain[:, None]
    assert np.abs(signal - expected.numpy()).max() < 1e-3


def test_a_recording_that_is_there_by_name_or_bit_by_bit_is_used_once(make_dump, ptb_xl):
    extra = [ExtraSource.parse(ptb_xl)] * 2
    data = load_comparison_data("npy", make_dump(SPREAD | {1: (PATIENTS[1], 3)}), extra)
    assert ids(data.pretraining) == ["00002", "00003", "1", "20", "21"]
    assert data.left_out["there already, by its name"] == 1 + 3


def test_a_recording_of_a_patient_of_the_test_fold_is_not_learned_from(make_dump, ptb_xl):
    data = load_comparison_data("npy", make_dump(SPREAD | {50: (PATIENTS[1], 10)}), [ExtraSource.parse(ptb_xl)])
    assert "00001" not in data.pretraining["record_id"]
    assert data.left_out["of a patient of fold 9 or 10"] == 1


def test_the_table_of_splits_says_what_may_be_used_and_must_not_contradict(make_dump, ptb_xl, tmp_path):
    folder, table = make_dump(SPREAD), tmp_path / "splits.csv"

    def load(lines):
        table.write_text("ecg_id,patient_id,strat_fold\n" + "\n".join(lines))
        return load_comparison_data("npy", folder, [ExtraSource.parse(ptb_xl)], str(table))

    data = load(["1,15709.0,3.0"])
    assert ids(data.pretraining) == ["00001", "20", "21"] and data.left_out["not in the table of splits"] == 4
    with pytest.raises(ValueError, match="Record 00001 is of fold 3 in its corpus and of 4 in the table"):
        load(["1,15709.0,4.0"])
    with pytest.raises(ValueError, match="Record 20 is of patient a in its corpus and of z in the table"):
        load(["20,z,1"])
    with pytest.raises(ValueError, match="line 2, cannot be read"):
        load(["20,a,one"])


def test_a_corpus_without_folds_takes_them_from_the_table(make_dump, tmp_path):
    source = tmp_path / "folder of WFDB"
    records = Path(__file__).parents[2] / "fixtures" / "wfdb" / "ptb-xl" / "records100" / "00000"
    source.mkdir()
    for number in (1, 2, 9):  # under the names of the Challenges
        for ending in (".hea", ".dat"):
            (source / f"{number:05d}_lr{ending}").write_bytes((records / f"{number:05d}_lr{ending}").read_bytes())
        (source / f"{number:05d}_lr.hea").rename(source / f"HR{number:05d}.hea")
    extra, folder, table = [ExtraSource("wfdb", str(source))], make_dump(SPREAD), tmp_path / "splits.csv"
    data = load_comparison_data("npy", folder, extra)
    assert len(data.pretraining) == 2 and data.left_out == {"without a fold": 3}
    table.write_text("ecg_id,patient_id,strat_fold\n1,15709.0,3.0\n2,,\n9,18792.0,10.0\n")
    data = load_comparison_data("npy", folder, extra, str(table))
    assert ids(data.pretraining) == ["20", "21", "HR00001"]
    assert data.left_out == {"without a fold": 1, "of fold 9 or 10": 1}


def test_volts_cannot_join_a_dump_that_does_not_say_how_it_was_made(make_dump, ptb_xl):
    with pytest.raises(ValueError, match="Declare in the dump's `processing`"):
        load_comparison_data("npy", make_dump(SPREAD, processing={}), [ExtraSource.parse(ptb_xl)])


def test_a_corpus_without_test_folds_cannot_be_compared_on(make_dump):
    with pytest.raises(ValueError, match=r"has no records in \['validation', 'test'\]"):
        load_comparison_data("npy", make_dump({20: ("a", 1)}))


def test_other_recordings_change_the_fingerprint(make_dump, ptb_xl):
    folder = make_dump(SPREAD)
    assert load_comparison_data("npy", folder).fingerprint == load_comparison_data("npy", folder).fingerprint
    more = load_comparison_data("npy", folder, [ExtraSource.parse(ptb_xl)])
    assert more.fingerprint != load_comparison_data("npy", folder).fingerprint


def test_names_of_ptb_xl_are_recognised_in_every_spelling():
    assert {record_key(name) for name in ("9", "00009", "HR00009")} == {"9"}
    assert record_key("JS00009") == "JS00009" and record_key("a/b 1") == "a/b 1"
    assert ExtraSource.parse("ptb-xl:/d/p:500") == ExtraSource("ptb-xl", "/d/p", 500)
    assert ExtraSource.parse("wfdb:/d/p") == ExtraSource("wfdb", "/d/p")
    with pytest.raises(ValueError, match="Expected --extra NAME:FOLDER"):
        ExtraSource.parse("/d/p")
