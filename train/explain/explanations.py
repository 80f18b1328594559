"""Maps of what the output of a model depends on: attention rollout and integrated gradients.

Rollout shows where attention goes and knows no class; integrated gradients show how the parts of a recording change
one output. Neither shows why a heart does what it does. `plots` draws them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from ..inference import in_evaluation

Target = int | str | torch.Tensor
NORM = "norm"
FEATURES = ("logits", "embeddings", "pooler_output")
"""Parts of a model's output that may be explained, the first that is there."""


@dataclass(frozen=True)
class IntegratedGradients:
    """Contribution of each value of the input, `(batch, num_leads, num_samples)`, in units of the output; the outputs
    of recordings and baselines, `(batch,)`; and the sum of the attributions minus (output - baseline_output), which is
    0 for infinitely many steps."""

    attributions: torch.Tensor
    output: torch.Tensor
    baseline_output: torch.Tensor
    completeness_error: torch.Tensor


@torch.no_grad()
def attention_rollout(
    model: PreTrainedModel,
    input_values: torch.Tensor,
    leads: Sequence[str] | None = None,
    lead_mask: torch.Tensor | None = None,
    batch_size: int = 4,
) -> torch.Tensor:
    """The share of every patch in what an encoder pools, by attention alone (Abnar and Zuidema, "Quantifying Attention
    Flow in Transformers", ACL 2020, arXiv 2005.00928, section 3).

    The attentions of each layer are averaged over heads, the residual connection is added as the identity, rows are
    normalised, and the layers are multiplied. The result is read from what the model pools: the mean of the patches,
    the first register (class token), or the tokens as an attentive pooler's query weighs them. Registers and lead
    separators are no part of the recording: their share is left out, and that of the patches is brought to a sum of 1.

    Args:
        model ([`PreTrainedModel`]): An encoder of this library, or a classifier or embedding model on one.
        input_values (`torch.FloatTensor` of shape `(batch, num_leads, num_samples)`): From the feature extractor.
        leads (`Sequence[str]`, *optional*): Names of the rows where they are not `config.leads`.
        lead_mask (`torch.BoolTensor` of shape `(batch, num_leads)`, *optional*): `True` = recorded.
        batch_size (`int`, *optional*, defaults to 4): Records at once; attentions take the square of the tokens.

    Returns:
        `torch.FloatTensor` of shape `(batch, rows, columns)`, not negative, 1 in sum: rows are the leads (then the
        extra channels), columns the time patches. A model whose patches hold all leads (`patching="all_leads"`) has
        one row: its attention separates moments, not leads. Absent leads are 0. The model stays as it was.

    Raises:
        ValueError: for a model that is no encoder with attention and not on one, or a record without a lead.
    """
    if model.base_model_prefix != "ecg_vit" or not model.config.num_hidden_layers:
        raise ValueError(
            f"Attention rollout reads the encoders of this library that have attention, got {type(model).__name__}. "
            "Use integrated_gradients, which asks for gradients only."
        )
    if lead_mask is not None and not bool(lead_mask.any(dim=1).all()):
        raise ValueError("Expected a lead in every record, got a lead_mask without any. Leave these records out.")
    config = model.config
    rows = 1
    if config.patching == "per_lead":
        rows = len(config.leads if leads is None else leads) + config.extra_channels
    shares = []
    with in_evaluation(model):
        for start in range(0, len(input_values), batch_size):
            part = slice(start, start + batch_size)
            given = _mask_of(part, lead_mask) | ({} if leads is None else {"leads": leads})
            with _seen_by_pooler(model) as pooled:
                outputs = model(input_values[part], **given, output_attentions=True)
            explained_output(outputs)
            if not outputs.attentions:
                raise ValueError(
                    f"{type(model).__name__} has layers without attention. Use integrated_gradients, which asks for "
                    "gradients only."
                )
            num_prefix = outputs.attentions[0].shape[-1] - rows * config.num_columns
            share = _read_out(outputs, pooled, config, num_prefix, given.get("lead_mask"))[:, None]
            for attention in reversed(outputs.attentions):
                mixing = attention.float().mean(dim=1)
                mixing = mixing + torch.eye(mixing.shape[-1], device=mixing.device)
                share = share @ (mixing / mixing.sum(dim=-1, keepdim=True))
            patches = share[:, 0, num_prefix:]
            shares.append((patches / patches.sum(dim=1, keepdim=True)).unflatten(1, (rows, config.num_columns)))
    return torch.cat(shares)


