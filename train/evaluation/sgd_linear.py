"""The published forms of the linear probe that are trained by gradient steps, on cached pooled features.

These are the probes of three groups of authors; each has a name of its own, because none may be compared with another,
or with our `linear` ([`linear_protocol`]). Differences of every form here from its authors:

* The features are computed once and are those of the whole record, averaged over its windows, so that nothing can be
  cropped or augmented anew at every step.
* The training split alone is learned from, and where a step or epoch is chosen, the validation split chooses it.
* A regression, which none of them has, is trained by the mean squared error of standardised targets.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from ..predictions import ProtocolResult
from ..schedules import kim_finetune_learning_rate, kim_probe_learning_rate
from .head_training import batches_an_epoch, drawn_head, shuffled_batches, train_head
from .protocols import FrozenTables


@dataclass(frozen=True)
class SgdLinear:
    """A form of the linear probe; AdamW trains a linear layer on features that are not standardised.

    Args:
        name (`str`): The protocol is called `linear-NAME`.
        batch_size (`int`): Records in a step (all of them, if there are fewer).
        peak_learning_rate (`float`), weight_decay (`float`): Settings of AdamW; the decay is that of weight and bias.
        learning_rates (`Callable`): From step (numbered from 0), steps an epoch, epochs and peak to the rate.
        epochs (`int`, *optional*), num_steps (`int`, *optional*): Length of the training, one of the two.
        drop_last (`bool`): Leave out the rest of an epoch that is smaller than a batch.
        bias (`bool`): Give the layer a bias.
        truncated_normal (`bool`):
            Initial weights from a truncated normal of deviation 0.02, and zero biases; else both are uniform within
            1 / sqrt(width), as those of `torch.nn.Linear`.
        selection (`str`, *optional*):
            Criterion on the validation split: `"loss"`, `"quality"` (macro AUROC), or none: the last weights stay.
        select_every (`int`, *optional*): Steps between two looks; by default an epoch.
        gradient_clip (`float`, *optional*): Largest norm of the gradient.
    """

    name: str
    batch_size: int
    peak_learning_rate: float
    weight_decay: float
    learning_rates: Callable[[int, int, int | None, float], float] = lambda step, steps_an_epoch, epochs, peak: peak
    epochs: int | None = None
    num_steps: int | None = None
    drop_last: bool = False
    bias: bool = True
    truncated_normal: bool = False
    selection: str | None = None
    select_every: int | None = None
    gradient_clip: float | None = None

    def learning_rate(self, step: int, steps_an_epoch: int) -> float:
        return self.learning_rates(step, steps_an_epoch, self.epochs, self.peak_learning_rate)


# Kim's `linear_eval` (arXiv 2410.08559; github.com/sehunfromdaegu/ECG_JEPA at d937ad2), for features of recordings in
# mV. AdamW at 0.01, batch 16, 10 epochs; timm's cosine for each step, stepped after the optimiser. There is no
# validation: the last epoch counts, so the published numbers are fair.
#
# The authors' code is not its own configuration: the YAML's weight decay of 0.005, 3 epochs of warm-up and lowest rate
# of 0 are never read, and what runs is 0.01 (torch's default), 10 steps and 0.001, as here. A batch norm is in the
# module but is not applied. They train on PTB-XL's folds 1 to 9 and test on 10; here fold 9 is the validation split
# and is not learned from. Their multi-class AUROC is one-vs-one; ours is one-vs-rest. Their initial weights are taken
# to be torch's.
KIM = SgdLinear(
    name="kim",
    batch_size=16,
    peak_learning_rate=0.01,
    weight_decay=0.01,
    learning_rates=lambda step, steps_an_epoch, epochs, peak: kim_probe_learning_rate(
        step, epochs * steps_an_epoch, peak
    ),
    epochs=10,
)

# `finetune --config linear` of Weimann & Conrad (github.com/kweimann/ECG-JEPA) with `attn_pooling: False`. 5,000 steps
# of 128 records, AdamW at a constant 1e-3, weight decay 0.1 of the weight, gradients clipped at 1; every 100 steps the
# macro AUROC of the validation fold, whose best step counts (their patience of 5,000 steps never ends a run).
#
# This is **not** the "linear" of their tables, which has `attn_pooling: True`: see the protocol `attentive`. With
# `use_register: False` they average the patches, as `pooling="mean"` of our encoders does; with `True`, their setting,
# they read the register: embed with `pooling="class_token"`. They train on random windows of 2.5 s and score the mean
# logits of 7 windows. Here the features of the windows are averaged first: in scoring that is the same, for a linear
# layer; in training it is not.
WEIMANN = SgdLinear(
    name="weimann",
    batch_size=128,
    peak_learning_rate=1e-3,
    weight_decay=0.1,
    num_steps=5000,
    drop_last=True,
    bias=False,
    truncated_normal=True,
    selection="quality",
    select_every=100,
    gradient_clip=1.0,
)

# `mode: linprobe` of ST-MEM (arXiv 2402.09450; github.com/bakqui/ST-MEM). 10 epochs of batch 16, AdamW at 6.25e-5
# (0.001 x 16 / 256), weight decay 0.05, 3 epochs of warm-up from 0 and half a cosine to 0. The epoch with the smallest
# loss of the validation split counts.
#
# The only downstream YAML of the repository is of fine-tuning, on 100 made-up recordings that are training, validation
# and test at once; the rates of the paper's linear evaluation are not published, and at this one a linear layer learns
# slowly. They augment in training (RandAugment after standardisation) and average the probabilities of 3 crops of 9 s,
# where here the features are averaged. Their labels are of one class a record, on a split of their own; the binary
# cross-entropy of several labels is their `loss: bce`.
ST_MEM = SgdLinear(
    name="st-mem",
    batch_size=16,
    peak_learning_rate=1e-3 * 16 / 256,
    weight_decay=0.05,
    learning_rates=lambda step, steps_an_epoch, epochs, peak: kim_finetune_learning_rate(
        step / steps_an_epoch, peak, 3.0, float(epochs)
    ),
    epochs=10,
    drop_last=True,
    selection="loss",
)
SGD_LINEAR_FORMS = {form.name: form for form in (KIM, WEIMANN, ST_MEM)}


def sgd_linear_protocol(tables: FrozenTables, form: SgdLinear, seed: int = 0) -> ProtocolResult:
    """Runs a published form of the linear probe, one of `SGD_LINEAR_FORMS`, on features as they are: the protocol
    `linear-NAME`. `seed` is that of the initial weights and of the order of the records."""
    started = time.monotonic()
    task = tables.task()
    features = {split: torch.from_numpy(table.features).float() for split, table in tables.tables.items()}
    targets = {split: task.targets(tables.truth[split]) for split in ("train", "validation")}
    num_records, width = features["train"].shape
    steps_an_epoch = batches_an_epoch(num_records, form.batch_size, form.drop_last)
    num_steps = form.num_steps or form.epochs * steps_an_epoch
    head = draw_linear(width, len(task.label_names), form, seed)

    @torch.no_grad()
    def look() -> float:
        logits = head(features["validation"])
        if form.selection == "loss":
            return -float(task.loss(logits, targets["validation"]))
        return task.quality(task.scores(logits), tables.truth["validation"])

    trained = train_head(
        head,
        torch.optim.AdamW(head.parameters(), lr=form.peak_learning_rate, weight_decay=form.weight_decay),
        lambda step: form.learning_rate(step, steps_an_epoch),
        shuffled_batches(num_records, form.batch_size, torch.Generator().manual_seed(seed + 1), form.drop_last),
        num_steps,
        lambda records: task.loss(head(features["train"][records]), targets["train"][records]),
        None if form.selection is None else look,
        form.select_every or steps_an_epoch,
        gradient_clip=form.gradient_clip,
    )
    with torch.no_grad():
        scores = {split: task.scores(head(features[split])) for split in ("validation", "test")}
    details = {
        "form": form.name,
        "steps": trained.steps,
        "best_step": trained.best_step,
        "selection": form.selection or "last step",
        "learning_rate": form.peak_learning_rate,
        "weight_decay": form.weight_decay,
        "batch": min(form.batch_size, num_records),
        "seed": seed,
        "seconds": round(time.monotonic() - started, 2),
    }
    return tables.result(f"linear-{form.name}", scores, details)


def draw_linear(width: int, num_outputs: int, form: SgdLinear, seed: int) -> nn.Linear:
    """A new linear layer, whose weights depend on the seed alone."""
    head = drawn_head(partial(nn.Linear, width, num_outputs, bias=form.bias), seed)
    if not form.truncated_normal:
        generator = torch.Generator().manual_seed(seed)
        for parameter in head.parameters():
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5, generator=generator)
    return head
