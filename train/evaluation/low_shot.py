"""The setting `low_shot`: 1 % and 10 % of the training records, in several stratified draws.

Draws are of records. Patients are not drawn whole: as long as there are as many patients as records wanted, each
gives one record, because two records of one person are nearly one; only then does a patient give several. Validation
and test split stay whole (they are other patients), hence `C` is chosen on more labels than a draw has: these curves
say what labels of the *training* split are worth.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers.utils import logging

from ..metrics import excluded_labels
from ..results import REGRESSION, SINGLE_LABEL
from .encoder_pair import EncoderPair, evaluate_pair, make_entry, refused
from .protocols import FrozenTables, linear_protocol

logger = logging.get_logger(__name__)

FRACTIONS = (0.01, 0.1)
QUARTILES = (25, 50, 75)


def draw_low_shot(
    labels: np.ndarray, patients: Sequence, fraction: float, num_draws: int = 5, seed: int = 0
) -> list[np.ndarray]:
    """Stratified draws of `fraction` of the records, by iterative stratification (Sechidis et al., ECML PKDD 2011,
    algorithm 1) into "drawn" and "rest".

    Labels are dealt with from the rarest to the commonest, their records in random order, each to the side that still
    wants more of the label. Three things are ours: the draw has exactly `max(1, round(fraction * num_records))`
    records; every label wants at least one of them, and one without it; and where a label has none at the end, a
    record is exchanged for one that has it if no other label is lost by that. Too small a draw cannot hold every
    label: [`~ecg_transformers.train.metrics.excluded_labels`] names the missing ones.

    Args:
        labels (`np.ndarray` of shape `(num_records, num_labels)`): 0 or 1; a record may have none.
        patients (`Sequence`): Patient of each record, hashable.
        fraction (`float`): Share of the records, above 0, at most 1.
        num_draws (`int`, *optional*, defaults to 5): Draws, independent of each other.
        seed (`int`, *optional*, defaults to 0): The draw of a number does not depend on how many there are.

    Returns:
        `list[np.ndarray]`: row numbers of each draw, increasing, without repetition.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not len(labels) or not np.isin(labels, (0, 1)).all() or len(patients) != len(labels):
        raise ValueError(
            "Expected multi-hot labels of shape (num_records, num_labels) and a patient for each record, got "
            f"{labels.shape} and {len(patients)} patients."
        )
    if not 0 < fraction <= 1:
        raise ValueError(f"Expected a fraction above 0 and at most 1, got {fraction}.")
    size = max(1, round(fraction * len(labels)))
    _, people = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if people.max() + 1 < size:
        people = np.arange(len(labels))  # patients have to give several records
    draws = []
    for number in range(num_draws):
        generator = np.random.default_rng([seed, number])
        order = generator.permutation(len(labels))
        _, first = np.unique(people[order], return_index=True)
        pool = order[np.sort(first)]  # one record of each, in random order
        wanted = np.clip(labels.sum(axis=0) * (size / len(labels)), 1, max(1, size - 1))
        drawn = pool[_stratify(labels[pool].astype(bool), size, wanted)]
        draws.append(np.sort(_with_missing_labels(labels.astype(bool), people, drawn, order)))
    return draws


def _stratify(labels: np.ndarray, size: int, wanted: np.ndarray) -> np.ndarray:
    """Positions of `size` of the records, which come in random order, so that labels occur `wanted` times."""
    sides = np.full(len(labels), -1)  # 0: rest, 1: drawn
    room = np.array([len(labels) - size, size])
    demand = np.stack([labels.sum(axis=0) - wanted, wanted])
    while (sides < 0).any():
        left = labels[sides < 0].sum(axis=0)
        label = int(np.where(left > 0, left, len(labels) + 1).argmin()) if left.any() else None
        members = np.flatnonzero((sides < 0) & (labels[:, label] if label is not None else True))
        for record in members:
            of_label = demand[:, label] if label is not None else room
            prefers_draw = (of_label[1], room[1]) > (of_label[0], room[0])
            side = int(prefers_draw) if room.all() else int(room[1] > 0)
            sides[record] = side
            room[side] -= 1
            demand[side] -= labels[record]
    return np.flatnonzero(sides == 1)


