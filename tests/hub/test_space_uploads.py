import os
import time

import pytest
from filelock import FileLock

from ecg_transformers.hub import space_uploads


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(space_uploads.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_old_files_go_whoever_wrote_them_and_new_ones_stay(tmp_path):
    (tmp_path / "gradio" / "old").mkdir(parents=True)
    for name in (".lock", "gradio/old/a.csv", "tmpaborted", "new.csv"):
        (tmp_path / name).write_text("")
    long_ago = time.time() - 3600
    for name in (".lock", "gradio/old/a.csv", "tmpaborted"):
        os.utime(tmp_path / name, (long_ago, long_ago))
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    space_uploads.sweep(tmp_path, 1800)
    assert {path.name for path in tmp_path.rglob("*") if not path.is_dir()} == {".lock", "new.csv", "link"}


def test_folders_of_pages_that_are_no_more_go_and_others_stay(temporary):
    for name in ("ecg-space-dead", "ecg-space-alive", "ecg-space-no-lock", "other"):
        (temporary / name).mkdir()
        if name != "ecg-space-no-lock":
            (temporary / name / ".lock").write_text("")
    with FileLock(temporary / "ecg-space-alive" / ".lock"):
        space_uploads.remove_left_folders()
        assert {path.name for path in temporary.iterdir()} == {"ecg-space-alive", "ecg-space-no-lock", "other"}


def test_a_folder_is_new_and_swept_while_the_process_runs(temporary):
    folder = space_uploads.make_folder(0.2)
    (folder / "upload.csv").write_text("1,2")
    assert folder.parent == temporary.resolve() and os.stat(folder).st_mode & 0o77 == 0
    for _ in range(100):
        if not (folder / "upload.csv").exists():
            break
        time.sleep(0.05)
    assert [path.name for path in folder.iterdir()] == [".lock"]
