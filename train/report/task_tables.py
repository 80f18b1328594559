"""Tables of what is no list of labels: clusters, identity, delineation, settings, splits and published numbers."""

from collections.abc import Mapping, Sequence

from ..predictions import ProtocolResult
from ..results import MAIN_SCORES, format_fact, format_interval, score_of
from .tables import MISSING, Cell, Row, Table, difference_cell, format_optional, paired_cell, with_interval
from .verdicts import baseline_of, judged_entries, pretrained_name, protocol_words

IDENTITY_COLUMNS = {
    "recall_at_1": "Recall at 1",
    "recall_at_5": "Recall at 5",
    "recall_at_10": "Recall at 10",
    "mean_reciprocal_rank": "Mean reciprocal rank",
    "mean_average_precision": "Mean average precision",
    "pair_auroc": "AUROC of pairs",
}
OVERLAPS = ("P", "QRS", "T", "background")
COLUMN_NAMES = {"which": "Which records"}


def sides_of(metrics: Mapping, protocol: str) -> list[tuple[str, Mapping]]:
    """Name and judgement of the baseline and of the pretrained encoder."""
    return [baseline_of(metrics, protocol), (pretrained_name(protocol), metrics["pretrained"][protocol])]


def cluster_table(metrics: Mapping, protocol: str) -> Table:
    """How clusters agree with the classes, beside classes dealt out anew, and how separate they are."""
    sides = sides_of(metrics, protocol)
    algorithms = [key for key, value in sides[-1][1].items() if isinstance(value, Mapping) and "nmi" in value]
    rows = []
    for algorithm in algorithms:
        for name, judged in sides:
            found = judged[algorithm]
            noise = f"{found['num_noise']} records in none" if found["num_noise"] else ""
            cells = [
                Cell(with_interval(found, key).text, (*with_interval(found, key).small, *_chance(found, key)))
                for key in ("nmi", "ari")
            ]
            cells += [Cell(format_optional(found[key])) for key in ("silhouette", "davies_bouldin")]
            cells.append(Cell(str(found["num_clusters"]), (noise,) if noise else ()))
            rows.append(Row(f"{algorithm}: {name.lower()}", tuple(cells), main=judged is sides[-1][1]))
        difference = metrics.get("difference", {}).get(protocol, {}).get(algorithm)
        if difference is not None:
            cells = [paired_cell(difference, key) if key in difference else Cell("") for key in ("nmi", "ari")]
            rows.append(Row(f"{algorithm}: difference", (*cells, *[Cell("")] * 3)))
    header = ("Algorithm and encoder", "NMI", "ARI", "Silhouette", "Davies-Bouldin", "Clusters")
    words = protocol_words(protocol, metrics.get("problem_type", ""))
    caption = (
        f"Protocol {protocol}: {words}, test records with exactly one class. Davies-Bouldin: lower is more separate."
    )
    return Table(caption, header, tuple(rows))


def identity_table(metrics: Mapping, protocol: str) -> Table:
    """How often the other recordings of a person are found, beside chance."""
    sides = sides_of(metrics, protocol)
    pretrained = sides[-1][1]
    columns = [key for key in IDENTITY_COLUMNS if key in pretrained]
    rows = [Row("Chance", tuple(Cell(format_optional(pretrained["chance"][key])) for key in columns))]
    rows += [
        Row(name, tuple(with_interval(judged, key) for key in columns), main=judged is pretrained)
        for name, judged in sides
    ]
    cell = difference_cell(metrics, protocol)
    if cell is not None:
        rows.append(Row("Difference", (cell, *[Cell("")] * (len(columns) - 1))))
    caption = (
        f"{pretrained['num_queries']} recordings of {pretrained['num_query_patients']} people who have another one, "
        f"each searched among {pretrained['num_gallery_records']} others by the similarity of frozen features; 95 % "
        "intervals from a bootstrap over people."
    )
    return Table(caption, ("Encoder", *(IDENTITY_COLUMNS[key] for key in columns)), tuple(rows))


