"""What the tests of the Space share: tiny models, and files as visitors upload them, good and bad."""

import shutil
from pathlib import Path

import numpy as np

from ecg_transformers.data import read_recording
from ecg_transformers.modeling import EcgViTForSequenceClassification, EcgViTModel

from ..train.conftest import tiny_encoder

RECORDS = Path(__file__).parents[1] / "fixtures" / "wfdb" / "ptb-xl" / "records100" / "00000"
CLASSES = ["CD", "HYP", "MI", "NORM", "STTC"]
CONTRACT = {"leads": ("I", "II", "V1", "V2", "V5"), "sampling_rate": 100, "num_samples": 500}


def drawn_model(model_class=EcgViTForSequenceClassification, labels=CLASSES, folder=None, **settings):
    """A tiny model that is not trained, and its feature extractor."""
    if model_class is not EcgViTModel:
        settings = {"id2label": dict(enumerate(labels)), "problem_type": "multi_label_classification"} | settings
    settings = CONTRACT | {"patch_size": 50, "initializer_range": 0.5} | settings
    return tiny_encoder(folder, model_class, {"long_records": "all"}, **settings)


def save_model(folder, *args, **settings):
    """[`drawn_model`] as a folder."""
    drawn_model(*args, folder=folder, **settings)
    return Path(folder)


def wfdb_pair(folder, name="visit", **changes):
    """A header and its signal file, as one chooses them; `changes` are replacements in the header's text."""
    header = (RECORDS / "00001_lr.hea").read_text().replace("00001_lr", name)
    for before, after in changes.values():
        assert before in header
        header = header.replace(before, after)
    (folder / f"{name}.hea").write_text(header)
    shutil.copyfile(RECORDS / "00001_lr.dat", folder / f"{name}.dat")
    return [str(folder / f"{name}.hea"), str(folder / f"{name}.dat")]


def millivolts():
    return read_recording(RECORDS / "00001_lr.hea").to_millivolts()


def csv_file(folder, name="visit.csv", header=True, leads=None, cell=None, signal=None):
    """A table of the same recording; `cell` replaces the first value."""
    record = read_recording(RECORDS / "00001_lr.hea")
    leads = leads or list(record.leads)
    signal = record.to_millivolts()[[list(record.leads).index(lead) for lead in leads]] if signal is None else signal
    lines = [[f"{value:.4f}" for value in column] for column in signal.T]
    if cell is not None:
        lines[0][0] = cell
    text = [",".join(leads)] * header + [",".join(line) for line in lines]
    (folder / name).write_text("\n".join(text) + "\n")
    return [str(folder / name)]


def edf_file(folder, name="visit.edf"):
    """The same recording as EDF, with the name of a patient in its header."""
    import pyedflib

    record = read_recording(RECORDS / "00001_lr.hea")
    signal = record.to_millivolts().astype(float)
    path = str(folder / name)
    with pyedflib.EdfWriter(path, len(signal), file_type=pyedflib.FILETYPE_EDFPLUS) as file:
        file.setPatientName("Jane_Roe")
        for number, (lead, row) in enumerate(zip(record.leads, signal, strict=True)):
            edge = float(np.ceil(np.abs(row).max() + 0.1))
            settings = {"label": lead, "dimension": "mV", "sample_frequency": 100}
            limits = {"physical_min": -edge, "physical_max": edge, "digital_min": -32768, "digital_max": 32767}
            file.setSignalHeader(number, settings | limits | {"transducer": "", "prefilter": ""})
        file.writeSamples(list(signal))
    return [path]


def text_file(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return [str(folder / name)]


def bad_uploads(folder):
    """Name -> (files, declared, words of the sentence that is expected)."""
    for name in ("cut", "alone", "tricks", "absolute", "two"):
        (folder / name).mkdir(parents=True)
    cut = wfdb_pair(folder / "cut")
    Path(cut[1]).write_bytes(Path(cut[1]).read_bytes()[:500])
    tricks = wfdb_pair(folder / "tricks", path=("visit.dat", "../../etc/passwd"))
    absolute = wfdb_pair(folder / "absolute", path=("visit.dat", "/etc/passwd"))
    declared = {"sampling_rate": 100, "unit": "mV"}
    return {
        "nothing chosen": ([], {}, "Choose a file first"),
        "a text file": (
            text_file(folder, "letter.txt", "Dear colleague,\nthank you.\n"),
            declared,
            "letter.txt: the columns",
        ),
        "no format": (text_file(folder, "photo.jpg", b"\xff\xd8\xff" + bytes(99)), {}, "none of the formats"),
        "an empty file": (text_file(folder, "nothing.csv", ""), declared, "nothing.csv is empty (0 bytes)"),
        "a truncated signal file": (cut, {}, "truncated"),
        "a header alone": (wfdb_pair(folder / "alone")[:1], {}, "names visit.dat, which was not uploaded"),
        "a signal file alone": (wfdb_pair(folder / "two")[1:], {}, "choose it together with its header"),
        "a path in the header": (tricks, {}, "'../../etc/passwd', which is not inside the folder"),
        "an absolute path in the header": (absolute, {}, "'/etc/passwd', which is not inside the folder"),
        "no rate": (csv_file(folder), {"unit": "mV"}, "fill in “Sampling rate (Hz)”"),
        "no unit": (csv_file(folder), {"sampling_rate": 100}, "fill in “Unit”"),
        "no leads": (csv_file(folder, "bare.csv", header=False), declared, "“Leads, in their order”"),
        "letters among numbers": (csv_file(folder, "words.csv", cell="high"), declared, "'high' is no number"),
        "missing samples": (csv_file(folder, "gaps.csv", cell="nan"), declared, "of lead I are NaN"),
        "another number of leads": (
            csv_file(folder, "bare.csv", header=False),
            declared | {"leads": "I, II"},
            "but 2 leads are declared",
        ),
        "leads that the model needs": (
            csv_file(folder, "few.csv", leads=["I", "II"]),
            declared,
            "lacks ['V1', 'V2', 'V5']",
        ),
        "other leads": (csv_file(folder, "other.csv", leads=["V3", "V4"]), declared, "the recording has ['V3', 'V4']"),
        "too short": (csv_file(folder, "short.csv", signal=millivolts()[:, :200]), declared, "lasts 2 s"),
        "a wrong rate": (wfdb_pair(folder), {"sampling_rate": 500}, "states 100.0 Hz, not 500"),
        "a rate in letters": (csv_file(folder), {"sampling_rate": "fast", "unit": "mV"}, "should be a number"),
        "an impossible rate": (csv_file(folder), {"sampling_rate": -5, "unit": "mV"}, "sampling rate > 0 Hz"),
    }
