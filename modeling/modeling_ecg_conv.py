"""The purely convolutional encoder, for few recordings and few minutes: a convolutional stem without layers behind it.

It is an [`EcgViTModel`] of no transformer layers, so that leads by name, absent leads, hidden patches, heads and
export are those of all encoders here. Tokens see what their receptive field sees; the whole recording meets in the
pooling: mean, standard deviation, maximum and minimum of each channel, of the fine first stage as well as of the last.
"""

from .configuration_ecg_conv import EcgConvConfig
from .conv_stem import ConvStemBlock
from .modeling_ecg_vit import (
    EcgViTForEmbedding,
    EcgViTForSequenceClassification,
    EcgViTForTokenClassification,
    EcgViTModel,
    EcgViTPreTrainedModel,
)


class EcgConvPreTrainedModel(EcgViTPreTrainedModel):
    config_class = EcgConvConfig
    _can_record_outputs = {"hidden_states": ConvStemBlock}


class EcgConvModel(EcgConvPreTrainedModel, EcgViTModel):
    """The bare encoder; `hidden_states` are those of its blocks, `(batch, time, width)`."""


class EcgConvForSequenceClassification(EcgConvPreTrainedModel, EcgViTForSequenceClassification):
    encoder_class = EcgConvModel


class EcgConvForTokenClassification(EcgConvPreTrainedModel, EcgViTForTokenClassification):
    encoder_class = EcgConvModel


class EcgConvForEmbedding(EcgConvPreTrainedModel, EcgViTForEmbedding):
    encoder_class = EcgConvModel
