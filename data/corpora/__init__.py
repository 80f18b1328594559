"""The corpora that `load_ecg` knows, by name."""

from ..corpus import Corpus
from .brugada_huca import BRUGADA_HUCA
from .chapman_shaoxing import CHAPMAN_SHAOXING
from .cinc2017 import CINC2017
from .cinc2021 import CINC2021
from .code15 import CODE15
from .cpsc2018 import CPSC2018
from .cpsc_extra import CPSC_EXTRA
from .ecg_folder import ECG_FOLDER
from .georgia import GEORGIA
from .incart import INCART
from .ludb import LUDB
from .mimic_iv_ecg import MIMIC_IV_ECG
from .mit_bih import MIT_BIH
from .ningbo import NINGBO
from .npy_dump import NPY_DUMP
from .nstdb import NSTDB
from .ptb import PTB
from .ptb_xl import PTB_XL, PTB_XL_SAMPLE
from .sami_trop import SAMI_TROP
from .sph import SPH
from .wfdb_folder import WFDB_FOLDER

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        PTB_XL,
        PTB_XL_SAMPLE,
        WFDB_FOLDER,
        NPY_DUMP,
        ECG_FOLDER,
        BRUGADA_HUCA,
        CHAPMAN_SHAOXING,
        CINC2017,
        CINC2021,
        CODE15,
        CPSC2018,
        CPSC_EXTRA,
        GEORGIA,
        INCART,
        LUDB,
        MIMIC_IV_ECG,
        MIT_BIH,
        NINGBO,
        NSTDB,
        PTB,
        SAMI_TROP,
        SPH,
    )
}
