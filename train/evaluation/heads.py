"""Heads trained by gradient steps on the outputs of a frozen encoder: `attentive` and the published linear probes.

The probes `linear-kim`, `linear-weimann` and `linear-st-mem` are those of three groups of authors; each has a name of
its own, because none may be compared with another, or with our `linear` ([`linear_protocol`]). `attentive` is what
Weimann & Conrad (and, after them, LeJEPA-ECG) call "linear": their numbers belong beside it, and not beside a linear
model of pooled features. Differences of every form here from its authors:

* What the encoder gives is computed once, so that nothing can be cropped or augmented anew at every step. A linear
  probe learns from the features of the whole record, averaged over its windows.
* The training split alone is learned from, and where a step or epoch is chosen, the validation split chooses it.
* A regression, which none of them has, is trained by the mean squared error of standardised targets.

Order and initial weights come from generators of a seed; the global generators are never touched.
"""

import dataclasses
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import FeatureExtractionMixin, PreTrainedModel

from ecg_transformers.modeling import EcgViTConfig
from ecg_transformers.modeling.feature_extraction_ecg import average_windows
from ecg_transformers.modeling.modeling_ecg_vit import EcgViTAttentivePooler, EcgViTModel

from ..features import refuse_patients_in_two_tables
from ..finetune_objective import HeadTask
from ..inference import in_evaluation, input_batches
from ..patients import patients_of
from ..predictions import Predictions, ProtocolResult
from ..schedules import kim_finetune_learning_rate, kim_probe_learning_rate
from ..tasks.labelled_splits import LabelledSplits
from .protocols import FrozenTables

logger = logging.getLogger("ecg_transformers")

WINDOWS_AT_ONCE = 256  # in evaluation