def overlap_table(metrics: Mapping, protocol: str) -> Table:
    """Overlap of predicted and marked waves."""
    sides = sides_of(metrics, protocol)
    pretrained = sides[-1][1]
    names = [name for name in OVERLAPS if name in pretrained["iou"]]
    rows = []
    for name, judged in sides:
        cells = [with_interval(judged, "miou_waves"), with_interval(judged, "miou")]
        cells += [Cell(format_optional(judged["iou"].get(wave))) for wave in names]
        rows.append(Row(name, tuple(cells), main=judged is pretrained))
    differences = metrics.get("difference", {}).get(protocol)
    if differences is not None:
        cells = [paired_cell(differences[key], "difference") for key in ("miou_waves", "miou")]
        rows.append(Row("Difference", (*cells, *[Cell("")] * len(names))))
    caption = f"Protocol {protocol}: overlap (intersection over union) with the marks, samples of all leads together"
    if "num_subjects" in pretrained:
        caption += f"; {pretrained['num_subjects']} subjects, 95 % intervals from a bootstrap over them"
    header = ("Encoder", "mIoU of P, QRS and T", "mIoU with background", *(f"IoU {name}" for name in names))
    return Table(caption + ".", header, tuple(rows))


def point_table(metrics: Mapping, protocol: str) -> Table:
    """Sensitivity, positive predictive value and error of each onset, peak and offset."""
    sides = sides_of(metrics, protocol)
    pretrained = sides[-1][1]
    rows = []
    for point in pretrained["per_point"]:
        for name, judged in sides:
            found = judged["per_point"].get(point)
            if found is None:
                continue
            error = Cell(MISSING)
            if found["mean_ms"] is not None:
                spread = "" if found["sd_ms"] is None else f" ± {found['sd_ms']:.1f}"
                error = Cell(f"{found['mean_ms']:+.1f}{spread}")
            cells = (with_interval(found, "sensitivity"), with_interval(found, "ppv"), error)
            marks = Cell(str(found["num_references"]))
            name_of_point = f"{point.replace('_', ' ')}: {name.lower()}"
            rows.append(Row(name_of_point, (marks, *cells), main=judged is pretrained))
    caption = (
        f"Protocol {protocol}: points matched within {pretrained['tolerance_ms']:g} ms. Error: prediction minus mark, "
        "mean ± SD of the matched points."
    )
    return Table(caption, ("Point and encoder", "Marks", "Sensitivity", "PPV", "Error (ms)"), tuple(rows))


def setting_table(entries: Sequence[Mapping], caption: str, kinds: Mapping[str, str] | None = None) -> Table:
    """Random encoder, pretrained encoder and difference of each entry of a setting; what was refused, with its reason.

    Args:
        kinds (`Mapping[str, str]`, *optional*): Name of each `group` of entries, put before their value.
    """
    judged = judged_entries(entries)
    score = score_of(judged[0]["pretrained"]) if judged else "macro_auroc"
    rows = []
    for entry in entries:
        name = name_of_entry(entry, kinds or {})
        if "refused" in entry:
            rows.append(Row(name, (Cell("not run"), Cell(MISSING), Cell(MISSING), Cell(entry["refused"]))))
            continue
        cells = [_with_draws(entry[encoder], score) for encoder in ("random_encoder", "pretrained")]
        rows.append(Row(name, (*cells, paired_cell(entry["difference"], score), Cell(_about(entry)))))
    header = ("Setting", "Random encoder", "Pretrained encoder", "Difference", "Note")
    if not any(row.cells[-1].text for row in rows):
        header, rows = header[:-1], [Row(row.name, row.cells[:-1]) for row in rows]
    return Table(f"{caption} {MAIN_SCORES[score]}, 95 % intervals.", header, tuple(rows), words=(4,))


def name_of_entry(entry: Mapping, kinds: Mapping[str, str]) -> str:
    """An entry of a setting in words: a set of leads by its name too, others by a group that they do not say."""
    words = str(entry.get("label") or entry["value"])
    if entry["setting"] == "leads":
        return words if words == str(entry["value"]) else f"{entry['value']}: {words}"
    group = kinds.get(entry.get("group"), entry.get("group"))
    return words if group is None or group.lower() in words.lower() else f"{group}: {words}"


