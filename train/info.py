"""`ecg-transformers info`: what a file or a folder holds and what is odd about it, before anyone trains on it."""

import argparse
import json
import logging
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ecg_transformers.data.corpora import CORPORA
from ecg_transformers.data.corpora.declarations import parse_options
from ecg_transformers.data.formats.file_format import find_format
from ecg_transformers.data.recording_file import READ_ERRORS, list_files, read_recordings, recording_format
from ecg_transformers.data.recording_report import (
    EXAMINED_SECONDS,
    MEANINGS,
    RecordingReport,
    examine_recording,
    examined_signal,
)
from ecg_transformers.data.records import EcgRecord
from ecg_transformers.modeling.input_contract import InputContract
from ecg_transformers.modeling.recording_input import DIMENSIONLESS
from ecg_transformers.modeling.recording_input import read_recordings as as_recordings

from .flags import in_flags
from .folder_table import proposal_text, propose, write

NUM_NAMED, NUM_STRIPS = 5, 12
# Heading, measure, factor, digits.
_COLUMNS = (
    ("lowest mV", "lowest_mv", 1, 3),
    ("highest mV", "highest_mv", 1, 3),
    ("wander mV", "wander_mv", 1, 2),
    ("noise uV", "noise_mv", 1000, 0),
    ("50 Hz uV", "hum_50hz_mv", 1000, 0),
    ("60 Hz uV", "hum_60hz_mv", 1000, 0),
    ("still s", "flat_seconds", 1, 2),
    ("clipped s", "clipped_seconds", 1, 2),
    ("missing", "missing_samples", 1, 0),
)

logger = logging.getLogger("ecg_transformers")


def run(args: argparse.Namespace):
    """The command."""
    path = Path(args.path).expanduser()
    declared = args.declared
    is_folder = path.is_dir() or args.dataset is not None
    if args.plot is not None and args.dataset is not None:
        raise ValueError("--plot draws a recording or the files of a folder: leave out --dataset.")
    if args.table is not None and (not path.is_dir() or args.dataset is not None):
        raise ValueError("--table is for a folder of recordings, without --dataset.")
    if args.write and args.table is None:
        raise ValueError("--write writes what --table FILE proposes: name the table.")
    if args.table is not None:
        proposal = propose(path, args.table, declared)
        sys.stdout.write(proposal_text(path, proposal))
        if args.json is not None:
            Path(args.json).write_text(json.dumps(vars(proposal), indent=2, ensure_ascii=False) + "\n", "utf-8")
        if args.write:
            logger.info("Wrote %s", write(path, proposal))
        return
    if args.dataset is not None and declared:
        raise ValueError(f"{sorted(declared)} are for files. Give those of a corpus by --options KEY=VALUE ...")
    if args.dataset is None and args.options:
        raise ValueError(f"{args.options} are options of a corpus: name it by --dataset.")
    if args.dataset is not None:
        content = describe_corpus(args.dataset, path, parse_options(args.options), args.max_records)
    elif is_folder:
        content = describe_folder(path, declared, args.max_records)
        if args.plot is not None:
            logger.info("Wrote %s", save_overview(path, declared, args.plot))
    else:
        content, record = describe_file(path, declared)
        if args.plot is not None:
            logger.info("Wrote %s", save_recording_plot(record, args.plot))
    if args.json is not None:
        Path(args.json).write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    text = folder_text(content) if is_folder else file_text(content)
    sys.stdout.write(in_flags(text, args))


def describe_file(path: str | os.PathLike, declared: Mapping[str, Any]) -> tuple[dict[str, Any], EcgRecord]:
    """Content of a file, in plain types, and its (first) recording; `declared` is what it does not state itself, as
    [`read_recordings`] takes it."""
    path = Path(path)
    records = list(islice(read_recordings(path, **declared), 2))
    report = examine_recording(records[0])
    content = {
        "path": str(path),
        "format": find_format(str(path)),
        "holds_more_recordings": len(records) > 1,
        **report.to_dict(),
        "default_feature_extractor": _what_the_extractor_does(records[0]),
    }
    return content, records[0]


