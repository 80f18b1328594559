"""JEPA on a state-space encoder: from a recording with hidden blocks, predict the teacher's hidden states of these.

One of the five objectives that Al-Masud, Lopez Alcaraz and Strodthoff compare on one encoder (arXiv 2605.12241). After
the stem, the tokens of hidden blocks are replaced by one learned vector; the student reads the whole sequence, since a
state that skipped tokens would have another time. A predictor (a bidirectional state-space layer and a linear)
gives, at the hidden tokens, the layer-normed hidden states of the teacher; SmoothL1, a mean over the hidden tokens of
each record.

Where we differ from the authors' released code, by purpose: **the teacher follows.** Theirs looks the teacher's
weights up under names that its student does not have, so that nothing is ever copied and the teacher stays at its own
initial weights; `teacher="random"` is that, as a control. Further: each hidden block is 15 to 20 % long (a minimum of
64 tokens overrides that there), may lie at the very end, and counts once where blocks overlap; what is not hidden is
context; masks are keyed by (seed, epoch, record); and the teacher has no dropout. Its batch norms take the statistics
of the batch in training, as theirs do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .collectives import mean_over_records
from .configuration_ecg_s4_jepa import EcgS4JepaConfig
from .masking import DrawKeys, all_on_device, sample_multi_block_mask
from .modeling_ecg_s4 import EcgS4Layer, EcgS4Linear, EcgS4Model, EcgS4PreTrainedModel
from .modeling_ecg_vit import EcgViTForEmbedding, EcgViTForSequenceClassification, EcgViTForTokenClassification
from .pretraining import PretrainingMixin, PretrainingOutput
from .teacher import TeacherStudentMixin


@dataclass
class EcgS4JepaForPreTrainingOutput(PretrainingOutput):
    """
    Args:
        predictions (`torch.FloatTensor` of shape `(batch_size, tokens, hidden_size)`): Predictions at all tokens.
        targets (`torch.FloatTensor` of the same shape): The teacher's hidden states, layer-normed, without gradient.
        others: See [`PretrainingOutput`]. `last_hidden_state` is the student's; `pooler_output` the teacher's or, with
            a `"random"` teacher, the student's of the record with hidden blocks.
    """

    predictions: torch.FloatTensor | None = None
    targets: torch.FloatTensor | None = None


class EcgS4JepaPreTrainedModel(EcgS4PreTrainedModel):
    config_class = EcgS4JepaConfig
    _keys_to_ignore_on_load_unexpected = [r"^(teacher|predictor)\."]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, EcgS4JepaPredictor):
            init.normal_(module.mask_token)


class EcgS4JepaModel(EcgS4JepaPreTrainedModel, EcgS4Model):
    """The encoder of a checkpoint of JEPA on state spaces."""


class EcgS4JepaForSequenceClassification(EcgS4JepaPreTrainedModel, EcgViTForSequenceClassification):
    encoder_class = EcgS4JepaModel


class EcgS4JepaForTokenClassification(EcgS4JepaPreTrainedModel, EcgViTForTokenClassification):
    encoder_class = EcgS4JepaModel


class EcgS4JepaForEmbedding(EcgS4JepaPreTrainedModel, EcgViTForEmbedding):
    encoder_class = EcgS4JepaModel


class EcgS4JepaPredictor(nn.Module):
    """The vector that stands for what is hidden, and what fills it in."""

    def __init__(self, config: EcgS4JepaConfig):
        super().__init__()
        self.mask_token = nn.Parameter(torch.empty(config.hidden_size))
        self.layer = EcgS4Layer(config, bidirectional=True, state_size=config.predictor_state_size)
        self.projection = EcgS4Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.projection(self.layer(hidden_states))


class EcgS4JepaForPreTraining(TeacherStudentMixin, PretrainingMixin, EcgS4JepaPreTrainedModel):
    """Student, teacher and predictor; the student is evaluated. [`EcgSslTrainer`] moves the teacher after each step,
    any other loop calls [`~EcgS4JepaForPreTraining.update_teacher`].

    Use it when recordings are long or of many lengths: time and memory grow linearly with the length.

    ```python
    import torch
    from ecg_transformers.modeling import EcgS4JepaConfig, EcgS4JepaForPreTraining

    config = EcgS4JepaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, predictor_state_size=8)
    model = EcgS4JepaForPreTraining(config)
    model(torch.randn(2, 12, 600)).loss.backward()
    model.update_teacher(0.9996)
    ```
    """

    def __init__(self, config: EcgS4JepaConfig):
        super().__init__(config)
        self.ecg_vit = EcgS4JepaModel(config)
        self.teacher = EcgS4JepaModel(config)
        self.predictor = EcgS4JepaPredictor(config)
        self.init_teacher()
        self.post_init()

    @property
    def trained_encoder(self) -> EcgS4JepaModel:
        """The student."""
        return self.ecg_vit

    @property
    def target_encoder(self) -> EcgS4JepaModel:
        """The teacher."""
        return self.teacher

    def train(self, mode: bool = True):
        super().train(mode)
        self.teacher.eval()
        self.teacher.embeddings.train(mode)  # batch statistics
        return self

    def draw_inputs(self, input_values: torch.Tensor, keys: DrawKeys) -> dict[str, torch.Tensor]:
        """The hidden blocks of each record, its own: `bool_masked_pos` of shape `(batch_size, tokens)`."""
        config = self.config
        num_tokens = -(-input_values.shape[-1] // config.patch_size)
        masks = [
            sample_multi_block_mask(num_tokens, config.mask_ratio, config.num_mask_blocks, generator)
            for generator in self.generators_of_records(keys, "mask", len(input_values))
        ]
        mask = torch.stack(masks)
        return all_on_device({"bool_masked_pos": mask, "num_hidden": _num_hidden(mask)}, input_values.device)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        num_hidden: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EcgS4JepaForPreTrainingOutput:
        r"""
        input_values, leads, lead_mask: see [`EcgS4Model`].
        bool_masked_pos (`torch.BoolTensor` of shape `(batch_size, tokens)`, *optional*):
            `True` = hidden from the student. [`EcgSslTrainer`] draws it with `draw_inputs`; without it the model draws
            one itself: always the same in evaluation, others each time in training.
        num_hidden (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
            Number of its hidden tokens, 1 or more, as `draw_inputs` gives it.
        """
        drawn = self.draw_missing(input_values, bool_masked_pos=bool_masked_pos)
        bool_masked_pos, num_hidden = drawn["bool_masked_pos"], drawn.get("num_hidden", num_hidden)
        self._check_teacher_follows()
        hidden = bool_masked_pos.to(input_values.device).expand(len(input_values), -1)
        num_hidden = _num_hidden(hidden) if num_hidden is None else num_hidden
        with torch.no_grad():
            teacher_output = self.teacher(input_values, leads=leads, lead_mask=lead_mask)
            targets = teacher_output.last_hidden_state.float()
            targets = nn.functional.layer_norm(targets, targets.shape[-1:], eps=1e-5)
        student_output = self.ecg_vit(
            input_values,
            leads=leads,
            lead_mask=lead_mask,
            bool_masked_pos=hidden,
            mask_token=self.predictor.mask_token,
            **kwargs,
        )
        predictions = self.predictor(student_output.last_hidden_state)
        errors = nn.functional.smooth_l1_loss(predictions.float(), targets, reduction="none").mean(dim=2)
        losses = torch.where(hidden, errors, 0.0).sum(dim=1) / num_hidden
        return EcgS4JepaForPreTrainingOutput(
            loss=mean_over_records(losses),
            predictions=predictions,
            targets=targets,
            pooler_output=(teacher_output if self.has_teacher else student_output).pooler_output,
            last_hidden_state=student_output.last_hidden_state,
            hidden_states=student_output.hidden_states,
        )


def _num_hidden(bool_masked_pos: torch.Tensor) -> torch.LongTensor:
    """Hidden tokens of each record; the host waits for them."""
    num_hidden = bool_masked_pos.sum(dim=1)
    if not num_hidden.all():
        raise ValueError("bool_masked_pos hides nothing of a record, so that nothing can be predicted of it.")
    return num_hidden
