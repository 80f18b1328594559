"""Damaged files of every format: each ends in a recording or a `ValueError`, soon and in little memory.

A mutation is a function of its format and number alone, so that a report names what has to be looked at. Files are
read in a child process: a crash of the interpreter, a hang and a demand for memory are seen there and counted here.
The slow test takes `ECG_TRANSFORMERS_FUZZ` mutations of each format (1500 by default, more than 20,000 in all).
"""

import faulthandler
import mmap
import os
import re
import resource
import signal
import struct
import traceback
import zlib
from pathlib import Path

import numpy as np
import pytest

from ecg_transformers.data.formats.matlab5_struct import read_struct
from ecg_transformers.data.formats.wfdb_annotations import read_annotations
from ecg_transformers.data.recording_file import read_recording
from ecg_transformers.data.records import EcgRecord

from .formats import test_aecg_reader as aecg
from .formats import test_atc_reader as atc
from .formats import test_cardiosoft_reader as cardiosoft
from .formats import test_dicom_reader as dicom
from .formats import test_ishne_reader as ishne
from .formats import test_muse_reader as muse
from .formats import test_philips_reader as philips
from .formats.test_scp_reader import scp_file

SECONDS_EACH = 20
MEGABYTES = 512  # beyond what the process had before
MAX_FINDINGS = 10

LEADS = ("I", "II", "V1")
STEPS = np.random.RandomState(0).randint(-900, 900, size=(3, 60)).astype("<i2")
ARRAY = {"leads": LEADS, "sampling_rate": 250, "unit": "mV", "axes": "lead,sample"}
TABLE = {"sampling_rate": 250, "unit": "mV"}

SEEDS = {}


def seed(*names):
    """Declares a writer of well-formed files: `(folder, name) -> (path to read, files to damage, arguments)`."""

    def declare(function):
        SEEDS.update(dict.fromkeys(names, function))
        return function

    return declare


@seed("wfdb 16", "wfdb 212", "wfdb 24", "wfdb 80", "wfdb 516")
def write_wfdb(folder: Path, name: str):
    import wfdb

    fmt = name.split()[1]
    signal_ = STEPS.T.astype(np.int64) // (16 if fmt == "80" else 1)
    names = {"fmt": [fmt] * 3, "units": ["mV"] * 3, "sig_name": list(LEADS), "adc_gain": [200.0] * 3}
    wfdb.wrsamp("r", fs=250, d_signal=signal_, baseline=[0] * 3, write_dir=str(folder), comments=["Age: 60"], **names)
    return folder / "r.hea", [folder / "r.hea", folder / "r.dat"], {}


@seed("wfdb 310", "wfdb 311", "wfdb 8", "wfdb 32", "wfdb frames")
def write_bytes_as_wfdb(folder: Path, name: str):
    fmt = {"frames": "16x4"}.get(name.split()[1], name.split()[1])
    lines = [f"r.dat {fmt} 200/µV 16 0 0 0 0 {lead}" for lead in LEADS[:2]]
    (folder / "r.hea").write_text("\n".join(["r 2 250 60", *lines, ""]), encoding="utf-8")
    (folder / "r.dat").write_bytes(STEPS.tobytes() * 4)
    return folder / "r.hea", [folder / "r.hea", folder / "r.dat"], {}


@seed("wfdb segments")
def write_segments(folder: Path, name: str):
    write_wfdb(folder, "wfdb 16")
    (folder / "m.hea").write_text("m/2 3 250 120\nr 60\nr 60\n")
    return folder / "m.hea", [folder / "m.hea", folder / "r.hea", folder / "r.dat"], {}


@seed("wfdb challenge")
def write_challenge(folder: Path, name: str):
    source = Path(__file__).parents[1] / "fixtures/wfdb/cinc"
    for ending in (".hea", ".mat"):
        (folder / f"E00015{ending}").write_bytes((source / f"E00015{ending}").read_bytes())
    return folder / "E00015.hea", [folder / "E00015.hea", folder / "E00015.mat"], {}


