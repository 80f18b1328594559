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
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple, maybe_autocast

from .collectives import mean_over_records
from .configuration_ecg_cpc import EcgCpcConfig
from .masking import DrawKeys, on_device
from .modeling_ecg_s4 import EcgS4Linear, EcgS4Model, EcgS4PreTrainedModel
from .modeling_ecg_vit import EcgViTForEmbedding, EcgViTForSequenceClassification, EcgViTForTokenClassification
from .pretraining import PretrainingMixin, PretrainingOutput


@dataclass
class EcgCpcForPreTrainingOutput(PretrainingOutput):
    """
    Args:
        accuracy (`torch.FloatTensor` of shape `()`): Share of predictions that score the true token highest.
        predictions (`torch.FloatTensor` of shape `(batch_size, tokens - horizon, hidden_size)`): W c.
        token_embeddings (`torch.FloatTensor` of shape `(batch_size, tokens, hidden_size)`): z.
        others: See [`PretrainingOutput`]; `last_hidden_state` is c.
    """

    accuracy: torch.FloatTensor | None = None
    predictions: torch.FloatTensor | None = None
    token_embeddings: torch.FloatTensor | None = None


class EcgCpcPreTrainedModel(EcgS4PreTrainedModel):
    config_class = EcgCpcConfig
    _keys_to_ignore_on_load_unexpected = [r"^prediction\."]


class EcgCpcModel(EcgCpcPreTrainedModel, EcgS4Model):
    """The encoder of an ECG-CPC checkpoint."""


class EcgCpcForSequenceClassification(EcgCpcPreTrainedModel, EcgViTForSequenceClassification):
    encoder_class = EcgCpcModel


class EcgCpcForTokenClassification(EcgCpcPreTrainedModel, EcgViTForTokenClassification):
    encoder_class = EcgCpcModel


class EcgCpcForEmbedding(EcgCpcPreTrainedModel, EcgViTForEmbedding):
    encoder_class = EcgCpcModel


class EcgCpcForPreTraining(PretrainingMixin, EcgCpcPreTrainedModel):
    """The encoder and the map that predicts, with the contrastive loss.

    Use it when the encoder will be fine-tuned on labels, or has to read a recording while it is being made: it is
    causal, and frozen features are not its strength.

    ```python
    import torch
    from ecg_transformers.modeling import EcgCpcConfig, EcgCpcForPreTraining

    config = EcgCpcConfig(num_samples=600, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    model = EcgCpcForPreTraining(config)
    model(torch.randn(2, 12, 600)).loss.backward()
    ```
    """

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
        num_tokens = -(-input_values.shape[-1] // self.config.patch_size)
        negatives = [
            sample_negatives(num_tokens, self.config.horizon, self.config.num_negatives, generator)
            for generator in self.generators_of_records(keys, "negatives", len(input_values))
        ]
        return {"negatives": on_device(torch.stack(negatives), input_values.device)}

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
        negatives = self.draw_missing(input_values, negatives=negatives)["negatives"]
        horizon = self.config.horizon
        outputs = self.ecg_vit(input_values, leads=leads, lead_mask=lead_mask, **kwargs)
        tokens = outputs.token_embeddings
        predictions = self.prediction(outputs.last_hidden_state[:, :-horizon])
        if negatives.shape[:2] != predictions.shape[:2]:
            raise ValueError(
                f"Expected negatives of shape ({len(predictions)}, {predictions.shape[1]}, num_negatives), got "
                f"{tuple(negatives.shape)}."
            )
        with maybe_autocast(tokens.device.type, enabled=False):
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

    Use it when each record has many moments to choose from: negatives come from the same record.

    Args:
        scores (`torch.FloatTensor` of shape `(batch, predictions, tokens)`): Prediction i with every token.
        negatives (`torch.IntTensor` of shape `(batch, predictions, num_negatives)`): Tokens, with repetitions.
        horizon (`int`): Prediction i is of token i + `horizon`.

    Returns:
        `torch.FloatTensor` and `torch.BoolTensor`, both of shape `(batch, predictions)`.

    ```python
    import torch
    from ecg_transformers.modeling.modeling_ecg_cpc import contrast, sample_negatives

    scores = torch.randn(2, 86, 100, requires_grad=True)  # of 100 tokens, 14 ahead
    negatives = sample_negatives(100, 14, 32, torch.Generator().manual_seed(0))
    losses, is_found = contrast(scores, negatives.expand(2, -1, -1), horizon=14)
    losses.mean().backward()
    ```
    """
    ones = scores.new_ones(()).expand(negatives.shape)
    counts = torch.zeros_like(scores).scatter_add_(2, negatives.long(), ones)
    true_scores = scores.diagonal(horizon, dim1=1, dim2=2)
    highest = scores.detach().masked_fill(counts == 0, float("-inf")).amax(dim=2)
    counts.diagonal(horizon, dim1=1, dim2=2).add_(1)
    losses = torch.logsumexp(scores + counts.log(), dim=2) - true_scores
    return losses, true_scores.detach() > highest
