import json

import numpy as np
import pytest

from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.data.corpora import ecg_folder, npy_dump

DUMP = {"array": "a.npy", "table": "t.csv", "leads": ["I", "II"], "sampling_rate": 100, "unit": "mV"}
DUMP |= {"axes": "record,sample,lead", "record_id": "id", "labels": ["AF"]}
FOLDER = {"table": "t.csv", "sampling_rate": 100, "unit": "mV"}
VALUES = [5, True, [], {}, "x", ["x"], [5], [[1]], {"a": 1}, -1, ""]


@pytest.fixture(params=["npy", "ecgfolder"])
def declared(request, tmp_path):
    """Name of the corpus, its folder, the file of its declaration, a sound one and all keys."""
    np.save(tmp_path / "a.npy", np.zeros((2, 20, 2), dtype=np.float32))
    (tmp_path / "r.csv").write_text("I,II\n" + "0.1,0.2\n" * 20)
    if request.param == "npy":
        (tmp_path / "t.csv").write_text("id,AF\n1,0\n2,1\n")
        return "npy", tmp_path, npy_dump.DECLARATION_NAME, DUMP, npy_dump.OPTIONS
    (tmp_path / "t.csv").write_text("path,labels\nr.csv,AF\n")
    return "ecgfolder", tmp_path, ecg_folder.DECLARATION_NAME, FOLDER, ecg_folder.OPTIONS


def test_a_value_of_another_kind_is_refused_or_a_bad_record(declared):
    name, folder, file, sound, keys = declared
    refused = 0
    for key in keys:
        for value in VALUES:
            (folder / file).write_text(json.dumps(sound | {key: value}))
            try:
                list(load_ecg(name, folder, split="all", streaming=True))
                label_names(name, folder)
            except ValueError:
                refused += 1
    assert refused > 5 * len(keys)


def test_an_error_names_the_key_and_what_was_expected(declared):
    name, folder, file, sound, _ = declared
    (folder / file).write_text(json.dumps(sound | {"table": 5}))
    with pytest.raises(ValueError, match="Expected table of .* as a text, got 5"):
        load_ecg(name, folder)


def test_lists_without_end_in_one_another_are_refused(declared):
    name, folder, file, *_ = declared
    (folder / file).write_text("[" * 200_000)
    with pytest.raises(ValueError, match="is no JSON"):
        load_ecg(name, folder)
