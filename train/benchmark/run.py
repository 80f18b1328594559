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

HEADER = ("item", "ms", "times faster", "than", "difference", "GFLOP/s", "of peak", "records/s")


def run(args: argparse.Namespace):
    """Runs the command with the arguments of `cli.py`."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    facts = machine()
    sys.stdout.write("; ".join(f"{name}: {value}" for name, value in facts.items()) + "\n\n")
    sys.stdout.write(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}\n")
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
    facts = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "busy (load)": round(os.getloadavg()[0], 1) if sys.platform != "win32" else "unknown",
        "torch": torch.__version__,
        "allocator": os.environ.get("LD_PRELOAD") or ("set by MALLOC_*" if _is_malloc_set() else "default malloc"),
    }
    if torch.cuda.is_available():
        facts["GPU"] = torch.cuda.get_device_name()
    return facts


def _is_malloc_set() -> bool:
    return any(name.startswith("MALLOC_") for name in os.environ)


def row(measure: Measure) -> list[str]:
    """The cells of one line of the table."""
    numbers = {
        "milliseconds": "{:.1f}",
        "ratio": "{:.1f}",
        "against": "{}",
        "difference": "{:.0e}",
        "gflops": "{:.0f}",
        "share_of_peak": "{:.0%}",
        "records_per_second": "{:,.0f}",
    }
    fields = measure.to_dict()
    cells = [form.format(fields[name]) if name in fields else "" for name, form in numbers.items()]
    return [measure.item, *cells]
