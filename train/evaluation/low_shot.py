"""Few labels: stratified draws of some of the training records.

Draws are of records. Patients are not drawn whole: as long as there are as many patients as records wanted, each
gives one record, because two records of one person are nearly one; only then does a patient give several. Validation
and test split stay whole (they are other patients), hence `C` is chosen on more labels than a draw has: these curves
say what labels of the *training* split are worth.
"""

from collections.abc import Sequence

import numpy as np


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
