"""Scores of `metrics.json` and `report.json` as the Hub lists them: the `model-index` of a card."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult

from ..results import MAIN_SCORES, score_of

INDEX_TYPES = {
    "macro_auroc": ("ecg-classification", "roc_auc"),
    "macro_zmae": ("ecg-regression", "mae"),
    "recall_at_1": ("ecg-identity", "recall_at_1"),
    "miou_waves": ("ecg-delineation", "mean_iou"),
}
"""Types of task and metric, by the score that decides."""
COUNTS = ("num_train_records", "num_test_records", "num_test_patients", "num_queries", "num_subjects")


def score_key(judgement: Mapping[str, Any]) -> str:
    """What a judgement is ranked by: `"macro_auroc"`, of a regression `"macro_zmae"`, ...

    Raises:
        ValueError: where there is no such score, as for clusters.
    """
    key = score_of(judgement)
    if key is None:
        raise ValueError(f"Expected one of the scores {list(MAIN_SCORES)} among the results, got {sorted(judgement)}.")
    return key


def index_entry(
    judgement: Mapping[str, Any],
    protocol: str,
    task: str,
    dataset_id: str | None,
    dataset_name: str,
    baseline: tuple[str, Mapping[str, Any]] | None = None,
) -> EvalResult:
    """One score of the test split with protocol, interval, counts and what stands beside it.

    Args:
        judgement (`Mapping`): Of the encoder.
        protocol (`str`): In words or by name.
        task (`str`): Of the corpus; without it, the Hub's client joins different tasks of one corpus.
        dataset_id (`str`, *optional*), dataset_name (`str`): Of the labelled recordings.
        baseline (`tuple[str, Mapping]`, *optional*): `"random_encoder"` or `"from_scratch"`, and its judgement.
    """
    key = score_key(judgement)
    task_type, metric_type = INDEX_TYPES[key]
    details = {"protocol": protocol, "ci95": [round(bound, 4) for bound in judgement[f"{key}_ci95"]]}
    if baseline is not None:
        details[baseline[0]] = round(baseline[1][key], 4)
    details |= {count: judgement[count] for count in COUNTS if count in judgement}
    if "num_test_records" not in details and "num_records" in judgement:
        details["num_test_records"] = judgement["num_records"]
    return EvalResult(
        task_type=task_type,
        task_name=task,
        dataset_type=dataset_id or "unknown",
        dataset_name=dataset_name,
        dataset_config=task,
        dataset_split="test",
        metric_type=metric_type,
        metric_name=f"{MAIN_SCORES[key]} ({protocol if ' ' in protocol else f'{protocol} protocol'})",
        metric_value=round(judgement[key], 4),
        metric_args=details,
    )


def evaluation_results(
    metrics: Mapping[str, Any], dataset_id: str | None, task: str | None = None
) -> list[EvalResult]:
    """The scores that `quickstart` or `finetune` wrote.

    Args:
        metrics (`Mapping`): `report.json` or `metrics.json`.
        dataset_id (`str`, *optional*): Of the labelled recordings.
        task (`str`, *optional*): By default the one that `metrics` names.
    """
    task = metrics["task"] if task is None else task
    if "pretrained" not in metrics:
        return [index_entry(metrics["test"], metrics["protocol"], task, dataset_id, f"{task}, test split")]
    return [
        index_entry(
            judgement, protocol, task, dataset_id, task, ("random_encoder", metrics["random_encoder"][protocol])
        )
        for protocol, judgement in metrics["pretrained"].items()
    ]