@dataclass(frozen=True)
class TokenCache:
    """Tokens of every window of a set of records.

    Args:
        tokens (`np.ndarray` of shape `(num_windows, num_tokens, hidden_size)`):
            `last_hidden_state`, registers first; a memory map.
        token_mask (`np.ndarray` of bool and shape `(num_windows, num_tokens)`, *optional*): `True` = present.
        window_record (`np.ndarray` of shape `(num_windows,)`): Number of the record of each window, rising.
        record_ids (`list[str]`), patient_ids (`list[str | None]`): Names and patients of the records.
    """

    tokens: np.ndarray
    token_mask: np.ndarray | None
    window_record: np.ndarray
    record_ids: list[str]
    patient_ids: list[str | None]

    def __len__(self) -> int:
        return len(self.record_ids)

    def patients(self) -> list[str]:
        """A patient for each record; a record without one counts as a patient of its own."""
        return patients_of(self.record_ids, self.patient_ids)

    def drawn_logits(self, head: nn.Module, records: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Logits of some records by one of the windows of each, drawn anew every time."""
        counts = torch.bincount(torch.from_numpy(self.window_record), minlength=len(self))
        first = counts.cumsum(0) - counts
        drawn = torch.randint(2**62, (len(records),), generator=generator) % counts[records]
        return self.logits_of_windows(head, (first[records] + drawn).numpy())

    def logits(self, head: nn.Module) -> torch.Tensor:
        """Logits of every record, `(num_records, num_outputs)` on the CPU, the mean over those of its windows."""
        numbers = np.arange(len(self.tokens))
        chunks = [numbers[start : start + WINDOWS_AT_ONCE] for start in range(0, len(numbers), WINDOWS_AT_ONCE)]
        logits = torch.cat([self.logits_of_windows(head, chunk).cpu() for chunk in chunks])
        return average_windows(logits, torch.from_numpy(self.window_record))

    def logits_of_windows(self, head: nn.Module, windows: np.ndarray) -> torch.Tensor:
        """Logits of some windows, by their numbers."""
        device = next(head.parameters()).device
        tokens = torch.from_numpy(self.tokens[windows]).to(device).float()
        mask = None if self.token_mask is None else torch.from_numpy(self.token_mask[windows]).to(device)
        return head(tokens, mask)


def cache_tokens(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    dataset: Iterable[dict],
    batch_size: int = 64,
    dtype: str = "float16",
) -> TokenCache:
    """Runs the encoder once over every record. A record that cannot become input is left out and named in the log.

    The tokens lie in a file in the folder for temporary files (`TMPDIR`), which nobody else sees and which is gone
    with the cache; what fits in memory is read from there.

    Args:
        dataset (`Iterable[dict]`): Rows of [`load_ecg`]; the feature extractor makes one or several windows of each.
        dtype (`str`, *optional*, defaults to `"float16"`): Type of the tokens; float16 keeps 11 bits of each.

    Raises:
        ValueError: for tokens that are not finite, or too large for float16.
    """
    masks, windows, record_ids, patient_ids = [], [], [], []
    file = tempfile.TemporaryFile(prefix="ecg_transformers_tokens_")
    with in_evaluation(model), torch.inference_mode():
        for batch in input_batches(model, feature_extractor, dataset, batch_size, "Tokens"):
            values = model(**batch.inputs).last_hidden_state.float().cpu().numpy()
            present = present_tokens(model.config, batch.inputs.get("lead_mask"))
            window_record = batch.window_record.numpy()
            ids = [str(row["record_id"]) for row in batch.rows]
            file.write(_narrowed(values, window_record, ids, dtype).tobytes())
            masks.append(np.ones(values.shape[:2], bool) if present is None else present.cpu().numpy())
            windows.append(window_record + len(record_ids))
            record_ids += ids
            patients = [row.get("patient_id") for row in batch.rows]
            patient_ids += [None if patient is None else str(patient) for patient in patients]
    file.flush()
    present = np.concatenate(masks)
    tokens = np.memmap(file, dtype=dtype, mode="r", shape=(*present.shape, values.shape[-1]))
    mask = None if present.all() else present
    logger.info("Tokens of %d records: %d bytes of %s", len(record_ids), tokens.nbytes, dtype)
    return TokenCache(tokens, mask, np.concatenate(windows), record_ids, patient_ids)


def present_tokens(config: EcgViTConfig, lead_mask: torch.Tensor | None) -> torch.Tensor | None:
    """Tokens of `last_hidden_state` that a head may read, `(batch, num_tokens)`; `None` where it may read all.

    The rule of [`EcgViTForSequenceClassification`]: registers and extra channels are always there, tokens of absent
    leads are not, and a record without a lead shows its zeros.
    """
    if lead_mask is None or config.patching == "all_leads":
        return None
    present = nn.functional.pad(lead_mask, (0, config.extra_channels), value=True)
    present = present.repeat_interleave(config.num_columns, dim=1)
    present = nn.functional.pad(present, (config.num_registers, 0), value=True)
    return present | ~present.any(dim=1, keepdim=True)


def _narrowed(tokens: np.ndarray, window_record: np.ndarray, record_ids: list[str], dtype: str) -> np.ndarray:
    """The tokens as `dtype`, none of them lost."""
    limit = np.finfo(dtype).max
    kept = np.abs(tokens).max(axis=(1, 2)) <= limit  # false for NaN too
    if not kept.all():
        bad = sorted({record_ids[record] for record in window_record[~kept]})
        raise ValueError(
            f"The tokens of {len(bad)} records are NaN or beyond {limit:g}, the largest {dtype}: {bad[:10]}. Check "
            "these recordings and the encoder, or cache as float32."
        )
    return tokens.astype(dtype, copy=False)


@dataclass(frozen=True)
class HeadForm:
    """A way to train a head, with AdamW.

    Args:
        name (`str`): Who published it.
        batch_size (`int`): Records in a step (all of them, if there are fewer).
        peak_learning_rate (`float`), weight_decay (`float`): Settings of AdamW.
        learning_rates (`Callable`): From step (numbered from 0), steps an epoch, epochs and peak to the rate.
        epochs (`int`, *optional*), num_steps (`int`, *optional*): Length of the training, one of the two.
        drop_last (`bool`): Leave out the rest of an epoch that is smaller than a batch.
        bias (`bool`): Give the linear layer a bias.
        truncated_normal (`bool`):
            Initial weights from a truncated normal of deviation 0.02, and zero biases; else both are uniform within
            1 / sqrt(width), as those of `torch.nn.Linear`.
        decays_all (`bool`): Decay every parameter; else the weights of linear layers alone.
        selection (`str`, *optional*):
            Criterion on the validation split: `"loss"`, `"quality"` (macro AUROC), or none: the last weights stay.
        select_every (`int`, *optional*): Steps between two looks; by default an epoch. The last step has a look too.
        patience (`int`, *optional*): Looks without a gain after which the training stops.
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
    decays_all: bool = True
    selection: str | None = None
    select_every: int | None = None
    patience: int | None = None
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
KIM = HeadForm(
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
WEIMANN = HeadForm(
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
ST_MEM = HeadForm(
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
LINEAR_FORMS = {form.name: form for form in (KIM, WEIMANN, ST_MEM)}

# `configs/eval/linear.yaml` of Weimann's code, except for the windows and the patience. The authors cut a random 2.5 s
# from each record anew at every step and score 7 windows of 2.5 s; here a record has the windows of the feature
# extractor, of which training draws one each time and scoring averages the logits of all. The authors' patience is
# 5,000 steps, which is never; on 200 to 1,442 records of PTB-XL the best look was between step 100 and 1,500.
ATTENTIVE = dataclasses.replace(WEIMANN, decays_all=False, patience=10)


class AttentiveHead(nn.Module):
    """The head of [`EcgViTForSequenceClassification`] with `classifier_pooling="attentive"`, under the same names.

    It computes the same, in another order that is much cheaper for one query: the query is mapped through the
    weights of the keys once, instead of every token, and the values are mapped after they have been averaged.
    """

    def __init__(self, config: EcgViTConfig, num_outputs: int, bias: bool = False):
        super().__init__()
        self.attentive_pooler = EcgViTAttentivePooler(config)
        self.classifier = nn.Linear(config.hidden_size, num_outputs, bias=bias)

    def forward(self, tokens: torch.Tensor, token_mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        tokens (`torch.FloatTensor` of shape `(batch, num_tokens, hidden_size)`): `last_hidden_state`.
        token_mask (`torch.BoolTensor` of shape `(batch, num_tokens)`, *optional*): `True` = present.

        Returns logits `(batch, num_outputs)`.
        """
        pooler = self.attentive_pooler
        heads = (pooler.num_heads, -1)
        query = pooler.q_proj(pooler.query_token).flatten().unflatten(0, heads)  # (heads, head_dim)
        key_weight, value_weight = (layer.weight.unflatten(0, heads) for layer in (pooler.k_proj, pooler.v_proj))
        # The bias of the keys adds the same to the score of every token, so the softmax does not see it.
        direction = torch.einsum("he,hed->hd", query, key_weight) * query.shape[-1] ** -0.5
        scores = tokens @ direction.T  # (batch, num_tokens, heads)
        if token_mask is not None:
            scores = scores.masked_fill(~token_mask[..., None], float("-inf"))
        mean_tokens = scores.softmax(dim=1).transpose(1, 2) @ tokens  # (batch, heads, hidden_size)
        pooled = torch.einsum("bhd,hed->bhe", mean_tokens, value_weight).flatten(1)
        if pooler.v_proj.bias is not None:
            pooled = pooled + pooler.v_proj.bias
        return self.classifier(pooled)


class Features:
    """Pooled features of records `(num_records, hidden_size)` as the input of a head; see [`TokenCache`]."""

    def __init__(self, features: np.ndarray):
        self.features = torch.from_numpy(features).float()

    def __len__(self) -> int:
        return len(self.features)

    def drawn_logits(self, head: nn.Module, records: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return head(self.features[records])

    def logits(self, head: nn.Module) -> torch.Tensor:
        return head(self.features)


def train_head(
    head: nn.Module,
    form: HeadForm,
    task: HeadTask,
    inputs: Mapping[str, Features | TokenCache],
    truth: Mapping[str, np.ndarray],
    seed: int = 0,
) -> tuple[int, int]:
    """Trains a head in place on the split `train`; it ends with the weights of the best look at `validation` (the
    first of equals), without looks with the last ones. `seed` decides the order of the records.

    Returns:
        `tuple[int, int]`: steps that were done, and the step whose weights the head has.

    Raises:
        ValueError: for a loss that is not finite.
    """
    train, device = inputs["train"], next(head.parameters()).device
    targets = {split: task.targets(truth[split]).to(device) for split in ("train", "validation")}
    batch_size = min(form.batch_size, len(train))
    steps_an_epoch = len(train) // batch_size if form.drop_last else math.ceil(len(train) / batch_size)
    num_steps, select_every = form.num_steps or form.epochs * steps_an_epoch, form.select_every or steps_an_epoch
    decayed = {id(module.weight) for module in head.modules() if isinstance(module, nn.Linear)}
    groups = [{"params": list(head.parameters())}]
    if not form.decays_all:
        groups = [
            {"params": [p for p in head.parameters() if id(p) in decayed]},
            {"params": [p for p in head.parameters() if id(p) not in decayed], "weight_decay": 0.0},
        ]
    optimizer = torch.optim.AdamW(groups, lr=form.peak_learning_rate, weight_decay=form.weight_decay)
    generator = torch.Generator().manual_seed(seed + 1)  # not the numbers of the weights
    batches = shuffled_batches(len(train), batch_size, generator, form.drop_last)
    best, best_step, best_weights, looks_without_gain = -math.inf, 0, None, 0
    for step in range(1, num_steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = form.learning_rate(step - 1, steps_an_epoch)
        records = next(batches)
        loss = task.loss(train.drawn_logits(head, records, generator), targets["train"][records.to(device)])
        if not torch.isfinite(loss):
            raise ValueError(
                f"The loss of step {step} is {loss.item()}. Lower the learning rate, or check the targets."
            )
        optimizer.zero_grad()
        loss.backward()
        if form.gradient_clip is not None:
            nn.utils.clip_grad_norm_(head.parameters(), form.gradient_clip)
        optimizer.step()
        if form.selection is None or (step % select_every and step != num_steps):
            continue
        with torch.no_grad():
            logits = inputs["validation"].logits(head)
        looked = task.quality(task.scores(logits), truth["validation"])
        if form.selection == "loss":
            looked = -float(task.loss(logits, targets["validation"].to(logits.device)))
        looks_without_gain += 1
        if looked > best:
            best, best_step, looks_without_gain = looked, step, 0
            best_weights = {name: value.detach().clone() for name, value in head.state_dict().items()}
        if looks_without_gain == form.patience:
            break
    if best_weights is None:
        return step, step
    head.load_state_dict(best_weights)
    return step, best_step


@torch.no_grad()
def _scores_and_details(head, form, task, inputs, truth, seed) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Scores of validation and test by a head after its training, and the facts of that."""
    started = time.monotonic()
    with torch.enable_grad():
        steps, best_step = train_head(head, form, task, inputs, truth, seed)
    details = {
        "form": form.name,
        "steps": steps,
        "best_step": best_step,
        "selection": form.selection or "last step",
        "learning_rate": form.peak_learning_rate,
        "weight_decay": form.weight_decay,
        "batch": min(form.batch_size, len(inputs["train"])),
        "seed": seed,
        "seconds": round(time.monotonic() - started, 2),
    }
    return {split: task.scores(inputs[split].logits(head.eval())) for split in ("validation", "test")}, details


def linear_head_protocol(tables: FrozenTables, form: HeadForm, seed: int = 0) -> ProtocolResult:
    """Runs a published form of the linear probe, one of `LINEAR_FORMS`, on features as they are, not standardised: the
    protocol `linear-NAME`. `seed` is that of the initial weights and of the order of the records."""
    task = tables.task()
    inputs = {split: Features(table.features) for split, table in tables.tables.items()}
    head = draw_linear(inputs["train"].features.shape[1], len(task.label_names), form, seed)
    scores, details = _scores_and_details(head, form, task, inputs, tables.truth, seed)
    return tables.result(f"linear-{form.name}", scores, details)


def attentive_protocol(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    splits: LabelledSplits,
    form: HeadForm = ATTENTIVE,
    seed: int = 0,
    batch_size: int = 64,
    dtype: str = "float16",
) -> ProtocolResult:
    """Caches the tokens of every record and trains the head on those of the training split: one learned query that
    attends to them, and a linear layer.

    The validation split chooses the step; the test split is scored once, with its weights. `seed` is that of the
    initial weights and of the order of the records, `batch_size` the number of records in a pass of the encoder,
    `dtype` that of the cache. An encoder of another kind than EcgViT is a `ValueError`, and so are patients in two
    splits.
    """
    if not isinstance(model, EcgViTModel):
        raise ValueError(
            f"The protocol attentive pools the tokens of EcgViT encoders, got {type(model).__name__}. Take another "
            "protocol."
        )
    caches = {split: cache_tokens(model, feature_extractor, rows, batch_size, dtype) for split, rows in splits.items()}
    truth = {split: splits.truth_of(split, cache.record_ids) for split, cache in caches.items()}
    refuse_patients_in_two_tables(caches)
    task = HeadTask(truth["train"], splits.label_names, splits.problem_type)
    head = drawn_head(partial(AttentiveHead, model.config, len(task.label_names)), seed).to(model.device)
    scores, details = _scores_and_details(head, form, task, caches, truth, seed)
    found = {
        split: Predictions(scores[split], truth[split], caches[split].record_ids, caches[split].patient_ids)
        for split in scores
    }
    details |= {
        "windows": {split: len(cache.tokens) for split, cache in caches.items()},
        "cache_bytes": sum(cache.tokens.nbytes for cache in caches.values()),
    }
    return ProtocolResult("attentive", task.label_names, task.problem_type, truth["train"], **found, details=details)


def draw_linear(width: int, num_outputs: int, form: HeadForm, seed: int) -> nn.Linear:
    """A new linear layer, whose weights depend on the seed alone."""
    head = drawn_head(partial(nn.Linear, width, num_outputs, bias=form.bias), seed)
    if not form.truncated_normal:
        generator = torch.Generator().manual_seed(seed)
        for parameter in head.parameters():
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5, generator=generator)
    return head


def drawn_head(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A new head, whose weights, a truncated normal of deviation 0.02, depend on the seed alone; its biases are 0."""
    with torch.device("meta"):  # the constructors would draw from the global generator
        head = make()
    head.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in head.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
    return head


def shuffled_batches(
    num_records: int, batch_size: int, generator: torch.Generator, drop_last: bool
) -> Iterator[torch.Tensor]:
    """Numbers of the records of each batch, without an end: every record once an epoch, in a new order each time.

    Batches are never larger than the set. With `drop_last`, what remains of an epoch is left out.
    """
    batch_size = min(batch_size, num_records)
    while True:
        order = torch.randperm(num_records, generator=generator)
        end = num_records - num_records % batch_size if drop_last else num_records
        yield from order[:end].split(batch_size)
