"""The corpora that `load_ecg` knows, by name."""

from ..corpus import Corpus
from .npy_dump import NPY_DUMP
from .ptb_xl import PTB_XL, PTB_XL_SAMPLE
from .wfdb_folder import WFDB_FOLDER

CORPORA: dict[str, Corpus] = {corpus.name: corpus for corpus in (PTB_XL, PTB_XL_SAMPLE, WFDB_FOLDER, NPY_DUMP)}