def describe_folder(path: Path, declared: Mapping[str, Any], max_records: int) -> dict[str, Any]:
    """Content of the recordings in and below a folder, by a sample of its files spread evenly over their names."""
    names, num_parts = list_files(path)
    if not names:
        raise ValueError(f"{path} holds no files.")
    examined, unreadable, formats = [], {}, []
    for name in spread(names, max_records):
        formats.append(recording_format(path / name))
        if formats[-1] is None:  # licences, notes, tables of labels
            continue
        try:
            for record in islice(read_recordings(path / name, **declared), max_records - len(examined)):
                examined.append((name, examine_recording(record)))
        except READ_ERRORS as error:
            unreadable[name] = (str(error) or type(error).__name__).replace(str(path / name), "it")
    endings = Counter(Path(name).suffix.lower() or "(no ending)" for name in names)
    return {
        "path": str(path),
        "num_files": len(names) + num_parts,
        "num_candidates": len(names),
        "endings": dict(endings.most_common()),
        **_summary(examined, unreadable, formats),
    }


def describe_corpus(name: str, path: Path, options: Mapping[str, Any], max_records: int) -> dict[str, Any]:
    """Content of `load_ecg(name, path, **options)`, by a sample of records spread evenly over its index."""
    from ecg_transformers.data.loading import find_corpus, locate  # imports `datasets`

    corpus = find_corpus(name) if name in CORPORA else None
    if corpus is None or corpus.index is None:
        known = sorted(known for known, corpus in CORPORA.items() if corpus.index is not None)
        raise ValueError(f"{name!r} is no corpus with a folder of recordings. Choose from {known}.")
    folder, options = locate(corpus, path, corpus.complete_options(options))
    entries = corpus.index(folder, options)
    examined, unreadable = [], {}
    for entry in spread(entries, max_records):
        try:
            examined.append((entry.record_id, examine_recording(corpus.read(entry, options))))
        except READ_ERRORS as error:
            unreadable[entry.record_id] = str(error) or type(error).__name__
    patients = {entry.columns.get("patient_id") for entry in entries} - {None}
    labels = Counter(label for entry in entries for label in entry.columns.get("labels") or ())
    return {
        "path": str(folder),
        "dataset": name,
        "num_candidates": len(entries),
        "splits": dict(Counter(entry.split for entry in entries)),
        "num_patients": len(patients) or None,
        "labels": dict(labels.most_common()),
        **_summary(examined, unreadable),
    }


def save_recording_plot(record: EcgRecord, path: str | os.PathLike) -> Path:
    """Draws the first ten seconds on ECG paper, to a PNG, SVG or PDF."""
    from .report.ecg_paper import plot_recording, save_figure

    if record.unit == DIMENSIONLESS:
        raise ValueError("ECG paper has 10 mm for each mV, and these values are no voltage: leave out --plot.")
    rate, num_samples = record.sampling_rate, record.signal.shape[1]
    title = f"{record.record_id}   {rate:g} Hz, {num_samples / rate:.4g} s"
    if num_samples > 10 * rate:
        title += ", the first 10 s"
    return save_figure(plot_recording(examined_signal(record, 10.0), record.leads, rate, title), path)


def save_overview(folder: Path, declared: Mapping[str, Any], path: str | os.PathLike) -> Path:
    """Draws a strip of 10 s of some recordings of a folder, lead II or else the first lead of each."""
    from matplotlib.figure import Figure

    from .report.ecg_paper import save_figure

    strips = []
    for name in spread(list_files(folder)[0], 4 * NUM_STRIPS):
        try:
            record = next(iter(read_recordings(folder / name, **declared)))
        except READ_ERRORS:
            continue
        row = list(record.leads).index("II") if "II" in record.leads else 0
        signal = examined_signal(record, 10.0)[row]
        unit = "" if record.unit == DIMENSIONLESS else ", mV"
        strips.append((f"{name}, {record.leads[row]}{unit}", np.arange(len(signal)) / record.sampling_rate, signal))
        if len(strips) == NUM_STRIPS:
            break
    if not strips:
        raise ValueError(f"No recording of {folder} can be read; without --plot the reasons are listed.")
    figure = Figure(figsize=(9, 1.1 * len(strips) + 0.6), layout="constrained")
    for axes, (title, seconds, signal) in zip(figure.subplots(len(strips), squeeze=False)[:, 0], strips, strict=True):
        axes.plot(seconds, signal, color="black", linewidth=0.6)
        axes.set_title(title, fontsize=7, loc="left")
        axes.tick_params(labelsize=6)
        axes.set_xlim(0, 10)
    axes.set_xlabel("s", fontsize=7)
    return save_figure(figure, path)


