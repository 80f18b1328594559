"""Clusters of frozen features, found without labels, against the classes."""

from collections.abc import Mapping

from ...results import Outcome, Result, decapitalized, format_score
from ..page import Cell, Row, Section, Table
from ..tables import difference_rows, with_interval
from . import Shown

AGREEMENT = ("nmi", "ari")


def section(outcome: Outcome, result: Result, shown: Shown) -> Section:
    scores = outcome.scores
    notes = [
        f"{scores['num_test_records']} records of {scores['num_test_patients']} patients; {scores['num_left_out']} "
        "with none of the labels or with several take no part. Chance: classes dealt out anew."
    ]
    return Section(f"Protocol {outcome.protocol}", tables=(cluster_table(outcome),), notes=notes)


def cluster_table(outcome: Outcome) -> Table:
    """Agreement of clusters with classes, beside classes dealt out anew, and how separate the clusters are."""
    rows = []
    algorithms = [key for key, value in outcome.scores.items() if isinstance(value, Mapping) and "nmi" in value]
    for algorithm in algorithms:
        for _, name, scores in outcome.sides():
            found = scores[algorithm]
            cells = [_with_chance(found, key) for key in AGREEMENT]
            cells += [Cell(format_score(found[key])) for key in ("silhouette", "davies_bouldin")]
            noise = (f"{found['num_noise']} records in none",) if found["num_noise"] else ()
            cells.append(Cell(str(found["num_clusters"]), noise))
            rows.append(Row(f"{algorithm}: {decapitalized(name)}", tuple(cells)))
        rows += difference_rows(outcome, AGREEMENT, 3, algorithm)
    header = ("Algorithm and encoder", "NMI", "ARI", "Silhouette", "Davies-Bouldin (lower: more separate)", "Clusters")
    caption = f"Protocol {outcome.protocol}: {outcome.words}, test records with exactly one class."
    return Table(caption, header, tuple(rows))


def _with_chance(found: Mapping, key: str) -> Cell:
    cell, chance = with_interval(found, key), found.get(f"{key}_chance")
    return cell if chance is None else Cell(cell.text, (*cell.small, f"chance {format_score(chance)}"))
