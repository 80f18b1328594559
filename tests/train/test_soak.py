"""Long runs: after a warm-up a process that streams or trains for hours needs no more memory, files or threads.

Their size is set from outside; what is run by default takes a minute. The figures of long runs are in
`docs/reliability.md`:

    ECG_TRANSFORMERS_SOAK_WINDOWS=200000 ECG_TRANSFORMERS_SOAK_MINUTES=60 \
        pytest -m slow -n 0 tests/train/test_soak.py -o log_cli=true --log-cli-level=INFO
"""

import ctypes
import gc
import logging
import os
import shutil
import time
from itertools import count
from pathlib import Path
from statistics import median

import psutil
import pyarrow
import pytest
from transformers import TrainerCallback

from ecg_transformers.data import EcgDataCollator, load_ecg, prepare_corpus
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.train.trainer import train_and_save

pytestmark = pytest.mark.slow

NUM_WINDOWS = int(os.environ.get("ECG_TRANSFORMERS_SOAK_WINDOWS", 24_000))
MINUTES = float(os.environ.get("ECG_TRANSFORMERS_SOAK_MINUTES", 0.5))
MAX_GROWTH_MB = 12
"""The last third of a run may need this much more than the second: what the allocator keeps varies by this."""
MAX_MORE = 8
"""So many more descriptors or threads are not lost, as a leak would be one in each of some 16 epochs of a third."""
RECORDS = Path(__file__).parents[1] / "fixtures" / "wfdb" / "ptb-xl" / "records100"
NUM_RECORDS, BATCH = 96, 16
LOOKS, FEWEST_LOOKS = 36, 12

logger = logging.getLogger(__name__)


class Needs:
    """What this process and its children need, looked at again and again."""

    def __init__(self):
        self.process = psutil.Process(os.getpid())
        self.looks: list[tuple[float, int, int]] = []  # megabytes, descriptors, threads

    def look(self):
        gc.collect()
        pyarrow.default_memory_pool().release_unused()
        ctypes.CDLL(None).malloc_trim(0)  # what the C library keeps of freed memory differs from look to look
        children = self.process.children(recursive=True)
        megabytes = sum(process.memory_info().rss for process in (self.process, *children)) / 1e6
        self.looks.append((megabytes, self.process.num_fds(), self.process.num_threads()))

    def check(self, what: str):
        """Compares the last third with the second one; the first is the warm-up.

        Of the memory the median counts, of descriptors and threads the fewest: readers come and go while an epoch
        lasts, and what is never given back raises these too.
        """
        assert len(self.looks) >= FEWEST_LOOKS
        third = len(self.looks) // 3
        before, after = (
            [of(column) for of, column in zip((median, min, min), zip(*part, strict=True), strict=True)]
            for part in (self.looks[third : 2 * third], self.looks[2 * third :])
        )
        logger.info(
            "%s: %.0f MB, %d descriptors, %d threads in the second third; %.0f MB, %d, %d in the last",
            *(what, *before, *after),
        )
        assert after[0] - before[0] < MAX_GROWTH_MB
        assert after[1] - before[1] < MAX_MORE and after[2] - before[2] < MAX_MORE


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    header = sorted(RECORDS.glob("**/*.hea"))[0]
    for number in range(NUM_RECORDS):
        text = header.read_text().replace(header.stem, f"r{number:03d}")
        (folder / f"r{number:03d}.hea").write_text(text)
        shutil.copy(header.with_suffix(".dat"), folder / f"r{number:03d}.dat")
    return folder


@pytest.fixture(scope="module")
def prepared(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare_corpus("wfdb", records, folder)
    return folder


@pytest.mark.parametrize("name", ["wfdb", "prepared"])
def test_streaming_needs_no_more_the_longer_it_lasts(name, records, prepared):
    folder = {"wfdb": records, "prepared": prepared}[name]
    extractor = EcgFeatureExtractor(
        ["I", "II", "V2"], 100, 250, long_records="all", highpass_hz=0.5, normalization="lead"
    )
    collator = EcgDataCollator(extractor, return_sample_id=True)
    stream = load_ecg(name, folder, streaming=True, decode=False).shuffle(seed=0, buffer_size=32)
    needs, done = Needs(), 0
    started = time.monotonic()
    for epoch in count():
        stream.set_epoch(epoch)
        for batch in stream.iter(BATCH):
            rows = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
            done += len(collator(rows)["input_values"])
        needs.look()
        if done >= NUM_WINDOWS:
            break
    seconds = time.monotonic() - started
    needs.check(f"{done} windows of {name} in {epoch + 1} epochs, {seconds:.0f} s")


class Watch(TrainerCallback):
    """Looks at what a training needs, and ends it after some time (later on a machine that hardly gets on)."""

    def __init__(self, seconds: float):
        self.needs, self.seconds, self.started, self.next_look = Needs(), seconds, time.monotonic(), 0.0

    def on_step_end(self, args, state, control, **kwargs):
        passed = time.monotonic() - self.started
        if passed >= self.next_look:
            self.needs.look()
            self.next_look += self.seconds / LOOKS
        control.should_training_stop = passed >= self.seconds and len(self.needs.looks) >= FEWEST_LOOKS


def test_pretraining_needs_no_more_the_longer_it_lasts(make_trainer, prepared):
    """A stream read by a worker that begins anew with every epoch, checkpoints, evaluations and logs all the time."""
    stream = load_ecg("prepared", prepared, streaming=True, decode=False).shuffle(seed=0, buffer_size=32)
    trainer = make_trainer(
        stream,
        eval_dataset=load_ecg("prepared", prepared, decode=False).select(range(8)),
        max_steps=10**5,  # of a stream without a length, transformers counts these to their end in every epoch
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        collapse_patience=0,  # all records are one recording
        dataloader_num_workers=1,
        logging_steps=100,
        eval_strategy="steps",
        eval_steps=100,
        save_strategy="steps",
        save_steps=100,
        save_total_limit=2,
    )
    watch = Watch(60 * MINUTES)
    trainer.add_callback(watch)
    train_and_save(trainer)
    state = trainer.state
    saved = state.global_step // 100
    watch.needs.check(f"{state.global_step} steps of pretraining, {saved} checkpoints, {MINUTES:g} minutes")
