import csv
import json
from pathlib import Path

import numpy as np
import pytest

from ecg_transformers.data import EcgDataCollator, EcgPretrainingCollator, load_ecg
from ecg_transformers.data.corpora.npy_dump import read_declaration
from ecg_transformers.modeling import EcgFeatureExtractor

LEADS = ["I", "II", "V1"]
DECLARATION = {
    "array": "signals.npy",
    "table": "labels.csv",
    "axes": "record,lead,sample",
    "leads": LEADS,
    "sampling_rate": 100,
    "unit": "mV",
    "step": 0.005,
    "row": "row",
    "record_id": "ecg_id",
    "patient_id": "patient",
    "fold": "strat_fold",
    "labels": ["NORM", "MI"],
}
FOLDS = [1, 8, 9, 10, 3, 9]


def write_dump(folder, array=None, declaration=None, lines=None):
    """Six recordings of three leads; the table names them in the opposite order of the array."""
    folder.mkdir(exist_ok=True)
    if array is None:
        array = np.random.default_rng(0).integers(-300, 300, (6, 3, 50)).astype(np.int16)
    np.save(folder / "signals.npy", array)
    if lines is None:
        lines = [
            {"ecg_id": f"r{row}", "row": row, "patient": f"{row}.0", "strat_fold": f"{FOLDS[row]}.0"}
            | {"NORM": row % 2, "MI": 1 - row % 2}
            for row in reversed(range(6))
        ]
    with open(folder / "labels.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    (folder / "dump.json").write_text(json.dumps(DECLARATION if declaration is None else declaration))
    return array


@pytest.fixture
def load(tmp_path):
    """Loads `npy` with a cache of its own."""
    return lambda *args, **options: load_ecg("npy", *args, cache_dir=tmp_path / "cache", **options)


def test_steps_are_stored_bit_by_bit_and_folds_make_the_splits(tmp_path, load):
    array = write_dump(tmp_path / "dump")
    parts = {split: load(tmp_path / "dump", split=split, decode=False) for split in ("train", "validation", "test")}
    assert {split: sorted(rows["array_row"]) for split, rows in parts.items()} == {
        "train": [0, 1, 4],
        "validation": [2, 5],
        "test": [3],
    }
    row = parts["test"][0]
    assert np.array_equal(np.frombuffer(row["ecg"]["signal"], "<i2").reshape(3, 50), array[3])
    assert row["ecg"]["leads"] == LEADS and row["ecg"]["unit"] == "mV" and row["ecg"]["sampling_rate"] == 100
    assert row["ecg"]["gain"] == pytest.approx([0.005] * 3)
    assert (row["record_id"], row["patient_id"], row["fold"], row["labels"]) == ("r3", "3", 10, ["NORM"])


def test_samples_before_leads_give_the_same_recordings(tmp_path, load):
    array = write_dump(tmp_path / "dump")
    write_dump(tmp_path / "turned", array.transpose(0, 2, 1).copy(), DECLARATION | {"axes": "record,sample,lead"})
    straight, turned = (load(tmp_path / name, split="all", decode=False) for name in ("dump", "turned"))
    assert list(straight) == list(turned)


def test_floats_need_no_step_and_come_back_to_rounding(tmp_path, load):
    array = np.random.default_rng(0).normal(size=(6, 3, 50)).astype(np.float32)
    declaration = {name: value for name, value in DECLARATION.items() if name != "step"}
    write_dump(tmp_path / "dump", array, declaration | {"unit": "uV"})
    rows = load(tmp_path / "dump", split="all")
    for row in rows:
        assert np.abs(row["ecg"]["signal"] - 1e-3 * array[row["array_row"]]).max() < 1e-7


def test_options_count_before_the_file_and_suffice_without_it(tmp_path, load):
    write_dump(tmp_path / "dump")
    assert load(tmp_path / "dump", sampling_rate=250)[0]["ecg"]["sampling_rate"] == 250
    (tmp_path / "dump" / "dump.json").unlink()
    options = {name: value for name, value in DECLARATION.items() if name != "array"}
    assert len(load(tmp_path / "dump" / "signals.npy", split="all", **options)) == 6
    with pytest.raises(ValueError, match=r"\['sampling_rate', 'unit'\] are missing and never guessed"):
        load(
            tmp_path / "dump" / "signals.npy",
            **{k: v for k, v in options.items() if k not in ("sampling_rate", "unit")},
        )


def test_a_declaration_may_lie_elsewhere_and_a_change_of_it_is_seen(tmp_path, load):
    write_dump(tmp_path / "dump")
    (tmp_path / "dump" / "dump.json").unlink()
    elsewhere = tmp_path / "mine.json"
    elsewhere.write_text(json.dumps(DECLARATION | {"folder": "dump"}))
    assert load(elsewhere)[0]["ecg"]["leads"] == LEADS
    elsewhere.write_text(json.dumps(DECLARATION | {"folder": "dump", "leads": ["V4", "V5", "V6"]}))
    assert load(elsewhere)[0]["ecg"]["leads"] == ["V4", "V5", "V6"]


def test_without_folds_everything_trains_and_without_a_row_column_lines_are_in_order(tmp_path, load):
    lines = [{"ecg_id": f"r{row}"} for row in range(6)]
    declaration = {k: v for k, v in DECLARATION.items() if k not in ("row", "patient_id", "fold", "labels")}
    write_dump(tmp_path / "dump", None, declaration, lines)
    rows = load(tmp_path / "dump")
    assert rows["array_row"] == list(range(6)) and rows[0]["fold"] is None and rows[0]["patient_id"] is None


def line(number, **changes):
    known = {"ecg_id": f"r{number}", "row": number, "patient": number, "strat_fold": FOLDS[number]}
    return known | {"NORM": 0, "MI": 1} | changes


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line(row) for row in range(5)], "describes 5 recordings, .* holds 6"),
        ([line(row) for row in range(5)] + [line(4, ecg_id="x")], "row 4 comes twice"),
        ([line(row) for row in range(5)] + [line(5, row=6)], "row 6 comes twice or is none of 0 to 5"),
        ([line(row) for row in range(5)] + [line(5, ecg_id="r0")], "record id 'r0' comes twice"),
        ([line(row) for row in range(5)] + [line(5, strat_fold=11)], "line 7, cannot be read: Expected a fold"),
        ([line(row) for row in range(5)] + [line(5, strat_fold="2.5")], "expected a whole number, got '2.5'"),
        ([line(row) for row in range(5)] + [line(5, MI=2)], "expected 0 or 1 in the column 'MI', got '2'"),
        ([line(row) for row in range(5)] + [line(5, MI="")], "line 7, cannot be read"),
        ([line(row) for row in range(5)] + [line(5, ecg_id=" ")], "it has no record id"),
        ([line(row, patient="one") for row in range(6)], "patient 'one' has recordings in the splits"),
        ([{"ecg_id": row} for row in range(6)], r"no columns \['row', 'patient', 'strat_fold', 'NORM', 'MI'\]"),
    ],
)
def test_a_partial_or_contradictory_table_is_refused(tmp_path, load, lines, message):
    write_dump(tmp_path / "dump", lines=lines)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "dump")


