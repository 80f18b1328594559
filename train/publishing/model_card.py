"""The model card (README.md) of a checkpoint: what it is, what to feed it, how it was made, what it is worth.

Everything is stated from what the run knew: configuration, feature extractor, training facts and probe results.
Nothing is invented: a licence that nobody stated is called unknown, and a checkpoint without results says so.
"""

import json
from collections.abc import Mapping

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment
from transformers import FeatureExtractionMixin, PreTrainedConfig, Trainer

from ecg_transformers.data.corpus import DataSource
from ecg_transformers.modeling import EcgJepaForPreTraining

from ..methods import Method, method_of
from ..results import (
    ENCODERS,
    PROTOCOLS,
    REGRESSION,
    SINGLE_LABEL,
    format_fact,
    format_interval,
    format_score,
    installed_versions,
    small_test_caveat,
    verdict,
)
from .licences import data_licence_line, hub_licence, is_settled, licence_section
from .model_index import evaluation_results, score_key
from .run_costs import RunCosts
from .templates import template_environment

DATA_LICENCE_KEY = "training_data_license"
"""In the header of a card, beside `license`, which is that of the weights."""
NO_RESULTS = "No results were measured for this checkpoint."


# Settings of the feature extractor that make the input contract, in the order in which they act.
INPUT_CONTRACT = {
    "leads": "Leads, in this order",
    "unit": "Unit",
    "nan_policy": "NaN and infinite samples",
    "sampling_rate": "Sampling rate after resampling (Hz)",
    "resample_to_length": "Whole recording resampled to the length",
    "notch_hz": "Notch (Hz)",
    "highpass_hz": "High-pass filter (Hz)",
    "lowpass_hz": "Low-pass filter (Hz)",
    "filter_order": "Order of the filters (Butterworth, zero phase)",
    "median_baseline_seconds": "Running median subtracted (s)",
    "derive_limb_leads": "III, aVR, aVL, aVF derived from I and II where missing",
    "missing_leads": "Other missing leads",
    "num_samples": "Length (samples)",
    "long_records": "Window of a longer recording",
    "window_stride_samples": "Distance between windows (samples)",
    "short_records": "Shorter recording",
    "normalization": "Normalisation of a window",
    "normalize_recordings": "Whole recordings normalised, before windows are cut",
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
    costs: RunCosts | None = None,
) -> ModelCard:
    """Writes the card of a checkpoint; `card.save("README.md")` puts it beside the weights.

    Args:
        config ([`PreTrainedConfig`]): Configuration of the model.
        feature_extractor ([`EcgFeatureExtractor`]): Saved beside the weights; the input contract is read from it.
        model_id (`str`): Name on the Hub, or folder, that the loading snippet uses.
        data ([`~ecg_transformers.data.corpus.DataSource`]): The recordings of the pretraining.
        split (`str`): Which of them, for example `"folds 1-8, 398 records of 371 patients"`.
        training (`Mapping`): Facts and arguments of the training by name, for example `{"Learning rate": 1e-3}`.
        comparison (`Mapping`, *optional*): As `compare_with_random` returns it.
        task (`str`, *optional*): Task and test split of the comparison; needed with it.
        license (`str`, *optional*): Licence of the weights as a Hub id (`"cc-by-4.0"`); `None` says "unknown".
        method ([`Method`], *optional*): By default [`method_of`] the configuration.
        versions (`Mapping[str, str]`, *optional*): Package versions; by default those that are installed.
        costs ([`RunCosts`], *optional*): Time, hardware and carbon of the training; `None` says "not recorded".
    """
    if comparison is not None and task is None:
        raise ValueError('Expected the task of the results, such as "PTB-XL superdiagnostic, test fold 10", got None.')
    method = method_of(config) if method is None else method
    body = (
        card_environment()
        .get_template("model_card_template.md.j2")
        .render(
            config=config,
            model_name=model_id.rstrip("/").rsplit("/", 1)[-1],
            method=method,
            data=data,
            split=split,
            training=training,
            comparison=comparison,
            task=task,
            data_licence=data_licence_line(data.licence),
            licences=licence_section(data.licence, license),
            costs=costs,
            contract=input_contract(feature_extractor),
            snippet=loading_snippet(config, feature_extractor, model_id),
            versions=installed_versions() if versions is None else versions,
        )
    )
    results = [] if comparison is None else evaluation_results(comparison, data.dataset_id, task)
    tags = ["ecg", "electrocardiogram", "self-supervised-learning", config.model_type]
    metadata = card_metadata(
        model_id, tags, data, license, results, {} if costs is None else costs.metadata(), "feature-extraction"
    )
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}")


def card_environment() -> Environment:
    """Where the templates of cards are rendered: as Markdown, with nothing left undefined."""
    environment = template_environment("ecg_transformers.train.publishing", autoescape=False)
    environment.filters |= {"score": format_score, "interval": format_interval, "cell": _cell}
    environment.filters |= {"score_key": score_key, "verdict": verdict, "caveat": small_test_caveat}
    environment.globals |= {"protocols": PROTOCOLS, "encoders": ENCODERS, "no_results": NO_RESULTS}
    return environment


