import csv
import json

import numpy as np
import pytest
import wfdb

from ecg_transformers.data import load_ecg
from ecg_transformers.data.records import EcgRecord
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.train.cli import main
from ecg_transformers.train.info import describe_corpus, describe_folder, save_recording_plot, spread


@pytest.fixture(scope="module")
def signals():
    """Twelve carried recordings of folds 1-8, `(12, 12, 1000)` in mV at 100 Hz."""
    rows = load_ecg("ptb-xl-sample", split="train").select(range(12))
    return np.stack([row["ecg"]["signal"] for row in rows]).astype(np.float64)


def write_wfdb(folder, name, signal, leads=STANDARD_LEADS, sampling_rate=100):
    folder.mkdir(parents=True, exist_ok=True)
    units, formats = ["mV"] * len(leads), ["16"] * len(leads)
    wfdb.wrsamp(name, sampling_rate, units, list(leads), signal.T, fmt=formats, write_dir=str(folder))
    return folder / f"{name}.hea"


@pytest.fixture
def info(tmp_path, capsys):
    """Runs the command; returns what it prints and what it writes as JSON."""

    def run(*arguments):
        file = tmp_path / "report.json"
        assert main(["info", *map(str, arguments), "--json", str(file), "--debug"]) == 0
        return capsys.readouterr().out, json.loads(file.read_text())

    return run


def test_a_clean_file_is_described(info, tmp_path, signals):
    text, content = info(write_wfdb(tmp_path, "r1", signals[0]))
    assert content["format"] == "WFDB" and content["leads"] == list(STANDARD_LEADS) and content["unknown_leads"] == []
    assert (content["sampling_rate"], content["seconds"], content["unit"]) == (100, 10, "mV")
    assert content["problems"] == {} and "Nothing odd was found." in text
    assert content["quality"][1]["highest_mv"] == pytest.approx(signals[0][1].max(), abs=2e-3)
    assert content["quality"][0]["hum_50hz_mv"] is None and "50 Hz hum" in text  # at 100 Hz it cannot be evaluated
    assert "Resampled 1000 samples at 100 Hz to 2500 at 250 Hz." in text
    assert "10 s (1000 samples)" in text and "12: I, II, III, aVR" in text


def test_what_is_odd_is_said_with_its_evidence(info, tmp_path, signals):
    signal = signals[0].copy()
    signal[[3, 4]] = signal[[4, 3]]  # aVR and aVL under each other's name
    signal[7] = 0.0
    signal[8, 100:150] = np.nan
    signal[9] += 3 * np.sin(2 * np.pi * 0.2 * np.arange(1000) / 100)
    signal[11] = signal[10]
    text, content = info(write_wfdb(tmp_path, "r1", signal))
    assert set(content["problems"]) == {"einthoven", "duplicate_leads", "range_mv", "missing_samples", "wander_mv"}
    assert "aVR is what I and II give for aVL; aVL is what I and II give for aVR" in text
    assert "V5 and V6 are the same" in text and "Flat lead: V2 (0 mV; good: at least 0.05 mV)" in text
    assert "Missing or infinite samples: V3 (50 samples" in text and "Baseline wander: V4" in text
    assert "Refuses it: Record 0: 50 of 1000 samples of lead V3 are NaN" in text


def test_interchanged_arms_are_suspected(info, tmp_path, signals):
    first, second = -signals[0][0], signals[0][1] - signals[0][0]
    limb = [first, second, second - first, -(first + second) / 2, first - second / 2, second - first / 2]
    text, content = info(write_wfdb(tmp_path, "r1", np.concatenate([limb, signals[0][6:]])))
    assert list(content["problems"]) == ["limb_swap"]
    assert "The electrodes of left and right arm (LA/RA) look interchanged: against V1-V6" in text


def test_a_file_that_says_nothing_of_itself_needs_flags(info, tmp_path, signals, capsys):
    path = tmp_path / "r1.npy"
    np.save(path, signals[0][:2] * 1000)
    assert main(["info", str(path)]) == 1
    assert "leads" in capsys.readouterr().err
    flags = ["--sampling_rate", "100", "--unit", "mV", "--axes", "lead,sample", "--leads", "ii", "Lead X"]
    text, content = info(path, *flags)
    assert content["leads"] == ["II", "Lead X"] and content["unknown_leads"] == ["Lead X"]
    assert "microvolts read as millivolts" in content["problems"]["unit"]
    assert "1: II" in text and "other channels  Lead X" in text


def test_z_scores_are_described_without_millivolts(info, tmp_path, signals):
    np.save(tmp_path / "r1.npy", signals[0][:2] * 30)
    flags = ["--sampling_rate", "100", "--unit", "dimensionless", "--axes", "lead,sample", "--leads", "I", "II"]
    text, content = info(tmp_path / "r1.npy", *flags)
    assert content["problems"] == {} and "mV" not in text.split("The default feature extractor")[0]
    with pytest.raises(ValueError, match="no voltage"):
        save_recording_plot(EcgRecord("r", signals[0], STANDARD_LEADS, 100, "dimensionless"), tmp_path / "r.png")


def test_the_plot_is_written_where_asked(info, tmp_path, signals):
    info(write_wfdb(tmp_path, "r1", signals[0]), "--plot", tmp_path / "plots" / "r1.svg")
    assert (tmp_path / "plots" / "r1.svg").read_text().startswith("<?xml")


