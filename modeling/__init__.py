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
from .configuration_lejepa import LeJepaConfig
from .configuration_sigreg_jepa import SigRegJepaConfig
from .configuration_st_mem import MlaeConfig, MtaeConfig, StMemConfig
from .configuration_vqvae import EcgVqVaeConfig
from .cropa import cross_pattern_attention
from .feature_extraction_ecg import EcgFeatureExtractor
from .modeling_ecg_jepa import (
    EcgJepaForEmbedding,
    EcgJepaForPreTraining,
    EcgJepaForSequenceClassification,
    EcgJepaModel,
)
from .modeling_ecg_vit import EcgViTForEmbedding, EcgViTForSequenceClassification, EcgViTModel
from .modeling_lejepa import LeJepaForEmbedding, LeJepaForPreTraining, LeJepaForSequenceClassification, LeJepaModel
from .modeling_sigreg_jepa import (
    SigRegJepaForEmbedding,
    SigRegJepaForPreTraining,
    SigRegJepaForSequenceClassification,
    SigRegJepaModel,
)
from .modeling_st_mem import (
    MlaeForEmbedding,
    MlaeForPreTraining,
    MlaeForSequenceClassification,
    MlaeModel,
    MtaeForEmbedding,
    MtaeForPreTraining,
    MtaeForSequenceClassification,
    MtaeModel,
    StMemForEmbedding,
    StMemForPreTraining,
    StMemForSequenceClassification,
    StMemModel,
)
from .modeling_vqvae import (
    EcgVqVaeForEmbedding,
    EcgVqVaeForPreTraining,
    EcgVqVaeForSequenceClassification,
    EcgVqVaeModel,
    EcgVqVaeTokenizer,
)

AutoConfig.register("ecg_vit", EcgViTConfig)
AutoModel.register(EcgViTConfig, EcgViTModel)
AutoModelForSequenceClassification.register(EcgViTConfig, EcgViTForSequenceClassification)
AutoFeatureExtractor.register(EcgViTConfig, EcgFeatureExtractor)

METHODS = (
    (EcgJepaConfig, EcgJepaModel, EcgJepaForPreTraining, EcgJepaForSequenceClassification),
    (EcgVqVaeConfig, EcgVqVaeModel, EcgVqVaeForPreTraining, EcgVqVaeForSequenceClassification),
    (LeJepaConfig, LeJepaModel, LeJepaForPreTraining, LeJepaForSequenceClassification),
    (MlaeConfig, MlaeModel, MlaeForPreTraining, MlaeForSequenceClassification),
    (MtaeConfig, MtaeModel, MtaeForPreTraining, MtaeForSequenceClassification),
    (SigRegJepaConfig, SigRegJepaModel, SigRegJepaForPreTraining, SigRegJepaForSequenceClassification),
    (StMemConfig, StMemModel, StMemForPreTraining, StMemForSequenceClassification),
)
for config, encoder, pretraining_model, classifier in METHODS:
    AutoConfig.register(config.model_type, config)
    AutoModel.register(config, encoder)
    AutoModelForPreTraining.register(config, pretraining_model)
    AutoModelForSequenceClassification.register(config, classifier)
    AutoFeatureExtractor.register(config, EcgFeatureExtractor)

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
    "EcgVqVaeConfig",
    "EcgVqVaeForEmbedding",
    "EcgVqVaeForPreTraining",
    "EcgVqVaeForSequenceClassification",
    "EcgVqVaeModel",
    "EcgVqVaeTokenizer",
    "LeJepaConfig",
    "LeJepaForEmbedding",
    "LeJepaForPreTraining",
    "LeJepaForSequenceClassification",
    "LeJepaModel",
    "MlaeConfig",
    "MlaeForEmbedding",
    "MlaeForPreTraining",
    "MlaeForSequenceClassification",
    "MlaeModel",
    "MtaeConfig",
    "MtaeForEmbedding",
    "MtaeForPreTraining",
    "MtaeForSequenceClassification",
    "MtaeModel",
    "SigRegJepaConfig",
    "SigRegJepaForEmbedding",
    "SigRegJepaForPreTraining",
    "SigRegJepaForSequenceClassification",
    "SigRegJepaModel",
    "StMemConfig",
    "StMemForEmbedding",
    "StMemForPreTraining",
    "StMemForSequenceClassification",
    "StMemModel",
    "cross_pattern_attention",
]
