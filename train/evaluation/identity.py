"""Identity matching: does an encoder find the other recordings of the same person?

Two recordings of a person share anatomy and electrode habits and differ in all that changes between two visits.
Frozen features find them by similarity alone; nothing is trained. Each record of a person who has another is a query,
all other records are the gallery. Exact copies of a recording are no find: of each, the first alone takes part.

A random encoder finds many people too, since what it keeps of amplitudes and axis is personal: [`compare_identity`]
always measures both, by the same resamples of people.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from sklearn.preprocessing import StandardScaler
from transformers import FeatureExtractionMixin, PreTrainedModel

from ..features import embed, random_encoder_like
from ..metrics import paired_facts, percentile_interval, resample_counts
from ..patients import patients_of
from ..tasks.duplicates import find_duplicates

RANKS = (1, 5, 10)
PROTOCOL = "identity"
SCORES = (*(f"recall_at_{rank}" for rank in RANKS), "mean_reciprocal_rank", "mean_average_precision", "pair_auroc")


@dataclass(frozen=True)
class IdentityMatches:
    """Scores of each query. `values[:, i]` is score `SCORES[i]`; the AUROC counts by pairs, the others by queries.

    Args:
        queries (`list[str]`), patients (`list[str]`): Records that were searched for, and their patients.
        values (`np.ndarray` of shape `(num_queries, 6)`): Mean of the score over the query, or over its same pairs.
        num_pairs (`np.ndarray` of shape `(num_queries,)`): Other records of the same patient.
        chance (`dict[str, float]`): Expectation of each score for a gallery in random order, exact.
        num_records (`int`): Size of the set, without copies.
        num_copies (`int`): Exact copies that took no part.
    """

    queries: list[str]
    patients: list[str]
    values: np.ndarray
    num_pairs: np.ndarray
    chance: dict[str, float]
    num_records: int
    num_copies: int

    def means(self, counts: np.ndarray | None = None) -> np.ndarray:
        """The scores `(num_resamples, 6)` of resamples of the queries; by default, `(1, 6)`, of the queries."""
        counts = np.ones((1, len(self.queries))) if counts is None else counts
        weights = np.ones_like(self.values)
        weights[:, SCORES.index("pair_auroc")] = self.num_pairs
        return (counts @ (weights * self.values)) / (counts @ weights)

    def resampled(self, num_resamples: int, seed: int) -> np.ndarray:
        """The scores `(num_resamples, 6)` of resamples of the searched people; the gallery stays as it is, because a
        person drawn twice would find herself at distance 0."""
        return self.means(resample_counts(len(self.queries), num_resamples, seed, self.patients))

    def summary(self, num_resamples: int = 1000, seed: int = 0) -> dict:
        """The mean of each score with `_ci95`, an interval over the patients of the queries, and counts, ready for
        JSON; under `chance` stands what a gallery in random order gives."""
        resampled, result = self.resampled(num_resamples, seed), {}
        for column, (name, value) in enumerate(zip(SCORES, self.means()[0], strict=True)):
            result[name] = float(value)
            result[f"{name}_ci95"] = list(percentile_interval(resampled[:, column]))
        return result | {
            "chance": dict(self.chance),
            "num_queries": len(self.queries),
            "num_query_patients": len(set(self.patients)),
            "num_gallery_records": self.num_records - 1,
            "num_same_pairs": int(self.num_pairs.sum()) // 2,
            "num_copies_left_out": self.num_copies,
        }


def match_identities(
    features: np.ndarray,
    patients: Sequence[str | None],
    record_ids: Sequence[str],
    *,
    train_features: np.ndarray | None,
    duplicates: Iterable[Sequence[str]] = (),
) -> IdentityMatches:
    """Searches every record of a patient with several among all others, by cosine similarity.

    A record as similar as another patient's ranks behind it, so that features without content find nobody. The scores
    are `recall_at_1`, `_5`, `_10` (share of the queries with a record of the same patient among the first k),
    `mean_reciprocal_rank` (of the first such record), `mean_average_precision` (over all such records) and
    `pair_auroc`: the probability that a pair of recordings of one patient is more similar than one of two (pairs of a
    query and a gallery record, ties one half).

    Args:
        features (`np.ndarray` of shape `(num_records, hidden_size)`): Frozen features, finite.
        patients (`Sequence[str | None]`): Patient of each record; one without is a person of its own.
        record_ids (`Sequence[str]`): Names of the records.
        train_features (`np.ndarray` of shape `(num_train, hidden_size)`, *optional*):
            Features by whose mean and deviation all are standardised; `None` takes them as they are.
        duplicates (`Iterable[Sequence[str]]`, *optional*):
            Groups of ids of the same recording ([`find_duplicates`]); the first of each takes part.

    Raises:
        ValueError: for features that are not finite, or a set in which nobody has two different recordings.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or not len(features) == len(patients) == len(record_ids):
        raise ValueError(
            f"Expected features (num_records, hidden_size) with a patient and an id each, got {features.shape}, "
            f"{len(patients)} patients and {len(record_ids)} ids."
        )
    if not np.isfinite(features).all():
        raise ValueError("The features hold NaN or infinite values. Check the encoder.")
    if train_features is not None:
        features = StandardScaler().fit(np.asarray(train_features, dtype=np.float64)).transform(features)
    copies = set()
    for group in duplicates:
        copies.update([record_id for record_id in record_ids if record_id in set(group)][1:])
    kept = [row for row, record_id in enumerate(record_ids) if record_id not in copies]
    features, ids = features[kept], [record_ids[row] for row in kept]
    people = np.array(patients_of(ids, [patients[row] for row in kept]))
    _, person, counts = np.unique(people, return_inverse=True, return_counts=True)
    queries = np.flatnonzero(counts[person] > 1)
    if not len(queries) or len(counts) < 2:
        raise ValueError(
            f"Identity matching needs a patient with two recordings and another patient, got {len(ids)} different "
            f"recordings of {len(counts)} patients. Use a set with follow-up recordings, and their patient ids."
        )
    num_pairs = counts[person[queries]] - 1
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    directions = features / np.where(lengths > 0, lengths, 1)
    # cosines of equal features are equal, to the last bit
    similarity = np.round(directions[queries] @ directions.T, 12)
    background = np.sort(similarity[person[queries][:, None] != person[None, :]])
    values = np.empty((len(queries), len(SCORES)))
    for number, query in enumerate(queries):
        similar, same = np.delete(similarity[number], query), np.delete(person == person[query], query)
        order = np.lexsort((same, -similar))  # of equal similarities, other patients come first
        ranks = np.flatnonzero(same[order]) + 1
        below = sum(np.searchsorted(background, similar[same], side) for side in ("left", "right"))
        values[number] = [
            *(ranks[0] <= rank for rank in RANKS),
            1 / ranks[0],
            (np.arange(1, len(ranks) + 1) / ranks).mean(),
            below.mean() / (2 * len(background)),
        ]
    return IdentityMatches(
        queries=[ids[row] for row in queries],
        patients=people[queries].tolist(),
        values=values,
        num_pairs=num_pairs,
        chance=chance_scores(len(ids) - 1, num_pairs),
        num_records=len(ids),
        num_copies=len(record_ids) - len(ids),
    )