@pytest.mark.parametrize(
    ("array", "changes", "message"),
    [
        (None, {"step": None}, "holds int16: declare `step`, the mV per step"),
        (None, {"axes": "record,sample,lead"}, "has 50 leads of 3 samples, but 3 leads are declared"),
        (None, {"axes": "nlt"}, "Expected axes .* one of"),
        (None, {"leads": "I"}, "Expected leads .* as a list"),
        (None, {"unit": "z"}, "Unknown unit 'z'.*dimensionless"),
        (None, {"scale": 1}, r"\['scale'\] are unknown"),
        (None, {"table": "nosuch.csv"}, "There is no table"),
        (None, {"array": "nosuch.npy"}, "There is no array"),
        (None, {"array": "../dump/signals.npy"}, "not inside the folder"),
        (None, {"folder": "/"}, "must not name a folder"),
        (np.zeros((6, 50), np.int16), {}, "to have the axes .* got the shape"),
        (np.zeros((6, 3, 50), np.int32), {}, "holds int32. Expected int16 with a step, or floats"),
        (np.zeros((6, 3, 50), np.float32), {}, "holds floats in mV: leave out step=0.005"),
        (np.array([{}] * 6, dtype=object), {}, "no array of numbers that numpy reads without pickle"),
    ],
)
def test_what_is_not_declared_or_contradicts_the_array_is_refused(tmp_path, load, array, changes, message):
    write_dump(tmp_path / "dump", array, DECLARATION | changes)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "dump")


def test_dimensionless_values_keep_their_unit_and_models_of_volts_refuse_them(tmp_path, load):
    write_dump(tmp_path / "dump", None, DECLARATION | {"unit": "dimensionless"})
    volts, numbers = (
        EcgFeatureExtractor(leads=LEADS, sampling_rate=100, num_samples=50, unit=unit)
        for unit in ("mV", "dimensionless")
    )
    for decode in (True, False):
        row = load(tmp_path / "dump", split="test", decode=decode)[0]
        assert row["ecg"]["unit"] == "dimensionless"
        with pytest.raises(ValueError, match="The model reads mV, the recording is in dimensionless"):
            volts(row)
        for collator in (EcgDataCollator, EcgPretrainingCollator):
            with pytest.raises(ValueError, match="reads mV, the recording is in dimensionless"):
                collator(volts)([row])
        assert numbers(row)["input_values"].shape == (1, 3, 50)
        assert len(EcgPretrainingCollator(numbers)([row])["signal"]) == 1
    with pytest.raises(ValueError, match="The model reads dimensionless, the recording is in mV"):
        numbers(np.zeros((3, 50), np.float32), sampling_rate=100, leads=LEADS, unit="mV")


def test_the_processed_records_of_ptb_xl_load_as_declared(shared_data, tmp_path, load):
    declaration = json.loads((Path(__file__).parents[3] / "docs" / "ptb_xl_processed.json").read_text())
    folder = shared_data / "ptb-xl-processed"
    (tmp_path / "dump.json").write_text(json.dumps(declaration | {"folder": str(folder)}))
    parts = {split: load(tmp_path / "dump.json", split=split) for split in ("train", "validation", "test")}
    assert {split: len(rows) for split, rows in parts.items()} == {"train": 1442, "validation": 183, "test": 194}
    signal = parts["test"][0]["ecg"]["signal"]
    assert signal.shape == (12, 1000) and np.abs(signal.std(axis=1) - 1).max() < 0.01
    assert read_declaration(tmp_path / "dump.json").processing["filter_order"] == 4
