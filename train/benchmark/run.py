"""`ecg-transformers benchmark`: what the fast paths are worth on the machine at hand, as a table."""

import argparse
import json
import os
import platform
import sys
from datetime import date
from pathlib import Path

import datasets
import torch

from .measures import Measure, cpu_measures, cuda_measures

COLUMNS = {
    "item": ("item", "{}"),
    "milliseconds": ("ms", "{:.1f}"),
    "ratio": ("times faster", "{:.1f}"),
    "against": ("than", "{}"),
    "difference": ("difference", "{:.0e}"),
    "gflops": ("GFLOP/s", "{:.0f}"),
    "share_of_peak": ("of peak", "{:.0%}"),
    "records_per_second": ("records/s", "{:,.0f}"),
}
"""Heading and form of each number of a measure."""


def run(args: argparse.Namespace):
    """Runs the command with the arguments of `cli.py`."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    facts = machine()
    sys.stdout.write("; ".join(f"{name}: {value}" for name, value in facts.items()) + "\n\n")
    header = " | ".join(heading for heading, _ in COLUMNS.values())
    sys.stdout.write(f"| {header} |\n|{'---|' * len(COLUMNS)}\n")
    done = {}
    sections = {"cpu": cpu_measures} | ({"cuda": cuda_measures} if torch.cuda.is_available() else {})
    for section, measures in sections.items():
        done[section] = []
        for measure in measures():
            sys.stdout.write(f"| {' | '.join(row(measure))} |\n")
            sys.stdout.flush()
            done[section].append(measure.to_dict())
    if "cuda" not in sections:
        sys.stdout.write("\nNo GPU is here: its section was not measured.\n")
    if args.json is not None:
        Path(args.json).write_text(json.dumps({"machine": facts, **done}, indent=1) + "\n")


def machine() -> dict[str, str | int]:
    """Facts of the machine and the day."""
    is_malloc_set = any(name.startswith("MALLOC_") for name in os.environ)
    facts = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "busy (load)": round(os.getloadavg()[0], 1) if sys.platform != "win32" else "unknown",
        "torch": torch.__version__,
        "allocator": os.environ.get("LD_PRELOAD") or ("set by MALLOC_*" if is_malloc_set else "default malloc"),
    }
    if torch.cuda.is_available():
        facts["GPU"] = torch.cuda.get_device_name()
    return facts


def row(measure: Measure) -> list[str]:
    """The cells of one line of the table."""
    fields = measure.to_dict()
    return [form.format(fields[name]) if name in fields else "" for name, (_, form) in COLUMNS.items()]