@torch.inference_mode(mode=False)
def integrated_gradients(
    model: nn.Module,
    input_values: torch.Tensor,
    target: Target,
    baseline: torch.Tensor | None = None,
    num_steps: int = 64,
    lead_mask: torch.Tensor | None = None,
    batch_size: int = 16,
) -> IntegratedGradients:
    """Changes of one output by each value of the input on the way from a flat recording (Sundararajan, Taly and Yan,
    "Axiomatic Attribution for Deep Networks", ICML 2017, arXiv 1703.01365, section 3).

    The attribution of a value is (value - baseline) times the mean of its gradient on the straight line between
    baseline and recording. The authors take that mean in even steps; here it is Gauss-Legendre quadrature with steps
    that lie close together near the baseline, for models that normalise each patch.

    Args:
        model (`nn.Module`):
            Gives a `ModelOutput` with `logits`, `embeddings` or `pooler_output` for `input_values`. It is set to
            evaluation and back; gradients of its weights are not touched.
        input_values (`torch.FloatTensor` of shape `(batch, num_leads, num_samples)`): From the feature extractor.
        target (`int`, `str` or `torch.Tensor`):
            Class of a classifier by its number or its name in `config.id2label`; for an encoder a direction `(size,)`
            (the output is the scalar product with it), or `"norm"`, the length of the feature.
        baseline (`torch.FloatTensor`, *optional*, defaults to zeros):
            Broadcast to `input_values`: a flat recording **in the unit of the input**. Where the feature extractor
            subtracts `lead_means`, 0 is not flat: see [`~recordings.flat_recording`].
        num_steps (`int`, *optional*, defaults to 64): Gradients for each record.
        lead_mask (`torch.BoolTensor` of shape `(batch, num_leads)`, *optional*): `True` = recorded.
        batch_size (`int`, *optional*, defaults to 16): Steps of records at once.

    Raises:
        ValueError: for an input with NaN, or a target that the model does not have.
    """
    _check_input(input_values)
    if num_steps < 2:
        raise ValueError(f"Expected num_steps of at least 2, got {num_steps}.")
    inputs = input_values.detach().clone()
    baseline = torch.zeros_like(inputs) if baseline is None else baseline.to(inputs).expand_as(inputs)
    nodes, weights = _quadrature(num_steps)
    positions, weights = torch.tensor(nodes).to(inputs), torch.tensor(weights, device=inputs.device)
    record = torch.arange(len(inputs), device=inputs.device).repeat_interleave(num_steps)
    step = torch.arange(num_steps, device=inputs.device).repeat(len(inputs))
    gradients = torch.zeros(inputs.shape, dtype=torch.float64, device=inputs.device)
    with in_evaluation(model), torch.enable_grad():
        for rows, steps in zip(record.split(batch_size), step.split(batch_size), strict=True):
            between = baseline[rows] + positions[steps, None, None] * (inputs - baseline)[rows]
            between.requires_grad_(True)
            output = _score(model, between, target, rows, lead_mask)
            (gradient,) = torch.autograd.grad(output.sum(), between)
            gradients.index_add_(0, rows, gradient.double() * weights[steps, None, None])
    attributions = gradients * (inputs - baseline)
    outputs = [_score_all(model, values, target, lead_mask, batch_size) for values in (inputs, baseline)]
    errors = attributions.sum(dim=(1, 2)) - (outputs[0] - outputs[1])
    return IntegratedGradients(attributions.float(), outputs[0].float(), outputs[1].float(), errors.float())


