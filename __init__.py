"""Self-supervised learning on electrocardiograms, native to the Hugging Face ecosystem.

A name is imported when it is first used. A model, the feature extractor, the collator or the Trainer, or [`register`],
makes the models known to the Auto classes and pipelines of `transformers`.
"""

from importlib import import_module

__version__ = "0.1.0"

_MODELS = (
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
    "EcgProcessor",
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
)
_EXPORTS = {
    **dict.fromkeys(_MODELS, "modeling"),
    "EcgDataCollator": "data",
    "EcgSslTrainer": "train",
    "SslTrainingArguments": "train",
    "carried_model": "train.carried_models",
    "compute_metrics": "train.metrics",
    "encode": "train.recordings",
    "explain_recording": "train.explain.recordings",
    "load_ecg": "data",
    "predict": "train.recordings",
    "read_recording": "data",
}

__all__ = ["__version__", "register", *_EXPORTS]


def register():
    """Makes the models known to the Auto classes and the pipelines of `transformers`; more than once does no harm."""
    import_module(".modeling", __name__)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__():
    return sorted({*globals(), *__all__})
