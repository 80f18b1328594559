"""A masked JEPA without a teacher: one encoder, kept from collapsing by SIGReg.

The predictor fills in the hidden states of the hidden patches from those of the visible ones, as in ECG-JEPA (see
`modeling_ecg_jepa.py`), but the targets come from the same encoder on the whole record and carry gradient: both sides
may move towards each other. That they do not meet in a point is SIGReg's work (LeJEPA, arXiv 2511.08544; its authors
encourage the masked variant in their issue 31), here on the projected pooled features of the whole records:

    loss = prediction + sigreg_weight * SIGReg(projections) [+ token_sigreg_weight * SIGReg(tokens)]

Nothing is published under this name. The nearest is MyJEPA, the sibling of LeJEPA-ECG, whose defaults these are. Where
we differ from it: SIGReg sees the records of all ranks and shares its directions between them; in place of its
statistic on pooled features without projector, and of its variance hinge, there is one on the tokens of each place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import nn
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_sigreg_jepa import SigRegJepaConfig
from .masking import DrawKeys, all_on_device, with_indices
from .modeling_ecg_jepa import EcgJepaPredictor, EcgJepaPreTrainedModel, MaskedPrediction
from .modeling_ecg_vit import (
    EcgViTForEmbedding,
    EcgViTForSequenceClassification,
    EcgViTForTokenClassification,
    EcgViTModel,
)
from .pretraining import PretrainingOutput
from .projector import Projector, init_projector_weights, projection_spread
from .sigreg import draw_directions, sigreg


@dataclass
class SigRegJepaForPreTrainingOutput(PretrainingOutput):
    """
    Args:
        prediction_loss (`torch.FloatTensor` of shape `()`): Distance of predictions and targets.
        sigreg_loss (`torch.FloatTensor` of shape `()`): SIGReg of the projections; 1.05 where they are normal.
        token_sigreg_loss (`torch.FloatTensor` of shape `()`, *optional*): SIGReg of the tokens, where it has a weight.
        projection_std (`torch.FloatTensor` of shape `()`): Spread of the projections between records; SIGReg wants 1.
        predictions (`torch.FloatTensor` of shape `(batch_size, rows, hidden columns, hidden_size)`).
        targets (`torch.FloatTensor` of the same shape): Hidden states of the encoder, with gradient.
        others: See [`PretrainingOutput`], of whole records.
    """

    prediction_loss: torch.FloatTensor | None = None
    sigreg_loss: torch.FloatTensor | None = None
    token_sigreg_loss: torch.FloatTensor | None = None
    projection_std: torch.FloatTensor | None = None
    predictions: torch.FloatTensor | None = None
    targets: torch.FloatTensor | None = None


class SigRegJepaPreTrainedModel(EcgJepaPreTrainedModel):
    config_class = SigRegJepaConfig
    _keys_to_ignore_on_load_unexpected = [r"^predictor\.", r"^projector\."]

    @torch.no_grad()
    def _init_weights(self, module):
        if not init_projector_weights(module):
            super()._init_weights(module)

    def has_weight_decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Matrices decay; biases, norms, LayerScale, registers and the mask token do not."""
        return super().has_weight_decay(name, parameter) and not name.endswith(("register_tokens", "mask_token"))


class SigRegJepaModel(SigRegJepaPreTrainedModel, EcgViTModel):
    """The encoder of a checkpoint of the masked JEPA with SIGReg."""


class SigRegJepaForSequenceClassification(SigRegJepaPreTrainedModel, EcgViTForSequenceClassification):
    encoder_class = SigRegJepaModel


class SigRegJepaForTokenClassification(SigRegJepaPreTrainedModel, EcgViTForTokenClassification):
    encoder_class = SigRegJepaModel


class SigRegJepaForEmbedding(SigRegJepaPreTrainedModel, EcgViTForEmbedding):
    encoder_class = SigRegJepaModel


