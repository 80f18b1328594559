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
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .collectives import sum_over_ranks, world_size
from .configuration_sigreg_jepa import SigRegJepaConfig
from .masking import DrawKeys, sample_multi_block_mask, sample_random_mask, sample_segment_masks
from .modeling_ecg_jepa import PREDICTION_LOSSES, EcgJepaPredictor, EcgJepaPreTrainedModel
from .modeling_ecg_vit import (
    EcgViTForEmbedding,
    EcgViTForSequenceClassification,
    EcgViTForTokenClassification,
    EcgViTModel,
)
from .patch_embedding import split_masked
from .projector import Projector, init_projector_weights, projection_spread
from .sigreg import draw_directions, sigreg


@dataclass
class SigRegJepaForPreTrainingOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor` of shape `()`): Prediction loss and weighted SIGReg.
        prediction_loss (`torch.FloatTensor` of shape `()`): Distance of predictions and targets.
        sigreg_loss (`torch.FloatTensor` of shape `()`): SIGReg of the projections; 1.05 where they are normal.
        token_sigreg_loss (`torch.FloatTensor` of shape `()`, *optional*): SIGReg of the tokens, where it has a weight.
        projection_std (`torch.FloatTensor` of shape `()`): Spread of the projections between records; SIGReg wants 1.
        predictions (`torch.FloatTensor` of shape `(batch_size, rows, hidden columns, hidden_size)`).
        targets (`torch.FloatTensor` of the same shape): Hidden states of the encoder, with gradient.
        pooler_output (`torch.FloatTensor` of shape `(batch_size, hidden_size)`): The pooled feature of whole records.
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, num_registers + tokens, hidden_size)`):
            Hidden states of the whole records.
    """

    loss: torch.FloatTensor | None = None
    prediction_loss: torch.FloatTensor | None = None
    sigreg_loss: torch.FloatTensor | None = None
    token_sigreg_loss: torch.FloatTensor | None = None
    projection_std: torch.FloatTensor | None = None
    predictions: torch.FloatTensor | None = None
    targets: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class SigRegJepaPreTrainedModel(EcgJepaPreTrainedModel):
    config_class = SigRegJepaConfig
    auto_classes = {
        "AutoConfig": "configuration_sigreg_jepa.SigRegJepaConfig",
        "AutoModel": "modeling_sigreg_jepa.SigRegJepaModel",
        "AutoModelForPreTraining": "modeling_sigreg_jepa.SigRegJepaForPreTraining",
        "AutoModelForSequenceClassification": "modeling_sigreg_jepa.SigRegJepaForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_sigreg_jepa.SigRegJepaForTokenClassification",
    }

    @torch.no_grad()
    def _init_weights(self, module):
        if not init_projector_weights(module):
            super()._init_weights(module)

    def has_weight_decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Matrices decay; biases, norms, LayerScale, registers and the mask token do not."""
        return super().has_weight_decay(name, parameter) and not name.endswith(("register_tokens", "mask_token"))


# What a pretraining checkpoint holds beside the encoder; not worth a warning when only the encoder is wanted.
PRETRAINING_ONLY = [r"^predictor\.", r"^projector\."]


class SigRegJepaModel(SigRegJepaPreTrainedModel, EcgViTModel):
    """The encoder of a checkpoint of the masked JEPA with SIGReg."""

    _keys_to_ignore_on_load_unexpected = PRETRAINING_ONLY


class SigRegJepaForSequenceClassification(SigRegJepaPreTrainedModel, EcgViTForSequenceClassification):
    """[`EcgViTForSequenceClassification`] for checkpoints of the masked JEPA with SIGReg."""

    _keys_to_ignore_on_load_unexpected = PRETRAINING_ONLY
    encoder_class = SigRegJepaModel


class SigRegJepaForTokenClassification(SigRegJepaPreTrainedModel, EcgViTForTokenClassification):
    """[`EcgViTForTokenClassification`] for checkpoints of the masked JEPA with SIGReg."""

    _keys_to_ignore_on_load_unexpected = PRETRAINING_ONLY
    encoder_class = SigRegJepaModel


