"""Exact duplicates of recordings: found by content, refused across splits, kept once within one.

Corpora hold the same recording under two names more often than their papers say: versions 1.0.1 and 1.0.2 of PTB-XL
list 38 recordings twice, and challenges pass corpora on under new names (`HR00001` of CinC2021 is `00001` of PTB-XL).
A copy in the test split is a record that the model was trained on, whatever its patient is called.

Two recordings are the same when their leads have the same names and, lead by lead, equally many int16 steps of which
the middle eight tenths agree. Order of the leads, file format, gain and stated rate do not count: equal steps are no
coincidence. The ends do not count because resampling spoils them: of five pairs of PTB-XL that are equal in every
sample at 500 Hz, three differ at 100 Hz, by up to 0.13 mV, in their last 20 samples. A recording whose every lead is
constant there has no content to compare and is the same as no other. Filtered or resampled copies are not found.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset

logger = logging.getLogger("ecg_transformers")

BATCH_SIZE = 64  # records in memory at once
NAMED = 10  # in messages; the results hold all
END_SHARE = 10  # a tenth at each end of a recording does not count


def recording_digest(leads: Sequence[str], signal: memoryview) -> str | None:
    """The content of a recording, stored by [`load_ecg`] as little-endian int16 of shape `(num_leads, num_samples)`,
    as a text of 32 hexadecimal digits; `None` for a recording whose every lead is constant."""
    if not leads or not signal.nbytes or signal.nbytes % (2 * len(leads)):
        raise ValueError(
            f"Expected int16 samples of {len(leads)} leads, equally many each, got {signal.nbytes} bytes."
        )
    steps = np.frombuffer(signal, dtype="<i2").reshape(len(leads), -1)
    num_samples = steps.shape[1]
    middle = steps[:, num_samples // END_SHARE : num_samples - num_samples // END_SHARE]
    if all((lead == lead[0]).all() for lead in middle):  # stops at the first lead that is not
        return None
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{sorted(leads)} {num_samples}".encode())
    for number in sorted(range(len(leads)), key=leads.__getitem__):
        digest.update(middle[number])
    return digest.hexdigest()


def recording_digests(rows: Dataset) -> list[tuple[str, str | None]]:
    """`(record_id, digest)` of every row, in order, read as a stream, without copying the signals."""
    digests = []
    for batch in rows.select_columns(["record_id", "ecg"]).with_format("arrow").iter(BATCH_SIZE):
        ecg = batch["ecg"].combine_chunks()
        ids, leads = batch["record_id"].to_pylist(), ecg.field("leads").to_pylist()
        for record_id, names, signal in zip(ids, leads, ecg.field("signal"), strict=True):
            digests.append((record_id, recording_digest(names, memoryview(signal.as_buffer()))))
    return digests


def find_duplicates(rows: Dataset) -> list[list[str]]:
    """Ids of recordings that are the same, in groups of two or more; ids and groups in the order of the rows."""
    groups: dict[str, list[str]] = {}
    for record_id, digest in recording_digests(rows):
        if digest is not None:
            groups.setdefault(digest, []).append(record_id)
    return [ids for ids in groups.values() if len(ids) > 1]


def refuse_shared_recordings(splits: Mapping[str, Dataset]) -> None:
    """Raises `ValueError`, with the pairs and the cure, if the same recording lies in two splits."""
    seen: dict[str, tuple[str, str]] = {}
    pairs = []
    for split, rows in splits.items():
        for record_id, digest in recording_digests(rows):
            if digest is None:
                continue
            other_split, other_id = seen.setdefault(digest, (split, record_id))
            if other_split != split:
                pairs.append(f"{other_id} ({other_split}) = {record_id} ({split})")
    if pairs:
        more = ", ..." if len(pairs) > NAMED else ""
        raise ValueError(
            f"{len(pairs)} recordings lie in two splits: {', '.join(pairs[:NAMED])}{more}. The test would be on "
            "recordings that the model knows. Keep one of each pair, or give both the same patient_id (or fold), so "
            "that they share a split."
        )


def one_of_each(rows: Dataset) -> tuple[Dataset, dict[str, str]]:
    """The rows of one split without later copies of a recording, in their order, and each copy that is left out with
    the id of the recording that stays in its place. The log names them too."""
    copies = {copy: ids[0] for ids in find_duplicates(rows) for copy in ids[1:]}
    if copies:
        named = ", ".join(f"{copy} = {original}" for copy, original in list(copies.items())[:NAMED])
        logger.warning(
            "%d recordings are exact copies of earlier ones and are left out: %s%s.",
            *(len(copies), named, ", ..." if len(copies) > NAMED else ""),
        )
        rows = rows.select([number for number, record_id in enumerate(rows["record_id"]) if record_id not in copies])
    return rows, copies
