"""LeJEPA: views of a record agree with each other, and the projections of all records are normally distributed.

Randall Balestriero and Yann LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics",
arXiv 2511.08544; on ECGs as LeJEPA-ECG does it. The loss is `lambda * SIGReg + (1 - lambda) * invariance`, with

* invariance: mean squared distance of each view's projection from the mean of the record's views, with gradient
  through both; no teacher, no stop-gradient, no predictor;
* SIGReg: see `sigreg.py`.

Where we differ from the authors' code, by default (the fields of [`LeJepaConfig`] in parentheses bring theirs back):
crops are real and shifts do not wrap (`augmentation`); SIGReg is a statistic a view, as in the paper, not one over the
views of all records, which competes with the invariance (`sigreg_pooling`); SIGReg and the batch norms see the records
of all ranks (`sync_statistics`); biases, norms and registers do not decay (`decay_all_parameters`). In both modes the
directions are drawn by (seed, step), the same on all ranks, and SIGReg is float32 inside autocast. The encoder starts
from a normal distribution (0.02, see [`EcgViTPreTrainedModel`]), not from their mixture of it and torch's defaults;
the projector from torch's defaults, as theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import nn
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .augmentation import ViewSettings, make_views
from .configuration_lejepa import LeJepaConfig
from .masking import DrawKeys, on_device
from .modeling_ecg_vit import (
    EcgViTForEmbedding,
    EcgViTForSequenceClassification,
    EcgViTForTokenClassification,
    EcgViTModel,
    EcgViTPreTrainedModel,
)
from .pretraining import PretrainingMixin, PretrainingOutput
from .projector import Projector, init_projector_weights, projection_spread
from .sigreg import draw_directions, sigreg
from .vicreg import invariance


@dataclass
class LeJepaForPreTrainingOutput(PretrainingOutput):
    """
    Args:
        invariance_loss (`torch.FloatTensor` of shape `()`): Distance of the views of a record from their mean.
        sigreg_loss (`torch.FloatTensor` of shape `()`): About 1.05 for normal projections (about 1.05 times the number
            of views where they are pooled and agree), 0.402 a record for collapsed ones.
        projection_std (`torch.FloatTensor` of shape `()`): Spread of the projections between records, a mean over
            the channels; SIGReg wants 1, and at 0 (exact collapse) nothing can part the records any more.
        projections (`torch.FloatTensor` of shape `(num_views, batch_size, projection_size)`).
        others: See [`PretrainingOutput`]. `pooler_output` is the mean over the views of a record.
    """

    invariance_loss: torch.FloatTensor | None = None
    sigreg_loss: torch.FloatTensor | None = None
    projection_std: torch.FloatTensor | None = None
    projections: torch.FloatTensor | None = None


class LeJepaPreTrainedModel(EcgViTPreTrainedModel):
    config_class = LeJepaConfig
    _keys_to_ignore_on_load_unexpected = [r"^projector\."]

    @torch.no_grad()
    def _init_weights(self, module):
        if not init_projector_weights(module):
            super()._init_weights(module)


class LeJepaModel(LeJepaPreTrainedModel, EcgViTModel):
    """The encoder of a LeJEPA checkpoint."""


class LeJepaForSequenceClassification(LeJepaPreTrainedModel, EcgViTForSequenceClassification):
    encoder_class = LeJepaModel


class LeJepaForTokenClassification(LeJepaPreTrainedModel, EcgViTForTokenClassification):
    encoder_class = LeJepaModel


class LeJepaForEmbedding(LeJepaPreTrainedModel, EcgViTForEmbedding):
    encoder_class = LeJepaModel


class LeJepaForPreTraining(PretrainingMixin, LeJepaPreTrainedModel):
    """Encoder and projector with the LeJEPA loss. The projector is thrown away after pretraining.

    Use it when features should not depend on gain, noise, wander or a shift in time: the views vary in these. It needs
    batches of many records.

    ```python
    import torch
    from ecg_transformers.modeling import LeJepaConfig, LeJepaForPreTraining

    size = {"sampling_rate": 100, "num_samples": 1000, "hidden_size": 32, "num_hidden_layers": 2}
    model = LeJepaForPreTraining(LeJepaConfig(**size, num_attention_heads=4, projector_hidden_size=64))
    model(torch.randn(4, 12, 1000)).loss.backward()
    ```
    """

    def __init__(self, config: LeJepaConfig):
        super().__init__(config)
        self.ecg_vit = LeJepaModel(config)
        self.projector = Projector(
            config.pooled_size, config.projector_hidden_size, config.projection_size, config.sync_statistics
        )
        self.post_init()

    def has_weight_decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Matrices decay; biases, norms, LayerScale and registers do not, unless parity asks for it."""
        if self.config.decay_all_parameters:
            return True
        return "register_tokens" not in name and super().has_weight_decay(name, parameter)

    def draw_inputs(self, input_values: torch.Tensor, keys: DrawKeys) -> dict[str, torch.Tensor]:
        """The views of the batch, each record's its own, and the directions of SIGReg, the same on all ranks."""
        config = self.config
        settings = ViewSettings(
            num_views=config.num_views,
            augmentation=config.augmentation,
            crop_scale=config.crop_scale,
            amplitude_scale=config.amplitude_scale,
            noise_std=config.noise_std,
            wander_amplitude=config.wander_amplitude,
            max_shift=config.max_shift,
            lead_dropout=config.lead_dropout,
            sampling_rate=config.sampling_rate,
        )
        views = make_views(input_values, settings, keys.per_record("views"))
        directions = draw_directions(config.projection_size, config.num_slices, keys.shared("sigreg"))
        return {"views": views, "directions": on_device(directions, input_values.device)}

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        views: torch.Tensor | None = None,
        directions: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LeJepaForPreTrainingOutput:
        r"""
        input_values, leads, lead_mask: see [`EcgViTModel`].
        views (`torch.FloatTensor` of shape `(batch_size, num_views, num_leads, num_samples)`, *optional*):
            Views of each record, of which the loss is a function; `input_values` is not read where they are given.
            [`EcgSslTrainer`] draws them with [`~LeJepaForPreTraining.draw_inputs`], keyed by seed, epoch and record;
            without them the model draws its own: always the same in evaluation, others each time in training.
        directions (`torch.FloatTensor` of shape `(projection_size, num_slices)`, *optional*):
            Unit columns along which SIGReg looks, keyed by seed and step.
        """
        if input_values is None and (views is None or directions is None):
            raise ValueError("Expected input_values of shape (batch, num_leads, num_samples), or views, got None.")
        if views is None or directions is None:
            drawn = self.draw_missing(input_values, views=views, directions=directions)
            views, directions = drawn["views"], drawn["directions"]
        if views.dim() != 4 or views.shape[1] < 2:
            raise ValueError(
                "Expected views of shape (batch, num_views of at least 2, num_leads, num_samples), got "
                f"{tuple(views.shape)}."
            )
        batch, num_views = views.shape[:2]
        self.check_several_records(batch)
        lead_mask = None if lead_mask is None else lead_mask.repeat_interleave(num_views, dim=0)
        outputs = self.ecg_vit(views.flatten(0, 1), leads=leads, lead_mask=lead_mask, **kwargs)
        projections = self.projector(outputs.pooler_output).float().unflatten(0, (batch, num_views)).transpose(0, 1)
        invariance_loss = invariance(projections, self.config.sync_statistics)
        rows = projections if self.config.sigreg_pooling == "per_view" else projections.flatten(0, 1)
        sigreg_loss = sigreg(rows, directions, over_ranks=self.config.sync_statistics)
        weight = self.config.sigreg_weight
        return LeJepaForPreTrainingOutput(
            loss=weight * sigreg_loss + (1.0 - weight) * invariance_loss,
            invariance_loss=invariance_loss,
            sigreg_loss=sigreg_loss,
            projection_std=projection_spread(projections),
            projections=projections,
            pooler_output=outputs.pooler_output.unflatten(0, (batch, num_views)).mean(dim=1),
            last_hidden_state=outputs.last_hidden_state,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