class SigRegJepaForEmbedding(SigRegJepaPreTrainedModel, EcgViTForEmbedding):
    """[`EcgViTForEmbedding`] for checkpoints of the masked JEPA with SIGReg."""

    _keys_to_ignore_on_load_unexpected = PRETRAINING_ONLY
    encoder_class = SigRegJepaModel


class SigRegJepaForPreTraining(SigRegJepaPreTrainedModel):
    """One encoder, a predictor and a projector."""

    def __init__(self, config: SigRegJepaConfig):
        super().__init__(config)
        self.ecg_vit = SigRegJepaModel(config)
        self.predictor = EcgJepaPredictor(config)
        self.projector = Projector(
            config.pooled_size, config.projector_hidden_size, config.projection_size, config.sync_statistics
        )
        self.post_init()

    def set_attn_implementation(self, *args, **kwargs):
        super().set_attn_implementation(*args, **kwargs)
        self.predictor.config._attn_implementation = self.config._attn_implementation

    def draw_inputs(self, input_values: torch.Tensor, keys: DrawKeys) -> dict[str, torch.Tensor]:
        """The mask, of each record (`"segments"`) or of the whole batch, and SIGReg's directions."""
        config = self.config
        if config.mask_type == "segments":
            if len(keys.sample_ids) != len(input_values):
                raise ValueError(
                    f"Expected a sample id for each of {len(input_values)} records, got {len(keys.sample_ids)}: every "
                    "record has a mask of its own. Use EcgPretrainingCollator, which gives them."
                )
            mask = sample_segment_masks(
                config.num_columns,
                config.mask_ratio,
                config.min_segment_patches,
                keys.shared("mask"),
                keys.per_record("mask"),
            )
        elif config.mask_type == "random":
            mask = sample_random_mask(config.num_columns, config.mask_ratio, keys.shared("mask"))[None]
        else:
            mask = sample_multi_block_mask(
                config.num_columns,
                config.mask_ratio,
                config.num_mask_blocks,
                keys.shared("mask"),
                config.spare_last_patch,
            )[None]
        drawn = {
            "bool_masked_pos": mask,
            "directions": draw_directions(config.projection_size, config.num_slices, keys.shared("sigreg")),
        }
        if config.token_sigreg_weight:
            drawn["token_directions"] = draw_directions(
                config.hidden_size, config.num_slices, keys.shared("token sigreg")
            )
        return {name: tensor.to(input_values.device) for name, tensor in drawn.items()}

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
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
        directions (`torch.FloatTensor` of shape `(projection_size, num_slices)`, *optional*):
            Unit columns along which SIGReg looks at the projections.
        token_directions (`torch.FloatTensor` of shape `(hidden_size, num_slices)`, *optional*):
            The same for the tokens, where `config.token_sigreg_weight` is not 0.
        """
        config = self.config
        if input_values is None:
            raise ValueError("Expected input_values of shape (batch, num_leads, num_samples), got None.")
        if self.training and len(input_values) < 2:
            raise ValueError(
                "A batch of one record has no spread between records, which SIGReg needs. Set "
                "dataloader_drop_last=True, or a larger batch."
            )
        given = {"bool_masked_pos": bool_masked_pos, "directions": directions, "token_directions": token_directions}
        given = {name: tensor for name, tensor in given.items() if tensor is not None}
        if len(given) < (3 if config.token_sigreg_weight else 2):
            given = self.draw_inputs(input_values, self.own_keys(len(input_values))) | given
        visible, hidden = self._visible_and_hidden(given["bool_masked_pos"].to(input_values.device))

        whole = self.ecg_vit(input_values, leads=leads, lead_mask=lead_mask, **kwargs)
        tokens = self._on_grid(whole.last_hidden_state, config.num_columns)
        index = hidden[:, None, :, None].expand(tokens.shape[0], tokens.shape[1], -1, tokens.shape[3])
        targets = tokens.gather(2, index)
        if config.target_normalization == "layer_norm":
            targets = nn.functional.layer_norm(targets.float(), targets.shape[-1:], eps=1e-5)
        context = self.ecg_vit(
            input_values, leads=leads, lead_mask=lead_mask, bool_masked_pos=given["bool_masked_pos"], **kwargs
        )
        predictions = self.predictor(self._on_grid(context.last_hidden_state, visible.shape[1]), visible, hidden)
        prediction_loss = self._prediction_loss(predictions, targets, lead_mask)

        projections = self.projector(whole.pooler_output).float()
        sigreg_loss = sigreg(projections, given["directions"], over_ranks=config.sync_statistics)
        loss, token_sigreg_loss = prediction_loss + config.sigreg_weight * sigreg_loss, None
        if config.token_sigreg_weight:
            token_sigreg_loss = self._token_sigreg(tokens, given["token_directions"], lead_mask)
            loss = loss + config.token_sigreg_weight * token_sigreg_loss
        return SigRegJepaForPreTrainingOutput(
            loss=loss,
            prediction_loss=prediction_loss,
            sigreg_loss=sigreg_loss,
            token_sigreg_loss=token_sigreg_loss,
            projection_std=projection_spread(projections, warn=self.training),
            predictions=predictions,
            targets=targets,
            pooler_output=whole.pooler_output,
            last_hidden_state=whole.last_hidden_state,
            hidden_states=whole.hidden_states,
            attentions=whole.attentions,
        )

    def _visible_and_hidden(self, bool_masked_pos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if bool_masked_pos.dim() != 2 or bool_masked_pos.shape[1] != self.config.num_columns:
            raise ValueError(
                f"Expected bool_masked_pos of shape (batch or 1, {self.config.num_columns}), got "
                f"{tuple(bool_masked_pos.shape)}: a time patch is hidden in all leads at once."
            )
        visible, hidden = split_masked(bool_masked_pos)
        if hidden.shape[1] == 0:
            raise ValueError("bool_masked_pos hides nothing, so that nothing can be predicted. Hide a patch or more.")
        return visible, hidden

    def _on_grid(self, hidden_states: torch.Tensor, num_columns: int) -> torch.Tensor:
        """`(batch, registers + rows * columns, hidden)` as `(batch, rows, columns, hidden)`, without registers."""
        return hidden_states[:, self.config.num_registers :].unflatten(1, (-1, num_columns))

    def _prediction_loss(self, predictions, targets, lead_mask) -> torch.FloatTensor:
        """A mean over what is present; over ranks with unequal parts the mean of the ranks' losses is that of all."""
        loss_function = PREDICTION_LOSSES[self.config.prediction_loss]
        per_row = loss_function(predictions.float(), targets.float(), reduction="none").mean(dim=(2, 3))
        if lead_mask is None or self.config.patching == "all_leads":
            present = torch.ones_like(per_row)
        else:
            present = lead_mask.to(per_row.dtype)
        num_present = sum_over_ranks(present.sum()) / world_size()
        return (per_row * present).sum() / num_present.clamp(min=1.0)

    def _token_sigreg(self, tokens, directions, lead_mask) -> torch.FloatTensor:
        if lead_mask is not None and self.config.patching == "per_lead":
            raise ValueError(
                "token_sigreg_weight compares the records at each lead and moment, so every record needs every lead; "
                "got a lead_mask. Set token_sigreg_weight=0, or missing_leads='raise' in the feature extractor."
            )
        places = tokens.flatten(1, 2).transpose(0, 1)  # (rows * columns, batch, hidden)
        return sigreg(places, directions, over_ranks=self.config.sync_statistics)


__all__ = [
    "SigRegJepaForEmbedding",
    "SigRegJepaForPreTraining",
    "SigRegJepaForSequenceClassification",
    "SigRegJepaForTokenClassification",
    "SigRegJepaModel",
    "SigRegJepaPreTrainedModel",
]