@seed("wfdb annotations")
def write_annotations(folder: Path, name: str):
    import wfdb

    wfdb.wrann(
        "r", "atr", np.array([5, 20, 40_000]), ["N", "+", "V"], aux_note=["", "(AFIB", ""], write_dir=str(folder)
    )
    return folder / "r.atr", [folder / "r.atr"], {}


@seed("npy")
def write_npy(folder: Path, name: str):
    np.save(folder / "r.npy", STEPS)
    return folder / "r.npy", [folder / "r.npy"], ARRAY | {"step": 0.005}


@seed("npz")
def write_npz(folder: Path, name: str):
    np.savez_compressed(folder / "r.npz", signal=STEPS * np.float32(0.005))
    return folder / "r.npz", [folder / "r.npz"], ARRAY


@seed("csv")
def write_csv(folder: Path, name: str):
    lines = [",".join(LEADS), *(",".join(f"{value / 200:.3f}" for value in row) for row in STEPS.T)]
    (folder / "r.csv").write_text("\n".join(lines))
    return folder / "r.csv", [folder / "r.csv"], TABLE


@seed("csv apple", "csv times", "csv opensignals")
def write_exports(folder: Path, name: str):
    if name == "csv apple":
        head, rows = ["Name,Test", "Sample Rate,512 hertz", "Lead,Lead I", "Unit,µV", ""], STEPS[:1].T / 8
    elif name == "csv times":
        head, rows = ["time [ms];ecg [uV]"], np.stack([np.arange(60) * 4, STEPS[0]], axis=1)
    else:
        device = '{"sensor": ["ECG"], "column": ["nSeq", "A1"], "label": ["A1"], "sampling rate": 1000}'
        head, rows = ["# OpenSignals", '# {"00:07": ' + device + "}", "# EndOfHeader"], STEPS[:2].T
    sign = {"csv apple": ",", "csv times": ";"}.get(name, "\t")
    lines = [*head, *(sign.join(map(str, row)) for row in rows.tolist())]
    (folder / "r.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "r.csv", [folder / "r.csv"], {"leads": ["ECG"], "unit": "mV"} if "open" in name else {}


@seed("scp", "scp huffman")
def write_scp_file(folder: Path, name: str):
    packed = name.endswith("huffman")
    (folder / "r.scp").write_bytes(scp_file(STEPS, huffman=packed, differences=2 * packed))
    return folder / "r.scp", [folder / "r.scp"], {}


@seed("ishne")
def write_ishne(folder: Path, name: str):
    head = ishne.header(leads=(5, 6, 11), resolution=(5000,) * 3, stated=60)
    (folder / "r.ecg").write_bytes(head + STEPS.T.tobytes())
    return folder / "r.ecg", [folder / "r.ecg"], {}


@seed("atc")
def write_atc(folder: Path, name: str):
    (folder / "r.atc").write_bytes(atc.document(num_leads=2))
    return folder / "r.atc", [folder / "r.atc"], {}


@seed("parquet rows", "parquet columns")
def write_parquet(folder: Path, name: str):
    import pyarrow as pa
    import pyarrow.parquet as pq

    if name.endswith("rows"):
        row = EcgRecord("r", STEPS, LEADS, 250, gain=np.full(3, 0.005)).to_row()
        table = pa.Table.from_pylist([{"record_id": "r", "ecg": row["ecg"], "labels": ["NORM"]}])
    else:
        table = pa.table({lead: values * 0.005 for lead, values in zip(LEADS, STEPS, strict=True)})
    pq.write_table(table, folder / "r.parquet")
    return folder / "r.parquet", [folder / "r.parquet"], {} if name.endswith("rows") else TABLE


@seed("hdf5", "hdf5 contiguous")
def write_hdf5(folder: Path, name: str):
    import h5py

    with h5py.File(folder / "r.h5", "w") as file:
        storage = {"chunks": (3, 30), "compression": "gzip"} if name == "hdf5" else {}
        file.create_dataset("tracings", data=STEPS, **storage)
        file.attrs["rate"] = 250
    return folder / "r.h5", [folder / "r.h5"], ARRAY | {"step": 0.005}


@seed("matlab 4", "matlab 5", "matlab 5 plain", "matlab struct", "matlab struct plain", "matlab field")
def write_matlab(folder: Path, name: str):
    from scipy.io import savemat

    is_struct, is_plain = "struct" in name, name.endswith("plain")
    nested = {"ECG": {"sex": "Male", "age": 60.0, "data": STEPS * 0.005}}
    values = nested if is_struct or name.endswith("field") else {"val": STEPS}
    version = "4" if name == "matlab 4" else "5"
    savemat(folder / "r.mat", values, format=version, do_compression=version == "5" and not is_plain)
    arguments = ARRAY | ({"dataset": "ECG.data"} if name.endswith("field") else {"step": 0.005})
    return folder / "r.mat", [folder / "r.mat"], {} if is_struct else arguments


@seed("edf", "bdf")
def write_edf(folder: Path, name: str):
    import pyedflib

    kind = pyedflib.FILETYPE_EDFPLUS if name == "edf" else pyedflib.FILETYPE_BDFPLUS
    path = folder / f"r.{name}"
    with pyedflib.EdfWriter(str(path), 3, file_type=kind) as writer:
        for number, lead in enumerate(LEADS):
            header = {"label": f"ECG {lead}", "dimension": "mV", "sample_frequency": 30, "transducer": ""}
            limits = {"physical_min": -5.0, "physical_max": 5.0, "digital_min": -32768, "digital_max": 32767}
            writer.setSignalHeader(number, header | limits | {"prefilter": ""})
        writer.writeSamples([np.ascontiguousarray(row * 0.005) for row in STEPS])
    return path, [path], {}


@seed("dicom")
def write_dicom(folder: Path, name: str):
    dicom.save(folder / "r.dcm", dicom.group(STEPS, [dicom.channel(lead) for lead in LEADS]))
    return folder / "r.dcm", [folder / "r.dcm"], {}


@seed("aecg", "cardiosoft", "muse", "philips", "philips xli")
def write_xml(folder: Path, name: str):
    leads = philips.twelve_leads(120)
    documents = {
        "aecg": lambda: aecg.document(aecg.series("".join(aecg.sequence(lead, "1 2 3 4 5") for lead in LEADS))),
        "cardiosoft": lambda: cardiosoft.document(cardiosoft.part("StripData", STEPS[:2])),
        "muse": lambda: muse.document(muse.waveform(muse.EIGHT)),
        "philips": lambda: philips.document_1_04(leads.astype("<i2").tobytes(), 120, compression="Uncompressed"),
        "philips xli": lambda: philips.document_1_04(philips.compressed(leads), 120),
    }
    text = re.sub(r' encoding="[^"]*"', "", documents[name]().lstrip())
    (folder / "r.xml").write_text(text, encoding="utf-8")
    return folder / "r.xml", [folder / "r.xml"], {}


# --- mutations

NUMBERS = (b"0", b"-1", b"1", b"99999999999999999999", b"4294967295", b"2147483648", b"nan", b"1e400", b"-1e-320", b"")
WORDS = (
    b"../../etc/passwd",
    b"/etc/passwd",
    b"C:\\secret",
    b"~/secret",
    b"~",
    b".",
    b"a\0b",
    b"\xff\xfe",
    b"I",
    b"r/9",
)
XML = (b'<!DOCTYPE x [<!ENTITY a "aaaa">]>', b"&a;", b"<a>" * 100, b'<!DOCTYPE x SYSTEM "file:///etc/passwd">', b"]]>")
PRINTABLE, DIGITS = np.arange(32, 127, dtype=np.uint8), np.arange(48, 58, dtype=np.uint8)
KINDS = (0, 0, 0, 1, 2, 3, 4, 5, 5, 6, 6, 6, 7, 7, 8)  # flips, numbers and names are the likeliest
INTEGERS = tuple(
    value.to_bytes(size, order)
    for size in (2, 4, 8)
    for order in ("little", "big")
    for value in (0, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 1) - 1, 65, 2 ** (8 * size - 4))
)


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """One to three changes; half of them near the start, where headers are."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        end = max(1, len(data) if random.random() < 0.5 else min(len(data), 400))
        at, kind = int(random.integers(end)), random.choice(KINDS)
        if kind == 0:
            for position in random.integers(end, size=random.integers(1, 9)):
                usual = DIGITS if data[position : position + 1].isdigit() else PRINTABLE
                data[position : position + 1] = random.choice(usual, size=1).tobytes() if at % 3 else random.bytes(1)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = random.bytes(int(random.integers(1, 20)))
        elif kind == 3:
            del data[at : at + int(random.integers(1, 40))]
        elif kind == 4:
            data[at:at] = data[at : at + int(random.integers(1, 200))]
        elif kind == 5:
            value = INTEGERS[random.integers(len(INTEGERS))]
            data[at : at + len(value)] = value
        elif kind == 6:
            replace_token(data, rb"-?\d+(\.\d+)?", NUMBERS, random)
        elif kind == 7:
            replace_token(data, rb"[A-Za-z_.]{2,}", WORDS, random)
        else:
            data[at:at] = XML[random.integers(len(XML))]
    return bytes(data)


def replace_token(data: bytearray, pattern: bytes, values: tuple[bytes, ...], random: np.random.Generator):
    found = list(re.finditer(pattern, bytes(data[:1500])))
    if found:
        match = found[random.integers(len(found))]
        data[match.start() : match.end()] = values[random.integers(len(values))]


# --- reading them, in a child


def read_damaged(name: str, folder: Path, numbers: range, progress: mmap.mmap) -> list[str]:
    """What was neither a recording nor a `ValueError`, in sentences; `progress` always holds the number at work."""
    path, files, arguments = SEEDS[name](folder, name)
    originals = {file: file.read_bytes() for file in files}
    usual = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    findings, refused = [], 0
    for number in numbers:
        progress[:8] = struct.pack("<q", number)
        random = np.random.default_rng([zlib.crc32(name.encode()), number])
        file = files[random.integers(len(files))]
        file.unlink()  # a new file each time: libraries keep what they know of an open one
        file.write_bytes(mutate(originals[file], random))
        signal.setitimer(signal.ITIMER_REAL, SECONDS_EACH)
        try:
            read_seed(name, path, arguments)
        except ValueError as error:
            refused += 1
            if asked_for_memory(error):
                findings.append(f"{name} {number}: asked for too much memory\n{traceback.format_exc()}")
        except BaseException:
            findings.append(f"{name} {number}:\n{traceback.format_exc()}")
        signal.setitimer(signal.ITIMER_REAL, 0)
        file.unlink()
        file.write_bytes(originals[file])
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if largest > usual + MEGABYTES * 1024:
            findings.append(f"{name} {number}: took {(largest - usual) // 1024} MB")
            usual = largest
        if len(findings) >= MAX_FINDINGS:
            break
    progress[8:16] = struct.pack("<q", struct.unpack("<q", progress[8:16])[0] + refused)
    return findings


def read_seed(name: str, path: Path, arguments: dict):
    if name == "wfdb annotations":
        assert len(read_annotations(path).samples) >= 0
    elif name.startswith("matlab struct"):
        assert isinstance(read_struct(path, "ECG"), dict)
    else:
        record = read_recording(path, **arguments)
        assert isinstance(record, EcgRecord) and record.signal.shape[0] == len(record.leads)
        assert record.num_missing_samples >= 0


def asked_for_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def fuzz(name: str, count: int, folder: Path) -> tuple[list[str], int]:
    """Findings, and how many of `count` mutations were refused."""
    findings, start, progress = [], 0, mmap.mmap(-1, 16)
    while start < count and len(findings) < MAX_FINDINGS:
        report = folder / f"findings-{start}"
        work = folder / f"work-{start}"
        work.mkdir()
        child = os.fork()
        if child == 0:
            run_child(name, work, range(start, count), progress, report)
        _, status = os.waitpid(child, 0)
        findings += [text for text in report.read_text().split("\0") if text] if report.is_file() else []
        if status == 0:
            break
        number = struct.unpack("<q", progress[:8])[0]
        how = f"signal {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else f"status {status}"
        findings.append(f"{name} {number}: the process ended by {how} (SIGALRM: a hang)")
        start = number + 1
    return findings, struct.unpack("<q", progress[8:16])[0]


def run_child(name: str, folder: Path, numbers: range, progress: mmap.mmap, report: Path):
    """Never returns."""
    status = 1
    try:
        faulthandler.disable()  # the parent reports
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1), os.dup2(quiet, 2)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 3 * MEGABYTES * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        report.write_text("\0".join(read_damaged(name, folder, numbers, progress)))
        status = 0
    except BaseException:
        report.write_text(traceback.format_exc())
    finally:
        os._exit(status)


@pytest.mark.parametrize("name", SEEDS)
def test_undamaged_files_are_read(name, tmp_path):
    path, _, arguments = SEEDS[name](tmp_path, name)
    read_seed(name, path, arguments)


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files_give_a_recording_or_a_value_error(name, tmp_path):
    findings, refused = fuzz(name, 80, tmp_path)
    assert not findings, "\n\n".join(findings)
    assert refused >= 10  # the mutations do damage


# A table of text may end anywhere; what the others leave open has tests of its own.
MAY_END_EARLIER = ("csv", "wfdb 310", "wfdb 311", "wfdb 8", "wfdb 32", "wfdb frames", "wfdb annotations")


@pytest.mark.parametrize("name", [name for name in SEEDS if not name.startswith(MAY_END_EARLIER)])
def test_truncated_files_are_refused(name, tmp_path):
    path, files, arguments = SEEDS[name](tmp_path, name)
    content = files[-1].read_bytes()
    for size in (0, 8, 100, len(content) // 2, len(content) - 1):
        files[-1].write_bytes(content[:size])
        with pytest.raises(ValueError):  # noqa: PT011, each reader has words of its own
            read_seed(name, path, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDS)
def test_many_damaged_files_give_a_recording_or_a_value_error(name, tmp_path):
    findings, _ = fuzz(name, int(os.environ.get("ECG_TRANSFORMERS_FUZZ", "1500")), tmp_path)
    assert not findings, "\n\n".join(findings)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("wfdb 24", b"r 3 250 60", b"r 3 250 4294967295"),
        ("wfdb 24", b"r.dat 24", b"r.dat 24x999"),
        ("wfdb segments", b"\nr 60", b"\nr 4294967295"),
        ("wfdb segments", b"250 120", b"250 4294967295"),
        ("npy", b"(3, 60)", b"(3, 6000000000)"),
        ("edf", b"2       ", b"99999999"),
        ("philips xli", b'durationperchannel="240"', b'durationperchannel="99999999999"'),
        ("philips", b'samplespersecond="500"', b'samplespersecond="1e300"'),
        ("muse", b"<SampleExponent>0", b"<SampleExponent>9"),
        ("matlab struct plain", struct.pack("<IIii", 5, 8, 3, 60), struct.pack("<IIii", 5, 8, 2**30, 2**30)),
    ],
)
def test_a_size_field_does_not_decide_how_much_memory_is_asked_for(name, old, new, tmp_path, monkeypatch):
    path, files, _ = SEEDS[name](tmp_path, name)
    assert any(old in file.read_bytes() for file in files)
    monkeypatch.setitem(globals(), "mutate", lambda content, random: content.replace(old, new))
    findings, refused = fuzz(name, 8, tmp_path)
    assert not findings, "\n\n".join(findings)
    assert refused


@pytest.mark.parametrize("how", ["os._exit(3)", "os.kill(os.getpid(), 11)", "bytearray(2**40)", "1 // 0"])
def test_crashes_and_demands_for_memory_are_seen(how, tmp_path, monkeypatch):
    def misbehave(path, **arguments):
        try:
            exec(how)
        except MemoryError as error:
            raise ValueError("damaged") from error

    monkeypatch.setitem(globals(), "read_recording", misbehave)
    findings, _ = fuzz("csv", 3, tmp_path)
    assert len(findings) == 3
