"""Models, configurations and the feature extractor, and their registration with the Auto classes.

Importing this registers them as soon as `transformers` is imported too, now or later: until then nothing is loaded
but what is asked for, so that reading recordings takes no seconds. A name of this module imports `transformers`.

A method is a line of `FAMILIES`: the name that its classes begin with, and the ending of the two files that hold its
configuration and its models. Public is what the second file has with an ending of `remote_code.AUTO_CLASSES` or with
`ForEmbedding`.
"""

from importlib import import_module

from .late_import import after_import, import_first

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


def __getattr__(name: str):
    if name == "__all__" or not name.startswith("__"):
        import_module("transformers")  # after which everything is here
        if name in globals():
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _register():
    """Imports the models, makes their names public, and makes them known to the Auto classes and pipelines."""
    import transformers
    from transformers.pipelines import PIPELINE_REGISTRY

    from .remote_code import AUTO_CLASSES

    names, public = globals(), []

    def take(name: str, module: str):
        names[name] = getattr(import_module(f".{module}", __name__), name)
        public.append(name)
        return names[name]

    for name, module in OTHERS.items():
        take(name, module)
    endings = {ending: auto_class for auto_class, ending in AUTO_CLASSES.items()} | {"ForEmbedding": None}
    for family, file in FAMILIES.items():
        config = take(f"{family}Config", f"configuration_{file}")
        transformers.AutoConfig.register(config.model_type, config)
        transformers.AutoFeatureExtractor.register(config, names["EcgFeatureExtractor"])
        transformers.AutoProcessor.register(config, names["EcgProcessor"])
        for ending, auto_class in endings.items():
            if f"{family}{ending}" in vars(import_module(f".modeling_{file}", __name__)):
                model = take(f"{family}{ending}", f"modeling_{file}")
                if auto_class is not None:
                    getattr(transformers, auto_class).register(config, model)
    names["__all__"] = sorted(public)
    names["METHODS"] = tuple(family for family in FAMILIES if f"{family}ForPreTraining" in public)
    for task, pipeline, auto_class in (
        ("ecg-classification", "EcgClassificationPipeline", transformers.AutoModelForSequenceClassification),
        ("ecg-feature-extraction", "EcgFeatureExtractionPipeline", transformers.AutoModel),
    ):
        PIPELINE_REGISTRY.register_pipeline(task, names[pipeline], pt_model=auto_class, type="multimodal")


WITHOUT_TRANSFORMERS = ("input_checks", "input_contract", "lead_plan", "leads", "quality_screen", "recording_input")
WITHOUT_TRANSFORMERS += ("signal_quality",)
import_first("transformers", __name__, but=WITHOUT_TRANSFORMERS)
after_import("transformers", _register)
