"""The part of a model card (README.md) that an evaluation writes, and its entries of the model-index.

It stands between two comments, so that a later evaluation replaces it and leaves the rest of the card alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from huggingface_hub import EvalResult

from ecg_transformers.data.corpora.nstdb import NOISES

from ..publishing.model_index import index_entry
from ..publishing.published_card import END, START
from ..publishing.shared_folder import ShownEvaluation, public_evaluation
from ..publishing.templates import template_environment
from ..results import score_of
from .sections import SETTING_WORDS, counts_and_choices
from .tables import Table, escape_markdown, label_table, protocol_table, table_markdown, target_table
from .task_tables import cluster_table, identity_table, overlap_table, point_table, setting_table
from .verdicts import baseline_of, caveats_of, verdicts_of


@dataclass(frozen=True)
class CardSection:
    """A table of the card with what belongs to it; the table is Markdown."""

    title: str
    caption: str
    table: str
    notes: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


def card_section(metrics: Mapping) -> str:
    """Markdown for a card, between its markers: a table a protocol, with the random encoder above the pretrained one.

    Args:
        metrics (`Mapping`): The content of `metrics.json`.
    """
    environment = template_environment("ecg_transformers.train.report", autoescape=False)
    environment.filters["md"] = escape_markdown
    sections = []
    for protocol in metrics["pretrained"]:
        sections += _protocol_sections(metrics, protocol)
    for name, entries in metrics.get("settings", {}).items():
        if entries:
            title, intro = SETTING_WORDS[name]
            table = setting_table(entries, intro, NOISES if name == "noise" else None)
            sections.append(_section(title, table))
    return environment.get_template("card_section.md.j2").render(
        start=START,
        end=END,
        metrics=metrics,
        splits="; ".join(f"{split}: {_told(facts)}" for split, facts in metrics["splits"].items()),
        verdicts=verdicts_of(metrics),
        sections=sections,
        caveats=caveats_of(metrics),
        command=metrics["command"].replace("```", "` ` `"),
    )


def eval_results(metrics: Mapping) -> list[EvalResult]:
    """An entry of the model-index for each protocol that has a score, with interval and random encoder beside it."""
    results = []
    for protocol, judged in metrics["pretrained"].items():
        if score_of(judged) is None:
            continue
        _, baseline = baseline_of(metrics, protocol)
        beside = "from_scratch" if protocol == "finetuned" else "random_encoder"
        results.append(
            index_entry(
                judged,
                protocol,
                metrics["task"],
                metrics["task"].split()[0],
                f"{metrics['task']}, {'test split' if 'test' in metrics['splits'] else 'all records'}",
                (beside, baseline),
            )
        )
    return results


def _protocol_sections(metrics: Mapping, protocol: str) -> list[CardSection]:
    judged = metrics["pretrained"][protocol]
    title = f"Protocol {protocol}"
    score, left_out = score_of(judged), judged.get("excluded", {})
    if score == "recall_at_1":
        return [_section("Identity", identity_table(metrics, protocol))]
    if score == "miou_waves":
        tables = overlap_table(metrics, protocol), point_table(metrics, protocol)
        return [_section(title, tables[0], left_out=left_out), _section(f"{title}: points", tables[1])]
    if score is None:
        return [_section(title, cluster_table(metrics, protocol))]
    of_each = target_table if score == "macro_zmae" else label_table
    notes = counts_and_choices(metrics, protocol)
    return [
        _section(title, protocol_table(metrics, protocol), notes, left_out),
        _section(f"{title}: each {'target' if score == 'macro_zmae' else 'label'}", of_each(metrics, protocol)),
    ]


def _section(title: str, table: Table, notes: Sequence[str] = (), left_out: Mapping[str, str] | None = None):
    return CardSection(title, table.caption, table_markdown(table), notes, left_out or {})


def _told(facts) -> str:
    if isinstance(facts, Mapping):
        words = (value if key == "which" else f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
        return ", ".join(words)
    return str(facts)


def show_evaluation(metrics: Mapping) -> ShownEvaluation:
    """Section and entries of the model-index for a card that goes out, without paths of this machine.

    Raises:
        ValueError: for what `evaluate` did not write.
    """
    try:
        metrics = public_evaluation(metrics)
        return ShownEvaluation(card_section(metrics), eval_results(metrics))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"metrics.json is not as `evaluate` writes it ({type(error).__name__}: {' '.join(str(error).split())}). "
            "Run `ecg-transformers evaluate` again, or remove the file."
        ) from error
