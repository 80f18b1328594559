"""What is stored of a record that cannot be read names no folder of this machine."""

from ecg_transformers.data.builder import read_or_report
from ecg_transformers.data.corpora.wfdb_folder import WFDB_FOLDER
from ecg_transformers.data.corpus import IndexEntry


def test_a_reason_names_the_file_and_not_the_folder(tmp_path):
    (tmp_path / "b.hea").write_text("b 1 100 10\nb.dat 16 200/mV 16 0 0 0 0 I\n")
    bad = []
    entry = IndexEntry(str(tmp_path / "b"), "b", "train", {})
    assert read_or_report(WFDB_FOLDER, entry, WFDB_FOLDER.complete_options({}), "report", bad) is None
    assert "b.dat" in bad[0].reason and str(tmp_path) not in bad[0].reason
