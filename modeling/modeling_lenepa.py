"""LeNEPA: each token predicts the next one's embedding, and the tokens of every record look like a normal cloud.

Chemeris, Jin and Balestriero, arXiv 2607.00958. A causal encoder gives, of the tokens z that it reads, the hidden
states h after its last layer. One projector P takes both, and

    loss = mean of (P(h_t) - P(z_{t+1}))^2 + sigreg_weight * SIGReg

with gradient through both sides: no teacher, no stop-gradient, no mask, no augmentation. SIGReg (see `sigreg.py`) is a
statistic of the tokens of **one record**, of P(z) and of P(h), a mean over both and over the records; it alone keeps
the features from collapsing, so watch their rank. Few tokens make it noisy: keep patches short.

z and h go through the projector as one batch, so that its batch norm has one set of statistics, of all ranks.
Queries and keys are normed by layer norms. (The paper does not say how it does either.) Pool over time for features:
the last token alone has seen the whole record, but was asked for nothing but the next 50 ms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .causal_vit import CausalAttention, CausalViTLayer
from .collectives import mean_over_records
from .configuration_lenepa import EcgLeNepaConfig
from .masking import DrawKeys, on_device
from .modeling_ecg_s4 import EcgS4Layer, EcgS4Linear, EcgS4Model, EcgS4PreTrainedModel, EcgS4Stem
from .modeling_ecg_vit import (
    EcgViTBranchOutput,
    EcgViTForEmbedding,
    EcgViTForSequenceClassification,
    EcgViTForTokenClassification,
    EcgViTModel,
)
from .patch_embedding import EcgViTEmbeddings
from .pretraining import PretrainingMixin, PretrainingOutput
from .projector import ProjectorLinear, SyncedBatchNorm1d
from .sigreg import draw_directions, sigreg


@dataclass
class EcgLeNepaForPreTrainingOutput(PretrainingOutput):
    """
    Args:
        prediction_loss (`torch.FloatTensor` of shape `()`): Mean squared distance of each next token.
        sigreg_loss (`torch.FloatTensor` of shape `()`): Over the tokens of each record; 1.05 where they are normal.
        predictions (`torch.FloatTensor` of shape `(batch_size, tokens - 1, projection_size)`): P(h), all but the last.
        targets (`torch.FloatTensor` of the same shape): P(z), all but the first, with gradient.
        others: See [`PretrainingOutput`]; `last_hidden_state` is h.
    """

    prediction_loss: torch.FloatTensor | None = None
    sigreg_loss: torch.FloatTensor | None = None
    predictions: torch.FloatTensor | None = None
    targets: torch.FloatTensor | None = None


class EcgLeNepaPatches(EcgViTEmbeddings):
    """Patches of all leads, `(batch, tokens, hidden_size)`; the attention knows where they lie."""

    def forward(
        self, input_values: torch.Tensor, leads: Sequence[str] | None = None, lead_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        return super().forward(input_values, leads, lead_mask)[0]


class EcgLeNepaProjector(nn.Module):
    """Linear, batch norm over records and time, ReLU, linear; thrown away after pretraining."""

    def __init__(self, config: EcgLeNepaConfig):
        super().__init__()
        norm_class = SyncedBatchNorm1d if config.sync_statistics else nn.BatchNorm1d
        self.fc1 = ProjectorLinear(config.hidden_size, config.projector_hidden_size)
        self.norm = norm_class(config.projector_hidden_size)
        self.fc2 = ProjectorLinear(config.projector_hidden_size, config.projection_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`(batch, tokens, hidden_size)` to `(batch, tokens, projection_size)`."""
        rows = nn.functional.relu(self.norm(self.fc1(tokens.flatten(0, 1))))
        return self.fc2(rows).unflatten(0, tokens.shape[:2])


class EcgLeNepaPreTrainedModel(EcgS4PreTrainedModel):
    config_class = EcgLeNepaConfig
    _no_split_modules = ["EcgLeNepaPatches", "CausalViTLayer", "EcgS4Stem", "EcgS4Layer"]
    _can_record_outputs = {"hidden_states": GradientCheckpointingLayer, "attentions": CausalAttention}
    _keep_in_fp32_modules_strict = None  # of a trunk of attention
    _keys_to_ignore_on_load_unexpected = [r"^projector\."]

    @torch.no_grad()
    def _init_weights(self, module):
        """Truncated normal, the last linear of every branch divided by sqrt(2 x layers); a state-space trunk and the
        projector as theirs."""
        super()._init_weights(module)
        if isinstance(module, nn.Linear) and not isinstance(module, EcgS4Linear | ProjectorLinear):
            depth = 2 * self.config.num_hidden_layers if isinstance(module, EcgViTBranchOutput) else 1
            init.trunc_normal_(module.weight, std=self.config.initializer_range / depth**0.5)


