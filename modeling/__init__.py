"""Models, configurations and the feature extractor. Importing this registers them with the Auto classes."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
)

from .configuration_ecg_jepa import EcgJepaConfig
from .configuration_ecg_vit import EcgViTConfig
from .cropa import cross_pattern_attention
from .feature_extraction_ecg import EcgFeatureExtractor
from .modeling_ecg_jepa import (
    EcgJepaForEmbedding,
    EcgJepaForPreTraining,
    EcgJepaForSequenceClassification,
    EcgJepaModel,
)
from .modeling_ecg_vit import EcgViTForEmbedding, EcgViTForSequenceClassification, EcgViTModel

AutoConfig.register("ecg_vit", EcgViTConfig)
AutoModel.register(EcgViTConfig, EcgViTModel)
AutoModelForSequenceClassification.register(EcgViTConfig, EcgViTForSequenceClassification)
AutoFeatureExtractor.register(EcgViTConfig, EcgFeatureExtractor)

AutoConfig.register("ecg_jepa", EcgJepaConfig)
AutoModel.register(EcgJepaConfig, EcgJepaModel)
AutoModelForPreTraining.register(EcgJepaConfig, EcgJepaForPreTraining)
AutoModelForSequenceClassification.register(EcgJepaConfig, EcgJepaForSequenceClassification)
AutoFeatureExtractor.register(EcgJepaConfig, EcgFeatureExtractor)

__all__ = [
    "EcgFeatureExtractor",
    "EcgJepaConfig",
    "EcgJepaForEmbedding",
    "EcgJepaForPreTraining",
    "EcgJepaForSequenceClassification",
    "EcgJepaModel",
    "EcgViTConfig",
    "EcgViTForEmbedding",
    "EcgViTForSequenceClassification",
    "EcgViTModel",
    "cross_pattern_attention",
]
