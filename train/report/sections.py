"""The sections of the evaluation page: which tables and charts belong together, and what each shows, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from ecg_transformers.data.corpora.nstdb import NOISES

from ..features import EmbeddingTable
from ..predictions import ProtocolResult
from ..results import REGRESSION, SINGLE_LABEL, score_of
from .curves import positives_of
from .examples import choose_examples, draw_examples
from .figures import plot_errors, plot_label_bars, plot_precision_recall, plot_reliability, plot_roc
from .page import ReportFigure
from .plots import figure_to_data_uri
from .projection import MOST_RECORDS, plot_projection, projection_methods
from .setting_figures import plot_low_shot, plot_names, plot_noise
from .tables import Table, format_number, label_table, protocol_table, target_table
from .task_tables import cluster_table, identity_table, overlap_table, point_table, published_table, setting_table
from .verdicts import baseline_of, choices_of, judged_entries, pretrained_name

LARGEST_SVG = 200_000
"""Letters of a data URI: a chart that needs more, of thousands of points, becomes a PNG if that is smaller."""
CHART_DPI = 130
MOST_TARGETS = 6
NO_PUBLISHED = (
    "No published numbers stand beside these. They would only where task, split and protocol are the same, and none "
    "such was given."
)
SETTING_WORDS = {
    "low_shot": (
        "Few labels",
        "The protocol linear, learnt from a part of the training records. Validation and test split stay whole.",
    ),
    "leads": (
        "Fewer leads",
        "The protocol linear, learnt, chosen and tested on recordings with these leads alone; the others are removed "
        "from the recording, not set to zero.",
    ),
    "noise": (
        "Noise",
        "The protocol linear, learnt from clean records, on test records with recorded noise (MIT-BIH Noise Stress "
        "Test Database) added at fixed signal-to-noise ratios.",
    ),
    "sampling_rate": ("Other sampling rates", "The protocol linear, on test records at other sampling rates."),
    "unit": ("Other units", "The protocol linear, on test records whose values are written in other units."),
    "length": ("Other lengths", "The protocol linear, on test records of other lengths."),
}
DRAWN_SETTINGS = ("low_shot", "leads", "noise")
"""The others are told by their table."""


@dataclass(frozen=True)
class Section:
    """A part of the page, in this order: sentences, tables, small print, what was left out, more tables, figures."""

    anchor: str
    title: str
    intro: Sequence[str] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    folded: Sequence[Table] = ()
    figures: Sequence[ReportFigure] = ()


def embed_chart(figure: Figure, title: str, caption: str, alt: str, wide: bool = False) -> ReportFigure:
    """A chart for the page: SVG, or PNG where that is large and PNG smaller. Wide ones are scrolled on a phone."""
    uri = figure_to_data_uri(figure, "svg")
    if len(uri) > LARGEST_SVG:
        uri = min(uri, figure_to_data_uri(figure, "png", CHART_DPI), key=len)
    return ReportFigure(title, caption, alt, uri, wide)


def judged_section(
    metrics: Mapping, protocol: str, results: Mapping[tuple[str, str], ProtocolResult], anchor: str
) -> Section:
    """The section of a protocol, by what its judgement is of."""
    score = score_of(metrics["pretrained"][protocol])
    if score == "macro_auroc":
        return classification_section(metrics, protocol, results, anchor)
    if score == "macro_zmae":
        return regression_section(metrics, protocol, results, anchor)
    title = f"Protocol {protocol}"
    left_out = metrics["pretrained"][protocol].get("excluded", {})
    if score == "recall_at_1":
        return Section(anchor, "Identity: the same person again", tables=(identity_table(metrics, protocol),))
    if score == "miou_waves":
        tables = overlap_table(metrics, protocol), point_table(metrics, protocol)
        return Section(anchor, f"Delineation, protocol {protocol}", tables=tables, left_out=left_out)
    judged = metrics["pretrained"][protocol]
    notes = [
        f"{judged['num_test_records']} records of {judged['num_test_patients']} patients; {judged['num_left_out']} "
        "with none of the labels or with several take no part. Chance: classes dealt out anew."
    ]
    return Section(anchor, title, tables=(cluster_table(metrics, protocol),), notes=notes)


def classification_section(
    metrics: Mapping, protocol: str, results: Mapping[tuple[str, str], ProtocolResult], anchor: str
) -> Section:
    """Tables, bars, ROC and precision-recall curves, and reliability of a protocol."""
    name, baseline = baseline_of(metrics, protocol)
    judged = metrics["pretrained"][protocol]
    result = results.get(("pretrained", protocol))
    figures = [
        embed_chart(
            plot_label_bars(judged, baseline, name.lower(), pretrained_name(protocol).lower()),
            f"AUROC of each label ({protocol})",
            "Bars start at chance; lines are 95 % intervals.",
            f"Bars of the AUROC of {len(judged['per_class'])} labels; the macro mean is {judged['macro_auroc']:.3f}, "
            f"of the {name.lower()} row {baseline['macro_auroc']:.3f}.",
        )
    ]
    if result is not None:
        num_labels = len(judged["per_class"])
        caption = (
            "Pretrained encoder, test split. The black line is the mean over the labels; its area is that of the "
            f"table, {judged['macro_auroc']:.3f}."
        )
        alt = f"ROC curves of {num_labels} labels and their mean, {protocol}"
        figures.append(embed_chart(plot_roc(result), f"ROC curves ({protocol})", caption, alt))
        caption = (
            "Pretrained encoder, test split. The area below the mean is that of the table, "
            f"{judged['macro_auprc']:.3f}; chance is the mean share of positive records."
        )
        alt = f"Precision over recall of {num_labels} labels and their mean, {protocol}"
        figures.append(embed_chart(plot_precision_recall(result), f"Precision and recall ({protocol})", caption, alt))
        temperature = judged.get("temperature")
        single = result.problem_type == SINGLE_LABEL
        of_what = "the most probable class of each record" if single else "all labels together"
        caption = f"Pretrained encoder, test split, {of_what}. Points of few predictions (below) jump by chance. " + (
            "No temperature was fitted."
            if temperature is None
            else "The temperature was fitted on the validation split: the calibration error goes from "
            f"{judged['ece']:.3f} to {judged['ece_scaled']:.3f}{'' if single else ' (mean over labels)'}."
        )
        alt = f"Observed frequency against predicted probability, {protocol}, before and after temperature scaling"
        figures.append(embed_chart(plot_reliability(result, temperature), f"Reliability ({protocol})", caption, alt))
    notes = counts_and_choices(metrics, protocol)
    if judged.get("temperature") is not None:
        notes.append(
            f"Temperature: {baseline['temperature']:.3f} ({name.lower()}), {judged['temperature']:.3f} "
            f"({pretrained_name(protocol).lower()}). ECE and Brier score: lower is better."
        )
    if judged.get("challenge_metric_missing"):
        notes.append(f"No challenge metric: {judged['challenge_metric_missing']}")
    return Section(
        anchor,
        f"Protocol {protocol}",
        tables=(protocol_table(metrics, protocol),),
        notes=notes,
        left_out={f"Label {label}": reason for label, reason in judged.get("excluded", {}).items()},
        folded=(label_table(metrics, protocol, positives_of(results)),),
        figures=figures,
    )


def regression_section(
    metrics: Mapping, protocol: str, results: Mapping[tuple[str, str], ProtocolResult], anchor: str
) -> Section:
    """Errors of each target, and for the first of them prediction against truth."""
    judged = metrics["pretrained"][protocol]
    result, figures = results.get(("pretrained", protocol)), []
    for column, target in enumerate(() if result is None else result.label_names[:MOST_TARGETS]):
        found = judged["per_target"][target]
        caption = (
            f"Pretrained encoder, test split. Mean absolute error {format_number(found['mae'])}. Left: on the dotted "
            "line the prediction is right. Right (Bland-Altman): 95 % of the differences are expected between the "
            "dashed lines."
        )
        alt = f"Predictions of {target} against the truth, and their differences against their means"
        figures.append(embed_chart(plot_errors(result, column), f"{target} ({protocol})", caption, alt, wide=True))
    tables = protocol_table(metrics, protocol), target_table(metrics, protocol)
    notes = counts_and_choices(metrics, protocol)
    return Section(anchor, f"Protocol {protocol}", tables=tables, notes=notes, figures=figures)


def setting_sections(settings: Mapping[str, Sequence[Mapping]]) -> list[Section]:
    """A section a setting that was run."""
    sections = []
    for name, entries in settings.items():
        if not entries:
            continue
        title, intro = SETTING_WORDS[name]
        kinds = NOISES if name == "noise" else None
        figures = []
        judged = judged_entries(entries)
        if name in DRAWN_SETTINGS and len(judged) > 1:
            figure, caption = _setting_figure(name, judged)
            figures.append(embed_chart(figure, title, caption, f"{title}: {caption}", wide=name == "noise"))
        table = setting_table(entries, f"{title}.", kinds)
        folded = (table,) if len(entries) > 8 else ()
        tables = () if folded else (table,)
        sections.append(Section(f"setting-{name}", title, (intro,), tables, folded=folded, figures=figures))
    return sections


def features_section(
    features: Mapping[str, EmbeddingTable], metrics: Mapping, results: Mapping[tuple[str, str], ProtocolResult]
) -> Section:
    """Features of the test split on a plane."""
    values, names = None, metrics["label_names"]
    if metrics["problem_type"] == REGRESSION:
        result = next(iter(results.values()))
        truth = dict(zip(result.test.record_ids, result.test.labels[:, 0], strict=True))
        values = np.array([truth[record] for record in next(iter(features.values())).record_ids])
        names = names[:1]
    methods = projection_methods()
    table = next(iter(features.values()))
    many = f" {MOST_RECORDS} of {len(table)} records, drawn at random." if len(table) > MOST_RECORDS else ""
    coloured = "by their class" if values is None else f"by {names[0]}"
    caption = (
        f"Features of the test records, each standardised, coloured {coloured}, by {', '.join(methods)}. "
        "A picture, not a measurement: t-SNE makes clusters of noise too, distances between groups mean nothing."
        f"{many}"
    )
    alt = f"Points of the test records on planes by {', '.join(methods)}, for {', '.join(features)}"
    figure = plot_projection(features, names, values)
    return Section(
        "features", "Features on a plane", figures=(embed_chart(figure, "Test records", caption, alt, wide=True),)
    )


def examples_section(rows, metrics: Mapping, results: Mapping[tuple[str, str], ProtocolResult]) -> Section | None:
    """Recordings that the pretrained encoder got right and wrong, by `linear` or the first protocol there is."""
    protocols = [
        protocol
        for encoder, protocol in results
        if encoder == "pretrained" and score_of(metrics["pretrained"][protocol]) == "macro_auroc"
    ]
    if not protocols:
        return None
    protocol = "linear" if "linear" in protocols else protocols[0]
    chosen = choose_examples(results["pretrained", protocol], metrics["pretrained"][protocol])
    figures, notes = draw_examples(chosen, rows)
    intro = (
        f"Protocol {protocol}, pretrained encoder. Of the label told best and of the one told worst: the false "
        "positive and the false negative that it was surest of, and the positive that it was rightly surest of. "
        "Positive is what reaches the threshold of the validation split. Some errors are those of the labels."
    )
    return Section("examples", "Recordings, right and wrong", (intro,), notes=notes, figures=figures)


def published_section(metrics: Mapping, published: Sequence[Mapping], notes: Sequence[str]) -> Section:
    """Published numbers beside ours, or why there are none."""
    tables = (published_table(metrics, published),) if published else ()
    intro = tuple(notes) if notes or published else (NO_PUBLISHED,)
    return Section("published", "Published numbers", intro, tables)


def _setting_figure(name: str, entries: Sequence[Mapping]) -> tuple[Figure, str]:
    if name == "low_shot":
        return plot_low_shot(entries), "Mean over the draws with their standard deviation; short lines are the draws."
    if name == "noise":
        return plot_noise(entries, NOISES), (
            "The less signal, the further right. Bands are 95 % intervals; dotted lines are the scores without noise."
        )
    return plot_names(entries), "Score with its 95 % interval, of both encoders."


def counts_and_choices(metrics: Mapping, protocol: str) -> list[str]:
    """How many records were learnt from and tested on, and what was chosen, in a sentence each."""
    judged, choices = metrics["pretrained"][protocol], choices_of(metrics, protocol)
    counts = (
        f"Learnt from {judged['num_train_records']} records, tested on {judged['num_test_records']} records of "
        f"{judged['num_test_patients']} patients."
    )
    return [counts, f"Chosen on the validation split, counted or fixed: {choices}."] if choices else [counts]
