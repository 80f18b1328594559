"""The part of a model card (README.md) that an evaluation writes, and its entries of the model-index.

It stands between two comments, so that a later evaluation replaces it and leaves the rest of the card alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from jinja2 import Environment, PackageLoader, StrictUndefined

from ecg_transformers.data.corpora.nstdb import NOISES

from ..model_index import index_entry
from .page_sections import SETTINGS, counts_words
from .page_tables import Table, escape_markdown, label_table, protocol_table, table_markdown, target_table
from .page_task_tables import cluster_table, identity_table, overlap_table, point_table, setting_table
from .page_words import (
    baseline_of,
    caveats_of,
    choices_of,
    parts_of,
    score_of,
    verdicts_of,
)

START = "<!-- ecg-transformers evaluation: start -->"
END = "<!-- ecg-transformers evaluation: end -->"


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
    environment = Environment(
        loader=PackageLoader("ecg_transformers.train.evaluation", "."),
        autoescape=False,  # Markdown, escaped by `md`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = escape_markdown
    sections = []
    for name, part in parts_of(metrics).items():
        for protocol in part["pretrained"]:
            sections += _protocol_sections(part, protocol, name)
    for name, entries in metrics.get("settings", {}).items():
        if entries:
            title, intro = SETTINGS.get(name, (name.replace("_", " ").capitalize(), "The protocol linear."))
            table = setting_table(entries, intro, NOISES if name == "noise" else None)
            sections.append(_section(title, table))
    return environment.get_template("card_template.md.j2").render(
        start=START,
        end=END,
        metrics=metrics,
        splits="; ".join(f"{split}: {_told(facts)}" for split, facts in metrics["splits"].items()),
        verdicts=verdicts_of(metrics),
        sections=sections,
        caveats=caveats_of(metrics),
        command=metrics["command"].replace("```", "` ` `"),
    )


def update_card(path: str | Path, metrics: Mapping) -> Path:
    """Writes the section into a card, in place of an earlier one, and its results into the model-index.

    Results of other tasks stay in the model-index; those of the same task are replaced.

    Args:
        path (`str` or `Path`): `README.md`; a card that is not there is made.
        metrics (`Mapping`): The content of `metrics.json`.

    Raises:
        ValueError: for a card in which one of the two markers is missing or stands twice.
    """
    path = Path(path)
    card = ModelCard.load(path) if path.is_file() else ModelCard("---\nlibrary_name: transformers\n---\n")
    card.text = replace_section(card.text, card_section(metrics))
    index = card.data.to_dict().get("model-index")
    kept = model_index_to_eval_results(index)[1] if index else list(card.data.eval_results or [])
    results = eval_results(metrics)
    places = {_place(result) for result in results}
    kept = [old for old in kept if _place(old) not in places]
    card.data.model_name = card.data.model_name or _model_name(metrics)
    card.data.eval_results = [*kept, *results]
    path.parent.mkdir(parents=True, exist_ok=True)
    card.save(path)
    return path


def replace_section(text: str, section: str) -> str:
    """A card with its section put in the place of an earlier one, else at its end."""
    counts = text.count(START), text.count(END)
    if counts == (0, 0):
        return f"{text.rstrip()}\n\n{section}\n"
    if counts != (1, 1) or text.index(END) < text.index(START):
        raise ValueError(
            f"Expected the markers {START!r} and {END!r} once each and in this order, found {counts[0]} and "
            f"{counts[1]}. Remove what is left of an earlier section."
        )
    return text[: text.index(START)] + section + text[text.index(END) + len(END) :]


def eval_results(metrics: Mapping) -> list[EvalResult]:
    """An entry of the model-index for each protocol that has a score, with interval and random encoder beside it."""
    results = []
    for name, part in parts_of(metrics).items():
        for protocol, judged in part["pretrained"].items():
            if score_of(judged) is None:
                continue
            key, _, found = baseline_of(part, protocol)
            beside = "from_scratch" if protocol == "finetuned" else key
            task = f"{metrics['task']}, {name}" if name else metrics["task"]
            results.append(
                index_entry(
                    judged,
                    protocol,
                    task,
                    metrics["task"].split()[0],
                    f"{metrics['task']}, {'test split' if 'test' in metrics['splits'] else 'all records'}",
                    None if found is None else (beside, found),
                )
            )
    return results


def _place(result: EvalResult) -> tuple[str | None, ...]:
    """What a later result has to share with an earlier one to replace it."""
    return result.task_type, result.dataset_type, result.dataset_config, result.dataset_split, result.metric_name


def _protocol_sections(metrics: Mapping, protocol: str, name: str) -> list[CardSection]:
    judged = metrics["pretrained"][protocol]
    title = f"{name.capitalize()}, protocol {protocol}" if name not in ("", protocol) else f"Protocol {protocol}"
    score, left_out = score_of(judged), judged.get("excluded", {})
    if score == "recall_at_1":
        return [_section("Identity", identity_table(metrics, protocol))]
    if score == "miou_waves":
        tables = overlap_table(metrics, protocol), point_table(metrics, protocol)
        return [_section(title, tables[0], left_out=left_out), _section(f"{title}: points", tables[1])]
    if score is None:
        return [_section(title, cluster_table(metrics, protocol))]
    of_each = target_table if score == "macro_zmae" else label_table
    choices = choices_of(metrics, protocol)
    notes = [counts_words(judged)] + (
        [f"Chosen on the validation split, counted or fixed: {choices}."] if choices else []
    )
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


def _model_name(metrics: Mapping) -> str:
    return str(metrics["model"]).rstrip("/").rsplit("/", 1)[-1]
