"""Georgia: 10,344 recordings (5 to 10 s, 500 Hz) of the Georgia 12-lead ECG Challenge Database, published with the
PhysioNet/CinC Challenge 2020. Patients are not stated: each recording is split by its own name. (E07509 and E07510 are
the same signal; both train.)"""

from .cinc_source import CincSource, cinc_corpus

GEORGIA_SOURCE = CincSource("georgia", "Georgia", "E", 5, count=10344)
GEORGIA = cinc_corpus(GEORGIA_SOURCE)
