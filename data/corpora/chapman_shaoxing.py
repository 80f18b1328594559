"""Chapman-Shaoxing: 10,247 recordings of as many patients (10 s, 500 Hz), JS00001 to JS10646.

Published with the PhysioNet/CinC Challenge 2021 and, together with Ningbo, as PhysioNet's `ecg-arrhythmia` under the
same names; either folder will do. One recording a patient, so each is split by its own name.
"""

from .cinc_source import CincSource, cinc_corpus

ARRHYTHMIA_HOMEPAGE = "https://physionet.org/content/ecg-arrhythmia"
CHAPMAN_SHAOXING_CITATION = (
    "Zheng J, Zhang J, Danioko S, Yao H, Guo H, Rakovski C. A 12-lead electrocardiogram database for arrhythmia "
    "research covering more than 10,000 patients. Sci Data 2020;7:48. doi:10.1038/s41597-020-0386-x"
)

CHAPMAN_SHAOXING_SOURCE = CincSource(
    "chapman-shaoxing", "Chapman-Shaoxing", "JS", 5, count=10247, numbers=range(1, 10647)
)
CHAPMAN_SHAOXING = cinc_corpus(CHAPMAN_SHAOXING_SOURCE, ARRHYTHMIA_HOMEPAGE, CHAPMAN_SHAOXING_CITATION)
