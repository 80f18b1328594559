"""The pretrained encoder beside its baselines: what every setting of the evaluation ends in.

A setting changes the training or the test records and runs the protocol `linear` again. All encoders see the same
records, draws and noise, so that their differences are paired. Every setting gives entries of one shape, ready for
JSON, from which one function draws all curves:

`{"setting", "group", "value", "label", "pretrained": {"macro_auroc", "macro_auroc_ci95", "per_class", "C"},
"random_encoder": {...}, "difference": {"macro_auroc", "ci95", "p_value"}, "num_train_records", "num_test_records",
"num_test_patients", "excluded"}` and what a setting adds. `group` joins the entries of one line of a plot, `value` is
a number or a name, `label` says it in words. A regression has `macro_zmae` and `per_target` in place of `macro_auroc`
and `per_class`: less is better. A further baseline, `random_kernels`, has its numbers beside those of `random_encoder`
and its difference as `difference_to_random_kernels`. An entry that is not available holds `"refused": reason` in place
of the numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from transformers import FeatureExtractionMixin, PreTrainedModel
from transformers.utils import logging

from ..features import decoded, embed
from ..metrics import paired_facts, percentile_interval, resample_counts
from ..predictions import Predictions, ProtocolResult, unusable_labels
from ..results import REGRESSION, difference_key
from ..tasks.labelled_splits import LabelledSplits
from .protocols import FrozenTables, fit_probe, linear_protocol

logger = logging.get_logger(__name__)

ENCODERS = ("pretrained", "random_encoder")
"""Encoders that every result has; others are further baselines."""


class Change(NamedTuple):
    """A change of the test records: `value`, `label` and `group` of its entry, and a function from a decoded row to
    another one; without one it is none, and the entry that of the unchanged records."""

    value: Any
    label: str
    group: str | None = None
    of_row: Callable[[dict], dict] | None = None


@dataclass(frozen=True)
class EncoderPair:
    """Encoders, the task, and their cached features of it.

    Args:
        models (`Mapping[str, PreTrainedModel]`): Encoders by name: those of `ENCODERS` and further baselines.
        feature_extractor ([`EcgFeatureExtractor`]): The input contract of all.
        splits ([`LabelledSplits`]): The task.
        tables (`Mapping[str, FrozenTables]`): Features of the unchanged splits, by encoder.
        num_resamples (`int`), seed (`int`): Settings of the bootstrap; a setting draws by the seed too.
        linear (`Mapping[str, ProtocolResult]`, *optional*): [`linear_protocol`] of `tables`, where it was run already.
    """

    models: Mapping[str, PreTrainedModel]
    feature_extractor: FeatureExtractionMixin
    splits: LabelledSplits
    tables: Mapping[str, FrozenTables]
    batch_size: int = 64
    num_resamples: int = 1000
    seed: int = 0
    linear: Mapping[str, ProtocolResult] | None = None

    def __post_init__(self):
        check_encoders(self.models)

    @cached_property
    def clean(self) -> Mapping[str, ProtocolResult]:
        """The protocol `linear` on the unchanged splits, by encoder."""
        return self.linear or {encoder: linear_protocol(self.tables[encoder]) for encoder in self.models}

    def on_changed_tests(
        self, changes: Sequence[Change], feature_extractor: FeatureExtractionMixin | None = None
    ) -> list[dict[str, ProtocolResult]]:
        """Results of each change by encoder, on changed test records, of those that can be embedded unchanged. The
        probes are those of the unchanged training records.

        Args:
            changes (`Sequence[Change]`): Changes of the test records.
            feature_extractor ([`EcgFeatureExtractor`], *optional*): Reader of the changed rows, if not the usual one.
        """
        found: list[dict[str, ProtocolResult]] = [dict(self.clean) for _ in changes]
        rows, known = decoded(self.splits.test), set(self.clean["pretrained"].test.record_ids)
        extractor = feature_extractor or self.feature_extractor
        for encoder, model in self.models.items():
            probe, _ = fit_probe(self.tables[encoder], self.clean[encoder].details["C"])
            for of_change, change in zip(found, changes, strict=True):
                if change.of_row is None:
                    continue
                logger.info(f"{encoder}: {change.label}")
                changed = (change.of_row(row) for row in rows if row["record_id"] in known)
                table = embed(model, extractor, changed, self.batch_size, progress=False)
                truth = self.splits.truth_of("test", table.record_ids)
                test = Predictions(probe(table.features), truth, table.record_ids, table.patient_ids)
                of_change[encoder] = replace(self.clean[encoder], test=test)
        return found

    def entries(
        self, setting: str, changes: Sequence[Change], feature_extractor: FeatureExtractionMixin | None = None, **facts
    ) -> list[dict[str, Any]]:
        """The entry of each change of the test records."""
        found = zip(changes, self.on_changed_tests(changes, feature_extractor), strict=True)
        return [self.entry(setting, *change[:3], results, **facts) for change, results in found]

    def entry(
        self,
        setting: str,
        value: Any,
        label: str,
        group: str | None,
        results: Mapping[str, ProtocolResult | Sequence[ProtocolResult]],
        deviations: np.ndarray | None = None,
        **facts,
    ) -> dict[str, Any]:
        """The entry of the results of each encoder, one or several draws of the training records."""
        draws = {e: [results[e]] if isinstance(results[e], ProtocolResult) else results[e] for e in self.models}
        numbers = evaluate_pair(draws, deviations, self.num_resamples, self.seed)
        return {"setting": setting, "group": group, "value": value, "label": label, **numbers, **facts}


def refused(setting: str, value: Any, label: str, reason: str, group: str | None = None, **facts) -> dict:
    """The entry of a value that is not available, with the reason."""
    logger.warning(f"{setting} {label}: {reason}")
    return {"setting": setting, "group": group, "value": value, "label": label, "refused": reason, **facts}


def check_encoders(by_encoder: Mapping[str, Any]) -> None:
    if not set(by_encoder) >= set(ENCODERS):
        raise ValueError(
            f"Expected at least the encoders {list(ENCODERS)}, got {list(by_encoder)}. No setting is reported without "
            "the random encoder: see random_encoder_like."
        )


def evaluate_pair(
    results: Mapping[str, Sequence[ProtocolResult]],
    deviations: np.ndarray | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Means over draws of the training records, with intervals over draws and test patients, paired.

    For one draw, the numbers are those of [`~ecg_transformers.train.predictions.evaluate_predictions`]. For several,
    each resample of the test patients goes with a resample of the draws (both with replacement), so that the interval
    holds both sources of chance; with few draws it is rather too narrow.

    Args:
        results (`Mapping[str, Sequence[ProtocolResult]]`): Results by encoder, one a draw, on the same test records.
        deviations (`np.ndarray` of shape `(num_targets,)`, *optional*):
            Divisors of the errors of a regression; by default the deviations of each draw's training targets.

    Returns:
        `dict`: the numbers of an entry. With several draws each encoder has `macro_auroc_sd` (over draws) and `draws`,
        the value of each.
    """
    check_encoders(results)
    every = [result for of_encoder in results.values() for result in of_encoder]
    first, num_draws = every[0], len(results["pretrained"])
    if any((r.test.record_ids, r.label_names) != (first.test.record_ids, first.label_names) for r in every):
        raise ValueError("Encoders and draws are compared on the same test records and labels, these differ.")
    is_regression = first.problem_type == REGRESSION
    metric, of_labels = ("macro_zmae", "per_target") if is_regression else ("macro_auroc", "per_class")
    counts = resample_counts(len(first.test.record_ids), num_resamples, seed, first.test.patients())
    draw = drawn_again(num_draws, num_resamples, seed)
    facts: dict[str, Any] = {}
    values, resampled = {}, {}
    for encoder, of_encoder in results.items():
        evaluated = [result.resampled(counts, deviations) for result in of_encoder]
        values[encoder] = np.array([one.value for one in evaluated])
        resampled[encoder] = np.take_along_axis(np.stack([one.resampled for one in evaluated], axis=1), draw, axis=1)
        facts[encoder] = {
            metric: float(values[encoder].mean()),
            f"{metric}_ci95": list(percentile_interval(resampled[encoder].mean(axis=1))),
            of_labels: means_by_name([one.by_name for one in evaluated]),
            "C": [result.details["C"] for result in of_encoder],
        }
        if num_draws > 1:
            facts[encoder] |= {f"{metric}_sd": float(values[encoder].std(ddof=1)), "draws": values[encoder].tolist()}
    for baseline in results:
        if baseline != "pretrained":
            differences = (resampled["pretrained"] - resampled[baseline]).mean(axis=1)
            difference = float((values["pretrained"] - values[baseline]).mean())
            facts[difference_key(baseline)] = {metric: difference} | paired_facts(differences)
    return facts | {
        "num_train_records": len(first.train_labels),
        "num_test_records": len(first.test.record_ids),
        "num_test_patients": len(set(first.test.patients())),
        "excluded": {} if is_regression else unusable_labels(results["pretrained"]),
    }


def drawn_again(num_draws: int, num_resamples: int, seed: int) -> np.ndarray:
    """Numbers of draws, with replacement, for each resample of the test patients: `(num_resamples, num_draws)`."""
    return np.random.default_rng([seed, 1]).integers(num_draws, size=(num_resamples, num_draws))


def means_by_name(by_name: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of each name over the draws that have it."""
    names = dict.fromkeys(name for values in by_name for name in values)
    return {name: float(np.mean([values[name] for values in by_name if name in values])) for name in names}
