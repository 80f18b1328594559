"""The protocol `attentive`: a frozen encoder, one learned query that attends to its tokens, and a linear layer.

This is what Weimann & Conrad (and, after them, LeJEPA-ECG) call "linear": their numbers belong beside these, and not
beside a linear model of pooled features. The tokens are computed once and the head is trained on them.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from transformers import FeatureExtractionMixin, PreTrainedModel

from ecg_transformers.modeling import EcgViTConfig
from ecg_transformers.modeling.feature_extraction_ecg import average_windows
from ecg_transformers.modeling.modeling_ecg_vit import EcgViTAttentivePooler, EcgViTModel

from ..features import refuse_patients_in_two_tables
from ..finetune_objective import HeadTask
from ..predictions import Predictions, ProtocolResult
from ..tasks.labelled_splits import LabelledSplits
from .head_training import TrainedHead, drawn_head, shuffled_batches, train_head
from .token_cache import TokenCache, cache_tokens

WINDOWS_AT_ONCE = 256  # in evaluation
CACHE_BYTES = 2 << 30  # of the tokens of the three splits together in memory


@dataclass(frozen=True)
class AttentiveSettings:
    """Settings of the training of the head.

    The defaults are those of `configs/eval/linear.yaml` of Weimann's code (github.com/kweimann/ECG-JEPA), except for
    the windows, which are cached, and `patience`:

    * The authors cut a random 2.5 s from each record anew at every step and score 7 windows of 2.5 s. Here a record
      has the windows of the feature extractor; training draws one of them each time, scoring averages the logits of
      all.
    * The authors' patience is 5,000 steps, which is never. Here 10 looks (1,000 steps) without a gain end the
      training. On 200 to 1,442 records of PTB-XL the best look was between step 100 and 1,500.

    The validation split is looked at every `select_every` steps and after the last; after `patience` looks without a
    gain the training stops (`None`: never), and the head has the weights of the best look. Weight decay is that of the
    weights of the linear layers, not of the query nor of biases. Initial weights are a truncated normal of deviation
    0.02, biases 0; the layer behind the query has none. `cache_dtype` is that of [`cache_tokens`].
    """

    num_steps: int = 5000
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    gradient_clip: float = 1.0
    select_every: int = 100
    patience: int | None = 10
    cache_dtype: str = "float16"


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


def attentive_protocol(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    splits: LabelledSplits,
    settings: AttentiveSettings = AttentiveSettings(),
    seed: int = 0,
    batch_size: int = 64,
) -> ProtocolResult:
    """Caches the tokens of every record and trains the head on those of the training split.

    The validation split chooses the step; the test split is scored once, with its weights. `seed` is that of the
    initial weights and of the order of the records, `batch_size` the number of records in a pass of the encoder. An
    encoder of another kind than EcgViT is a `ValueError`, and so are patients in two splits.
    """
    if not isinstance(model, EcgViTModel):
        raise ValueError(
            f"The protocol attentive pools the tokens of EcgViT encoders, got {type(model).__name__}. Take another "
            "protocol."
        )
    started, free, caches, truth = time.monotonic(), CACHE_BYTES, {}, {}
    for split, rows in splits.items():
        cache = cache_tokens(model, feature_extractor, rows, batch_size, settings.cache_dtype, free)
        free -= cache.tokens.nbytes if cache.in_memory else 0
        caches[split], truth[split] = cache, splits.truth_of(split, cache.record_ids)
    refuse_patients_in_two_tables(caches)
    cached = time.monotonic()
    task = HeadTask(truth["train"], splits.label_names, splits.problem_type)
    head, trained = train_attentive_head(model.config, caches, truth, task, settings, seed, model.device)
    found = {}
    for split in ("validation", "test"):
        scores, cache = task.scores(record_logits(head, caches[split], model.device)), caches[split]
        found[split] = Predictions(scores, truth[split], cache.record_ids, cache.patient_ids)
    details = {
        "form": "weimann" if settings == AttentiveSettings() else "other settings",
        "steps": trained.steps,
        "best_step": trained.best_step,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "batch": min(settings.batch_size, len(caches["train"])),
        "select_every": settings.select_every,
        "patience": settings.patience,
        "seed": seed,
        "windows": {split: len(cache.tokens) for split, cache in caches.items()},
        "cache_bytes": sum(cache.tokens.nbytes for cache in caches.values()),
        "cache_dtype": settings.cache_dtype,
        "cache": {split: cache.place for split, cache in caches.items()},
        "seconds": {"tokens": round(cached - started, 2), "head": round(time.monotonic() - cached, 2)},
    }
    return ProtocolResult("attentive", task.label_names, task.problem_type, truth["train"], **found, details=details)


def train_attentive_head(
    config: EcgViTConfig,
    caches: Mapping[str, TokenCache],
    truth: Mapping[str, np.ndarray],
    task: HeadTask,
    settings: AttentiveSettings,
    seed: int,
    device: torch.device | str = "cpu",
) -> tuple[AttentiveHead, TrainedHead]:
    """A head trained on cached tokens of `train`, with the weights that did best on `validation`."""
    device = torch.device(device)
    head = drawn_head(partial(AttentiveHead, config, len(task.label_names)), seed).to(device)
    decayed = {id(module.weight) for module in head.modules() if isinstance(module, nn.Linear)}
    groups = [
        {"params": [p for p in head.parameters() if id(p) in decayed], "weight_decay": settings.weight_decay},
        {"params": [p for p in head.parameters() if id(p) not in decayed], "weight_decay": 0.0},
    ]
    targets = task.targets(truth["train"]).to(device)

    def loss_of(batch: tuple[torch.Tensor, np.ndarray]) -> torch.Tensor:
        records, windows = batch
        return task.loss(head(*caches["train"].batch(windows, device)), targets[records.to(device)])

    def look() -> float:
        scores = task.scores(record_logits(head, caches["validation"], device))
        return task.quality(scores, truth["validation"])

    trained = train_head(
        head,
        torch.optim.AdamW(groups, lr=settings.learning_rate),
        lambda step: settings.learning_rate,
        drawn_windows(caches["train"], settings.batch_size, seed),
        settings.num_steps,
        loss_of,
        look,
        settings.select_every,
        settings.patience,
        settings.gradient_clip,
    )
    return head.eval(), trained


@torch.no_grad()
def record_logits(head: AttentiveHead, cache: TokenCache, device: torch.device | str = "cpu") -> torch.Tensor:
    """Logits of every record, `(num_records, num_outputs)`, the mean over those of its windows."""
    numbers = np.arange(len(cache.tokens))
    chunks = [numbers[start : start + WINDOWS_AT_ONCE] for start in range(0, len(numbers), WINDOWS_AT_ONCE)]
    logits = torch.cat([head(*cache.batch(chunk, torch.device(device))).cpu() for chunk in chunks])
    return average_windows(logits, torch.from_numpy(cache.window_record))


def drawn_windows(cache: TokenCache, batch_size: int, seed: int) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """Records of each batch and one window of each of them, drawn anew every time. What remains of an epoch after
    the last full batch is left out, as the authors do."""
    generator = torch.Generator().manual_seed(seed + 1)  # not the numbers of the weights
    counts = torch.bincount(torch.from_numpy(cache.window_record), minlength=len(cache))
    first = counts.cumsum(0) - counts
    for records in shuffled_batches(len(cache), batch_size, generator, drop_last=True):
        drawn = torch.randint(2**62, (len(records),), generator=generator) % counts[records]
        yield records, (first[records] + drawn).numpy()
