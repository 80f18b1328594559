"""The split of corpora that state none: by a hash of the patient, so that it needs no table and never changes."""

import hashlib


def split_by_hash(key: str) -> str:
    """`"train"`, `"validation"` or `"test"`, for about 80, 10 and 10 % of all keys.

    Each key is decided by itself: a partial copy, another order or further recordings move nobody to another split.

    Args:
        key (`str`):
            The id of the patient, so that all recordings of a patient lie on one side; or the id of the recording,
            where the corpus does not state its patients. Say in the corpus's docstring which it is.

    Raises:
        ValueError: if the key is empty, which would throw all recordings without an id into one split.
    """
    if not key:
        raise ValueError("Expected the id of a patient or of a recording to split by, got an empty text.")
    tenth = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") % 10
    return {8: "validation", 9: "test"}.get(tenth, "train")