def _quadrature(num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Places between 0 and 1 and their weights: Gauss-Legendre in the fourth root of the place.

    A model that normalises each patch (ST-MEM) does not see how large a wave is: its output changes within the first
    1e-5 of the way from a flat recording. Even steps miss that altogether; these lie close together there.
    """
    nodes, weights = np.polynomial.legendre.leggauss(num_steps)
    roots = (nodes + 1) / 2
    return roots**4, 2 * roots**3 * weights


def _score_all(model, input_values, target, lead_mask, batch_size) -> torch.Tensor:
    parts = torch.arange(len(input_values), device=input_values.device).split(batch_size)
    with torch.no_grad(), in_evaluation(model):
        return torch.cat([_score(model, input_values[rows], target, rows, lead_mask) for rows in parts])


def _score(model, input_values, target: Target, rows: torch.Tensor, lead_mask) -> torch.Tensor:
    """The explained output `(len(rows),)` in float64; `rows` are the numbers of the records in the whole batch."""
    name, features = explained_output(model(input_values, **_mask_of(rows, lead_mask)))
    features = features.double()
    if name == "logits":
        number = class_number(model, target)
        if not 0 <= number < features.shape[1]:
            raise ValueError(f"Expected a class below {features.shape[1]}, got {number}.")
        return features[:, number]
    if isinstance(target, str) and target == NORM and name == "pooler_output":
        return features.norm(dim=1)
    if isinstance(target, torch.Tensor) and target.shape == features.shape[1:]:
        return features @ target.to(features)
    choices = f"a direction of shape ({features.shape[1]},)" + (' or "norm"' if name == "pooler_output" else "")
    got = tuple(target.shape) if isinstance(target, torch.Tensor) else repr(target)
    raise ValueError(f"The target of a model that gives {name} is {choices}; got {got}.")


def explained_output(outputs: ModelOutput) -> tuple[str, torch.Tensor]:
    """Name and tensor `(batch, size)` of the part of a model's output that is explained."""
    found = [name for name in FEATURES if name in outputs]
    if not found or "loss" in outputs:
        raise ValueError(
            f"Expected a model with {', '.join(FEATURES)} and no loss of its own, got one with {list(outputs)}. Load "
            "the encoder (AutoModel) or a classifier."
        )
    return found[0], outputs[found[0]]


def class_number(model: PreTrainedModel, target: int | str) -> int:
    """The number of a class of a classifier, by number or name."""
    if isinstance(target, str):
        numbers = {name: number for number, name in model.config.id2label.items()}
        if target not in numbers:
            raise ValueError(f"Unknown class {target!r}. The model knows {list(numbers)}.")
        return int(numbers[target])
    if isinstance(target, bool) or not isinstance(target, Integral):
        raise ValueError(f"Expected a class by its number or name, got {target!r}.")
    return int(target)


def _mask_of(rows: torch.Tensor | slice, lead_mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
    return {} if lead_mask is None else {"lead_mask": lead_mask[rows]}


def _check_input(input_values: torch.Tensor) -> None:
    if input_values.ndim != 3 or not bool(input_values.isfinite().all()):
        raise ValueError(
            f"Expected finite input_values of shape (batch, num_leads, num_samples), got {tuple(input_values.shape)}"
            f"{', with NaN or infinite values' if input_values.ndim == 3 else ''}. Use the feature extractor."
        )


@contextmanager
def _seen_by_pooler(model: PreTrainedModel) -> Iterator[list]:
    """Records the tokens that an attentive pooler reads and the weights of its query, `(batch, heads, tokens)`."""
    weights = []
    poolers = [module for name, module in model.named_children() if name == "attentive_pooler"]

    def weigh(pooler, args):
        tokens, present = (*args, None)[:2]
        query, keys = pooler.q_proj(pooler.query_token)[0], pooler.k_proj(tokens)
        query, keys = (states.unflatten(-1, (pooler.num_heads, -1)) for states in (query, keys))
        scores = torch.einsum("qhd,bthd->bht", query, keys) * keys.shape[-1] ** -0.5
        if present is not None:
            scores = scores.masked_fill(~present[:, None], float("-inf"))
        weights.append(scores.float().softmax(dim=-1))

    handles = [pooler.register_forward_pre_hook(weigh) for pooler in poolers]
    try:
        yield weights
    finally:
        for handle in handles:
            handle.remove()


def _read_out(outputs, pooled: list, config, num_prefix: int, lead_mask: torch.Tensor | None) -> torch.Tensor:
    """Share of each token after the last layer in the pooled feature, `(batch, num_prefix + patches)`."""
    batch, _, num_tokens, _ = outputs.attentions[0].shape
    share = torch.zeros(batch, num_tokens, device=outputs.attentions[0].device)
    if pooled:
        weights = pooled[0].mean(dim=1)
        share[:, num_tokens - weights.shape[1] :] = weights  # separators are internal to the encoder
    elif config.pooling == "class_token" or ("logits" in outputs and config.classifier_pooling == "register"):
        share[:, 0] = 1.0
    else:
        share[:, num_prefix:] = 1.0
        if lead_mask is not None and config.patching == "per_lead":
            present = nn.functional.pad(lead_mask, (0, config.extra_channels), value=True)
            share[:, num_prefix:] *= present.repeat_interleave(config.num_columns, dim=1)
    return share / share.sum(dim=1, keepdim=True)
