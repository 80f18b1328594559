"""ECG-FM (McKeen et al., arXiv 2408.05178) as an encoder: wav2vec 2.0 whose first convolution reads all leads.

Its modules are transformers' own. What differs from speech: twelve input channels instead of one, and four
convolutions of width and stride 2, so that a token stands for 16 samples (32 ms at 500 Hz).
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import Wav2Vec2PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.wav2vec2.modeling_wav2vec2 import (
    Wav2Vec2Encoder,
    Wav2Vec2FeatureEncoder,
    Wav2Vec2FeatureProjection,
)
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_ecg_fm import EcgFmConfig
from .published_encoder import PublishedEncoderMixin, PublishedSequenceClassifier


class EcgFmPreTrainedModel(PublishedEncoderMixin, Wav2Vec2PreTrainedModel):
    config: EcgFmConfig
    config_class = EcgFmConfig
    base_model_prefix = "ecg_fm"
    input_modalities = ("time",)
    admits_missing_leads = True  # random leads were zeros in the pretraining


class EcgFmFeatureEncoder(Wav2Vec2FeatureEncoder):
    """The convolutions, with the leads as channels of the first."""

    def __init__(self, config: EcgFmConfig):
        super().__init__(config)
        self.conv_layers[0].conv = nn.Conv1d(
            len(config.leads), config.conv_dim[0], config.conv_kernel[0], config.conv_stride[0], bias=config.conv_bias
        )

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """`(batch, num_leads, num_samples)` -> `(batch, conv_dim[-1], tokens)`."""
        for conv_layer in self.conv_layers:
            input_values = conv_layer(input_values)
        return input_values


class EcgFmModel(EcgFmPreTrainedModel):
    """The encoder; `pooler_output` is the mean over tokens, which the authors fine-tune on."""

    _keys_to_ignore_on_load_unexpected = [r"^classifier\."]

    def __init__(self, config: EcgFmConfig):
        super().__init__(config)
        self.feature_extractor = EcgFmFeatureEncoder(config)
        self.feature_projection = Wav2Vec2FeatureProjection(config)
        self.encoder = Wav2Vec2Encoder(config)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        r"""
        input_values, leads, lead_mask: see [`~PublishedEncoderMixin.arrange_leads`]. A missing lead is zeros, as in
            the pretraining.

        Returns `last_hidden_state` `(batch_size, tokens, hidden_size)` and `pooler_output` `(batch_size,
        hidden_size)`.
        """
        values = self.arrange_leads(input_values, leads, lead_mask)
        hidden_states, _ = self.feature_projection(self.feature_extractor(values).transpose(1, 2))
        last_hidden_state = self.encoder(hidden_states, **kwargs).last_hidden_state
        return BaseModelOutputWithPooling(
            last_hidden_state=last_hidden_state, pooler_output=last_hidden_state.mean(dim=1)
        )


class EcgFmForSequenceClassification(PublishedSequenceClassifier, EcgFmPreTrainedModel):
    """[`EcgFmModel`] with a linear head on the mean over its tokens."""

    encoder_class = EcgFmModel
