"""Models, configurations and the feature extractor. Importing this registers them with the Auto classes.

A method is a line of `FAMILIES`: the name that its classes begin with, and the ending of the two files that hold its
configuration and its models. What the second file has of `ENDINGS` is public.
"""

from importlib import import_module

import transformers
from transformers.pipelines import PIPELINE_REGISTRY

from .remote_code import AUTO_CLASSES

FAMILIES = {
    "EcgConv": "ecg_conv",
    "EcgCpc": "ecg_cpc",
    "EcgFm": "ecg_fm",
    "EcgFounder": "ecg_founder",
    "EcgJepa": "ecg_jepa",
    "EcgLeNepa": "lenepa",
    "EcgS4": "ecg_s4",
    "EcgS4Jepa": "ecg_s4_jepa",
    "EcgViT": "ecg_vit",
    "EcgVqVae": "vqvae",
    "HubertEcg": "hubert_ecg",
    "KernelResponse": "kernel_response",
    "LeJepa": "lejepa",
    "LeadStatistics": "untrained",
    "Mlae": "st_mem",
    "Mtae": "st_mem",
    "RandomKernels": "untrained",
    "SigRegJepa": "sigreg_jepa",
    "StMem": "st_mem",
}
OTHERS = {
    "EcgClassificationPipeline": "pipeline_ecg",
    "EcgFeatureExtractionPipeline": "pipeline_ecg",
    "EcgFeatureExtractor": "feature_extraction_ecg",
    "EcgProcessor": "feature_extraction_ecg",
    "EcgVqVaeTokenizer": "modeling_vqvae",
    "cross_pattern_attention": "cropa",
}
ENDINGS = {ending: auto_class for auto_class, ending in AUTO_CLASSES.items()} | {"ForEmbedding": None}
"""Ending of the name of a model → the Auto class that loads it."""

__all__ = []


def _take(name: str, module: str):
    """Imports a name of a file beside this one and makes it public."""
    value = globals()[name] = getattr(import_module(f".{module}", __name__), name)
    __all__.append(name)
    return value


for _name, _module in OTHERS.items():
    _take(_name, _module)
for _family, _file in FAMILIES.items():
    _config = _take(f"{_family}Config", f"configuration_{_file}")
    transformers.AutoConfig.register(_config.model_type, _config)
    transformers.AutoFeatureExtractor.register(_config, globals()["EcgFeatureExtractor"])
    transformers.AutoProcessor.register(_config, globals()["EcgProcessor"])
    for _ending, _auto_class in ENDINGS.items():
        if f"{_family}{_ending}" in vars(import_module(f".modeling_{_file}", __name__)):
            _model = _take(f"{_family}{_ending}", f"modeling_{_file}")
            if _auto_class is not None:
                getattr(transformers, _auto_class).register(_config, _model)
__all__.sort()
METHODS = tuple(family for family in FAMILIES if f"{family}ForPreTraining" in __all__)

PIPELINE_REGISTRY.register_pipeline(
    "ecg-classification",
    globals()["EcgClassificationPipeline"],
    pt_model=transformers.AutoModelForSequenceClassification,
    type="multimodal",
)
PIPELINE_REGISTRY.register_pipeline(
    "ecg-feature-extraction",
    globals()["EcgFeatureExtractionPipeline"],
    pt_model=transformers.AutoModel,
    type="multimodal",
)
