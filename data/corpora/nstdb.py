"""MIT-BIH Noise Stress Test Database: three half-hour noise recordings, and two ECGs with one of them added.

Noise, without any heart in it: `bw` (baseline wander), `em` (electrode motion), `ma` (muscle artefact); channels
`noise1` and `noise2`. ECGs: `118e24` to `118e_6` and `119e24` to `119e_6` are recordings 118 and 119 of MIT-BIH with
`em` at 24, 18, 12, 6, 0 and -6 dB, noise in every second two minutes after the first five.

Labels: the kind of noise of the noise recordings. `snr_db` is null for them. ECGs carry the beats of their `.atr`, as
`mit_bih.py` describes them, and the patient of MIT-BIH: beware of training on 118 or 119 there and testing here.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..corpus import Corpus, IndexEntry
from ..records import EcgRecord
from .mit_bih import annotation_features, read_annotated
from .tables import file_names, warn_if_partial

EXPECTED_COUNT = 15
NOISES = {"bw": "baseline wander", "em": "electrode motion", "ma": "muscle artefact"}
_NOISY_ECG = re.compile(r"(118|119)e(_?\d+)$")


def _index(data_dir: Path, options: Mapping[str, Any]) -> list[IndexEntry]:
    names = sorted(file_names(data_dir, ".hea"))
    entries = []
    for name in names:
        match = _NOISY_ECG.match(name)
        if match or name in NOISES:
            entries.append(IndexEntry(str(data_dir / name), name, "train", {"patient_id": match and match[1]}))
    warn_if_partial(NSTDB, data_dir, len(entries), EXPECTED_COUNT)
    return entries


def _read(entry: IndexEntry, options: Mapping[str, Any]) -> EcgRecord:
    match = _NOISY_ECG.match(entry.record_id)
    record = read_annotated(entry, options["rename_leads"], annotated=match is not None)
    record.labels = [NOISES[entry.record_id]] if match is None else []
    record.extra["snr_db"] = None if match is None else int(match[2].replace("_", "-"))
    record.source = NSTDB.name
    return record


def _extra_features() -> dict[str, Any]:
    """Columns beside the common ones: the annotations, and the signal-to-noise ratio in dB."""
    from datasets import Value

    return annotation_features() | {"snr_db": Value("int32")}


NSTDB = Corpus(
    name="nstdb",
    description="the MIT-BIH Noise Stress Test Database (15 recordings)",
    homepage="https://physionet.org/content/nstdb",
    licence="ODC-BY 1.0",
    citation=(
        "Moody GB, Muldrow WE, Mark RG. A noise stress test for arrhythmia detectors. Computers in Cardiology "
        "1984;11:381-384. PhysioNet doi:10.13026/C2HS3T"
    ),
    options={"rename_leads": ()},
    splits=("train",),
    index=_index,
    read=_read,
    label_names=lambda options: tuple(NOISES.values()),
    extra_features=_extra_features,
)
