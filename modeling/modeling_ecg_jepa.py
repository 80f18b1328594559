"""ECG-JEPA: a student sees the visible time patches and predicts the teacher's hidden states of the hidden ones.

Two systems of this name are two settings of one class. Sehun Kim, "Learning General Representation of 12-Lead
Electrocardiogram with a Joint-Embedding Predictive Architecture", arXiv 2410.08559: patches of single leads,
Cross-Pattern Attention; the **student** is evaluated. Weimann and Conrad, "Self-Supervised Pre-Training with
Joint-Embedding Predictive Architecture Boosts ECG Classification Performance", arXiv 2410.13867: patches of all leads,
registers, nothing with a bias; the **teacher** is evaluated. `ecg_vit` is always the evaluated one. Symbols of the
papers: student f_theta is `trained_encoder`, teacher f_theta-bar is `target_encoder` (an exponential moving average of
the student), predictor g_phi is `predictor`.

Where we differ from Kim's code, by default: the teacher gives targets without stochastic depth (`teacher_drop_path`),
and blocks may hide the last patch (`spare_last_patch`). Kim draws one mask a batch and adds the positions before every
layer; so do we.

Where we differ from Weimann's code: the teacher follows after every optimiser step, there at the start of every
training forward. The numbers are the same if step s uses the momentum that the authors' schedule has for s + 1, but
for one more update after the last step (`weimann_momentum` in `train/schedules.py`); and with accumulation the targets
of a step do not move between its micro-batches. A mask that would make their law fail does not (see `masking.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .collectives import gather_rows, share_of_records, sum_over_ranks, world_size
from .configuration_ecg_jepa import EcgJepaConfig
from .masking import (
    DrawKeys,
    RecordUniforms,
    all_on_device,
    sample_multi_block_mask,
    sample_random_mask,
    sample_segment_masks,
    split_masked,
    with_indices,
)
from .modeling_ecg_vit import (
    EcgViTAttention,
    EcgViTAttentivePooler,
    EcgViTBranchOutput,
    EcgViTForEmbedding,
    EcgViTForSequenceClassification,
    EcgViTForTokenClassification,
    EcgViTLayer,
    EcgViTModel,
    EcgViTPreTrainedModel,
)
from .patch_embedding import EcgViTEmbeddings, TokenGrid, position_table
from .pretraining import PretrainingMixin, PretrainingOutput
from .teacher import TeacherStudentMixin
from .vicreg import standardize_by_position, variance_and_covariance

PREDICTION_LOSSES = {
    "smooth_l1": nn.functional.smooth_l1_loss,
    "l1": nn.functional.l1_loss,
    "mse": nn.functional.mse_loss,
}

POOLED_STD = 0.5
"""Spread between records that the variance term asks of each channel; a token has unit root mean square."""


@dataclass
class EcgJepaForPreTrainingOutput(PretrainingOutput):
    """
    Args:
        predictions (`torch.FloatTensor` of shape `(batch_size, rows, hidden columns, hidden_size)`):
            Predictor's estimate of the hidden patches.
        targets (`torch.FloatTensor` of the same shape):
            Hidden states of the teacher, normalised by `config.target_normalization`, without gradient.
        others: See [`PretrainingOutput`]. `last_hidden_state` is the student's, of the visible patches;
            `pooler_output` the teacher's, of the whole record, or, with a `"random"` teacher, the student's.
    """

    predictions: torch.FloatTensor | None = None
    targets: torch.FloatTensor | None = None


class EcgJepaPreTrainedModel(EcgViTPreTrainedModel):
    config_class = EcgJepaConfig
    _keys_to_ignore_on_load_unexpected = [r"^teacher\.", r"^student\.", r"^predictor\."]

    def has_weight_decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Kim's code decays its mask token; Weimann's decays the matrices of linear maps alone."""
        is_token = name.endswith(("register_tokens", "mask_token", "query_token"))
        return super().has_weight_decay(name, parameter) and not (is_token and self.config.initializer != "kim")

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        init_jepa_weights(module, self.config)

    @torch.no_grad()
    def initialize_weights(self):
        super().initialize_weights()
        if self.config.initializer == "xavier_uniform":
            for module in self.modules():
                init_fused_weights(module)


class EcgJepaModel(EcgJepaPreTrainedModel, EcgViTModel):
    """The encoder that an ECG-JEPA checkpoint is evaluated with (Kim: the student, Weimann: the teacher)."""


