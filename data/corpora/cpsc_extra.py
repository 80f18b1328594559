"""CPSC-Extra: 3,453 recordings (6 to 98 s, 500 Hz) of the China Physiological Signal Challenge 2018 that were first
published with the PhysioNet/CinC Challenge 2020. Patients are not stated: each recording is split by its own name."""

from .cinc_source import CincSource, cinc_corpus

CPSC_EXTRA_SOURCE = CincSource("cpsc-extra", "CPSC-Extra", "Q", 4, count=3453)
CPSC_EXTRA = cinc_corpus(CPSC_EXTRA_SOURCE)
