"""What a test must never know: people, recordings and numbers of the test split."""

import shutil

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ecg_transformers.data import load_ecg
from ecg_transformers.data.corpora import CORPORA
from ecg_transformers.data.corpora.ptb_xl import split_of_fold
from ecg_transformers.data.loading import locate
from ecg_transformers.train.evaluate_metrics.calibration_scores import calibration_scores
from ecg_transformers.train.evaluate_metrics.classification_scores import classification_scores
from ecg_transformers.train.evaluation.clusters import cluster_test_split
from ecg_transformers.train.evaluation.protocols import FrozenTables, knn_protocol, linear_protocol
from ecg_transformers.train.features import EmbeddingTable
from ecg_transformers.train.tasks.duplicates import refuse_shared_recordings

slow = pytest.mark.slow

# corpus, its folder in the shared recordings, options
CORPORA_AT_HAND = [
    ("ptb-xl-sample", None, {}),
    pytest.param("ptb-xl", "ptb-xl", {}, marks=slow),
    pytest.param("ptb-xl", "ptb-xl", {"sampling_rate": 500}, marks=slow),
    pytest.param("npy", "../../main/docs/ptb_xl_processed.json", {}, marks=slow),
    pytest.param("ludb", "ludb", {}, marks=slow),
    pytest.param("code-15", "code-15", {"task": "chagas"}, marks=slow),
    ("code-15", "code-15-ecgfm", {}),
    pytest.param("cinc2021", "cinc2021", {}, marks=slow),
    ("cinc2021", "cinc2021", {"ptb_xl_table": "ptb-xl/ptbxl_database.csv"}),
    pytest.param("chapman-shaoxing", "cinc2021", {}, marks=slow),
    pytest.param("ningbo", "cinc2021", {}, marks=slow),
    pytest.param("cinc2017", "cinc2017", {}, marks=slow),
    pytest.param("cpsc2018", "cpsc2018-original", {}, marks=slow),
    pytest.param("sph", "sph", {}, marks=slow),
    pytest.param("sami-trop", "sami-trop", {}, marks=slow),
    pytest.param("brugada-huca", "brugada-huca", {}, marks=slow),
    ("ptb", "ptbdb", {}),
    pytest.param("mit-bih", "mitdb", {}, marks=slow),
]
# CPSC-Extra, Georgia, INCART and MIMIC-IV-ECG: no recording at hand; the others have no split of their own
WITHOUT_RECORDINGS = {"cpsc-extra", "georgia", "incart", "mimic-iv-ecg", "nstdb", "wfdb", "ecgfolder"}
LABELS = ("A", "B")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder_of(shared_data_dir, tmp_path):
    """The folder of a corpus; CPSC2018's needs the table that the challenge gave out beside it."""

    def find(name):
        if name != "cpsc2018-original":
            return (shared_data_dir / name).resolve()
        folder = shutil.copytree(shared_data_dir / name, tmp_path / name)
        shutil.copy(shared_data_dir / "metadata" / "cpsc2018" / "REFERENCE.csv", folder)
        return folder

    return find


def split_rows(corpus: str, folder, options, cache) -> dict[str, Dataset]:
    """Stored rows of each split that has any."""
    if folder is None:
        rows = load_ecg(corpus, split="all", decode=False, **options)
        split_of = {row["record_id"]: split_of_fold(row["fold"]) for row in rows.remove_columns("ecg")}
    else:
        place, complete = locate(CORPORA[corpus], folder, CORPORA[corpus].complete_options(options))
        split_of = {entry.record_id: entry.split for entry in CORPORA[corpus].index(place, complete)}
        rows = load_ecg(corpus, folder, split="all", decode=False, cache_dir=cache, **options)
    numbers: dict[str, list[int]] = {}
    for number, record_id in enumerate(rows["record_id"]):
        numbers.setdefault(split_of[record_id], []).append(number)
    return {split: rows.select(of_split) for split, of_split in numbers.items()}


@pytest.mark.parametrize(("corpus", "folder", "options"), CORPORA_AT_HAND)
def test_no_patient_and_no_recording_lies_in_two_splits(corpus, folder, options, folder_of, cache):
    options = {name: str(folder_of(value)) if name == "ptb_xl_table" else value for name, value in options.items()}
    splits = split_rows(corpus, folder and folder_of(folder), options, cache)
    assert set(splits) <= {"train", "validation", "test"} and sum(map(len, splits.values())) > 0
    patients = {split: {patient for patient in rows["patient_id"] if patient} for split, rows in splits.items()}
    for split, of_split in patients.items():
        for other in set(patients) - {split}:
            assert not of_split & patients[other]
    refuse_shared_recordings(splits)