@pytest.fixture
def folder(tmp_path, signals):
    """Twelve WFDB records and two other lengths; one flat, one cut off; a text that is no recording, a hidden file."""
    folder = tmp_path / "recordings"
    for number, signal in enumerate(signals):
        signal = signal.copy()
        if number == 3:
            signal[2] = 0.0
        write_wfdb(folder / f"part{number % 2}", f"r{number:02d}", signal[:, : 500 if number == 5 else 1000])
    (folder / "part0" / "r00.dat").write_bytes(b"\0" * 100)
    (folder / "notes.md").write_text("notes")
    (folder / ".hidden").write_text("hidden")
    return folder


def test_a_folder_is_counted_and_its_problem_files_are_named(info, folder):
    text, content = info(folder)
    assert content["num_files"] == 25 and content["endings"] == {".hea": 12, ".md": 1}
    assert (content["num_examined"], content["num_unreadable"], content["num_other"]) == (11, 1, 1)
    assert content["seconds"] == {"10": 10, "5": 1} and content["sampling_rates"] == {"100": 11}
    assert content["problems"]["range_mv"] == ["part1/r03.hea"] and "part1/r03.hea" in text
    assert list(content["unreadable"]) == ["part0/r00.hea"] and "Could not be read:" in text
    assert "flat lead" in text and "I, II, III, aVR, aVL, aVF, V1, V2, V3, V4, V5, V6 (11)" in text


def test_a_large_folder_is_sampled_evenly_and_says_so(info, folder):
    text, content = info(folder, "--max_records", 3)
    assert content["num_examined"] + content["num_unreadable"] + content["num_other"] == 3
    assert "evenly spread; --max_records takes more" in text
    assert spread(list(range(10)), 3) == [0, 3, 6] and spread([1, 2], 3) == [1, 2]


def test_a_stack_of_recordings_does_not_exceed_the_sample(tmp_path, signals):
    np.save(tmp_path / "stack.npy", signals)
    declared = {"leads": STANDARD_LEADS, "sampling_rate": 100, "unit": "mV", "axes": "record,lead,sample"}
    assert describe_folder(tmp_path, declared, 5)["num_examined"] == 5
    assert describe_folder(tmp_path, declared, 50)["num_examined"] == 12


def test_a_corpus_is_described_as_it_would_be_loaded(info, folder):
    with open(folder / "records.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "patient_id", "labels"])
        writer.writerows([f"part{number % 2}/r{number:02d}", f"p{number // 2}", "MI"] for number in range(12))
    text, content = info(folder, "--dataset", "ecgfolder")
    assert content["num_patients"] == 6 and content["labels"] == {"MI": 12} and sum(content["splits"].values()) == 12
    assert list(content["unreadable"]) == ["part0/r00"] and "as 'ecgfolder'" in text
    _, content = info(folder, "--dataset", "ecgfolder", "--options", "labels=", "table=records.csv")
    assert content["labels"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch.csv"], "There is no file or folder 'nosuch.csv'"),
        ([".", "--write"], "--write writes what --table FILE proposes"),
        ([".", "--dataset", "nosuch"], "Choose from ['brugada-huca'"),
        ([".", "--dataset", "ptb-xl-sample"], "no corpus with a folder"),
        ([".", "--dataset", "wfdb", "--unit", "mV"], "['unit'] are for files"),
        ([".", "--options", "task=all"], "name it by --dataset"),
        (["."], "holds no files"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["info", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_real_corpus_with_a_known_trap_is_caught(shared_data_dir):
    content = describe_corpus("wfdb", shared_data_dir / "ludb" / "data", {}, 3)
    assert content["num_examined"] == 3
    assert len(content["problems"]["equal_ranges"]) == 3 and len(content["problems"]["einthoven"]) >= 2


def test_what_a_reader_left_out_is_noted_and_flags_choose(info, tmp_path, signals):
    units = ["mV", "mmHg"]
    wfdb.wrsamp("icu", 100, units, ["MLII", "ABP"], signals[0][:2].T, fmt=["16", "16"], write_dir=str(tmp_path))
    text, content = info(tmp_path / "icu.hea", "--rename_leads", "MLII:II")
    assert content["leads"] == ["II"] and "ABP (mmHg)" in content["notes"][0] and "; --leads ... chooses" in text


def test_errors_speak_in_flags_that_work(info, tmp_path, capsys):
    (tmp_path / "r.dat").write_bytes(np.arange(400, dtype="<i2").tobytes())
    (tmp_path / "r.hea").write_text("r 1 100 400\nr.dat 16 0 16 0 0 0 0 II\n")
    assert main(["info", str(tmp_path / "r.hea")]) == 1
    assert "by --step ... and --unit ..., such as --step 0.005 and --unit mV for" in capsys.readouterr().err
    _, content = info(tmp_path / "r.hea", "--step", "0.005", "--unit", "mV")
    assert content["quality"][0]["highest_mv"] == pytest.approx(399 * 0.005)
    table = "Report\ntime,II\n" + "".join(f"{n / 100},{n % 9}\n" for n in range(50))
    (tmp_path / "a.csv").write_text(table)
    assert main(["info", str(tmp_path / "a.csv")]) == 1
    assert "--skip_lines" in capsys.readouterr().err
    _, content = info(tmp_path / "a.csv", "--skip_lines", "1", "--unit", "mV")
    assert content["sampling_rate"] == 100
