"""Identity: how often the other recordings of a person are found."""

from ...results import Outcome, Result, format_score
from ..page import Cell, Row, Section, Table
from ..tables import Column, score_table
from . import Shown

COLUMNS = (
    Column("recall_at_1", "Recall at 1"),
    Column("recall_at_5", "Recall at 5"),
    Column("recall_at_10", "Recall at 10"),
    Column("mean_reciprocal_rank", "Mean reciprocal rank"),
    Column("mean_average_precision", "Mean average precision"),
    Column("pair_auroc", "AUROC of pairs"),
)


def section(outcome: Outcome, result: Result, shown: Shown) -> Section:
    scores = outcome.scores
    caption = (
        f"{scores['num_queries']} recordings of {scores['num_query_patients']} people who have another one, each "
        f"searched among {scores['num_gallery_records']} others by the similarity of frozen features; 95 % intervals "
        "from a bootstrap over people."
    )
    table = score_table(outcome, COLUMNS, caption)
    columns = [column.key for column in COLUMNS if column.title in table.header]
    chance = Row("Chance", tuple(Cell(format_score(scores["chance"].get(key))) for key in columns))
    table = Table(caption, table.header, (chance, *table.rows))
    return Section("Identity: the same person again", tables=(table,))
