"""Base of the encoders of other authors. Common with ours are leads by name, a stated rate and length, and code that
ships with the weights.

Their structure is fixed: all leads go into one sequence or one convolution, each at its place. Nothing can be left
out of attention here, so a missing lead is zeros where the authors trained with such zeros, and refused otherwise.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from .calibration import CalibratedModelMixin, check_calibration
from .checked_config import CheckedConfigMixin
from .leads import canonical_leads, lead_indices
from .remote_code import ShippedModelMixin


class PublishedEncoderConfigMixin(CheckedConfigMixin):
    """Base of a configuration with `leads`, `sampling_rate` (Hz), `num_samples`, `hidden_size` and `calibration`."""

    def __post_init__(self, **kwargs):
        """Brings `leads` to their names and refuses an input or a calibration that cannot be."""
        self.leads = canonical_leads(self.leads)
        self.check_fields()
        if not self.leads or self.num_samples < 1 or self.num_hidden_layers < 0:
            raise ValueError(
                "Expected a lead, num_samples of at least 1 and num_hidden_layers of 0 or more, got "
                f"{list(self.leads)}, {self.num_samples} and {self.num_hidden_layers}."
            )
        check_calibration(self.calibration)
        super().__post_init__(**kwargs)

    @property
    def pooled_size(self) -> int:
        """Width of `pooler_output`."""
        return self.hidden_size


class PublishedEncoderMixin(ShippedModelMixin, CalibratedModelMixin):
    """Base of their models, which arranges leads and forgets a calibration that no longer holds."""

    admits_missing_leads = False
    """Whether zeros stand for a missing lead, as in the authors' training."""

    def has_weight_decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Matrices and kernels decay; biases and norms do not."""
        return parameter.ndim > 1 and "bias" not in name

    def arrange_leads(
        self, input_values: torch.Tensor | None, leads: Sequence[str] | None, lead_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Puts every lead of `config.leads` at its place, `(batch, num_leads, num_samples)`.

        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, num_leads, num_samples)`):
                Output of the feature extractor, leads in the order of `config.leads`.
            leads (`Sequence[str]`, *optional*): Names of the rows of this batch where they are not `config.leads`.
            lead_mask (`torch.BoolTensor` of shape `(batch_size, num_leads)`, *optional*):
                `True` where a lead was recorded.

        Raises:
            ValueError: for another shape, an unknown lead, or a missing one that the model cannot do without.
        """
        config: PreTrainedConfig = self.config
        rows = config.leads if leads is None else canonical_leads(leads)
        expected = (len(rows), config.num_samples)
        if input_values is None or input_values.ndim != 3 or tuple(input_values.shape[1:]) != expected:
            raise ValueError(
                f"Expected input_values of shape (batch, {expected[0]}, {expected[1]}) for the leads {list(rows)} at "
                f"{config.sampling_rate:g} Hz, got {None if input_values is None else tuple(input_values.shape)}."
            )
        places = lead_indices(rows, config.leads)
        missing = [lead for lead in config.leads if lead not in rows]
        if lead_mask is not None and not lead_mask.all():
            missing += [lead for lead, kept in zip(rows, lead_mask.all(dim=0).tolist(), strict=True) if not kept]
        if missing and not self.admits_missing_leads:
            raise ValueError(
                f"{type(self).__name__} was never trained without a lead; {missing} are missing. Leave these "
                "recordings out, or take a model that admits missing leads."
            )
        values = input_values.to(self.dtype)
        if lead_mask is not None:
            values = values.masked_fill(~lead_mask[..., None], 0.0)
        if places == list(range(len(config.leads))):
            return values
        arranged = values.new_zeros(len(values), len(config.leads), config.num_samples)
        return arranged.index_copy(1, torch.tensor(places, device=values.device), values)


class PublishedSequenceClassifier(PublishedEncoderMixin):
    """A linear head on `pooler_output`, as the authors fine-tune; the encoder is `base_model`.

    `config.problem_type` decides the loss: `"multi_label_classification"`, `"single_label_classification"` or
    `"regression"`.
    """

    encoder_class: type

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.add_module(self.base_model_prefix, self.encoder_class(config))
        self.classifier = nn.Linear(config.pooled_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        r"""
        input_values, leads, lead_mask: see the encoder.
        labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
            Class indices, float multi-hot vectors or targets of a regression, by `config.problem_type`.
        """
        outputs: BaseModelOutputWithPooling = self.base_model(input_values, leads=leads, lead_mask=lead_mask, **kwargs)
        logits = self.classifier(outputs.pooler_output)
        self.forget_calibration_in_training()
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
