import csv
import logging
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from ecg_transformers.data import Ecg, EcgRecord, load_ecg
from ecg_transformers.data.corpora.npy_dump import NPY_DUMP
from ecg_transformers.data.loading import locate
from ecg_transformers.train.tasks.duplicates import (
    find_duplicates,
    one_of_each,
    recording_digests,
    refuse_shared_recordings,
)

PTB_XL_PAIRS = {("00137", "00138"), ("00143", "00144"), ("00145", "00463"), ("00456", "00457"), ("00459", "00460")}
LEADS = ("I", "II", "V1")
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def ptb_xl(shared_data_dir, cache):
    return load_ecg("ptb-xl", shared_data_dir / "ptb-xl", split="all", decode=False, cache_dir=cache)


def steps(seed: int, num_samples: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3000, 3000, (len(LEADS), num_samples)).astype(np.int16)


def row(record_id: str, signal: np.ndarray, leads=LEADS, gain: float = 0.001, rate: float = 100.0) -> dict:
    return EcgRecord(record_id, signal, leads, rate, gain=np.full(len(leads), gain)).to_row()


def test_the_pairs_of_ptb_xl_are_found_at_100_hz_where_three_differ_at_the_end(ptb_xl):
    assert {tuple(ids) for ids in find_duplicates(ptb_xl)} == PTB_XL_PAIRS


@pytest.mark.slow  # 500 Hz
def test_pairs_and_records_of_a_challenge_are_found_at_500_hz(shared_data_dir, cache):
    options = {"split": "all", "decode": False, "cache_dir": cache}
    original = load_ecg("ptb-xl", shared_data_dir / "ptb-xl", sampling_rate=500, **options)
    challenge = load_ecg("cinc2021", shared_data_dir / "cinc2021", **options)
    both = [*recording_digests(original), *recording_digests(challenge)]
    groups = {}
    for record_id, digest in both:
        groups.setdefault(digest, []).append(record_id)
    found = {tuple(ids) for ids in groups.values() if len(ids) > 1}
    assert found == {pair for pair in PTB_XL_PAIRS if pair[1] <= "00250"} | {
        (f"{number:05d}", f"HR{number:05d}") for number in range(1, 11)
    }


def test_the_pair_of_code_15_is_found_and_shares_patient_and_split(shared_data_dir, tmp_path):
    for name in ("1111611", "1111628", "1111606"):
        for ending in (".hea", ".dat"):
            shutil.copy(shared_data_dir / "code-15" / (name + ending), tmp_path)
    rows = load_ecg(
        "code-15", tmp_path, split="train", decode=False, task="chagas", cache_dir=tmp_path / "cache"
    )  # 80 % of patients, and those of the three exams
    assert find_duplicates(rows) == [["1111611", "1111628"]]
    patients = dict(zip(rows["record_id"], rows["patient_id"], strict=True))
    assert patients["1111611"] == patients["1111628"] != patients["1111606"]


def test_500_records_take_less_than_a_second(ptb_xl):
    start = time.perf_counter()
    assert len(recording_digests(ptb_xl)) == 500
    assert time.perf_counter() - start < 1


def test_order_of_leads_gain_and_rate_do_not_hide_a_copy():
    signal = steps(0)
    order = [2, 0, 1]
    copy = row("b", signal[order], [LEADS[lead] for lead in order], gain=0.005, rate=500.0)
    assert find_duplicates(Dataset.from_list([row("a", signal), row("c", steps(1)), copy])) == [["a", "b"]]


def test_the_ends_do_not_count_and_one_step_in_the_middle_does():
    signal, end, middle = steps(0), steps(0), steps(0)
    end[:, -20:] += 1
    middle[1, 100] += 1
    rows = Dataset.from_list([row("a", signal), row("end", end), row("middle", middle)])
    assert find_duplicates(rows) == [["a", "end"]]


@pytest.mark.parametrize("leads", [("I", "II", "V2"), ("V1", "II", "I")])
def test_equal_steps_under_other_lead_names_are_another_recording(leads):
    assert find_duplicates(Dataset.from_list([row("a", steps(0)), row("b", steps(0), leads)])) == []


