"""HuBERT-ECG (Coppola et al., medRxiv 2024.11.14.24317328) as an encoder: transformers' HuBERT on the leads of a
recording, one after the other in one sequence."""

from collections.abc import Sequence

import torch
from transformers import HubertModel, HubertPreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import can_return_tuple

from .configuration_hubert_ecg import HubertEcgConfig
from .published_encoder import PublishedEncoderMixin, PublishedSequenceClassifier


class HubertEcgPreTrainedModel(PublishedEncoderMixin, HubertPreTrainedModel):
    config: HubertEcgConfig
    config_class = HubertEcgConfig
    base_model_prefix = "hubert_ecg"
    input_modalities = ("time",)


class HubertEcgModel(HubertEcgPreTrainedModel, HubertModel):
    """The encoder; `pooler_output` is the mean over tokens, which the authors fine-tune on.

    Tokens run lead by lead, at 100 Hz one for 0.64 s; those at the seams see the end of one lead and the start of the
    next, as in the authors' training.
    """

    _keys_to_ignore_on_load_unexpected = [r"^classifier\."]

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        r"""
        input_values, leads, lead_mask: see [`~PublishedEncoderMixin.arrange_leads`]. A missing lead is refused.

        Returns `last_hidden_state` `(batch_size, tokens, hidden_size)` and `pooler_output` `(batch_size,
        hidden_size)`.
        """
        values = self.arrange_leads(input_values, leads, lead_mask)
        outputs = super().forward(values.flatten(1), **kwargs | {"return_dict": True})
        return BaseModelOutputWithPooling(
            last_hidden_state=outputs.last_hidden_state,
            pooler_output=outputs.last_hidden_state.mean(dim=1),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class HubertEcgForSequenceClassification(PublishedSequenceClassifier, HubertEcgPreTrainedModel):
    """[`HubertEcgModel`] with a linear head on the mean over its tokens."""

    encoder_class = HubertEcgModel