def _with_missing_labels(labels: np.ndarray, people: np.ndarray, drawn: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Exchanges one record at a time while that brings in a label and loses none, nobody giving two."""
    while (exchange := _exchange(labels, people, drawn, order)) is not None:
        position, record = exchange
        drawn = np.concatenate([np.delete(drawn, position), [record]])
    return drawn


def _exchange(labels, people, drawn, order) -> tuple[int, int] | None:
    """A position in the draw and the record to put there, for the rarest missing label that is available."""
    counts = labels[drawn].sum(axis=0)
    for label in np.argsort(labels.sum(axis=0), kind="stable"):
        for record in order[labels[order, label]] if counts[label] == 0 else ():
            same = people[drawn] == people[record]
            loses = ((counts - labels[drawn] + labels[record] == 0) & (counts > 0)).any(axis=1)
            replaced = np.flatnonzero(~loses & (same if same.any() else True))
            if len(replaced):
                return int(replaced[-1]), int(record)
    return None


def low_shot(pair: EncoderPair, fractions: Sequence[float] = FRACTIONS, num_draws: int = 5) -> list[dict[str, Any]]:
    """Runs the protocol `linear` on draws of the training records; all of them as the last entry.

    All encoders learn from the same draws. The macro AUROC of a draw is over the labels that it can teach; those
    without a positive (or a negative) are named under `train_draws`, with their number of records and patients. With
    so few records that draws teach different labels, `labels_in_every_draw` lists those that the draws have in common.
    Errors of a regression are divided by the deviations of all training targets, and its draws are stratified by the
    quarters of each target.

    Returns:
        `list[dict]`: an entry of setting `low_shot` a fraction, see `encoder_pair`; draws that cannot be probed are
        named under `refused_draws`, a fraction without any other is `refused`.
    """
    some = pair.tables["pretrained"]
    truth, patients = some.truth["train"], some.tables["train"].patients()
    strata, deviations = truth, None
    if some.problem_type == REGRESSION:
        strata = np.concatenate([_quarters(target) for target in truth.T], axis=1)
        deviations = truth.std(axis=0)
    draws_of = {fraction: draw_low_shot(strata, patients, fraction, num_draws, pair.seed) for fraction in fractions}
    entries = []
    for fraction, draws in (draws_of | {1.0: [np.arange(len(truth))]}).items():
        logger.info(f"low-shot: {fraction:.0%} of the labels")
        results: dict[str, list] = {encoder: [] for encoder in pair.models}
        described, not_probed = [], []
        for rows in draws:
            facts = _describe(some, rows, patients)
            reason = _reason_against(some, rows)
            if reason is not None:
                not_probed.append(facts | {"reason": reason})
                continue
            described.append(facts)
            for encoder, of_encoder in results.items():
                tables = pair.tables[encoder]
                of_encoder.append(pair.clean[encoder] if fraction == 1.0 else linear_protocol(tables.take_train(rows)))
        label = f"{100 * fraction:g} % of the training records"
        if not described:
            reason = f"None of {len(draws)} draws can be probed. {not_probed[0]['reason']}"
            entries.append(refused("low_shot", fraction, label, reason, refused_draws=not_probed))
            continue
        facts = {"num_draws": len(described), "train_draws": described, "refused_draws": not_probed}
        if some.problem_type != REGRESSION:
            lost = {name for one in described for name in one["unlearnt"]}
            facts["labels_in_every_draw"] = [name for name in some.label_names if name not in lost]
        found = evaluate_pair(results, deviations, pair.num_resamples, pair.seed)
        entries.append(make_entry("low_shot", fraction, label, **found, **facts))
    return entries


def _quarters(target: np.ndarray) -> np.ndarray:
    """The quarter, multi-hot, in which each value of a target lies, `(num_records, 4)`."""
    quarter = np.searchsorted(np.percentile(target, QUARTILES), target, side="right")
    return np.eye(len(QUARTILES) + 1, dtype=np.int8)[quarter]


def _describe(tables: FrozenTables, rows: np.ndarray, patients: Sequence[str]) -> dict[str, Any]:
    truth = tables.truth["train"][rows]
    is_regression = tables.problem_type == REGRESSION
    return {
        "num_train_records": len(rows),
        "num_train_patients": len({patients[row] for row in rows}),
        "unlearnt": {} if is_regression else excluded_labels(truth, tables.label_names),
    }


def _reason_against(tables: FrozenTables, rows: np.ndarray) -> str | None:
    """The reason why a draw cannot be probed, if it cannot."""
    truth, names = tables.truth["train"][rows], tables.label_names
    if tables.problem_type == REGRESSION:
        constant = [name for name, values in zip(names, truth.T, strict=True) if np.ptp(values) == 0]
        return f"{len(rows)} records have the same {constant}: draw more." if constant else None
    not_learned = excluded_labels(truth, names)
    trained = [column for column, name in enumerate(names) if name not in not_learned]
    if tables.problem_type == SINGLE_LABEL and len(trained) < 2:
        return f"{len(rows)} records have {len(trained)} classes, two are needed: draw more."
    for split in ("validation", "test"):
        trained_names = [names[column] for column in trained]
        if len(excluded_labels(tables.truth[split][:, trained], trained_names)) == len(trained):
            return f"{len(rows)} records teach {trained_names}, none of which the {split} split holds: draw more."
    return None
