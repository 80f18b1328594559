"""`ecg-transformers benchmark`: what the fast paths are worth on the machine at hand, as a table.

Each fast path stands beside the plain way, with how far their results differ. Times are those of the processor
(`time.process_time`) on one thread, medians of rounds in which both take turns, so that another job on the machine
slows both; on a GPU they are those of the clock between two synchronisations.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from itertools import count
from pathlib import Path

import datasets
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForPreTraining

from ecg_transformers.data import EcgPretrainingCollator, load_ecg, prepare_corpus, read_record
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.cropa import cross_pattern_attention, cross_pattern_mask
from ecg_transformers.modeling.leads import STANDARD_LEADS
from ecg_transformers.modeling.masking import (
    DrawKeys,
    keyed_generator,
    sample_published_segment_masks,
    sample_segment_masks,
)
from ecg_transformers.modeling.signal_processing import resample
from ecg_transformers.modeling.sigreg import draw_directions, knots_and_weights, sigreg

from ..settings import read_config, split_settings

ROUNDS = 3
GEMM_SHAPES = ((400, 768, 3072), (3200, 384, 1536))
"""Rows, inner width and columns of products of whose rate the best is called the peak."""
RECORDS = 64
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


@dataclass(frozen=True)
class Measure:
    """One row of the table.

    Args:
        item (`str`): Name of the row.
        milliseconds (`float`): Time of the fast path.
        ratio (`float`, *optional*): Time of the plain way over that of the fast one.
        against (`str`): The plain way.
        difference (`float`, *optional*): Largest difference of their results, over the largest value.
        gflops (`float`, *optional*): Billions of multiplications and additions a second.
        share_of_peak (`float`, *optional*): The same over the peak of matrix products.
        records_per_second (`float`, *optional*): Rate of one thread, or of the GPU.
    """

    item: str
    milliseconds: float
    ratio: float | None = None
    against: str = ""
    difference: float | None = None
    gflops: float | None = None
    share_of_peak: float | None = None
    records_per_second: float | None = None

    def to_dict(self) -> dict[str, str | float]:
        return {name: value for name, value in asdict(self).items() if value is not None and value != ""}


def in_turns(*functions: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Median milliseconds of each function, one call of each a round, after one call of each that does not count."""
    times = [[] for _ in functions]
    for number in range(rounds + 1):
        for function, of_function in zip(functions, times, strict=True):
            started = _now()
            function()
            if number:
                of_function.append((_now() - started) * 1e3)
    return [statistics.median(of_function) for of_function in times]