def splits_table(metrics: Mapping, results: Mapping[tuple[str, str], ProtocolResult]) -> Table:
    """Which records were learnt from, chosen on and tested on; counts that `metrics` lacks come from the results."""
    found = next(iter(results.values()), None)
    told = {}
    for split, facts in metrics["splits"].items():
        told[split] = dict(facts) if isinstance(facts, Mapping) else {"which": facts}
        if found is None:
            continue
        if split == "train":
            told[split].setdefault("records", len(found.train_labels))
        elif split in ("validation", "test"):
            part = vars(found)[split]
            told[split].setdefault("records", len(part.record_ids))
            told[split].setdefault("patients", len(set(part.patients())))
    columns = list(dict.fromkeys(key for facts in told.values() for key in facts))
    rows = tuple(Row(split, tuple(Cell(_fact(facts.get(key))) for key in columns)) for split, facts in told.items())
    header = ("Split", *(COLUMN_NAMES.get(key, key.replace("_", " ").capitalize()) for key in columns))
    words = tuple(
        number
        for number, key in enumerate(columns, start=1)
        if any(isinstance(facts.get(key), str) for facts in told.values())
    )
    return Table("Train: learnt from. Validation: chosen on. Test: scored.", header, rows, words)


def published_table(metrics: Mapping, published: Sequence[Mapping]) -> Table:
    """Numbers of others below ours, only those that the caller found to be of the same task, split and protocol.

    Args:
        published (`Sequence[Mapping]`):
            `model`, `protocol`, `value`, `source`, where known `interval`, `deviation` and `note`. The protocol
            `"from_scratch"` is that of the training from scratch beside `finetuned`.
    """
    rows = []
    for protocol in dict.fromkeys(entry["protocol"] for entry in published):
        ours = "finetuned" if protocol == "from_scratch" else protocol
        sides = sides_of(metrics, ours) if ours in metrics["pretrained"] else []
        for name, judged in sides[:1] if protocol == "from_scratch" else sides:
            cells = (Cell(protocol), with_interval(judged, "macro_auroc"), Cell("this evaluation"))
            rows.append(Row(f"{name} (this page)", cells, main=judged is sides[-1][1]))
        for entry in (entry for entry in published if entry["protocol"] == protocol):
            small = () if entry.get("interval") is None else (format_interval(entry["interval"]),)
            small += () if entry.get("deviation") is None else (f"SD over runs {entry['deviation']:.3f}",)
            source = Cell(entry["source"], (entry["note"],) if entry.get("note") else ())
            cells = (Cell(protocol), Cell(format_optional(entry["value"]), small), source)
            rows.append(Row(entry["model"], cells))
    header = ("Model", "Protocol", "Macro AUROC", "Source")
    return Table("Numbers of others below those of this page.", header, tuple(rows), words=(1, 3))


def _with_draws(judged: Mapping, score: str) -> Cell:
    """A score with its interval; of several draws, with their standard deviation."""
    cell = with_interval(judged, score)
    spread = judged.get(f"{score}_sd")
    return cell if spread is None else Cell(cell.text, (*cell.small, f"SD of draws {spread:.3f}"))


def _about(entry: Mapping) -> str:
    """What an entry says beside its numbers, in words."""
    parts = []
    if entry.get("num_draws", 1) > 1:
        parts.append(f"{entry['num_draws']} draws of {entry['num_train_records']} records")
    elif entry["setting"] == "low_shot":
        parts.append(f"{entry['num_train_records']} records")
    if entry.get("refused_draws"):
        parts.append(f"{len(entry['refused_draws'])} draws could not be probed")
    for key in ("derived", "absent"):
        if entry.get(key):
            parts.append(f"{key}: {', '.join(entry[key])}")
    if entry.get("excluded"):
        parts.append(f"left out: {', '.join(entry['excluded'])}")
    return "; ".join(parts)


def _chance(found: Mapping, key: str) -> tuple[str, ...]:
    chance = found.get(f"{key}_chance")
    return () if chance is None else (f"chance {format_optional(chance)}",)


def _fact(value) -> str:
    return MISSING if value is None else format_fact(value) if isinstance(value, (int, float, str)) else str(value)
