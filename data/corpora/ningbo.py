"""Ningbo: 34,905 recordings of as many patients (10 s, 500 Hz), JS10647 to JS45551.

Published with the PhysioNet/CinC Challenge 2021 and, together with Chapman-Shaoxing, as PhysioNet's `ecg-arrhythmia`
under the same names, but for one: `S23074` of the challenge is `JS23074` there. One recording a patient, so each is
split by its own name. In about 1,500 recordings some leads are flat, mostly the precordial ones, as recorded.
"""

from .chapman_shaoxing import ARRHYTHMIA_HOMEPAGE
from .cinc_source import CincSource, cinc_corpus

NINGBO_CITATION = (
    "Zheng J, Chu H, Struppa D, et al. Optimal multi-stage arrhythmia classification approach. Sci Rep 2020;10:2898. "
    "doi:10.1038/s41598-020-59821-7"
)

NINGBO_SOURCE = CincSource(
    "ningbo", "Ningbo", "JS", 5, count=34905, numbers=range(10647, 45552), renamed={"S23074": "JS23074"}
)
NINGBO = cinc_corpus(NINGBO_SOURCE, ARRHYTHMIA_HOMEPAGE, NINGBO_CITATION)
