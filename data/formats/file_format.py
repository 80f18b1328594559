"""Format of a file: by its content, and by its ending where content says nothing."""

import os
from pathlib import Path

from .atc_reader import SIGNATURE as ATC_SIGNATURE
from .edf_reader import is_edf
from .hdf5_reader import SIGNATURE as HDF5_SIGNATURE
from .ishne_reader import SIGNATURE as ISHNE_SIGNATURE
from .limits import check_file
from .safe_xml import root_name
from .scp_reader import SIGNATURE as SCP_SIGNATURE

FORMATS = {
    "WFDB": "a header .hea with its .dat or .mat files",
    "EDF": ".edf, .bdf",
    "DICOM": "ECG waveforms, .dcm",
    "aECG": "HL7 annotated ECG, .xml",
    "MUSE": "GE MUSE, .xml",
    "Philips": "Sierra ECG, .xml",
    "CardioSoft": "GE CardioSoft, .xml",
    "ISHNE": "Holter, .ecg",
    "ATC": "KardiaMobile, .atc",
    "SCP": "SCP-ECG, .scp",
    "npy": ".npy",
    "npz": ".npz",
    "HDF5": ".h5, .hdf5",
    "MATLAB": ".mat",
    "CSV": ".csv, .tsv, .txt",
    "Parquet": ".parquet",
}

_XML_ROOTS = {"AnnotatedECG": "aECG", "RestingECG": "MUSE", "restingecgdata": "Philips"}
_XML_ROOTS |= {"CardiologyXML": "CardioSoft"}
_ENDINGS = {".csv": "CSV", ".tsv": "CSV", ".txt": "CSV", ".mat": "MATLAB", ".h5": "HDF5", ".hdf5": "HDF5"}


def find_format(path: str | os.PathLike) -> str:
    """The key of `FORMATS` that a file is, by its content, and by its ending where content says nothing.

    Raises:
        ValueError: if there is no such file or it is none of the formats; lists them.
    """
    path = os.fspath(path)
    if wfdb_path(path) is not None:
        return "WFDB"
    if os.path.isdir(path):
        raise ValueError(
            f"{path} is a folder. Give one file of it, or look at all by `ecg-transformers info`; load_ecg loads it."
        )
    if not os.path.lexists(path):
        raise ValueError(f"There is no file {path}.")
    check_file(path)
    with open(path, "rb") as file:
        head = file.read(256)
    ending = Path(path).suffix.lower()
    known = _format_of_content(head, path) or _ENDINGS.get(ending)
    if known is None:
        formats = "; ".join(f"{name} ({what})" for name, what in FORMATS.items())
        raise ValueError(f"{path} is none of the formats that are read: {formats}.")
    return known


def wfdb_path(path: str | os.PathLike) -> str | None:
    """The path without ending of the WFDB record that a path means; `None` if it means none."""
    path = os.fspath(path)
    stem, ending = os.path.splitext(path)
    if ending.lower() == ".hea":
        return stem
    if ending.lower() in (".dat", ".mat") and os.path.isfile(stem + ".hea"):
        return stem
    return path if not os.path.isfile(path) and os.path.isfile(path + ".hea") else None


def _format_of_content(head: bytes, path: str) -> str | None:
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PK\x03\x04") and path.lower().endswith(".npz"):
        return "npz"
    if head.startswith(HDF5_SIGNATURE):
        return "HDF5"
    if head.startswith(b"MATLAB "):
        return "MATLAB"
    if head[16:22] == SCP_SIGNATURE:
        return "SCP"
    if head.startswith(ATC_SIGNATURE):
        return "ATC"
    if head.startswith(ISHNE_SIGNATURE):
        return "ISHNE"
    if head.startswith(b"PAR1"):
        return "Parquet"
    if head[128:132] == b"DICM":
        return "DICOM"
    if is_edf(head):
        return "EDF"
    if head.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0").startswith(b"<"):
        root = root_name(path)
        if root is not None and root not in _XML_ROOTS:
            raise ValueError(f"{path} is XML with the root {root!r}. Those that are read: {_XML_ROOTS}.")
        return None if root is None else _XML_ROOTS[root]
    return None
