"""ECG-CPC: from what a causal encoder knows at a moment, find the true moment 117 ms later among others of the crop.

Al-Masud, Lopez Alcaraz and Strodthoff, arXiv 2509.25095, after contrastive predictive coding (arXiv 1807.03748). With
z the tokens of the stem and c the hidden states after the last layer (see `modeling_ecg_s4.py`), a linear map W
predicts k tokens ahead, and each prediction is a classification:

    loss = sum over i of -log( exp(s_i,i+k) / (exp(s_i,i+k) + sum over negatives j of exp(s_ij)) ),  s_ij = W c_i . z_j

Scores are plain products, without temperature or norms, and the gradient flows into z wherever it stands. Negatives
are drawn uniformly, with replacement, from all other tokens of the same crop, the past and i itself among them. One
horizon, not a sum over many.

The same numbers as in the authors' code, which gathers 129 columns a prediction: here all scores of a record are one
product, and a negative that was drawn m times has the weight m. Where we differ: negatives are keyed by (seed, epoch,
record), the same after a resume and on any rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .collectives import mean_over_records
from .configuration_ecg_cpc import EcgCpcConfig
from .masking import DrawKeys
from .modeling_ecg_s4 import EcgS4Linear, EcgS4Model, EcgS4PreTrainedModel
from .modeling_ecg_vit import EcgViTForEmbedding, EcgViTForSequenceClassification, EcgViTForTokenClassification


@dataclass
class EcgCpcForPreTrainingOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor` of shape `()`): The contrast, by `config.time_reduction` over time, then a mean.
        accuracy (`torch.FloatTensor` of shape `()`): Share of predictions that score the true token highest.
        predictions (`torch.FloatTensor` of shape `(batch_size, tokens - horizon, hidden_size)`): W c.
        pooler_output (`torch.FloatTensor` of shape `(batch_size, hidden_size)`): The pooled feature of the record.
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, tokens, hidden_size)`): c.
        token_embeddings (`torch.FloatTensor` of shape `(batch_size, tokens, hidden_size)`): z.
    """

    loss: torch.FloatTensor | None = None
    accuracy: torch.FloatTensor | None = None
    predictions: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    token_embeddings: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


class EcgCpcPreTrainedModel(EcgS4PreTrainedModel):
    config_class = EcgCpcConfig
    auto_classes = {
        "AutoConfig": "configuration_ecg_cpc.EcgCpcConfig",
        "AutoModel": "modeling_ecg_cpc.EcgCpcModel",
        "AutoModelForPreTraining": "modeling_ecg_cpc.EcgCpcForPreTraining",
        "AutoModelForSequenceClassification": "modeling_ecg_cpc.EcgCpcForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_ecg_cpc.EcgCpcForTokenClassification",
    }
    # What a pretraining checkpoint holds beside the encoder; not worth a warning when only the encoder is wanted.
    _keys_to_ignore_on_load_unexpected = [r"^prediction\."]


class EcgCpcModel(EcgCpcPreTrainedModel, EcgS4Model):
    """The encoder of an ECG-CPC checkpoint."""


class EcgCpcForSequenceClassification(EcgCpcPreTrainedModel, EcgViTForSequenceClassification):
    """[`EcgViTForSequenceClassification`] for ECG-CPC checkpoints."""

    encoder_class = EcgCpcModel


class EcgCpcForTokenClassification(EcgCpcPreTrainedModel, EcgViTForTokenClassification):
    """[`EcgViTForTokenClassification`] for ECG-CPC checkpoints."""

    encoder_class = EcgCpcModel


class EcgCpcForEmbedding(EcgCpcPreTrainedModel, EcgViTForEmbedding):
    """[`EcgViTForEmbedding`] for ECG-CPC checkpoints."""

    encoder_class = EcgCpcModel