def card_metadata(
    model_id: str,
    tags: list[str],
    data: DataSource,
    license: str | None,
    results: list[EvalResult],
    more: Mapping,
    pipeline_tag: str | None = None,
) -> ModelCardData:
    """The YAML header. Results become a model-index, with protocol, interval and random encoder beside each score."""
    data_licence = {DATA_LICENCE_KEY: data.licence} if is_settled(data.licence) else {}
    kinds = {result.metric_type for result in results}
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=pipeline_tag,
        tags=tags,
        datasets=None if data.dataset_id is None else [data.dataset_id],
        metrics=sorted(kinds) or None,
        model_name=model_id.rstrip("/").rsplit("/", 1)[-1] if results else None,
        eval_results=results or None,
        **hub_licence(license),
        **data_licence,
        **more,
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


def render_finetuned_card(
    config: PreTrainedConfig,
    feature_extractor: FeatureExtractionMixin,
    model_id: str,
    start: str,
    data: DataSource,
    metrics: Mapping | None = None,
    sizes: Mapping[str, int] | None = None,
    license: str | None = None,
    costs: RunCosts | None = None,
) -> ModelCard:
    """Writes the card; `card.save("README.md")` puts it beside the weights.

    Args:
        config ([`PreTrainedConfig`]), feature_extractor ([`EcgFeatureExtractor`]): Of the classifier.
        model_id (`str`): Name on the Hub, or folder, that the loading snippet uses.
        start (`str`): Name of the checkpoint that it was fine-tuned from.
        data ([`~ecg_transformers.data.corpus.DataSource`]): The labelled recordings.
        metrics (`Mapping`, *optional*):
            As `metrics.json` of `ecg-transformers finetune` has them; `None` while the training goes on.
        sizes (`Mapping[str, int]`, *optional*): Records of each split; needed with `metrics`.
        license (`str`, *optional*): Licence of the weights as a Hub id; `None` says "unknown".
        costs ([`RunCosts`], *optional*): Time, hardware and carbon of the training; `None` says "not recorded".
    """
    facts = {} if metrics is None else metrics["training"]
    left_out = ("unlabelled_records", "unlabelled_left_out", "not_judged_records", "copies_left_out")
    body = (
        card_environment()
        .get_template("finetuned_card_template.md.j2")
        .render(
            model_name=model_id.rstrip("/").rsplit("/", 1)[-1],
            start=start,
            method=method_of(config),
            data=data,
            metrics=metrics,
            label_names=list(config.id2label.values()),
            regression=config.problem_type == REGRESSION,
            single_label=config.problem_type == SINGLE_LABEL,
            frozen=bool(facts.get("frozen_encoder")),
            sizes=sizes,
            contract=input_contract(feature_extractor),
            snippet=classifier_snippet(config, feature_extractor, model_id),
            training={
                key.replace("_", " ").capitalize(): value for key, value in facts.items() if key not in left_out
            },
            versions=installed_versions() if metrics is None else metrics["versions"],
            data_licence=data_licence_line(data.licence),
            licences=licence_section(data.licence, license),
            costs=costs,
        )
    )
    results = [] if metrics is None else evaluation_results(metrics, data.dataset_id)
    tags = ["ecg", "electrocardiogram", config.model_type]
    more = {} if costs is None else costs.metadata()
    metadata = card_metadata(model_id, tags, data, license, results, more)
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}")


def classifier_snippet(config: PreTrainedConfig, feature_extractor: FeatureExtractionMixin, model_id: str) -> str:
    """Python that loads the model and scores one recording; it runs as it stands (a test does it)."""
    values = {SINGLE_LABEL: "logits.softmax(dim=-1)", REGRESSION: "logits"}.get(
        config.problem_type, "logits.sigmoid()"
    )
    snippet = loading_snippet(config, feature_extractor, model_id)
    snippet = snippet.replace("AutoModel\n", "AutoModelForSequenceClassification\n")
    snippet = snippet.replace("AutoModel.from", "AutoModelForSequenceClassification.from")
    head, _, _ = snippet.partition("with torch.inference_mode")
    return f"""{head}inputs = {{name: inputs[name] for name in ("input_values", "lead_mask") if name in inputs}}
with torch.inference_mode():
    logits = model(**inputs).logits.mean(dim=0)  # over the windows of the recording
scores = dict(zip(model.config.id2label.values(), {values}.tolist(), strict=True))
"""


def training_facts(trainer: Trainer) -> dict[str, str | int | float]:
    """What was trained and how, by readable names."""
    args = trainer.args
    facts = {
        "Training (steps)": trainer.state.global_step,
        "Batch (recordings)": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "Parameters of the encoder": sum(parameter.numel() for parameter in trainer.model.ecg_vit.parameters()),
        "Learning rate": args.learning_rate,
        "Weight decay": args.weight_decay,
        "Seed": args.seed,
    }
    if isinstance(trainer.model, EcgJepaForPreTraining):
        facts["Momentum of the teacher"] = f"{args.ema_start} to {args.ema_end}"
    return facts


def pretraining_card(
    trainer: Trainer, model_id: str, data: DataSource, split: str, costs: RunCosts | None = None
) -> ModelCard:
    """The card of what a Trainer has made so far.

    Args:
        trainer ([`EcgSslTrainer`]): During or after `train()`.
        model_id (`str`): Name on the Hub, or of the folder.
        data (`DataSource`), split (`str`), costs (`RunCosts`, *optional*): As in [`render_model_card`].
    """
    return render_model_card(
        config=trainer.model.config,
        feature_extractor=trainer.processing_class,
        model_id=model_id,
        data=data,
        split=split,
        training=training_facts(trainer),
        license=trainer.args.weights_licence,
        costs=costs,
    )
