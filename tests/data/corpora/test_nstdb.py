import numpy as np
import pytest

from ecg_transformers.data import label_names, load_ecg
from ecg_transformers.data.corpora.nstdb import NSTDB

OPTIONS = {"rename_leads": None}


def test_noise_recordings_say_their_kind(shared_data):
    records = {e.record_id: NSTDB.read(e, OPTIONS) for e in NSTDB.index(shared_data / "nstdb", OPTIONS)}
    assert {name: records[name].labels for name in ("bw", "em", "ma")} == {
        "bw": ["baseline wander"],
        "em": ["electrode motion"],
        "ma": ["muscle artefact"],
    }
    assert label_names("nstdb") == ("baseline wander", "electrode motion", "muscle artefact")
    noise = records["bw"]
    assert (noise.leads, noise.signal.shape, noise.sampling_rate) == (("noise1", "noise2"), (2, 325_000), 360.0)
    assert noise.patient_id is None and noise.extra["snr_db"] is None


def test_noisy_ecg_states_its_ratio_patient_and_beats(write_record):
    import wfdb

    for name in ("118e_6", "119e24", "other"):
        path = write_record(name, leads=("MLII", "V1"), folder="nstdb")
        wfdb.wrann(name, "atr", np.array([10, 40]), ["N", "V"], write_dir=str(path.parent))
    rows = {row["record_id"]: row for row in load_ecg("nstdb", path.parent, streaming=True)}
    assert {name: row["snr_db"] for name, row in rows.items()} == {"118e_6": -6, "119e24": 24}
    assert (rows["118e_6"]["patient_id"], rows["118e_6"]["labels"]) == ("118", [])
    assert rows["119e24"]["annotation_sample"] == [10, 40]
    assert rows["119e24"]["annotation_class"] == ["N", "V"]


def test_noisy_ecg_without_beats_is_refused(write_record):
    path = write_record("118e00", folder="nstdb")
    with pytest.raises(ValueError, match="118e00.atr: No such file"):
        NSTDB.read(NSTDB.index(path.parent, OPTIONS)[0], OPTIONS)
