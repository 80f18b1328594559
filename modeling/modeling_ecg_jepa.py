"""ECG-JEPA: a student sees the visible time patches and predicts the teacher's hidden states of the hidden ones.

Sehun Kim, "Learning General Representation of 12-Lead Electrocardiogram with a Joint-Embedding Predictive
Architecture", arXiv 2410.08559. Symbols of the paper and where they are: student f_theta is `ecg_vit`, teacher
f_theta-bar is `teacher` (an exponential moving average of the student), predictor g_phi is `predictor`.

Where we differ from the authors' code, by default: the teacher gives targets without stochastic depth
(`teacher_drop_path`), and blocks may hide the last patch (`spare_last_patch`). Kim draws one mask a batch and adds the
positions before every layer; so do we.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .collectives import gather_rows, sum_over_ranks, world_size
from .configuration_ecg_jepa import EcgJepaConfig
from .masking import keyed_generator, sample_multi_block_mask, sample_random_mask
from .modeling_ecg_vit import (
    EcgViTForEmbedding,
    EcgViTForSequenceClassification,
    EcgViTLayer,
    EcgViTModel,
    EcgViTPreTrainedModel,
    TokenGrid,
    position_table,
    split_masked,
)

PREDICTION_LOSSES = {
    "smooth_l1": nn.functional.smooth_l1_loss,
    "l1": nn.functional.l1_loss,
    "mse": nn.functional.mse_loss,
}


@dataclass
class EcgJepaForPreTrainingOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor` of shape `()`): Distance of predictions and targets, a mean over all elements.
        predictions (`torch.FloatTensor` of shape `(batch_size, rows, hidden columns, hidden_size)`):
            What the predictor makes of the hidden patches.
        targets (`torch.FloatTensor` of the same shape): Normalised hidden states of the teacher, without gradient.
        pooler_output (`torch.FloatTensor` of shape `(batch_size, hidden_size)`):
            The teacher's pooled feature of the whole record, for monitoring collapse.
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, num_registers + visible, hidden_size)`):
            The student's hidden states of the visible patches.
    """

    loss: torch.FloatTensor | None = None
    predictions: torch.FloatTensor | None = None
    targets: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class EcgJepaPreTrainedModel(EcgViTPreTrainedModel):
    config_class = EcgJepaConfig
    auto_classes = {
        "AutoConfig": "configuration_ecg_jepa.EcgJepaConfig",
        "AutoModel": "modeling_ecg_jepa.EcgJepaModel",
        "AutoModelForPreTraining": "modeling_ecg_jepa.EcgJepaForPreTraining",
        "AutoModelForSequenceClassification": "modeling_ecg_jepa.EcgJepaForSequenceClassification",
    }


# What a pretraining checkpoint holds beside the encoder; not worth a warning when only the encoder is wanted.
PRETRAINING_ONLY = [r"^teacher\.", r"^predictor\."]


class EcgJepaModel(EcgJepaPreTrainedModel, EcgViTModel):
    """The encoder of an ECG-JEPA checkpoint (Kim: the student)."""

    _keys_to_ignore_on_load_unexpected = PRETRAINING_ONLY


class EcgJepaForSequenceClassification(EcgJepaPreTrainedModel, EcgViTForSequenceClassification):
    """[`EcgViTForSequenceClassification`] for ECG-JEPA checkpoints."""

    _keys_to_ignore_on_load_unexpected = PRETRAINING_ONLY


class EcgJepaForEmbedding(EcgJepaPreTrainedModel, EcgViTForEmbedding):
    """[`EcgViTForEmbedding`] for ECG-JEPA checkpoints."""

    _keys_to_ignore_on_load_unexpected = PRETRAINING_ONLY


