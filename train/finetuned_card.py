"""The model card (README.md) of a fine-tuned classifier, from what the run knew."""

from collections.abc import Mapping

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from transformers import FeatureExtractionMixin, PreTrainedConfig

from .finetune_data import SINGLE_LABEL, LabelledSplits
from .model_card import input_contract, loading_snippet, method_of
from .report import DataSource, format_fact, format_interval, format_score


def render_finetuned_card(
    config: PreTrainedConfig,
    feature_extractor: FeatureExtractionMixin,
    model_id: str,
    start: str,
    data: DataSource,
    metrics: Mapping,
    splits: LabelledSplits,
    license: str | None = None,
) -> ModelCard:
    """Writes the card; `card.save("README.md")` puts it beside the weights.

    Args:
        config ([`PreTrainedConfig`]), feature_extractor ([`EcgFeatureExtractor`]): Of the classifier.
        model_id (`str`): Name on the Hub, or folder, that the loading snippet uses.
        start (`str`): Name of the checkpoint that it was fine-tuned from.
        data ([`~ecg_transformers.train.report.DataSource`]): The labelled recordings.
        metrics (`Mapping`): As `metrics.json` of `ecg-transformers finetune` has them.
        splits (`LabelledSplits`): What was trained and tested on.
        license (`str`, *optional*): Licence of the weights as a Hub id; `None` says "unknown".
    """
    environment = Environment(
        loader=PackageLoader("ecg_transformers.train", "."),
        autoescape=False,  # Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"score": format_score, "interval": format_interval, "cell": _cell}
    name = model_id.rstrip("/").rsplit("/", 1)[-1]
    facts = {
        key: value
        for key, value in metrics["training"].items()
        if key not in ("unlabelled_records", "unlabelled_left_out", "not_judged_records")
    }
    body = environment.get_template("finetuned_card_template.md.j2").render(
        model_name=name,
        start=start,
        method=method_of(config),
        data=data,
        metrics=metrics,
        single_label=splits.problem_type == SINGLE_LABEL,
        sizes={split: len(rows) for split, rows in splits.items()},
        contract=input_contract(feature_extractor),
        snippet=classifier_snippet(config, feature_extractor, model_id),
        training={key.replace("_", " ").capitalize(): value for key, value in facts.items()},
        license=license,
    )
    test = metrics["test"]
    result = EvalResult(
        task_type="ecg-classification",
        task_name="Classification of electrocardiograms",
        dataset_type=data.dataset_id or "unknown",
        dataset_name=f"{metrics['task']}, test split",
        metric_type="roc_auc",
        metric_name=f"Macro AUROC ({metrics['protocol']})",
        metric_value=round(test["macro_auroc"], 4),
        metric_args={
            "protocol": metrics["protocol"],
            "ci95": [round(bound, 4) for bound in test["macro_auroc_ci95"]],
            "num_test_records": test["num_records"],
        },
    )
    licence = {"license": license} if license is not None else {"license": "other", "license_name": "unknown"}
    metadata = ModelCardData(
        library_name="transformers",
        tags=["ecg", "electrocardiogram", config.model_type],
        datasets=None if data.dataset_id is None else [data.dataset_id],
        metrics=["roc_auc"],
        model_name=name,
        eval_results=[result],
        **licence,
    )
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}")


def classifier_snippet(config: PreTrainedConfig, feature_extractor: FeatureExtractionMixin, model_id: str) -> str:
    """Python that loads the classifier and scores one recording; it runs as it stands (a test does it)."""
    probabilities = "softmax(dim=-1)" if config.problem_type == SINGLE_LABEL else "sigmoid()"
    snippet = loading_snippet(config, feature_extractor, model_id)
    snippet = snippet.replace("AutoModel\n", "AutoModelForSequenceClassification\n")
    snippet = snippet.replace("AutoModel.from", "AutoModelForSequenceClassification.from")
    head, _, _ = snippet.partition("with torch.inference_mode")
    return f"""{head}inputs = {{name: inputs[name] for name in ("input_values", "lead_mask") if name in inputs}}
with torch.inference_mode():
    logits = model(**inputs).logits.mean(dim=0)  # over the windows of the recording
scores = dict(zip(model.config.id2label.values(), logits.{probabilities}.tolist(), strict=True))
"""


def _cell(value) -> str:
    return format_fact(value).replace("|", "\\|").replace("\n", " ")