class SigRegJepaForPreTraining(MaskedPrediction, SigRegJepaPreTrainedModel):
    """One encoder, a predictor and a projector.

    Use it when a masked JEPA is wanted without a teacher, hence without a momentum to choose; it needs batches of
    many records.

    ```python
    import torch
    from ecg_transformers.modeling import SigRegJepaConfig, SigRegJepaForPreTraining

    size = {"sampling_rate": 100, "num_samples": 1000, "hidden_size": 32, "num_hidden_layers": 2}
    model = SigRegJepaForPreTraining(SigRegJepaConfig(**size, num_attention_heads=4, projector_hidden_size=64))
    model(torch.randn(4, 12, 1000)).loss.backward()
    ```
    """

    def __init__(self, config: SigRegJepaConfig):
        super().__init__(config)
        self.ecg_vit = SigRegJepaModel(config)
        self.predictor = EcgJepaPredictor(config)
        self.projector = Projector(
            config.pooled_size, config.projector_hidden_size, config.projection_size, config.sync_statistics
        )
        self.post_init()

    def draw_inputs(self, input_values: torch.Tensor, keys: DrawKeys) -> dict[str, torch.Tensor]:
        """Draws the mask, of each record (`"segments"`) or of the whole batch, and SIGReg's directions."""
        config = self.config
        drawn = with_indices(self.draw_masks(len(input_values), keys)) | {
            "directions": draw_directions(config.projection_size, config.num_slices, keys.shared("sigreg")),
        }
        if config.token_sigreg_weight:
            drawn["token_directions"] = draw_directions(
                config.hidden_size, config.num_slices, keys.shared("token sigreg")
            )
        return all_on_device(drawn, input_values.device)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        visible_patches: torch.Tensor | None = None,
        hidden_patches: torch.Tensor | None = None,
        directions: torch.Tensor | None = None,
        token_directions: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SigRegJepaForPreTrainingOutput:
        r"""
        input_values, leads, lead_mask: see [`EcgViTModel`].
        bool_masked_pos (`torch.BoolTensor` of shape `(batch_size, columns)` or `(1, columns)`, *optional*):
            `True` = hidden from the context, in all leads at once. [`EcgSslTrainer`] draws it and the directions with
            [`~SigRegJepaForPreTraining.draw_inputs`]; without them the model draws its own: always the same in
            evaluation, others each time in training.
        visible_patches, hidden_patches (`torch.LongTensor` of shape `(batch_size or 1, columns)`, *optional*):
            Increasing indices of what it leaves visible and hides, as `draw_inputs` gives them.
        directions (`torch.FloatTensor` of shape `(projection_size, num_slices)`, *optional*):
            Unit columns along which SIGReg looks at the projections.
        token_directions (`torch.FloatTensor` of shape `(hidden_size, num_slices)`, *optional*):
            The same for the tokens, where `config.token_sigreg_weight` is not 0.
        """
        config = self.config
        wanted = {"bool_masked_pos": bool_masked_pos, "directions": directions}
        if config.token_sigreg_weight:
            wanted["token_directions"] = token_directions
        drawn = self.draw_missing(input_values, **wanted)
        self.check_several_records(len(input_values))
        if bool_masked_pos is None:
            visible_patches, hidden_patches = drawn["visible_patches"], drawn["hidden_patches"]
        bool_masked_pos = drawn["bool_masked_pos"].to(input_values.device)
        visible, hidden = self.visible_and_hidden(bool_masked_pos, visible_patches, hidden_patches)

        whole = self.ecg_vit(input_values, leads=leads, lead_mask=lead_mask, **kwargs)
        tokens = self.on_grid(whole.last_hidden_state, config.num_columns)
        targets = self.normalize_targets(self.take_columns(tokens, hidden), lead_mask)
        context = self.ecg_vit(
            input_values,
            leads=leads,
            lead_mask=lead_mask,
            bool_masked_pos=bool_masked_pos,
            visible_patches=visible,
            **kwargs,
        )
        predictions = self.predictor(self.on_grid(context.last_hidden_state, visible.shape[1]), visible, hidden)
        prediction_loss = self.prediction_loss(predictions, targets, lead_mask)

        projections = self.projector(whole.pooler_output).float()
        sigreg_loss = sigreg(projections, drawn["directions"], over_ranks=config.sync_statistics)
        loss, token_sigreg_loss = prediction_loss + config.sigreg_weight * sigreg_loss, None
        if config.token_sigreg_weight:
            token_sigreg_loss = self._token_sigreg(tokens, drawn["token_directions"], lead_mask)
            loss = loss + config.token_sigreg_weight * token_sigreg_loss
        return SigRegJepaForPreTrainingOutput(
            loss=loss,
            prediction_loss=prediction_loss,
            sigreg_loss=sigreg_loss,
            token_sigreg_loss=token_sigreg_loss,
            projection_std=projection_spread(projections),
            predictions=predictions,
            targets=targets,
            pooler_output=whole.pooler_output,
            last_hidden_state=whole.last_hidden_state,
            hidden_states=whole.hidden_states,
            attentions=whole.attentions,
        )

    def _token_sigreg(self, tokens, directions, lead_mask) -> torch.FloatTensor:
        if lead_mask is not None and self.config.patching == "per_lead":
            raise ValueError(
                "token_sigreg_weight compares the records at each lead and moment, so every record needs every lead; "
                "got a lead_mask. Set token_sigreg_weight=0, or missing_leads='raise' in the feature extractor."
            )
        places = tokens.flatten(1, 2).transpose(0, 1)  # (rows * columns, batch, hidden)
        return sigreg(places, directions, over_ranks=self.config.sync_statistics)
