"""Models, configurations and the feature extractor. Importing this registers them with the Auto classes."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_ecg_conv import EcgConvConfig
from .configuration_ecg_cpc import EcgCpcConfig
from .configuration_ecg_fm import EcgFmConfig
from .configuration_ecg_founder import EcgFounderConfig
from .configuration_ecg_jepa import EcgJepaConfig
from .configuration_ecg_s4 import EcgS4Config
from .configuration_ecg_s4_jepa import EcgS4JepaConfig
from .configuration_ecg_vit import EcgViTConfig
from .configuration_hubert_ecg import HubertEcgConfig
from .configuration_kernel_response import KernelResponseConfig
from .configuration_lejepa import LeJepaConfig
from .configuration_lenepa import EcgLeNepaConfig
from .configuration_sigreg_jepa import SigRegJepaConfig
from .configuration_st_mem import MlaeConfig, MtaeConfig, StMemConfig
from .configuration_untrained import LeadStatisticsConfig, RandomKernelsConfig
from .configuration_vqvae import EcgVqVaeConfig
from .cropa import cross_pattern_attention
from .feature_extraction_ecg import EcgFeatureExtractor
from .modeling_ecg_conv import (
    EcgConvForEmbedding,
    EcgConvForSequenceClassification,
    EcgConvForTokenClassification,
    EcgConvModel,
)
from .modeling_ecg_cpc import (
    EcgCpcForEmbedding,
    EcgCpcForPreTraining,
    EcgCpcForSequenceClassification,
    EcgCpcForTokenClassification,
    EcgCpcModel,
)
from .modeling_ecg_fm import EcgFmForSequenceClassification, EcgFmModel
from .modeling_ecg_founder import EcgFounderForSequenceClassification, EcgFounderModel
from .modeling_ecg_jepa import (
    EcgJepaForEmbedding,
    EcgJepaForPreTraining,
    EcgJepaForSequenceClassification,
    EcgJepaForTokenClassification,
    EcgJepaModel,
)
from .modeling_ecg_s4 import (
    EcgS4ForEmbedding,
    EcgS4ForSequenceClassification,
    EcgS4ForTokenClassification,
    EcgS4Model,
)
from .modeling_ecg_s4_jepa import (
    EcgS4JepaForEmbedding,
    EcgS4JepaForPreTraining,
    EcgS4JepaForSequenceClassification,
    EcgS4JepaForTokenClassification,
    EcgS4JepaModel,
)
from .modeling_ecg_vit import (
    EcgViTForEmbedding,
    EcgViTForSequenceClassification,
    EcgViTForTokenClassification,
    EcgViTModel,
)
from .modeling_hubert_ecg import HubertEcgForSequenceClassification, HubertEcgModel
from .modeling_kernel_response import (
    KernelResponseForEmbedding,
    KernelResponseForPreTraining,
    KernelResponseForSequenceClassification,
    KernelResponseForTokenClassification,
    KernelResponseModel,
)
from .modeling_lejepa import (
    LeJepaForEmbedding,
    LeJepaForPreTraining,
    LeJepaForSequenceClassification,
    LeJepaForTokenClassification,
    LeJepaModel,
)
from .modeling_lenepa import (
    EcgLeNepaForEmbedding,
    EcgLeNepaForPreTraining,
    EcgLeNepaForSequenceClassification,
    EcgLeNepaForTokenClassification,
    EcgLeNepaModel,
)
from .modeling_sigreg_jepa import (
    SigRegJepaForEmbedding,
    SigRegJepaForPreTraining,
    SigRegJepaForSequenceClassification,
    SigRegJepaForTokenClassification,
    SigRegJepaModel,
)
from .modeling_st_mem import (
    MlaeForEmbedding,
    MlaeForPreTraining,
    MlaeForSequenceClassification,
    MlaeForTokenClassification,
    MlaeModel,
    MtaeForEmbedding,
    MtaeForPreTraining,
    MtaeForSequenceClassification,
    MtaeForTokenClassification,
    MtaeModel,
    StMemForEmbedding,
    StMemForPreTraining,
    StMemForSequenceClassification,
    StMemForTokenClassification,
    StMemModel,
)
from .modeling_untrained import LeadStatisticsModel, RandomKernelsModel
from .modeling_vqvae import (
    EcgVqVaeForEmbedding,
    EcgVqVaeForPreTraining,
    EcgVqVaeForSequenceClassification,
    EcgVqVaeForTokenClassification,
    EcgVqVaeModel,
    EcgVqVaeTokenizer,
)
from .pipeline_ecg import EcgClassificationPipeline, EcgFeatureExtractionPipeline

ENCODERS = (
    (EcgS4Config, EcgS4Model, EcgS4ForSequenceClassification, EcgS4ForTokenClassification),
    (EcgConvConfig, EcgConvModel, EcgConvForSequenceClassification, EcgConvForTokenClassification),
    (EcgViTConfig, EcgViTModel, EcgViTForSequenceClassification, EcgViTForTokenClassification),
)
for config, encoder, classifier, token_classifier in ENCODERS:
    AutoConfig.register(config.model_type, config)
    AutoModel.register(config, encoder)
    AutoModelForSequenceClassification.register(config, classifier)
    AutoModelForTokenClassification.register(config, token_classifier)
    AutoFeatureExtractor.register(config, EcgFeatureExtractor)

METHODS = (
    (EcgCpcConfig, EcgCpcModel, EcgCpcForPreTraining, EcgCpcForSequenceClassification, EcgCpcForTokenClassification),
    (
        EcgS4JepaConfig,
        EcgS4JepaModel,
        EcgS4JepaForPreTraining,
        EcgS4JepaForSequenceClassification,
        EcgS4JepaForTokenClassification,
    ),
    (
        EcgLeNepaConfig,
        EcgLeNepaModel,
        EcgLeNepaForPreTraining,
        EcgLeNepaForSequenceClassification,
        EcgLeNepaForTokenClassification,
    ),
    (
        EcgJepaConfig,
        EcgJepaModel,
        EcgJepaForPreTraining,
        EcgJepaForSequenceClassification,
        EcgJepaForTokenClassification,
    ),
    (
        EcgVqVaeConfig,
        EcgVqVaeModel,
        EcgVqVaeForPreTraining,
        EcgVqVaeForSequenceClassification,
        EcgVqVaeForTokenClassification,
    ),
    (
        KernelResponseConfig,
        KernelResponseModel,
        KernelResponseForPreTraining,
        KernelResponseForSequenceClassification,
        KernelResponseForTokenClassification,
    ),
    (LeJepaConfig, LeJepaModel, LeJepaForPreTraining, LeJepaForSequenceClassification, LeJepaForTokenClassification),
    (MlaeConfig, MlaeModel, MlaeForPreTraining, MlaeForSequenceClassification, MlaeForTokenClassification),
    (MtaeConfig, MtaeModel, MtaeForPreTraining, MtaeForSequenceClassification, MtaeForTokenClassification),
    (
        SigRegJepaConfig,
        SigRegJepaModel,
        SigRegJepaForPreTraining,
        SigRegJepaForSequenceClassification,
        SigRegJepaForTokenClassification,
    ),
    (StMemConfig, StMemModel, StMemForPreTraining, StMemForSequenceClassification, StMemForTokenClassification),
)
for config, encoder, pretraining_model, classifier, token_classifier in METHODS:
    AutoConfig.register(config.model_type, config)
    AutoModel.register(config, encoder)
    AutoModelForPreTraining.register(config, pretraining_model)
    AutoModelForSequenceClassification.register(config, classifier)
    AutoModelForTokenClassification.register(config, token_classifier)
    AutoFeatureExtractor.register(config, EcgFeatureExtractor)

PUBLISHED_ENCODERS = (
    (EcgFmConfig, EcgFmModel, EcgFmForSequenceClassification),
    (EcgFounderConfig, EcgFounderModel, EcgFounderForSequenceClassification),
    (HubertEcgConfig, HubertEcgModel, HubertEcgForSequenceClassification),
)
for config, encoder, classifier in PUBLISHED_ENCODERS:
    AutoConfig.register(config.model_type, config)
    AutoModel.register(config, encoder)
    AutoModelForSequenceClassification.register(config, classifier)
    AutoFeatureExtractor.register(config, EcgFeatureExtractor)

for config, encoder in ((RandomKernelsConfig, RandomKernelsModel), (LeadStatisticsConfig, LeadStatisticsModel)):
    AutoConfig.register(config.model_type, config)
    AutoModel.register(config, encoder)
    AutoFeatureExtractor.register(config, EcgFeatureExtractor)

PIPELINE_REGISTRY.register_pipeline(
    "ecg-classification", EcgClassificationPipeline, pt_model=AutoModelForSequenceClassification, type="multimodal"
)
PIPELINE_REGISTRY.register_pipeline(
    "ecg-feature-extraction", EcgFeatureExtractionPipeline, pt_model=AutoModel, type="multimodal"
)

__all__ = [
    "EcgClassificationPipeline",
    "EcgCpcConfig",
    "EcgCpcForEmbedding",
    "EcgCpcForPreTraining",
    "EcgCpcForSequenceClassification",
    "EcgCpcForTokenClassification",
    "EcgCpcModel",
    "EcgConvConfig",
    "EcgConvForEmbedding",
    "EcgConvForSequenceClassification",
    "EcgConvForTokenClassification",
    "EcgConvModel",
    "EcgFeatureExtractionPipeline",
    "EcgFeatureExtractor",
    "EcgFmConfig",
    "EcgFmForSequenceClassification",
    "EcgFmModel",
    "EcgFounderConfig",
    "EcgFounderForSequenceClassification",
    "EcgFounderModel",
    "EcgJepaConfig",
    "EcgJepaForEmbedding",
    "EcgJepaForPreTraining",
    "EcgJepaForSequenceClassification",
    "EcgJepaForTokenClassification",
    "EcgJepaModel",
    "EcgLeNepaConfig",
    "EcgLeNepaForEmbedding",
    "EcgLeNepaForPreTraining",
    "EcgLeNepaForSequenceClassification",
    "EcgLeNepaForTokenClassification",
    "EcgLeNepaModel",
    "EcgS4Config",
    "EcgS4ForEmbedding",
    "EcgS4ForSequenceClassification",
    "EcgS4ForTokenClassification",
    "EcgS4JepaConfig",
    "EcgS4JepaForEmbedding",
    "EcgS4JepaForPreTraining",
    "EcgS4JepaForSequenceClassification",
    "EcgS4JepaForTokenClassification",
    "EcgS4JepaModel",
    "EcgS4Model",
    "EcgViTConfig",
    "EcgViTForEmbedding",
    "EcgViTForSequenceClassification",
    "EcgViTForTokenClassification",
    "EcgViTModel",
    "EcgVqVaeConfig",
    "EcgVqVaeForEmbedding",
    "EcgVqVaeForPreTraining",
    "EcgVqVaeForSequenceClassification",
    "EcgVqVaeForTokenClassification",
    "EcgVqVaeModel",
    "EcgVqVaeTokenizer",
    "HubertEcgConfig",
    "HubertEcgForSequenceClassification",
    "HubertEcgModel",
    "KernelResponseConfig",
    "KernelResponseForEmbedding",
    "KernelResponseForPreTraining",
    "KernelResponseForSequenceClassification",
    "KernelResponseForTokenClassification",
    "KernelResponseModel",
    "LeJepaConfig",
    "LeJepaForEmbedding",
    "LeJepaForPreTraining",
    "LeJepaForSequenceClassification",
    "LeJepaForTokenClassification",
    "LeJepaModel",
    "LeadStatisticsConfig",
    "LeadStatisticsModel",
    "MlaeConfig",
    "MlaeForEmbedding",
    "MlaeForPreTraining",
    "MlaeForSequenceClassification",
    "MlaeForTokenClassification",
    "MlaeModel",
    "MtaeConfig",
    "MtaeForEmbedding",
    "MtaeForPreTraining",
    "MtaeForSequenceClassification",
    "MtaeForTokenClassification",
    "MtaeModel",
    "RandomKernelsConfig",
    "RandomKernelsModel",
    "SigRegJepaConfig",
    "SigRegJepaForEmbedding",
    "SigRegJepaForPreTraining",
    "SigRegJepaForSequenceClassification",
    "SigRegJepaForTokenClassification",
    "SigRegJepaModel",
    "StMemConfig",
    "StMemForEmbedding",
    "StMemForPreTraining",
    "StMemForSequenceClassification",
    "StMemForTokenClassification",
    "StMemModel",
    "cross_pattern_attention",
]