def _now() -> float:
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def compare(item: str, fast: Callable, plain: Callable, against: str, records: int | None = None) -> Measure:
    """A fast path beside the plain way; both return what is compared."""
    mine, expected = (torch.as_tensor(function()).double() for function in (fast, plain))
    difference = float((mine - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
    mine_ms, plain_ms = in_turns(fast, plain)
    rate = None if records is None else records / mine_ms * 1e3
    return Measure(item, mine_ms, plain_ms / mine_ms, against, difference, records_per_second=rate)


def gemm_peak(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Measure:
    """The best rate of a matrix product."""
    best = None
    shapes = GEMM_SHAPES if device == "cpu" else ((8192, 8192, 8192),)
    for rows, inner, columns in shapes:
        a, b = (torch.randn(shape, device=device, dtype=dtype) for shape in ((rows, inner), (inner, columns)))
        (milliseconds,) = in_turns(lambda a=a, b=b: a @ b, rounds=9)
        gflops = 2e-6 * rows * inner * columns / milliseconds
        if best is None or gflops > best.gflops:
            best = Measure(f"matrix product {rows} x {inner} x {columns}", milliseconds, gflops=gflops)
    return best


def attention(device: str, shape: tuple[int, ...], backward: bool) -> Measure:
    """Cross-Pattern Attention beside dense attention under an N x N mask, as the authors compute it."""
    states = [torch.randn(shape, device=device, requires_grad=backward) for _ in range(3)]
    batch, rows, columns, heads, head_dim = shape
    mask = cross_pattern_mask(rows, columns, device)

    def dense(query, key, value):
        flat = (s.reshape(batch, rows * columns, heads, head_dim).transpose(1, 2) for s in (query, key, value))
        query, key, value = flat
        scores = (query @ key.transpose(-1, -2) * head_dim**-0.5).masked_fill(~mask, float("-inf"))
        return (scores.softmax(-1) @ value).transpose(1, 2).reshape(shape)

    def last(function):
        output = function(*states)
        return torch.autograd.grad(output.square().sum(), states)[0].cpu() if backward else output.cpu()

    name = (
        f"cross-pattern attention, {batch} x {rows} x {columns}, {'forward and backward' if backward else 'forward'}"
    )
    return compare(name, lambda: last(cross_pattern_attention), lambda: last(dense), "dense attention")


def sigreg_statistic(device: str, rows: int = 512, slices: int = 256) -> Measure:
    """SIGReg with its gradient beside the formula, of which autograd keeps rows x directions x knots."""
    projections = torch.randn(rows, 128, device=device, requires_grad=True)
    directions = draw_directions(128, slices, keyed_generator("benchmark")).to(device)
    knots, target, weights = knots_and_weights(device)

    def formula():
        angles = (projections @ directions)[..., None] * knots
        error = (angles.cos().mean(dim=0) - target).square() + angles.sin().mean(dim=0).square()
        return (rows * (error * weights).sum(dim=-1)).mean()

    def gradient(function):
        return torch.autograd.grad(function(), projections)[0].cpu()

    return compare(
        f"SIGReg with gradient, {rows} rows, {slices} directions",
        lambda: gradient(lambda: sigreg(projections, directions)),
        lambda: gradient(formula),
        "the formula",
    )


def masks(batch: int = 256) -> Measure:
    """Segments of a batch drawn together beside one record after the other; the law is the same, the numbers are
    others, so that only counts are compared."""

    def together():
        keys = DrawKeys(0, 0, 0, tuple(range(batch)))
        return sample_segment_masks(200, (0.8, 0.8), 10, keys.shared("mask"), keys.uniforms("mask")).sum(dim=1)

    def alone():
        return sample_published_segment_masks(200, (0.2, 0.2), 10, batch, np.random.RandomState(0)).sum(dim=1)

    return compare(f"segment masks of {batch} records", together, alone, "one record after the other", batch)


def resampling(batch: int = 16) -> Measure:
    """Resampling 12 x 5000 samples from 500 to 250 Hz."""
    import scipy.signal

    signal = torch.randn(batch, 12, 5000)
    return compare(
        "resampling 500 to 250 Hz",
        lambda: resample(signal, 2500),
        lambda: np.stack([scipy.signal.resample(record, 2500, axis=-1) for record in signal.numpy()]),
        "scipy.signal.resample",
        batch,
    )


def reading(folder: str) -> Iterator[Measure]:
    """Ways of reading 12 x 5000 samples, beside `wfdb.rdrecord`: generated recordings, page cache warm."""
    import wfdb

    source, generator = Path(folder, "records"), np.random.default_rng(0)
    source.mkdir()
    names = [f"{number:03d}" for number in range(RECORDS)]
    for name in names:
        steps = np.cumsum(generator.integers(-9, 10, size=(5000, 12)), axis=0).clip(-8000, 8000)
        layout = {"fmt": ["16"] * 12, "adc_gain": [1000.0] * 12, "baseline": [0] * 12, "units": ["mV"] * 12}
        leads = [lead.upper() if lead.startswith("aV") else lead for lead in STANDARD_LEADS]
        wfdb.wrsamp(name, 500, sig_name=leads, d_signal=steps.astype(np.int16), write_dir=str(source), **layout)
    prepare_corpus("wfdb", source, Path(folder, "prepared"))
    extractor = EcgFeatureExtractor(leads=STANDARD_LEADS, sampling_rate=500, num_samples=5000)
    collator = EcgPretrainingCollator(extractor)
    to_floats = EcgPretrainingCollator(extractor, return_input_values=True)
    stream = load_ecg("prepared", Path(folder, "prepared"), streaming=True, decode=False).with_format("arrow")
    raw = load_ecg("wfdb", source, streaming=True, decode=False).with_format("arrow")

    def theirs():
        return np.stack([wfdb.rdrecord(str(source / name)).p_signal.T.astype(np.float32) for name in names])

    def batches(rows):
        return [collator(part) for part in rows]

    def floats(rows):
        return torch.cat([to_floats(part)["input_values"] for part in rows])

    def millivolts(parts):
        return torch.cat([part["signal"] * part["gain"][..., None] for part in parts])

    ways = {
        "read WFDB, one record after the other": lambda: np.stack(
            [read_record(source / name)[0].to_millivolts() for name in names]
        ),
        "stream WFDB to int16 batches": lambda: batches(raw.iter(batch_size=32)),
        "stream a prepared corpus to int16 batches": lambda: batches(stream.iter(batch_size=32)),
        "stream a prepared corpus to float batches": lambda: floats(stream.iter(batch_size=32)),
    }
    expected = torch.as_tensor(theirs())
    for name, way in ways.items():
        found = way()
        found = millivolts(found) if isinstance(found, list) else torch.as_tensor(found)
        difference = float((found - expected).abs().max() / expected.abs().max())
        mine, plain = in_turns(way, theirs)
        yield Measure(name, mine, plain / mine, "wfdb.rdrecord", difference, records_per_second=RECORDS / mine * 1e3)


def training_step(
    preset: str, batch: int, device: str, peak: float, num_layers: int | None = None, compiled: bool = False
) -> Measure:
    """Forward and backward pass of a preset, AdamW and the teacher; bf16 on a GPU."""
    model_type, fields, _, _ = split_settings(read_config(preset))
    depth = ""
    if num_layers is not None:
        depth = f", {num_layers} of {AutoConfig.for_model(model_type, **fields).num_hidden_layers} layers"
        fields |= {"num_hidden_layers": num_layers, "predictor_num_hidden_layers": 1}
    torch.manual_seed(0)
    model = AutoModelForPreTraining.from_config(AutoConfig.for_model(model_type, **fields))
    model.to(device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
    values = torch.randn(batch, len(model.config.leads), model.config.num_samples, device=device)
    run, step = torch.compile(model, fullgraph=True) if compiled else model, count()

    def train():
        number = next(step)
        inputs = model.step_inputs({"input_values": values}, DrawKeys(0, number, 0, tuple(range(batch))))
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu"):
            loss = run(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if model.has_teacher:
            model.update_teacher(0.996)

    with FlopCounterMode(display=False) as counter:
        inputs = model.step_inputs({"input_values": values}, DrawKeys(0, 0, 0, tuple(range(batch))))
        model(**inputs).loss.backward()
    optimizer.zero_grad()
    rounds = ROUNDS if device == "cpu" else 20
    (milliseconds,) = in_turns(train, rounds=rounds)
    gflops = counter.get_total_flops() / milliseconds / 1e6
    name = f"step of {preset}, batch {batch}{depth}{', compiled' if compiled else ''}"
    rate = batch / milliseconds * 1e3
    return Measure(name, milliseconds, gflops=gflops, share_of_peak=gflops / peak, records_per_second=rate)


def cpu_measures() -> Iterator[Measure]:
    """The items of every machine, one after the other."""
    peak = gemm_peak()
    yield peak
    for shape in ((8, 8, 50, 16, 48), (1, 12, 250, 16, 48)):
        for backward in (False, True):
            yield attention("cpu", shape, backward)
    yield sigreg_statistic("cpu")
    yield masks()
    yield resampling()
    with tempfile.TemporaryDirectory() as folder:
        yield from reading(folder)
    for preset, batch in (("kim_random", 4), ("weimann_s", 8), ("lejepa_vits", 4)):
        yield training_step(preset, batch, "cpu", peak.gflops, num_layers=2)


def cuda_measures() -> Iterator[Measure]:
    """The items of a GPU: whole presets in bf16, compiled and not."""
    peak = gemm_peak("cuda", torch.bfloat16)
    yield peak
    yield attention("cuda", (64, 8, 50, 16, 48), True)
    yield sigreg_statistic("cuda", rows=1760, slices=1024)
    for preset, batch in (("kim_random", 64), ("weimann_s", 256), ("lejepa_vits", 64)):
        for compiled in (False, True):
            yield training_step(preset, batch, "cuda", peak.gflops, compiled=compiled)


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
