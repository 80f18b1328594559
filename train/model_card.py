"""The model card (README.md) of a checkpoint: what it is, what to feed it, how it was made, what it is worth.

Everything is stated from what the run knew: configuration, feature extractor, training facts and probe results.
Nothing is invented: a licence that nobody stated is called unknown, and a checkpoint without results says so.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from transformers import FeatureExtractionMixin, PreTrainedConfig

from .report import (
    ENCODERS,
    PROTOCOLS,
    DataSource,
    format_fact,
    format_interval,
    format_score,
    installed_versions,
    protocols_of,
    small_test_caveat,
    verdict,
)


@dataclass(frozen=True)
class Method:
    """How the weights were made.

    Args:
        name (`str`): Name of the method.
        description (`str`): A sentence or two on how it learns.
        paper (`str`, *optional*): Authors, title and year.
        url (`str`, *optional*): Where the paper is.
    """

    name: str
    description: str
    paper: str | None = None
    url: str | None = None


METHODS = {
    "ecg_jepa": Method(
        name="ECG-JEPA",
        description=(
            "A student encoder sees part of a recording; a predictor has to infer, from it, what a slowly moving "
            "teacher makes of the hidden part. No labels are used and no signal is reconstructed."
        ),
        paper=(
            "Sehun Kim: Learning General Representation of 12-Lead Electrocardiogram with a Joint-Embedding "
            "Predictive Architecture, 2024"
        ),
        url="https://arxiv.org/abs/2410.08559",
    ),
    "ecg_jepa segments": Method(
        name="ECG-JEPA (temporal segments)",
        description=(
            "A student encoder sees a few segments of a recording, all leads at once; a predictor has to infer, from "
            "them, what a slowly moving teacher makes of the hidden time. No labels are used and no signal is "
            "reconstructed."
        ),
        paper=(
            "Kuba Weimann and Tim O. F. Conrad: Self-Supervised Pre-Training with Joint-Embedding Predictive "
            "Architecture Boosts ECG Classification Performance, 2024"
        ),
        url="https://arxiv.org/abs/2410.13867",
    ),
    "lejepa": Method(
        name="LeJEPA",
        description=(
            "Several altered views of a recording have to get the same embedding (invariance), and the embeddings of "
            "all recordings have to look like a standard normal cloud (SIGReg), which keeps them from collapsing. No "
            "teacher and no labels."
        ),
        paper=(
            "Randall Balestriero and Yann LeCun: LeJEPA: Provable and Scalable Self-Supervised Learning Without the "
            "Heuristics, 2025"
        ),
        url="https://arxiv.org/abs/2511.08544",
    ),
    "sigreg_jepa": Method(
        name="Masked JEPA with SIGReg",
        description=(
            "One encoder sees part of a recording, and a predictor has to infer from it what the same encoder makes "
            "of the hidden part; SIGReg keeps the features from collapsing. No teacher and no labels."
        ),
    ),
    "st_mem": Method(
        name="ST-MEM",
        description=(
            "Three quarters of the patches of every lead are hidden; a decoder reconstructs them, lead by lead, from "
            "what the encoder makes of the others."
        ),
        paper=(
            "Yeongyeon Na et al.: Guiding Masked Representation Learning to Capture Spatio-Temporal Relationship of "
            "Electrocardiogram, 2024"
        ),
        url="https://arxiv.org/abs/2402.09450",
    ),
    "mtae": Method(
        name="MTAE, a masked time autoencoder",
        description="Three quarters of the moments are hidden in all leads, and a decoder reconstructs them.",
        paper="Yeongyeon Na et al., 2024 (a baseline of ST-MEM)",
        url="https://arxiv.org/abs/2402.09450",
    ),
    "mlae": Method(
        name="MLAE, a masked lead autoencoder",
        description="Three quarters of the leads are hidden, and a decoder reconstructs them from the others.",
        paper="Yeongyeon Na et al., 2024 (a baseline of ST-MEM)",
        url="https://arxiv.org/abs/2402.09450",
    ),
    "vqvae": Method(
        name="VQ-VAE",
        description=(
            "An encoder turns every moment of a recording into one code of a learned codebook, and a decoder "
            "reconstructs the signal from the codes."
        ),
        paper="Aaron van den Oord et al.: Neural Discrete Representation Learning, 2017",
        url="https://arxiv.org/abs/1711.00937",
    ),
    "ecg_vit": Method(name="ECG vision transformer", description="An encoder of electrocardiograms without a head."),
}


def method_of(config: PreTrainedConfig) -> Method:
    """The method of a model: by its `model_type`, and ECG-JEPA's two by their masks."""
    if config.model_type == "ecg_jepa" and config.mask_type == "segments":
        return METHODS["ecg_jepa segments"]
    return METHODS[config.model_type]