def spread(items: Sequence, count: int) -> list:
    """At most `count` of the items, at even distances, the first among them."""
    if len(items) <= count:
        return list(items)
    return [items[len(items) * number // count] for number in range(count)]


def _summary(
    examined: Sequence[tuple[str, RecordingReport]], unreadable: Mapping[str, str], formats: Sequence[str | None] = ()
) -> dict[str, Any]:
    """Counts over the recordings that were looked at; the format of a file of another kind is `None`."""
    reports, problems = [report for _, report in examined], defaultdict(list)
    for name, report in examined:
        for problem in report.problems:
            problems[problem].append(name)
    return {
        "num_examined": len(reports),
        "num_unreadable": len(unreadable),
        "num_other": formats.count(None),
        "formats": _counts(kind for kind in formats if kind is not None),
        "leads": _counts(", ".join(report.leads) for report in reports),
        "sampling_rates": _counts(f"{report.sampling_rate:g}" for report in reports),
        "units": _counts(report.unit for report in reports),
        "seconds": _counts(f"{report.seconds:.4g}" for report in reports),
        "problems": dict(sorted(problems.items(), key=lambda item: -len(item[1]))),
        "unreadable": unreadable,
    }


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _what_the_extractor_does(record: EcgRecord) -> list[str]:
    """Sentences on what the default feature extractor makes of a recording, or why it refuses it."""
    length = max(1, round(EXAMINED_SECONDS * record.sampling_rate))
    record = replace(record, signal=record.signal[:, :length])
    try:
        return InputContract().describe(as_recordings([record])[0])
    except ValueError as error:
        return [f"Refuses it: {error}"]


def file_text(content: Mapping[str, Any]) -> str:
    """The text on one recording, as `describe_file` gives it."""
    known = [lead for lead in content["leads"] if lead not in content["unknown_leads"]]
    length = f"{content['seconds']:.5g} s ({content['num_samples']} samples)"
    lines = [
        content["path"],
        "",
        *_fields(
            ("format", content["format"] + (", the first of several recordings" * content["holds_more_recordings"])),
            ("leads", f"{len(known)}: {', '.join(known)}" if known else "none that is known"),
            ("other channels", ", ".join(content["unknown_leads"])),
            ("sampling rate", f"{content['sampling_rate']:g} Hz"),
            ("length", length),
            ("unit", f"{content['unit']}" + (" (shown as mV)" * (content["unit"] not in ("mV", "dimensionless")))),
        ),
        "",
        *_quality_table(content["quality"], content["unit"] == "dimensionless"),
    ]
    if content["examined_seconds"] < content["seconds"]:
        lines += ["", f"Only the first {content['examined_seconds']:g} s were looked at."]
    lines += [""] * bool(content["notes"]) + [f"Note: {note}." for note in content["notes"]]
    lines += ["", "Worth a look:" if content["problems"] else "Nothing odd was found."]
    lines += [f"  - {sentence}" for sentence in content["problems"].values()]
    if content["not_judged"]:
        lines += ["", f"Could not be judged: {', '.join(content['not_judged'])}."]
    extractor = InputContract()
    what = f"{len(extractor.leads)} leads, {extractor.num_samples} samples at {extractor.sampling_rate:g} Hz"
    lines += ["", f"The default feature extractor ({what}):"]
    lines += [f"  - {sentence}" for sentence in content["default_feature_extractor"] or ["Takes it as it is."]]
    return "\n".join(lines) + "\n"


def folder_text(content: Mapping[str, Any]) -> str:
    """The text on a folder or a corpus, as `describe_folder` and `describe_corpus` give it."""
    is_corpus = "dataset" in content
    what = f"{content['num_candidates']} recordings" if is_corpus else _files(content)
    looked_at = f"{content['num_examined']} recordings"
    if content["num_unreadable"]:
        looked_at += f", and {content['num_unreadable']} that could not be read"
    if content["num_other"]:
        looked_at += f", and {content['num_other']} files of other kinds"
    sampled = content["num_examined"] + content["num_unreadable"] + content["num_other"] < content["num_candidates"]
    lines = [
        f"{content['path']}" + (f" as {content['dataset']!r}" if is_corpus else ""),
        "",
        *_fields(
            ("holds", what),
            ("splits", _list(content.get("splits"))),
            ("patients", str(content.get("num_patients") or "")),
            ("labels", _list(content.get("labels"), 12)),
            ("looked at", looked_at + (" (evenly spread; --max_records takes more)" * sampled)),
            ("formats", _list(content["formats"])),
            ("unit", _list(content["units"])),
            ("rate, Hz", _list(content["sampling_rates"])),
            ("length, s", _list(content["seconds"])),
        ),
        *_fields(*(("leads" * (not number), leads) for number, leads in enumerate(_lead_sets(content["leads"])))),
        "",
    ]
    if content["problems"]:
        lines.append("Worth a look (recordings):")
        width = max(len(MEANINGS[name]) for name in content["problems"])
        for name, records in content["problems"].items():
            lines.append(f"  {len(records):>5}  {MEANINGS[name]:<{width}}  {_named(records)}")
    elif content["num_examined"]:
        lines.append("Nothing odd was found.")
    if content["unreadable"]:
        lines += [""] * bool(lines[-1]) + ["Could not be read:"]
        by_reason = {}
        for name, reason in content["unreadable"].items():
            by_reason.setdefault(reason, []).append(name)
        lines += [f"  {len(names):>5}  {_named(names)}: {why}" for why, names in list(by_reason.items())[:NUM_NAMED]]
        if len(by_reason) > NUM_NAMED:
            lines.append(f"         and for {len(by_reason) - NUM_NAMED} further reasons (all of them: --json)")
    return "\n".join(lines) + "\n"


def _files(content: Mapping[str, Any]) -> str:
    num_parts = content["num_files"] - content["num_candidates"]
    parts = f", signals and annotations of these ({num_parts})" if num_parts else ""
    return f"{content['num_files']} files: {_list(content['endings'], 8)}{parts}"


def _fields(*fields: tuple[str, str]) -> list[str]:
    return [f"  {name:<15} {value}" for name, value in fields if value]


def _list(counts: Mapping[str, int] | None, most: int = 6) -> str:
    """`"a (3), b (1)"`, or the value alone if there is one only."""
    counts = counts or {}
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:most]]
    return ", ".join(shown) + (f" and {len(counts) - most} more" if len(counts) > most else "")