def compare_identity(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    rows: Dataset,
    train_rows: Dataset | None = None,
    batch_size: int = 64,
    seed: int = 0,
    num_resamples: int = 1000,
) -> dict:
    """Matches identities by an encoder and by a random one of the same configuration.

    Args:
        rows (`Dataset`): Recordings that are searched, rows of [`load_ecg`]; exact copies are found and left out.
        train_rows (`Dataset`, *optional*): Recordings by whose features all are standardised; by default none are.

    Returns:
        `dict` for `metrics.json`: `random_encoder.identity` and `pretrained.identity` with their summaries, and
        `difference.identity`, see [`compare_matches`].
    """
    duplicates = find_duplicates(rows)
    matches = {}
    for name, encoder in (("random_encoder", random_encoder_like(model, seed)), ("pretrained", model)):
        table, train = (
            None if dataset is None else embed(encoder, feature_extractor, dataset, batch_size, progress=False)
            for dataset in (rows, train_rows)
        )
        about = (table.features, table.patient_ids, table.record_ids)
        features = None if train is None else train.features
        matches[name] = match_identities(*about, train_features=features, duplicates=duplicates)
    scores = {name: {PROTOCOL: found.summary(num_resamples, seed)} for name, found in matches.items()}
    return scores | {"difference": {PROTOCOL: compare_matches(**matches, num_resamples=num_resamples, seed=seed)}}


def compare_matches(
    pretrained: IdentityMatches, random_encoder: IdentityMatches, num_resamples: int = 1000, seed: int = 0
) -> dict:
    """The difference between two encoders on the same queries: `recall_at_1` (pretrained minus random), `ci95` and
    `p_value` of a paired bootstrap over patients."""
    if (random_encoder.queries, random_encoder.num_records) != (pretrained.queries, pretrained.num_records):
        raise ValueError("The two encoders searched other records. Compare them on the same set.")
    column = SCORES.index("recall_at_1")
    ours, theirs = (matches.resampled(num_resamples, seed)[:, column] for matches in (pretrained, random_encoder))
    difference = float((pretrained.means() - random_encoder.means())[0, column])
    return {"recall_at_1": difference} | paired_facts(ours - theirs)


def chance_scores(gallery_size: int, num_relevant: np.ndarray) -> dict[str, float]:
    """The expectation of each score over all orders of the gallery, exact; `num_relevant` `(num_queries,)` counts the
    records of the same patient in the gallery of each query."""
    positions = np.arange(1, gallery_size + 1)
    by_count = {}
    for relevant in np.unique(num_relevant):
        # that none of the first i is relevant: C(gallery - i, relevant) / C(gallery, relevant)
        factors = 1 - relevant / (gallery_size - np.arange(gallery_size))
        none_before = np.concatenate([[1.0], np.cumprod(np.maximum(factors, 0))])
        first_here = none_before[:-1] - none_before[1:]
        density = (relevant - 1) / (gallery_size - 1) if gallery_size > 1 else 0.0
        by_count[relevant] = [
            *(1 - none_before[min(rank, gallery_size)] for rank in RANKS),
            (first_here / positions).sum(),
            ((1 + (positions - 1) * density) / positions).mean(),
            0.5,
        ]
    means = np.mean([by_count[relevant] for relevant in num_relevant], axis=0)
    return {name: float(value) for name, value in zip(SCORES, means, strict=True)}