class EcgCpcForPreTraining(EcgCpcPreTrainedModel):
    """The encoder and the map that predicts, with the contrastive loss.

    ```python
    import torch
    from ecg_transformers.modeling import EcgCpcConfig, EcgCpcForPreTraining

    config = EcgCpcConfig(num_samples=600, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    model = EcgCpcForPreTraining(config)
    model(torch.randn(2, 12, 600)).loss.backward()
    ```
    """

    _keys_to_ignore_on_load_unexpected = None

    def __init__(self, config: EcgCpcConfig):
        super().__init__(config)
        if not 1 <= config.horizon < config.num_columns:
            raise ValueError(
                f"horizon_ms {config.horizon_ms:g} is {config.horizon} tokens ahead, of {config.num_columns}; "
                f"expected at least 1 and fewer than there are. A token is {1000 / config.token_rate:g} ms."
            )
        self.ecg_vit = EcgCpcModel(config)
        self.prediction = EcgS4Linear(config.hidden_size, config.hidden_size, bias=False)
        self.post_init()

    def draw_inputs(self, input_values: torch.Tensor, keys: DrawKeys) -> dict[str, torch.Tensor]:
        """The negatives of each record, its own; see `forward`."""
        if len(keys.sample_ids) != len(input_values):
            raise ValueError(
                f"Expected a sample id for each of {len(input_values)} records, got {len(keys.sample_ids)}: every "
                "record has negatives of its own. Use EcgPretrainingCollator, which gives them."
            )
        num_tokens = -(-input_values.shape[-1] // self.config.patch_size)
        negatives = [
            sample_negatives(num_tokens, self.config.horizon, self.config.num_negatives, generator)
            for generator in keys.per_record("negatives")
        ]
        return {"negatives": torch.stack(negatives).to(input_values.device)}

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        negatives: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EcgCpcForPreTrainingOutput:
        r"""
        input_values, leads, lead_mask: see [`EcgS4Model`].
        negatives (`torch.IntTensor` of shape `(batch_size, tokens - horizon, num_negatives)`, *optional*):
            Tokens of the same record, never the true one. [`EcgSslTrainer`] draws them with
            [`~EcgCpcForPreTraining.draw_inputs`]; without them the model draws its own: always the same in evaluation,
            others each time in training.
        """
        if input_values is None:
            raise ValueError("Expected input_values of shape (batch, num_leads, num_samples), got None.")
        horizon = self.config.horizon
        if negatives is None:
            negatives = self.draw_inputs(input_values, self.own_keys(len(input_values)))["negatives"]
        outputs = self.ecg_vit(input_values, leads=leads, lead_mask=lead_mask, **kwargs)
        tokens = outputs.token_embeddings
        predictions = self.prediction(outputs.last_hidden_state[:, :-horizon])
        if negatives.shape[:2] != predictions.shape[:2]:
            raise ValueError(
                f"Expected negatives of shape ({len(predictions)}, {predictions.shape[1]}, num_negatives), got "
                f"{tuple(negatives.shape)}."
            )
        with torch.autocast(tokens.device.type, enabled=False):
            scores = predictions.float() @ tokens.float().transpose(1, 2)  # (batch, predictions, tokens)
        losses, found = contrast(scores, negatives, horizon)
        losses = losses.sum(dim=1) if self.config.time_reduction == "sum" else losses.mean(dim=1)
        return EcgCpcForPreTrainingOutput(
            loss=mean_over_records(losses),
            accuracy=found.float().mean(),
            predictions=predictions,
            pooler_output=outputs.pooler_output,
            last_hidden_state=outputs.last_hidden_state,
            token_embeddings=tokens,
            hidden_states=outputs.hidden_states,
        )


def sample_negatives(num_tokens: int, horizon: int, num_negatives: int, generator: torch.Generator) -> torch.IntTensor:
    """For each prediction i, tokens other than i + `horizon`, uniform over all others, with replacement.

    Returns:
        `torch.IntTensor` of shape `(num_tokens - horizon, num_negatives)`.

    Raises:
        ValueError: if the record has no token at the horizon.
    """
    if num_tokens <= horizon:
        raise ValueError(
            f"Expected more tokens than the horizon ({horizon}), got {num_tokens}: the recordings are too short for "
            "horizon_ms. Take longer windows (num_samples)."
        )
    shape = (num_tokens - horizon, num_negatives)
    drawn = torch.randint(num_tokens - 1, shape, dtype=torch.int32, generator=generator)
    return drawn + (drawn >= torch.arange(horizon, num_tokens)[:, None]).int()  # the true one is skipped


def contrast(scores: torch.Tensor, negatives: torch.Tensor, horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of the true token against its negatives, and whether it scores highest.

    Args:
        scores (`torch.FloatTensor` of shape `(batch, predictions, tokens)`): Prediction i with every token.
        negatives (`torch.IntTensor` of shape `(batch, predictions, num_negatives)`): Tokens, with repetitions.
        horizon (`int`): Prediction i is of token i + `horizon`.

    Returns:
        `torch.FloatTensor` and `torch.BoolTensor`, both of shape `(batch, predictions)`.
    """
    ones = scores.new_ones(()).expand(negatives.shape)
    counts = torch.zeros_like(scores).scatter_add_(2, negatives.long(), ones)
    true_scores = scores.diagonal(horizon, dim1=1, dim2=2)
    highest = scores.detach().masked_fill(counts == 0, float("-inf")).amax(dim=2)
    counts.diagonal(horizon, dim1=1, dim2=2).add_(1)
    losses = torch.logsumexp(scores + counts.log(), dim=2) - true_scores
    return losses, true_scores.detach() > highest


__all__ = [
    "EcgCpcForEmbedding",
    "EcgCpcForPreTraining",
    "EcgCpcForSequenceClassification",
    "EcgCpcForTokenClassification",
    "EcgCpcModel",
    "EcgCpcPreTrainedModel",
]