def test_every_corpus_with_splits_is_looked_at():
    looked_at = {(case.values if hasattr(case, "values") else case)[0] for case in CORPORA_AT_HAND}
    assert looked_at | WITHOUT_RECORDINGS == set(CORPORA) and not looked_at & WITHOUT_RECORDINGS


def table(num_records=40, seed=0, first=0, label_share=0.4) -> EmbeddingTable:
    generator = np.random.default_rng(seed)
    truth = generator.random((num_records, len(LABELS))) < label_share
    truth[0], truth[1] = True, False
    features = (generator.normal(size=(num_records, 3)) + 0.5 * truth[:, :1]).astype(np.float32)
    ids = range(first, first + num_records)
    labels = [[name for name, present in zip(LABELS, row, strict=True) if present] for row in truth]
    return EmbeddingTable(features, [f"r{n}" for n in ids], [f"p{n}" for n in ids], labels, [None] * num_records)


TRAIN, VALIDATION, TEST = table(seed=1, first=1000), table(seed=2, first=2000), table()


def frozen(test: EmbeddingTable, train=TRAIN, validation=VALIDATION) -> FrozenTables:
    tables = {"train": train, "validation": validation, "test": test}
    truth = {split: of_split.multi_hot(LABELS) for split, of_split in tables.items()}
    return FrozenTables(tables, truth, LABELS, "multi_label_classification")


@pytest.mark.parametrize(
    "run",
    [
        lambda other: cluster_test_split(TRAIN, other, LABELS),
        lambda other: frozen(other),
        lambda other: frozen(TEST, validation=other),
    ],
)
def test_tables_with_a_common_patient_are_refused(run):
    shared = table(seed=3, first=5000)
    shared.patient_ids[7] = TRAIN.patient_ids[0]
    with pytest.raises(ValueError, match="1 patients are in both the train and the .*Split by patient"):
        run(shared)


few = settings(max_examples=2, deadline=None, phases=[Phase.generate])  # a seed does not shrink
some_test = st.integers(10, 10**6).map(lambda seed: table(seed=seed, label_share=0.2 + seed % 7 / 10))
scales = st.sampled_from([1e-3, 1.0, 50.0, 1e4])


def scaled(of: EmbeddingTable, scale: float) -> EmbeddingTable:
    return EmbeddingTable(of.features * np.float32(scale), of.record_ids, of.patient_ids, of.labels, of.folds)


@given(test=some_test, scale=scales)
@few
def test_the_probe_is_the_same_whatever_the_rest_of_the_test_split_is(test, scale):
    """The first half of the test split stays, the other half is replaced: what is said of the first may not change."""
    half = len(TEST) // 2
    features = np.concatenate([TEST.features[:half], scale * test.features[half:]])
    changed = EmbeddingTable(
        features, TEST.record_ids, TEST.patient_ids, TEST.labels[:half] + test.labels[half:], TEST.folds
    )
    before, after = (linear_protocol(frozen(of_test)) for of_test in (TEST, changed))
    assert before.details == after.details
    assert (before.test.scores[:half] == after.test.scores[:half]).all()


@pytest.mark.parametrize("protocol", [linear_protocol, knn_protocol])
@given(test=some_test, scale=scales)
@few
def test_choices_thresholds_and_temperature_are_the_same_whatever_the_test_split_is(protocol, test, scale):
    before, after = (protocol(frozen(of_test)) for of_test in (TEST, scaled(test, scale)))
    assert before.details == after.details
    assert (before.validation.scores == after.validation.scores).all()
    evaluated = [result.evaluate(num_resamples=2) for result in (before, after)]
    assert evaluated[0]["temperature"] == evaluated[1]["temperature"]
    assert evaluated[0]["thresholds"] == evaluated[1]["thresholds"]


probabilities = st.integers(0, 10**6).map(lambda seed: np.random.default_rng(seed).random((30, len(LABELS))))


@given(scores=probabilities, others=probabilities)
@few
def test_thresholds_and_temperature_of_the_metrics_never_see_the_test_labels_or_scores(scores, others):
    validation_labels, validation = VALIDATION.multi_hot(LABELS), np.random.default_rng(0).random((40, len(LABELS)))
    found = []
    for test in (scores, others):
        labels = (test > np.median(test, axis=0)).astype(int)[::-1]
        classified = classification_scores(labels, test, LABELS, validation_labels, validation)
        logits = np.log(test / (1 - test))
        of_validation = np.log(validation / (1 - validation))
        calibrated = calibration_scores(labels, logits, LABELS, validation_labels, of_validation)
        thresholds = [scores_of["threshold"] for scores_of in classified["per_class"].values()]
        found.append((thresholds, calibrated["temperature"]))
    assert found[0] == found[1]