def _lead_sets(counts: Mapping[str, int]) -> list[str]:
    shown = [f"{leads} ({count})" for leads, count in list(counts.items())[:NUM_NAMED]]
    return shown + [f"and {len(counts) - NUM_NAMED} other sets"] * (len(counts) > NUM_NAMED)


def _named(records: Sequence[str]) -> str:
    return ", ".join(records[:NUM_NAMED]) + (", ..." if len(records) > NUM_NAMED else "")


def _quality_table(quality: Sequence[Mapping[str, Any]], is_dimensionless: bool) -> list[str]:
    """A line for each lead; columns that no lead has are left out."""
    columns = [column for column in _COLUMNS if any(lead[column[1]] is not None for lead in quality)]
    if is_dimensionless:
        columns = [(heading.removesuffix(" mV"), *rest) for heading, *rest in columns]
    width = max(len("lead"), *(len(lead["lead"]) for lead in quality))
    lines = ["  " + "lead".ljust(width) + "".join(f"  {heading:>10}" for heading, *_ in columns)]
    for lead in quality:
        cells = [_number(lead[name], factor, digits) for _, name, factor, digits in columns]
        lines.append("  " + lead["lead"].ljust(width) + "".join(f"  {cell:>10}" for cell in cells))
    return lines


def _number(value: float | None, factor: float, digits: int) -> str:
    return "-" if value is None else f"{value * factor:.{digits}f}"
