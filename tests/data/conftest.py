"""Recordings on disk for the tests of `data`: carried ones, made ones, and the shared corpora where present."""

import http.server
import os
import shutil
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

FIXTURES = Path(__file__).parents[1] / "fixtures" / "wfdb"
SHARED = Path(os.environ.get("ECG_TRANSFORMERS_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Many shards of few records, so that a test is quick."""
    monkeypatch.setattr("ecg_transformers.data.prepare.FEWEST_SHARD_RECORDS", 1)


@pytest.fixture(scope="session")
def wfdb_fixtures() -> Path:
    return FIXTURES


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the shared corpora are not present in {SHARED}")
    return SHARED


@pytest.fixture
def ptb_xl_folder(tmp_path) -> Path:
    """A writable copy of five records in PTB-XL's layout: folds 3, 2, 5, 9 and 10."""
    return Path(shutil.copytree(FIXTURES / "ptb-xl", tmp_path / "ptb-xl"))


@pytest.fixture
def write_record(tmp_path):
    """Writes a format-16 record and returns its path without ending."""

    def write(name="r1", steps=None, gain="1000(0)/mV", leads=("I", "II"), folder="records", lines=(), checksums=None):
        steps = np.arange(2 * 50).reshape(2, 50) if steps is None else np.asarray(steps)
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".dat").write_bytes(steps.T.astype("<i2").tobytes())
        sums = [int(row.sum()) & 0xFFFF for row in steps] if checksums is None else checksums
        header = [f"{path.name} {len(leads)} 100 {steps.shape[1]}"]
        header += [
            f"{path.name}.dat 16 {gain} 16 0 {row[0]} {total} 0 {lead}"
            for row, total, lead in zip(steps, sums, leads, strict=True)
        ]
        path.with_suffix(".hea").write_text("\n".join([*header, *lines]) + "\n")
        return path

    return write


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    """Serves a folder on 127.0.0.1 and returns its address."""
    servers = []

    def start(folder, handler=QuietHandler):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
