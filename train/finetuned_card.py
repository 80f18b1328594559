"""The model card (README.md) of a fine-tuned classifier or regression, from what the run knew."""

from collections.abc import Mapping

from huggingface_hub import ModelCard
from transformers import FeatureExtractionMixin, PreTrainedConfig

from .finetune_data import LabelledSplits
from .licences import data_licence_line, licence_section
from .methods import method_of
from .model_card import card_environment, card_metadata, input_contract, loading_snippet
from .model_index import evaluation_results
from .predictions import REGRESSION, SINGLE_LABEL
from .report import DataSource, installed_versions
from .run_costs import RunCosts


def render_finetuned_card(
    config: PreTrainedConfig,
    feature_extractor: FeatureExtractionMixin,
    model_id: str,
    start: str,
    data: DataSource,
    metrics: Mapping | None = None,
    splits: LabelledSplits | None = None,
    license: str | None = None,
    costs: RunCosts | None = None,
) -> ModelCard:
    """Writes the card; `card.save("README.md")` puts it beside the weights.

    Args:
        config ([`PreTrainedConfig`]), feature_extractor ([`EcgFeatureExtractor`]): Of the classifier.
        model_id (`str`): Name on the Hub, or folder, that the loading snippet uses.
        start (`str`): Name of the checkpoint that it was fine-tuned from.
        data ([`~ecg_transformers.train.report.DataSource`]): The labelled recordings.
        metrics (`Mapping`, *optional*):
            As `metrics.json` of `ecg-transformers finetune` has them; `None` while the training goes on.
        splits (`LabelledSplits`, *optional*): What was trained and tested on; needed with `metrics`.
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
            sizes=None if metrics is None else {split: len(rows) for split, rows in splits.items()},
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
