"""A written Space runs by `python app.py`, outside of the repository and with the package that lies in it, and is
driven in Chromium."""

import base64
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ecg_transformers.hub.space import write_space
from ecg_transformers.hub.space_page import SUPERCLASSES

from .space_inputs import bad_uploads, csv_file, edf_file, save_model, wfdb_pair

pytestmark = pytest.mark.slow
SECONDS = 120  # to start, on a machine that does other things too
WAIT = SECONDS * 1000


class Server:
    """`python app.py` in a folder, on a free port, with what it writes to its log."""

    def __init__(self, folder, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address, self.log = f"http://127.0.0.1:{port}/", log
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self.temporary = log.parent / "temporary"
        environment |= {"TMPDIR": str(self.temporary)}
        left = self.temporary / "ecg-space-left"  # of a page that was killed
        left.mkdir(parents=True)
        (left / ".lock").write_text("")
        (left / "visit.csv").write_text("left")
        with open(log, "w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "app.py"], cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        for _ in range(SECONDS * 4):
            if self.process.poll() is not None:
                raise AssertionError(log.read_text()[-3000:])
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.25)
        raise AssertionError("app.py does not answer")

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    folder = tmp_path_factory.mktemp("space")
    calibration = {"labels": list(SUPERCLASSES), "temperature": 1.5, "thresholds": {"NORM": 0.5}}
    model = save_model(folder / "tiny", labels=list(SUPERCLASSES), calibration=calibration)
    written = write_space(str(model), folder / "written")
    shutil.rmtree(model)  # the Space holds all that it needs
    return written


@pytest.fixture(scope="module")
def server(space, tmp_path_factory):
    found = Server(space, tmp_path_factory.mktemp("server") / "log.txt")
    yield found
    found.stop()
    assert list(found.temporary.glob("ecg-*")) == [] and list(found.temporary.rglob("*.csv")) == []


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(server, browser):
    """The page with its first sample, and the addresses elsewhere that it asked for."""
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    opened.elsewhere = []
    opened.on("request", lambda request: opened.elsewhere.append(request.url))
    opened.goto(server.address)
    opened.wait_for_selector("#neighbours img", timeout=WAIT)
    yield opened
    opened.close()


def picture(page, place):
    source = page.locator(f"{place} img").first.get_attribute("src")
    content = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def upload(page, paths, sampling_rate="", unit=None, leads=""):
    """Chooses files in place of those of before, fills in the fields, and presses the button."""
    page.get_by_role("tab", name="Upload").click()
    if page.locator("#upload button[aria-label='Clear']").count():
        page.locator("#upload button[aria-label='Clear']").click()
    page.locator("#upload input[type=file]").first.wait_for(state="attached", timeout=WAIT)
    page.locator("#upload input[type=file]").first.set_input_files(paths)
    if paths:
        page.locator("#upload").get_by_text(Path(paths[0]).stem).first.wait_for(timeout=WAIT)
    if not page.locator("#rate").is_visible():
        page.locator("#declared button").first.click()
    page.locator("#rate").get_by_role("textbox").fill(str(sampling_rate))
    page.locator("#leads").get_by_role("textbox").fill(leads)
    if unit is not None:
        page.locator("#unit input").click()
        page.get_by_role("option", name=unit, exact=True).click()
    page.locator("#submit").click()


def settle(page, name, target=""):
    """Waits until everything that is shown is of this recording."""
    page.locator(f"#scores [aria-label^='Scores of {name}']").wait_for(timeout=WAIT)
    page.locator(f"#explanation img[alt*='{target}, {name}']").wait_for(timeout=WAIT)
    page.locator(f"#neighbours [aria-label^='Near to {name}']").wait_for(timeout=WAIT)


def percents(page):
    return [float(text.rstrip("%")) for text in page.locator("#scores .number").all_inner_texts()]


def test_the_first_sample_is_there_without_a_click_and_nothing_comes_from_elsewhere(page, server):
    assert "Research software, not a medical device." in page.locator(".ecg-banner").inner_text()
    assert "CC BY 4.0" in page.locator("body").inner_text()
    scores = percents(page)
    assert len(scores) == 5 and scores == sorted(scores, reverse=True) and 0 < scores[0] < 100
    assert (picture(page, "#trace") < 60).sum() > 3000
    assert page.locator("#neighbours figure").count() == 4
    local = (server.address, "data:", "blob:")
    assert [url for url in page.elsewhere if not url.startswith(local)] == []


def test_the_package_that_runs_is_the_one_in_the_space(space):
    (space / "where.py").write_text(
        "import importlib.util\n"
        "for name in ('modeling', 'data', 'hub.space_app'):\n"
        "    print(importlib.util.find_spec(f'ecg_transformers.{name}').origin)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "where.py"]
    ran = subprocess.run(command, cwd=space, env=environment, capture_output=True, text=True, check=True)
    (space / "where.py").unlink()
    files = ran.stdout.split()
    assert len(files) == 3 and all(file.startswith(str(space / "ecg_transformers")) for file in files)


def test_another_sample_class_and_method_change_what_is_shown(page):
    before, scores = picture(page, "#trace"), percents(page)
    page.locator("#sample label").nth(2).click()
    settle(page, "PTB-XL 00063")
    assert picture(page, "#trace").shape != before.shape or (picture(page, "#trace") != before).any()
    assert percents(page) != scores
    first = picture(page, "#explanation")
    best = page.locator("#scores .label").first.inner_text().split()[0]
    other = "MI" if best != "MI" else "CD"
    page.locator("#target input").click()
    page.get_by_role("option", name=other, exact=True).click()
    settle(page, "PTB-XL 00063", f"Integrated gradients of the output {other}")
    second = picture(page, "#explanation")
    assert first.shape != second.shape or (first != second).any()
    page.locator("#method label").nth(1).click()
    settle(page, "PTB-XL 00063", "Attention rollout")


def test_a_wfdb_pair_a_table_and_edf_are_shown_alike(page, tmp_path):
    stated = {"sampling_rate": 100, "unit": "mV"}
    found = []
    for paths, declared in ((wfdb_pair(tmp_path), {}), (edf_file(tmp_path), {}), (csv_file(tmp_path), stated)):
        page.reload()
        page.wait_for_selector("#neighbours img", timeout=WAIT)
        upload(page, paths, **declared)
        settle(page, "Your recording")
        found.append((percents(page), page.locator("#neighbours strong").all_inner_texts()))
    assert found[0] == found[1] == found[2]


def test_a_bad_upload_is_a_sentence_on_the_page(page, server, tmp_path):
    cases = bad_uploads(tmp_path)
    for name in sorted(cases, key=lambda name: "unit" in cases[name][1]):  # a unit that was chosen stays chosen
        paths, declared, words = cases[name]
        upload(page, paths, **declared)
        page.locator("#message [role=alert]").get_by_text(words).wait_for(timeout=WAIT)
        page.locator("#results").wait_for(state="hidden", timeout=WAIT)
        text = page.locator("body").inner_text()
        assert "Traceback" not in text and str(tmp_path) not in text, name
    upload(page, edf_file(tmp_path, "good.edf"))
    settle(page, "Your recording")
    assert page.locator("#message [role=alert]").count() == 0
    log = server.log.read_text()
    assert "visit" not in log and "Traceback" not in log and "Error" not in log
    assert not list(server.temporary.rglob("ecg-upload-*"))


def test_what_is_too_large_is_refused_before_it_arrives(page, server, tmp_path):
    (tmp_path / "large.csv").write_bytes(b"0,0\n" * (6 * 2**20))
    page.get_by_role("tab", name="Upload").click()
    page.locator("#upload input[type=file]").set_input_files(str(tmp_path / "large.csv"))
    page.get_by_text("maximum allowed size").first.wait_for(timeout=WAIT)
    assert not list(server.temporary.rglob("large.csv"))


def test_uploads_lie_in_a_folder_of_the_page_and_those_of_a_killed_page_are_gone(page, server, tmp_path):
    upload(page, edf_file(tmp_path, "mine.edf"))
    settle(page, "Your recording")
    (folder,) = server.temporary.glob("ecg-space-*")
    assert folder.name != "ecg-space-left" and list(folder.rglob("mine.edf"))
    assert len(list(server.temporary.rglob("mine.edf"))) == 1
    with socket.create_connection(("127.0.0.1", int(server.address.split(":")[-1].strip("/")))) as cut:
        body = b'--B\r\nContent-Disposition: form-data; name="files"; filename="cut.csv"\r\n\r\n' + b"1,2\n" * 50_000
        head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\n"
        cut.sendall(head + b"Content-Length: %d\r\n\r\n" % (len(body) + 99) + body)
        time.sleep(1)
    inside = [path for path in server.temporary.rglob("*") if path.is_relative_to(folder)]
    assert all(path in inside for path in server.temporary.rglob("*") if path.is_file())  # swept by age


def test_a_small_file_that_claims_to_be_huge_is_a_sentence(page, tmp_path):
    columns = {lead: pa.array(np.zeros(5_000_000, np.float32)) for lead in ("I", "II", "V1", "V2", "V5")}
    pq.write_table(pa.table(columns), tmp_path / "small.parquet", compression="zstd")
    upload(page, [str(tmp_path / "small.parquet")], sampling_rate=500, unit="mV")
    page.locator("#message [role=alert]").get_by_text("expected 1 to 9600000 values").wait_for(timeout=WAIT)


def test_a_phone_shows_all_of_it_without_scrolling_the_page_sideways(server, browser):
    phone = browser.new_page(viewport={"width": 390, "height": 800})
    phone.goto(server.address)
    phone.wait_for_selector("#neighbours img", timeout=WAIT)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.get_by_role("tab", name="Upload").is_visible()
    assert phone.locator("#trace .ecg-paper").evaluate("e => e.scrollWidth > e.clientWidth")
    phone.close()


def test_a_flat_recording_shows_a_red_box_above_its_scores(page, tmp_path):
    path = csv_file(tmp_path, signal=np.zeros((12, 1000)))
    upload(page, path, 100, "mV")
    settle(page, "Your recording")
    box, table = page.locator("#scores .ecg-quality"), page.locator("#scores table")
    assert "There is no signal" in box.inner_text()
    assert box.bounding_box()["y"] < table.bounding_box()["y"]
    red, green, blue = map(int, re.findall(r"\d+", box.evaluate("e => getComputedStyle(e).backgroundColor"))[:3])
    assert red > green + 10 and red > blue + 10
    assert page.locator("#scores b.above").count() == 0
