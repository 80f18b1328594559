"""The text that `ecg-transformers info` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from ecg_transformers.data.recording_report import MEANINGS
from ecg_transformers.modeling import EcgFeatureExtractor

NUM_NAMED = 5

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
    lines += ["", "Worth a look:" if content["problems"] else "Nothing odd was found."]
    lines += [f"  - {sentence}" for sentence in content["problems"].values()]
    if content["not_judged"]:
        lines += ["", f"Could not be judged: {', '.join(content['not_judged'])}."]
    extractor = EcgFeatureExtractor()
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