class EcgJepaPredictor(nn.Module):
    """Fills in the hidden patches of each row from its visible ones. Rows are separate sequences: what a row knows of
    the other leads, the student's tokens brought along."""

    def __init__(self, config: EcgJepaConfig):
        super().__init__()
        self.config = config.predictor_config()
        self.embedding = nn.Linear(config.hidden_size, self.config.hidden_size, bias=config.use_bias)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.config.hidden_size))
        table = position_table(self.config, self.config.hidden_size)[0]  # (columns, width)
        self.register_buffer("position_embeddings", table, persistent=False)
        num_layers = self.config.num_hidden_layers
        self.layers = nn.ModuleList([EcgViTLayer(self.config, number + 1) for number in range(num_layers)])
        norm = {"eps": config.layer_norm_eps, "bias": config.layer_norm_bias}
        self.layernorm = nn.LayerNorm(self.config.hidden_size, **norm)
        self.projection = nn.Linear(self.config.hidden_size, config.hidden_size, bias=config.use_bias)

    def forward(self, hidden_states: torch.Tensor, visible: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """
        hidden_states (`torch.FloatTensor` of shape `(batch, rows, visible columns, hidden_size)`): student tokens.
        visible, hidden (`torch.LongTensor` of shape `(batch or 1, columns)`): which columns these are, increasing.

        Returns the predictions of the hidden columns, `(batch, rows, hidden columns, hidden_size)`.
        """
        batch, num_rows, num_visible, _ = hidden_states.shape
        tokens = self.embedding(hidden_states).flatten(0, 1)
        mask_tokens = self.mask_token.to(tokens.dtype).expand(batch * num_rows, hidden.shape[1], -1)
        tokens = torch.cat((tokens, mask_tokens), dim=1)
        columns = torch.cat((visible, hidden), dim=1)
        positions = self.position_embeddings[columns].to(tokens.dtype)
        if positions.shape[0] > 1:
            positions = positions.repeat_interleave(num_rows, dim=0)
        grid = TokenGrid(1, columns.shape[1], torch.zeros_like(columns), columns)
        for number, layer in enumerate(self.layers):
            if number == 0 or self.config.position_every_layer:
                tokens = tokens + positions
            tokens = layer(tokens, grid)
        predictions = self.projection(self.layernorm(tokens[:, num_visible:]))
        return predictions.unflatten(0, (batch, num_rows))


class EcgJepaForPreTraining(EcgJepaPreTrainedModel):
    """Student, teacher and predictor with the ECG-JEPA loss.

    After every optimiser step the teacher has to follow the student: [`EcgSslTrainer`] does it; any other loop calls
    [`~EcgJepaForPreTraining.update_teacher`], without which training raises in its third step.
    """

    has_teacher = True

    def __init__(self, config: EcgJepaConfig):
        super().__init__(config)
        self.ecg_vit = EcgJepaModel(config)
        self.teacher = EcgJepaModel(config).requires_grad_(False)
        self.predictor = EcgJepaPredictor(config)
        self._num_masks_drawn = 0
        self._last_seen_weight = None
        self._steps_without_teacher = 0
        self.post_init()

    # --- weights ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, EcgJepaPredictor):
            init.normal_(module.mask_token, mean=0.0, std=self.config.initializer_range)
            init.copy_(module.position_embeddings, position_table(module.config, module.config.hidden_size)[0])

    def init_weights(self):
        super().init_weights()
        self.reset_teacher()

    def _initialize_missing_keys(self, *args, **kwargs):
        # A checkpoint without a teacher (a bare encoder) must give teacher = student, not a random teacher.
        missing = [name for name, p in self.teacher.named_parameters() if not getattr(p, "_is_hf_initialized", False)]
        super()._initialize_missing_keys(*args, **kwargs)
        with torch.no_grad():
            for name in missing:
                self.teacher.get_parameter(name).copy_(self.ecg_vit.get_parameter(name))
        self.teacher.requires_grad_(False)  # loading has replaced the parameters by trainable ones

    @torch.no_grad()
    def reset_teacher(self):
        """Makes the teacher a copy of the student."""
        if self.device.type != "meta":
            self.update_teacher(momentum=0.0)

    @torch.no_grad()
    def update_teacher(self, momentum: float):
        """teacher <- momentum * teacher + (1 - momentum) * student, for every parameter (Kim: after each step)."""
        teacher, student = list(self.teacher.parameters()), list(self.ecg_vit.parameters())
        torch._foreach_lerp_(teacher, student, 1.0 - momentum)
        self._last_seen_weight = None
        self._steps_without_teacher = 0

    def train(self, mode: bool = True):
        super().train(mode)
        self.teacher.train(mode and self.config.teacher_drop_path)
        return self

    def set_attn_implementation(self, *args, **kwargs):
        super().set_attn_implementation(*args, **kwargs)
        self.predictor.config._attn_implementation = self.config._attn_implementation

    # --- masks --------------------------------------------------------------------------------------------------

    def draw_mask(self, generator: torch.Generator) -> torch.BoolTensor:
        """One mask of hidden time patches for a whole batch, `(1, columns)`, by the law of the configuration."""
        config = self.config
        if config.mask_type == "random":
            mask = sample_random_mask(config.num_columns, config.mask_ratio, generator)
        else:
            mask = sample_multi_block_mask(
                config.num_columns, config.mask_ratio, config.num_mask_blocks, generator, config.spare_last_patch
            )
        return mask[None]

    def _next_mask(self) -> torch.BoolTensor:
        # In evaluation always the same mask, so that losses compare; in training another one each time.
        mask = self.draw_mask(keyed_generator("EcgJepaForPreTraining", self._num_masks_drawn if self.training else 0))
        self._num_masks_drawn += self.training
        return mask

    # --- loss ---------------------------------------------------------------------------------------------------

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        **kwargs,
    ) -> EcgJepaForPreTrainingOutput:
        r"""
        input_values, leads, lead_mask: see [`EcgViTModel`].
        bool_masked_pos (`torch.BoolTensor` of shape `(batch_size, columns)` or `(1, columns)`, *optional*):
            `True` = hidden from the student, in all leads at once. [`EcgSslTrainer`] draws it, keyed by seed and step;
            without it the model draws one itself, from a stream of its own.
        """
        if input_values is None:
            raise ValueError("Expected input_values of shape (batch, num_leads, num_samples), got None.")
        self._check_teacher_follows()
        if bool_masked_pos is None:
            bool_masked_pos = self._next_mask()
        bool_masked_pos = bool_masked_pos.to(input_values.device)
        if bool_masked_pos.dim() != 2 or bool_masked_pos.shape[1] != self.config.num_columns:
            raise ValueError(
                f"Expected bool_masked_pos of shape (batch or 1, {self.config.num_columns}), got "
                f"{tuple(bool_masked_pos.shape)}: ECG-JEPA hides a time patch in all leads at once."
            )
        visible, hidden = split_masked(bool_masked_pos)
        if hidden.shape[1] == 0:
            raise ValueError("bool_masked_pos hides nothing, so that nothing can be predicted. Hide a patch or more.")
        with torch.no_grad():
            teacher_output = self.teacher(input_values, leads=leads, lead_mask=lead_mask)
            targets = self._on_grid(teacher_output.last_hidden_state, visible, hidden)
            targets = self._take_columns(self._normalize_targets(targets, lead_mask), hidden)

        student_output = self.ecg_vit(
            input_values, leads=leads, lead_mask=lead_mask, bool_masked_pos=bool_masked_pos, **kwargs
        )
        student_tokens = self._on_grid(student_output.last_hidden_state, visible)
        predictions = self.predictor(student_tokens, visible, hidden)
        loss = self._prediction_loss(predictions, targets, lead_mask)
        if self.config.variance_weight or self.config.covariance_weight:
            features = gather_rows(student_output.pooler_output)
            if self.training and len(features) < 2:
                raise ValueError(
                    "A batch of one record has no spread between records, which this objective needs. Set "
                    "dataloader_drop_last=True, or a larger batch."
                )
            variance, covariance = variance_and_covariance(features)
            loss = loss + self.config.variance_weight * variance + self.config.covariance_weight * covariance
        return EcgJepaForPreTrainingOutput(
            loss=loss,
            predictions=predictions,
            targets=targets,
            pooler_output=teacher_output.pooler_output,
            last_hidden_state=student_output.last_hidden_state,
            hidden_states=student_output.hidden_states,
            attentions=student_output.attentions,
        )

    def _on_grid(self, hidden_states: torch.Tensor, *columns: torch.Tensor) -> torch.Tensor:
        """`(batch, registers + rows * columns, hidden)` as `(batch, rows, columns, hidden)`, without registers."""
        num_columns = sum(part.shape[1] for part in columns)
        return hidden_states[:, self.config.num_registers :].unflatten(1, (-1, num_columns))

    def _take_columns(self, grid: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        index = columns[:, None, :, None].expand(grid.shape[0], grid.shape[1], -1, grid.shape[3])
        return grid.gather(2, index)

    def _normalize_targets(self, targets: torch.Tensor, lead_mask: torch.Tensor | None) -> torch.Tensor:
        if self.config.target_normalization == "none":
            return targets
        targets = nn.functional.layer_norm(targets.float(), targets.shape[-1:], eps=1e-5)
        if self.config.target_normalization == "position":
            present = None if self.config.patching == "all_leads" else lead_mask
            targets = standardize_by_position(targets, present)
        return targets

    def _prediction_loss(self, predictions, targets, lead_mask) -> torch.Tensor:
        loss_function = PREDICTION_LOSSES[self.config.prediction_loss]
        if lead_mask is None or self.config.patching == "all_leads":
            return loss_function(predictions, targets)
        per_lead = loss_function(predictions, targets, reduction="none").mean(dim=(2, 3))
        # The mean over what is present on all ranks, so that two processes equal one with the whole batch.
        num_present = sum_over_ranks(lead_mask.sum().float()) / world_size()
        return torch.where(lead_mask, per_lead, 0.0).sum() / num_present.clamp(min=1.0)

    def _check_teacher_follows(self):
        """An optimiser step shows in the weights of the student's last norm; the teacher has to follow each."""
        if not self.training or torch.compiler.is_compiling():
            return
        weight = self.ecg_vit.layernorm.weight.detach()
        if self._last_seen_weight is not None and not torch.equal(weight, self._last_seen_weight):
            self._steps_without_teacher += 1
        self._last_seen_weight = weight.clone()
        if self._steps_without_teacher >= 2:
            raise ValueError(
                "The student has taken 2 optimiser steps and the teacher none: training like this learns nothing. "
                "Train with EcgSslTrainer, or call `model.update_teacher(momentum)` after every optimiser step."
            )


def standardize_by_position(states: torch.Tensor, lead_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Takes away what the position alone explains: the mean over the batch at each lead and moment; then brings every
    channel to unit variance. Statistics are those of the batch over all ranks, absent leads left out.

    Args:
        states (`torch.FloatTensor` of shape `(batch, rows, columns, hidden_size)`): without gradient.
        lead_mask (`torch.BoolTensor` of shape `(batch, rows)`, *optional*): `True` = present.
    """
    weights = states.new_ones(states.shape[:2]) if lead_mask is None else lead_mask.to(states.dtype)
    weights = weights[..., None, None]
    count = sum_over_ranks(weights.sum(dim=0)).clamp(min=1.0)  # (rows, 1, 1)
    centred = states - sum_over_ranks((states * weights).sum(dim=0)) / count
    variance = sum_over_ranks((centred.square() * weights).sum(dim=(0, 1, 2))) / (count.sum() * states.shape[2])
    return centred * (variance + 1e-4).rsqrt()


POOLED_STD = 0.5
"""Spread between records that the variance term asks of each channel; a token has unit root mean square."""


def variance_and_covariance(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The variance and covariance terms of VICReg (arXiv 2105.04906, section 4.1) on pooled features.

    Args:
        features (`torch.FloatTensor` of shape `(batch, hidden_size)`): of at least two records; one gives zeros.
    """
    if len(features) < 2:
        return features.new_zeros(()), features.new_zeros(())
    scaled = (features.float() - features.float().mean(dim=0)) / POOLED_STD
    covariance = scaled.T @ scaled / (len(scaled) - 1)
    variances = covariance.diagonal()
    variance_term = nn.functional.relu(1.0 - (variances + 1e-4).sqrt()).mean()
    covariance_term = (covariance.square().sum() - variances.square().sum()) / features.shape[1]
    return variance_term, covariance_term


__all__ = [
    "EcgJepaForEmbedding",
    "EcgJepaForPreTraining",
    "EcgJepaModel",
    "EcgJepaForSequenceClassification",
    "EcgJepaPreTrainedModel",
]