def test_flat_recordings_are_no_copies_of_each_other_but_one_flat_lead_is_no_excuse():
    flat, partly = np.zeros_like(steps(0)), steps(0)
    partly[0] = 0
    rows = Dataset.from_list([row("a", flat), row("b", flat), row("c", partly), row("d", partly)])
    assert find_duplicates(rows) == [["c", "d"]]


def test_stored_and_decoded_datasets_agree(ptb_xl):
    stored = ptb_xl.select(range(5, 0, -1))
    digests = recording_digests(stored)
    assert [record_id for record_id, _ in digests] == stored["record_id"][:]
    assert recording_digests(stored.cast_column("ecg", Ecg())) == digests


def test_a_recording_in_two_splits_is_refused_with_names_and_cure():
    train = Dataset.from_list([row("a", steps(0)), row("b", steps(1)), row("c", steps(1))])
    test = Dataset.from_list([row("d", steps(0)), row("e", steps(2))])
    refuse_shared_recordings({"train": train, "test": test.select([1])})
    with pytest.raises(ValueError, match=r"^1 recordings lie in two splits: a \(train\) = d \(test\).*Keep one of"):
        refuse_shared_recordings({"train": train, "test": test})


def test_a_copy_of_a_copy_is_refused_too():
    splits = {name: Dataset.from_list([row(name, steps(0))]) for name in ("train", "validation", "test")}
    with pytest.raises(ValueError, match=r"2 recordings .*train \(train\) = validation .*train \(train\) = test"):
        refuse_shared_recordings(splits)


def test_later_copies_of_a_split_are_dropped_and_named(ptb_xl, caplog):
    with caplog.at_level(logging.WARNING, logger="ecg_transformers"):
        kept, copies = one_of_each(ptb_xl)
    assert copies == {second: first for first, second in PTB_XL_PAIRS}
    assert len(kept) == 495 and not set(copies) & set(kept["record_id"])
    assert find_duplicates(kept) == []
    assert "5 recordings are exact copies" in caplog.text and "00138 = 00137" in caplog.text


def test_a_split_without_copies_stays_as_it_is(caplog):
    rows = Dataset.from_list([row("a", steps(0)), row("b", steps(1))])
    assert one_of_each(rows) == (rows, {})
    assert not caplog.records


def test_the_union_puts_each_patient_on_one_side_and_agrees_with_the_corpora(shared_data_dir, ptb_xl):
    with open(shared_data_dir / "splits" / "ptbxl_union.csv", newline="") as file:
        union = {int(line["ecg_id"]): line for line in csv.DictReader(file)}
    known = {number: line for number, line in union.items() if line["patient_id"]}
    folds_of_patient = {}
    for line in known.values():
        folds_of_patient.setdefault(line["patient_id"], set()).add(line["strat_fold"])
    assert [patient for patient, folds in folds_of_patient.items() if len(folds) > 1] == []

    stated = zip(*(ptb_xl[column] for column in ("record_id", "patient_id", "fold")), strict=True)
    folder, options = locate(NPY_DUMP, REPOSITORY / "docs" / "ptb_xl_processed.json", NPY_DUMP.complete_options({}))
    entries = NPY_DUMP.index(folder, options)
    processed = [(entry.record_id, entry.columns["patient_id"], entry.columns["fold"]) for entry in entries]
    for corpus, flag in ((stated, "in_ptbxl_raw500"), (processed, "in_processed1819")):
        listed = {number: line for number, line in union.items() if line[flag] == "1"}
        assert {int(number): (float(patient), float(fold)) for number, patient, fold in corpus} == {
            number: (float(line["patient_id"]), float(line["strat_fold"])) for number, line in listed.items()
        }

    files = {int(path.stem[2:]) for path in (shared_data_dir / "cinc2021" / "ptb-xl").glob("HR*.hea")}
    assert files == {number for number, line in union.items() if line["in_cinc2021_raw"] == "1"}
    assert files - set(known) == {12083}  # no table at hand tells its patient
