from collections import Counter

import pytest

from ecg_transformers.data.corpora.splits import split_by_hash


def test_eight_tenths_train_one_validates_one_tests():
    counts = Counter(split_by_hash(f"patient {number}") for number in range(20_000))
    assert set(counts) == {"train", "validation", "test"}
    assert counts["train"] / 20_000 == pytest.approx(0.8, abs=0.01)
    assert counts["test"] / 20_000 == pytest.approx(0.1, abs=0.01)


def test_the_split_of_a_key_never_changes():
    keys = ("A0001", "A0021", "E00003", "Patient é", "5")
    assert [split_by_hash(key) for key in keys] == ["train", "train", "validation", "test", "train"]


def test_an_empty_key_is_refused():
    with pytest.raises(ValueError, match="empty text"):
        split_by_hash("")
