"""Models, configurations and the feature extractor. Importing this registers them with the Auto classes.

A method is a line of `METHODS`: the name that its classes begin with, and the ending of the files that hold its
configuration and its models.
"""

from importlib import import_module

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

METHODS = {
    "EcgCpc": "ecg_cpc",
    "EcgJepa": "ecg_jepa",
    "EcgLeNepa": "lenepa",
    "EcgS4Jepa": "ecg_s4_jepa",
    "EcgVqVae": "vqvae",
    "KernelResponse": "kernel_response",
    "LeJepa": "lejepa",
    "Mlae": "st_mem",
    "Mtae": "st_mem",
    "SigRegJepa": "sigreg_jepa",
    "StMem": "st_mem",
}
ENCODERS = {"EcgConv": "ecg_conv", "EcgS4": "ecg_s4", "EcgViT": "ecg_vit"}
PUBLISHED_ENCODERS = {"EcgFm": "ecg_fm", "EcgFounder": "ecg_founder", "HubertEcg": "hubert_ecg"}
UNTRAINED_ENCODERS = {"LeadStatistics": "untrained", "RandomKernels": "untrained"}
OTHERS = {
    "EcgClassificationPipeline": "pipeline_ecg",
    "EcgFeatureExtractionPipeline": "pipeline_ecg",
    "EcgFeatureExtractor": "feature_extraction_ecg",
    "EcgProcessor": "feature_extraction_ecg",
    "EcgVqVaeTokenizer": "modeling_vqvae",
    "cross_pattern_attention": "cropa",
}

AUTO_CLASSES = {
    "Model": AutoModel,
    "ForPreTraining": AutoModelForPreTraining,
    "ForSequenceClassification": AutoModelForSequenceClassification,
    "ForTokenClassification": AutoModelForTokenClassification,
    "ForEmbedding": None,
}
"""The Auto class of a model, by the end of its name."""
HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForEmbedding")
KINDS = (
    (METHODS, ("Model", "ForPreTraining", *HEADS)),
    (ENCODERS, ("Model", *HEADS)),
    (PUBLISHED_ENCODERS, ("Model", "ForSequenceClassification")),
    (UNTRAINED_ENCODERS, ("Model",)),
)

__all__ = []


def _take(name: str, module: str):
    """Imports a name of a file beside this one and makes it public."""
    value = globals()[name] = getattr(import_module(f".{module}", __name__), name)
    __all__.append(name)
    return value


for _name, _module in OTHERS.items():
    _take(_name, _module)
for _families, _endings in KINDS:
    for _family, _module in _families.items():
        _config = _take(f"{_family}Config", f"configuration_{_module}")
        AutoConfig.register(_config.model_type, _config)
        AutoFeatureExtractor.register(_config, globals()["EcgFeatureExtractor"])
        AutoProcessor.register(_config, globals()["EcgProcessor"])
        for _ending in _endings:
            _model = _take(f"{_family}{_ending}", f"modeling_{_module}")
            if AUTO_CLASSES[_ending] is not None:
                AUTO_CLASSES[_ending].register(_config, _model)
__all__.sort()

PIPELINE_REGISTRY.register_pipeline(
    "ecg-classification",
    globals()["EcgClassificationPipeline"],
    pt_model=AutoModelForSequenceClassification,
    type="multimodal",
)
PIPELINE_REGISTRY.register_pipeline(
    "ecg-feature-extraction", globals()["EcgFeatureExtractionPipeline"], pt_model=AutoModel, type="multimodal"
)