class EcgJepaForSequenceClassification(EcgJepaPreTrainedModel, EcgViTForSequenceClassification):
    encoder_class = EcgJepaModel


class EcgJepaForTokenClassification(EcgJepaPreTrainedModel, EcgViTForTokenClassification):
    encoder_class = EcgJepaModel


class EcgJepaForEmbedding(EcgJepaPreTrainedModel, EcgViTForEmbedding):
    encoder_class = EcgJepaModel


class EcgJepaPredictor(nn.Module):
    """Fills in the hidden patches of each row from its visible ones. Rows are separate sequences: what a row knows of
    the other leads, the student's tokens brought along. It has biases where the encoder has them, and no registers,
    LayerScale or Cross-Pattern Attention."""

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


class MaskedPrediction(PretrainingMixin):
    """Masks, and the distance of predictions from targets, for a model with an [`EcgJepaPredictor`] and the fields of
    an [`EcgJepaConfig`]."""

    @property
    def random_stream(self) -> str | None:
        return "by counter" if self.config.mask_type == "segments" else None

    def set_attn_implementation(self, *args, **kwargs):
        super().set_attn_implementation(*args, **kwargs)
        self.predictor.config._attn_implementation = self.config._attn_implementation

    def draw_masks(self, batch_size: int, keys: DrawKeys) -> torch.BoolTensor:
        """Draws `(1, columns)` where all records share a mask, else `(batch_size, columns)` with equally many hidden
        in each."""
        if self.config.mask_type != "segments":
            return self.draw_mask(keys.shared("mask"))
        self.check_num_ids(keys, "mask", batch_size)
        return self._draw_segments(keys.shared("mask"), keys.uniforms("mask"))

    def draw_mask(self, generator: torch.Generator) -> torch.BoolTensor:
        """Draws a mask of hidden time patches, `(1, columns)`, by the law of the configuration: for a whole batch, or
        for one record with `"segments"`."""
        config = self.config
        if config.mask_type == "segments":
            key = torch.randint(2**62, (1,), generator=generator).numpy().astype(np.uint64)
            return self._draw_segments(generator, RecordUniforms(key))
        if config.mask_type == "random":
            mask = sample_random_mask(config.num_columns, config.mask_ratio, generator)
        else:
            mask = sample_multi_block_mask(
                config.num_columns, config.mask_ratio, config.num_mask_blocks, generator, config.spare_last_patch
            )
        return mask[None]

    def _draw_segments(self, shared: torch.Generator, uniforms: RecordUniforms) -> torch.BoolTensor:
        config = self.config
        return sample_segment_masks(
            config.num_columns, config.mask_ratio, config.min_segment_patches, shared, uniforms
        )

    def visible_and_hidden(
        self, bool_masked_pos: torch.Tensor, visible: torch.Tensor | None = None, hidden: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers of the visible and of the hidden columns, each `(batch or 1, columns)`: read from the mask where
        they did not come with it."""
        if bool_masked_pos.dim() != 2 or bool_masked_pos.shape[1] != self.config.num_columns:
            raise ValueError(
                f"Expected bool_masked_pos of shape (batch or 1, {self.config.num_columns}), got "
                f"{tuple(bool_masked_pos.shape)}: a time patch is hidden in all leads at once."
            )
        if visible is None or hidden is None:
            visible, hidden = split_masked(bool_masked_pos)
        if hidden.shape[1] == 0:
            raise ValueError("bool_masked_pos hides nothing, so that nothing can be predicted. Hide a patch or more.")
        return visible, hidden

    def on_grid(self, hidden_states: torch.Tensor, num_columns: int) -> torch.Tensor:
        """`(batch, registers + rows * columns, hidden)` as `(batch, rows, columns, hidden)`, without registers."""
        return hidden_states[:, self.config.num_registers :].unflatten(1, (-1, num_columns))

    def take_columns(self, grid: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Some columns of a grid, `(batch, rows, columns, hidden)`."""
        index = columns[:, None, :, None].expand(grid.shape[0], grid.shape[1], -1, grid.shape[3])
        return grid.gather(2, index)

    def normalize_targets(self, targets: torch.Tensor, lead_mask: torch.Tensor | None) -> torch.Tensor:
        """Targets `(batch, rows, columns, hidden)` by `config.target_normalization`."""
        if self.config.target_normalization == "none":
            return targets
        targets = nn.functional.layer_norm(targets.float(), targets.shape[-1:], eps=1e-5)
        if self.config.target_normalization == "position":
            targets = standardize_by_position(targets, self.present_rows(lead_mask))
        return targets

    def prediction_loss(
        self, predictions: torch.Tensor, targets: torch.Tensor, lead_mask: torch.Tensor | None
    ) -> torch.FloatTensor:
        """Mean distance over what is present on all ranks, so that two processes equal one with the whole batch."""
        loss_function = PREDICTION_LOSSES[self.config.prediction_loss]
        predictions, targets = predictions.float(), targets.float()
        present = self.present_rows(lead_mask)
        if present is None:
            return loss_function(predictions, targets) * share_of_records(len(targets), targets.device)
        per_row = loss_function(predictions, targets, reduction="none").mean(dim=(2, 3))
        num_present = sum_over_ranks(present.sum().float()) / world_size()
        return torch.where(present, per_row, 0.0).sum() / num_present.clamp(min=1.0)

    def present_rows(self, lead_mask: torch.Tensor | None) -> torch.Tensor | None:
        """Bool `(batch, rows)`; `None` where there is nothing to leave out. Extra channels are always there."""
        if lead_mask is None or self.config.patching == "all_leads":
            return None
        return nn.functional.pad(lead_mask, (0, self.config.extra_channels), value=True)


class EcgJepaForPreTraining(TeacherStudentMixin, MaskedPrediction, EcgJepaPreTrainedModel):
    """Student, teacher and predictor with the ECG-JEPA loss.

    Kim's masks: Use it when later recordings may have fewer leads than those of the pretraining: every token belongs
    to one lead.

    Weimann's segments: Use it when all recordings have the same leads: one token holds them all, and the student reads
    a fifth of the time.

    After every optimiser step the teacher has to follow the student: [`EcgSslTrainer`] does it; any other loop calls
    [`~EcgJepaForPreTraining.update_teacher`], without which training raises in its third step. With
    `teacher="random"` it stays as it began.

    ```python
    import torch
    from ecg_transformers.modeling import EcgJepaConfig, EcgJepaForPreTraining

    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = EcgJepaForPreTraining(EcgJepaConfig(**size, predictor_hidden_size=48, predictor_num_hidden_layers=1))
    model(torch.randn(2, 8, 2500)).loss.backward()  # 10 s at 250 Hz
    model.update_teacher(momentum=0.996)  # after the step of the optimiser
    ```
    """

    def __init__(self, config: EcgJepaConfig):
        super().__init__(config)
        self.ecg_vit = EcgJepaModel(config)
        if config.evaluated_encoder == "student":
            self.teacher = EcgJepaModel(config)
        else:
            self.student = EcgJepaModel(config)
        self.predictor = EcgJepaPredictor(config)
        self.init_teacher()
        self.post_init()

    @property
    def trained_encoder(self) -> EcgJepaModel:
        """Student f_theta."""
        return self.ecg_vit if self.config.evaluated_encoder == "student" else self.student

    @property
    def target_encoder(self) -> EcgJepaModel:
        """Teacher f_theta-bar."""
        return self.teacher if self.config.evaluated_encoder == "student" else self.ecg_vit

    def train(self, mode: bool = True):
        super().train(mode)
        self.target_encoder.train(mode and self.config.teacher_drop_path)
        return self

    def draw_inputs(self, input_values: torch.Tensor, keys: DrawKeys) -> dict[str, torch.Tensor]:
        """Draws `bool_masked_pos`, `(1, columns)` where all records share a mask, else `(batch_size, columns)`, with
        its indices."""
        return all_on_device(with_indices(self.draw_masks(len(input_values), keys)), input_values.device)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        visible_patches: torch.Tensor | None = None,
        hidden_patches: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EcgJepaForPreTrainingOutput:
        r"""
        input_values, leads, lead_mask: see [`EcgViTModel`].
        bool_masked_pos (`torch.BoolTensor` of shape `(batch_size, columns)` or `(1, columns)`, *optional*):
            `True` = hidden from the student, in all leads at once. [`EcgSslTrainer`] draws it with `draw_inputs`;
            without it the model draws one itself, from a stream of its own.
        visible_patches, hidden_patches (`torch.LongTensor` of shape `(batch_size or 1, columns)`, *optional*):
            Increasing indices of what it leaves visible and hides, as `draw_inputs` gives them.
        """
        drawn = self.draw_missing(input_values, bool_masked_pos=bool_masked_pos)
        self._check_teacher_follows()
        if bool_masked_pos is None:
            visible_patches, hidden_patches = drawn["visible_patches"], drawn["hidden_patches"]
        bool_masked_pos = drawn["bool_masked_pos"].to(input_values.device)
        visible, hidden = self.visible_and_hidden(bool_masked_pos, visible_patches, hidden_patches)
        with torch.no_grad():
            teacher_output = self.target_encoder(input_values, leads=leads, lead_mask=lead_mask)
            states = self.on_grid(teacher_output.last_hidden_state, self.config.num_columns)
            targets = self.take_columns(self.normalize_targets(states, lead_mask), hidden)

        student_output = self.trained_encoder(
            input_values,
            leads=leads,
            lead_mask=lead_mask,
            bool_masked_pos=bool_masked_pos,
            visible_patches=visible,
            **kwargs,
        )
        student_tokens = self.on_grid(student_output.last_hidden_state, visible.shape[1])
        predictions = self.predictor(student_tokens, visible, hidden)
        loss = self.prediction_loss(predictions, targets, lead_mask)
        if self.config.variance_weight or self.config.covariance_weight:
            features = gather_rows(student_output.pooler_output)
            self.check_several_records(len(features))
            variance, covariance = variance_and_covariance(features, POOLED_STD)
            loss = loss + self.config.variance_weight * variance + self.config.covariance_weight * covariance
        return EcgJepaForPreTrainingOutput(
            loss=loss,
            predictions=predictions,
            targets=targets,
            pooler_output=(teacher_output if self.has_teacher else student_output).pooler_output,
            last_hidden_state=student_output.last_hidden_state,
            hidden_states=student_output.hidden_states,
            attentions=student_output.attentions,
        )


# --- initial weights ------------------------------------------------------------------------------------------------


def init_jepa_weights(module: nn.Module, config: EcgJepaConfig):
    """Draws the weights of the predictor and, by `config.initializer`, those in which the two papers differ."""
    std = config.initializer_range
    if isinstance(module, EcgJepaPredictor):
        init.normal_(module.mask_token, mean=0.0, std=std)
        init.copy_(module.position_embeddings, position_table(module.config, module.config.hidden_size)[0])
    if config.initializer != "kim":
        if isinstance(module, EcgJepaPredictor):
            init.trunc_normal_(module.mask_token, std=std)
        elif isinstance(module, EcgViTEmbeddings) and module.config.num_registers:
            init.trunc_normal_(module.register_tokens, std=std)
        elif isinstance(module, EcgViTAttentivePooler):
            init.trunc_normal_(module.query_token, std=std)
    if config.initializer == "weimann" and isinstance(module, nn.Linear):
        # The depth is that of the encoder, in the predictor too.
        depth = 2 * config.num_hidden_layers if isinstance(module, EcgViTBranchOutput) else 1
        init.trunc_normal_(module.weight, std=std / depth**0.5)
    elif config.initializer == "xavier_uniform" and isinstance(module, nn.Linear):
        xavier_uniform_of_fused_(module.weight, 1)


def init_fused_weights(module: nn.Module):
    """Draws with Xavier's bound for the rows of a weight as the authors store it: q, k and v in one matrix, patches as
    a convolution. What a checkpoint has given stays."""
    if isinstance(module, EcgViTAttention):
        for projection in (module.q_proj, module.k_proj, module.v_proj):
            xavier_uniform_of_fused_(projection.weight, 3)
    elif isinstance(module, EcgViTAttentivePooler):
        for projection in (module.k_proj, module.v_proj):
            xavier_uniform_of_fused_(projection.weight, 2)
    elif isinstance(module, EcgViTEmbeddings) and module.config.stem == "linear":
        xavier_uniform_of_fused_(module.projection.weight, module.config.patch_size)


def xavier_uniform_of_fused_(weight: torch.Tensor, parts: int):
    """Draws a `(rows, columns)` weight by Xavier's uniform as one of `parts` equal parts of a taller one."""
    num_rows, num_columns = weight.shape
    init.xavier_uniform_(weight, gain=((num_rows + num_columns) / (parts * num_rows + num_columns)) ** 0.5)