class EcgLeNepaModel(EcgLeNepaPreTrainedModel, EcgS4Model):
    """The encoder of a LeNEPA checkpoint, of either trunk."""

    def __init__(self, config: EcgLeNepaConfig):
        super(EcgViTModel, self).__init__(config)
        if config.trunk == "vit":
            self.embeddings = EcgLeNepaPatches(config)
            layers = [CausalViTLayer(config, number + 1) for number in range(config.num_hidden_layers)]
        else:
            self._keep_in_fp32_modules_strict = EcgS4PreTrainedModel._keep_in_fp32_modules_strict
            self.embeddings = EcgS4Stem(config)
            layers = [EcgS4Layer(config) for _ in range(config.num_hidden_layers)]
        self.layers = nn.ModuleList(layers)
        self.layernorm = nn.Identity()  # the objective takes the hidden states as they are, and so do features
        self.post_init()


class EcgLeNepaForSequenceClassification(EcgLeNepaPreTrainedModel, EcgViTForSequenceClassification):
    encoder_class = EcgLeNepaModel


class EcgLeNepaForTokenClassification(EcgLeNepaPreTrainedModel, EcgViTForTokenClassification):
    encoder_class = EcgLeNepaModel


class EcgLeNepaForEmbedding(EcgLeNepaPreTrainedModel, EcgViTForEmbedding):
    encoder_class = EcgLeNepaModel


class EcgLeNepaForPreTraining(PretrainingMixin, EcgLeNepaPreTrainedModel):
    """The encoder and the projector, with the loss of LeNEPA.

    Use it when neither masks nor views nor a teacher should have to be chosen, or a causal encoder is wanted.

    ```python
    import torch
    from ecg_transformers.modeling import EcgLeNepaConfig, EcgLeNepaForPreTraining

    config = EcgLeNepaConfig(sampling_rate=100, num_samples=500, patch_size=5, hidden_size=32, num_hidden_layers=2)
    model = EcgLeNepaForPreTraining(config)
    model(torch.randn(2, 12, 500)).loss.backward()
    ```
    """

    def __init__(self, config: EcgLeNepaConfig):
        super().__init__(config)
        self.ecg_vit = EcgLeNepaModel(config)
        self.projector = EcgLeNepaProjector(config)
        self.post_init()

    def draw_inputs(self, input_values: torch.Tensor, keys: DrawKeys) -> dict[str, torch.Tensor]:
        """The directions of SIGReg, the same on all ranks."""
        config = self.config
        directions = draw_directions(config.projection_size, config.num_slices, keys.shared("sigreg"))
        return {"directions": on_device(directions, input_values.device)}

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        directions: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EcgLeNepaForPreTrainingOutput:
        r"""
        input_values, leads, lead_mask: see [`EcgViTModel`].
        directions (`torch.FloatTensor` of shape `(projection_size, num_slices)`, *optional*):
            Unit columns along which SIGReg looks. [`EcgSslTrainer`] draws them, keyed by seed and step; without them
            the model draws its own: always the same in evaluation, others each time in training.
        """
        directions = self.draw_missing(input_values, directions=directions)["directions"]
        outputs = self.ecg_vit(input_values, leads=leads, lead_mask=lead_mask, **kwargs)
        stacked = torch.cat((outputs.token_embeddings, outputs.last_hidden_state))
        projections = self.projector(stacked).float()
        embedded, encoded = projections.chunk(2)
        predictions, targets = encoded[:, :-1], embedded[:, 1:]
        prediction_loss = mean_over_records((predictions - targets).square().mean(dim=(1, 2)))
        # A statistic of each record, hence of no other rank; their mean is weighted as that of the predictions.
        share = mean_over_records(prediction_loss.new_ones(len(input_values)))
        sigreg_loss = share * sigreg(projections, directions, over_ranks=False)
        return EcgLeNepaForPreTrainingOutput(
            loss=prediction_loss + self.config.sigreg_weight * sigreg_loss,
            prediction_loss=prediction_loss,
            sigreg_loss=sigreg_loss,
            predictions=predictions,
            targets=targets,
            pooler_output=outputs.pooler_output,
            last_hidden_state=outputs.last_hidden_state,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