# Settings of the feature extractor that make the input contract, in the order in which they act.
INPUT_CONTRACT = {
    "leads": "Leads, in this order",
    "unit": "Unit",
    "nan_policy": "NaN and infinite samples",
    "sampling_rate": "Sampling rate after resampling (Hz)",
    "resample_to_length": "Whole recording resampled to the length",
    "highpass_hz": "High-pass filter (Hz)",
    "lowpass_hz": "Low-pass filter (Hz)",
    "filter_order": "Order of the filters (Butterworth, zero phase)",
    "derive_limb_leads": "III, aVR, aVL, aVF derived from I and II where missing",
    "missing_leads": "Other missing leads",
    "num_samples": "Length (samples)",
    "long_records": "Window of a longer recording",
    "window_stride_samples": "Distance between windows (samples)",
    "short_records": "Shorter recording",
    "normalization": "Normalisation of a window",
    "lead_means": "Means subtracted, by lead",
    "lead_stds": "Deviations divided by, by lead",
    "clip": "Clipped to ±",
}


def render_model_card(
    config: PreTrainedConfig,
    feature_extractor: FeatureExtractionMixin,
    model_id: str,
    data: DataSource,
    split: str,
    training: Mapping[str, str | int | float],
    comparison: Mapping | None = None,
    task: str | None = None,
    license: str | None = None,
    method: Method | None = None,
    versions: Mapping[str, str] | None = None,
) -> ModelCard:
    """Writes the card of a checkpoint; `card.save("README.md")` puts it beside the weights.

    Args:
        config ([`PreTrainedConfig`]): Configuration of the model.
        feature_extractor ([`EcgFeatureExtractor`]): Saved beside the weights; the input contract is read from it.
        model_id (`str`): Name on the Hub, or folder, that the loading snippet uses.
        data ([`~ecg_transformers.train.report.DataSource`]): The recordings of the pretraining.
        split (`str`): Which of them, for example `"folds 1-8, 398 records of 371 patients"`.
        training (`Mapping`): Facts and arguments of the training by name, for example `{"Learning rate": 1e-3}`.
        comparison (`Mapping`, *optional*): As [`~ecg_transformers.train.probes.compare_with_random`] returns it.
        task (`str`, *optional*): Task and test split of the comparison; needed with it.
        license (`str`, *optional*): Licence of the weights as a Hub id (`"cc-by-4.0"`); `None` says "unknown".
        method ([`Method`], *optional*): By default [`method_of`] the configuration.
        versions (`Mapping[str, str]`, *optional*): Package versions; by default those that are installed.
    """
    if comparison is not None and task is None:
        raise ValueError('Expected the task of the results, such as "PTB-XL superdiagnostic, test fold 10", got None.')
    method = method_of(config) if method is None else method
    environment = Environment(
        loader=PackageLoader("ecg_transformers.train", "."),
        autoescape=False,  # Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"score": format_score, "interval": format_interval, "cell": _cell}
    protocols = [] if comparison is None else protocols_of(comparison)
    body = environment.get_template("model_card_template.md.j2").render(
        config=config,
        model_name=model_id.rstrip("/").rsplit("/", 1)[-1],
        method=method,
        data=data,
        split=split,
        training=training,
        comparison=comparison,
        task=task,
        license=license,
        protocols={name: PROTOCOLS[name] for name in protocols},
        encoders=ENCODERS,
        verdicts={name: verdict(comparison, name) for name in protocols},
        caveats={name: small_test_caveat(comparison["pretrained"][name]) for name in protocols},
        contract=input_contract(feature_extractor),
        snippet=loading_snippet(config, feature_extractor, model_id),
        versions=installed_versions() if versions is None else versions,
    )
    metadata = card_metadata(config, model_id, data, comparison, task, license)
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}")


