"""The published forms of the linear probe that are trained by gradient steps, on cached pooled features.

Our own protocol `linear` ([`linear_protocol`]) is a logistic regression on standardised features whose penalty the
validation split chooses. These are what three groups of authors ran; each has a name of its own, because none may be
compared with another, or with ours. What every form here does differently from its authors:

* The features are computed once and are those of the whole record, averaged over its windows, so that nothing can be
  cropped or augmented anew at every step.
* It learns from the training split alone, and where a step or epoch is chosen, the validation split chooses it.
* A regression, which none of them has, is learnt by the mean squared error of standardised targets.
"""

import time
from dataclasses import dataclass

import torch
from torch import nn

from ..predictions import ProtocolResult
from ..schedules import kim_finetune_learning_rate, kim_probe_learning_rate
from .head_training import batches_an_epoch, shuffled_batches, train_head
from .protocols import FrozenTables

INITIALIZERS = ("torch", "truncated_normal")
SELECTIONS = (None, "loss", "quality")


@dataclass(frozen=True)
class SgdLinear:
    """A form of the linear probe; AdamW trains a linear layer on features that are not standardised.

    Args:
        name (`str`): The protocol is called `linear-NAME`.
        batch_size (`int`): Records in a step (all of them, if there are fewer).
        epochs (`int`, *optional*), num_steps (`int`, *optional*): How long, one of the two.
        peak_learning_rate (`float`): See `learning_rate`.
        weight_decay (`float`): Of weight and bias.
        drop_last (`bool`): Whether the rest of an epoch that is smaller than a batch is left out.
        bias (`bool`), initializer (`str`): Of the layer: `"torch"` draws both uniformly within 1 / sqrt(width), as
            `torch.nn.Linear` does; `"truncated_normal"` has a deviation of 0.02 and zero biases.
        selection (`str`, *optional*):
            What chooses the weights on the validation split: `"loss"`, `"quality"` (macro AUROC), or nothing: the last
            weights.
        select_every (`int`, *optional*): Steps between two looks; by default an epoch.
        gradient_clip (`float`, *optional*): Largest norm of the gradient.
    """

    name: str
    batch_size: int
    peak_learning_rate: float
    weight_decay: float
    epochs: int | None = None
    num_steps: int | None = None
    drop_last: bool = False
    bias: bool = True
    initializer: str = "torch"
    selection: str | None = None
    select_every: int | None = None
    gradient_clip: float | None = None

    def __post_init__(self):
        if (self.epochs is None) == (self.num_steps is None):
            raise ValueError(f"Expected epochs or num_steps, got {self.epochs} and {self.num_steps}.")
        if self.initializer not in INITIALIZERS or self.selection not in SELECTIONS:
            raise ValueError(
                f"Expected an initializer of {list(INITIALIZERS)} and a selection of {list(SELECTIONS)}, got "
                f"{self.initializer!r} and {self.selection!r}."
            )

    def learning_rate(self, step: int, steps_an_epoch: int) -> float:
        """Of a step, numbered from 0; constant unless a form says otherwise."""
        return self.peak_learning_rate


@dataclass(frozen=True)
class KimLinear(SgdLinear):
    """Kim's `linear_eval` (arXiv 2410.08559; github.com/sehunfromdaegu/ECG_JEPA at d937ad2), for features of
    recordings in mV.

    AdamW at 0.01, batch 16, 10 epochs; timm's cosine for each step, stepped after the optimiser
    ([`kim_probe_learning_rate`]). There is no validation: the last epoch counts, so the published numbers are fair.

    The authors' code is not its own configuration: the YAML's weight decay of 0.005, 3 epochs of warm-up and lowest
    rate of 0 are never read, and what runs is 0.01 (torch's default), 10 steps and 0.001, as here. A batch norm is in
    the module but is not applied. They train on PTB-XL's folds 1 to 9 and test on 10; here fold 9 is the validation
    split and is not learnt from. Their multi-class AUROC is one-vs-one; ours is one-vs-rest. Their initial weights are
    taken to be torch's.
    """

    name: str = "kim"
    batch_size: int = 16
    peak_learning_rate: float = 0.01
    weight_decay: float = 0.01
    epochs: int | None = 10

    def learning_rate(self, step: int, steps_an_epoch: int) -> float:
        return kim_probe_learning_rate(step, self.epochs * steps_an_epoch, self.peak_learning_rate)