def card_metadata(
    config: PreTrainedConfig,
    model_id: str,
    data: DataSource,
    comparison: Mapping | None,
    task: str | None,
    license: str | None,
) -> ModelCardData:
    """The YAML header. Results become a model-index, with protocol, interval and random encoder beside each score."""
    results = []
    for protocol in [] if comparison is None else protocols_of(comparison):
        pretrained, random_encoder = comparison["pretrained"][protocol], comparison["random_encoder"][protocol]
        results.append(
            EvalResult(
                task_type="ecg-classification",
                task_name="Multi-label classification of electrocardiograms",
                dataset_type=data.dataset_id or "unknown",
                dataset_name=task,
                metric_type="roc_auc",
                metric_name=f"Macro AUROC ({protocol} protocol)",
                metric_value=round(pretrained["macro_auroc"], 4),
                metric_args={
                    "protocol": protocol,
                    "ci95": [round(bound, 4) for bound in pretrained["macro_auroc_ci95"]],
                    "random_encoder": round(random_encoder["macro_auroc"], 4),
                    "num_test_records": pretrained["num_test_records"],
                },
            )
        )
    licence = {"license": license} if license is not None else {"license": "other", "license_name": "unknown"}
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="feature-extraction",
        tags=["ecg", "electrocardiogram", "self-supervised-learning", config.model_type],
        datasets=None if data.dataset_id is None else [data.dataset_id],
        metrics=["roc_auc"] if results else None,
        model_name=model_id.rstrip("/").rsplit("/", 1)[-1] if results else None,
        eval_results=results or None,
        **licence,
    )


def input_contract(feature_extractor: FeatureExtractionMixin) -> dict[str, str]:
    """What the feature extractor does to a recording, by name; steps that it leaves out are left out."""
    settings = feature_extractor.to_dict()
    settings["normalization"] = settings["normalization"] or "none, amplitudes keep their unit"
    if settings["highpass_hz"] is None and settings["lowpass_hz"] is None:
        settings["filter_order"] = None
    used = {key: settings[key] for key in INPUT_CONTRACT if settings[key] is not None and settings[key] is not False}
    return {INPUT_CONTRACT[key]: _describe(value) for key, value in used.items()}


def loading_snippet(config: PreTrainedConfig, feature_extractor: FeatureExtractionMixin, model_id: str) -> str:
    """Python that loads the encoder and embeds one recording; it runs as it stands (a test does it)."""
    leads, sampling_rate = json.dumps(list(feature_extractor.leads)), feature_extractor.sampling_rate
    num_samples, unit = feature_extractor.num_samples, feature_extractor.unit
    return f'''import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModel

model_id = "{model_id}"
feature_extractor = AutoFeatureExtractor.from_pretrained(model_id, trust_remote_code=True)
model = AutoModel.from_pretrained(model_id, trust_remote_code=True).eval()

# Put your recording here: (num_leads, num_samples), with its own sampling rate, leads and unit.
signal = 0.1 * np.random.default_rng(0).normal(size=({len(feature_extractor.leads)}, {num_samples})).astype("float32")
leads = {leads}
inputs = feature_extractor(signal, sampling_rate={sampling_rate:g}, leads=leads, unit="{unit}", return_tensors="pt")
with torch.inference_mode():
    features = model(**inputs).pooler_output  # (1, {config.pooled_size})
'''


def _describe(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_describe(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(value) -> str:
    """A value as the cell of a Markdown table: one line, no bar."""
    return format_fact(value).replace("|", "\\|").replace("\n", " ")