@dataclass(frozen=True)
class WeimannLinear(SgdLinear):
    """`finetune --config linear` of Weimann & Conrad (github.com/kweimann/ECG-JEPA) with `attn_pooling: False`.

    5,000 steps of 128 records, AdamW at a constant 1e-3, weight decay 0.1 of the weight, gradients clipped at 1; every
    100 steps the macro AUROC of the validation fold, whose best step counts (their patience of 5,000 steps never ends
    a run).

    This is **not** the "linear" of their tables, which has `attn_pooling: True`: see the protocol `attentive`. With
    `use_register: False` they average the patches, as `pooling="mean"` of our encoders does; with `True`, their
    setting, they read the register: embed with `pooling="class_token"`. They train on random windows of 2.5 s and
    judge by the mean logits of 7 windows. Here the features of the windows are averaged first: in judging that is the
    same, for a linear layer; in training it is not.
    """

    name: str = "weimann"
    batch_size: int = 128
    peak_learning_rate: float = 1e-3
    weight_decay: float = 0.1
    num_steps: int | None = 5000
    drop_last: bool = True
    bias: bool = False
    initializer: str = "truncated_normal"
    selection: str | None = "quality"
    select_every: int | None = 100
    gradient_clip: float | None = 1.0


@dataclass(frozen=True)
class StMemLinear(SgdLinear):
    """`mode: linprobe` of ST-MEM (arXiv 2402.09450; github.com/bakqui/ST-MEM).

    10 epochs of batch 16, AdamW at 6.25e-5 (0.001 x 16 / 256), weight decay 0.05, 3 epochs of warm-up from 0 and half
    a cosine to 0. The epoch with the smallest loss of the validation split counts.

    The only downstream YAML of the repository is of fine-tuning, on 100 made-up recordings that are training,
    validation and test at once; the rates of the paper's linear evaluation are not published, and at this one a linear
    layer learns slowly. They augment in training (RandAugment after standardisation) and average the probabilities of
    3 crops of 9 s, where here the features are averaged. Their labels are of one class a record, on a split of
    their own; the binary cross-entropy of several labels is their `loss: bce`.
    """

    name: str = "st-mem"
    batch_size: int = 16
    peak_learning_rate: float = 1e-3 * 16 / 256
    weight_decay: float = 0.05
    epochs: int | None = 10
    drop_last: bool = True
    selection: str | None = "loss"

    def learning_rate(self, step: int, steps_an_epoch: int) -> float:
        return kim_finetune_learning_rate(step / steps_an_epoch, self.peak_learning_rate, 3.0, float(self.epochs))


SGD_LINEAR_FORMS = {form.name: form for form in (KimLinear(), WeimannLinear(), StMemLinear())}


def sgd_linear_protocol(tables: FrozenTables, form: str | SgdLinear, seed: int = 0) -> ProtocolResult:
    """A published form of the linear probe, as the protocol `linear-kim`, `linear-weimann` or `linear-st-mem`.

    Args:
        tables ([`FrozenTables`]): Cached features; they are used as they are.
        form (`str` or [`SgdLinear`]): A name of `SGD_LINEAR_FORMS`, or settings.
        seed (`int`, *optional*, defaults to 0): Of the initial weights and the order of the records.
    """
    if isinstance(form, str):
        if form not in SGD_LINEAR_FORMS:
            raise ValueError(f"Expected a form of {sorted(SGD_LINEAR_FORMS)}, got {form!r}.")
        form = SGD_LINEAR_FORMS[form]
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
        linear_optimizer(head, form),
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
    head = nn.Linear(width, num_outputs, bias=form.bias, device="meta").to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    if form.initializer == "truncated_normal":
        nn.init.trunc_normal_(head.weight, std=0.02, generator=generator)
        if form.bias:
            nn.init.zeros_(head.bias)
        return head
    for parameter in head.parameters():
        nn.init.uniform_(parameter, -(width**-0.5), width**-0.5, generator=generator)
    return head


def linear_optimizer(head: nn.Linear, form: SgdLinear) -> torch.optim.AdamW:
    """AdamW with the weight decay of a form."""
    return torch.optim.AdamW(head.parameters(), lr=form.peak_learning_rate, weight_decay=form.weight_decay)
