"""Settings of the evaluation: the protocol `linear` again, on fewer labels or leads, and on changed test records.

`low_shot` draws few training records; `leads` removes leads from all records. The others change the test records
alone, under probes that were fitted and chosen on the unchanged records: `noise`, `sampling_rate`, `unit`, `length`.
Rates and units are declared with each record, so the input contract should bring them to what the model reads: units
to rounding, rates as far as the rate holds the band that the model reads. Entries of the group `misuse` break the
contract on purpose (a unit that is not the declared one, leads under each other's names) and show what that costs; no
encoder is ranked by them.

All encoders see the same records, draws and noise, so that their differences are paired. Every setting gives entries
of one shape, ready for JSON, from which one function draws all curves:

`{"setting", "group", "value", "label", "pretrained": {"macro_auroc", "macro_auroc_ci95", "per_class", "C"},
"random_encoder": {...}, "difference": {"macro_auroc", "ci95", "p_value"}, "num_train_records", "num_test_records",
"num_test_patients", "excluded"}` and what a setting adds. `group` joins the entries of one line of a plot, `value` is
a number or a name, `label` says it in words. A regression has `macro_zmae` and `per_target` in place of `macro_auroc`
and `per_class`: less is better. A further baseline, `random_kernels`, has its numbers beside those of `random_encoder`
and its difference as `difference_to_random_kernels`. An entry that is not available holds `"refused": reason` in place
of the numbers.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import FeatureExtractionMixin, PreTrainedModel
from transformers.utils import logging

from ecg_transformers.data.corpora.nstdb import NOISES
from ecg_transformers.modeling.lead_plan import plan_leads
from ecg_transformers.modeling.recording_input import DIMENSIONLESS

from ..features import decoded, embed
from ..metrics import excluded_labels, paired_facts, percentile_interval, resample_counts
from ..predictions import Predictions, ProtocolResult, unusable_labels
from ..results import REGRESSION, difference_key
from ..tasks.labelled_splits import LabelledSplits
from ..tasks.lead_subsets import LEAD_SUBSETS, keep_leads
from .changed_rows import UNITS, NoiseRecordings, at_rate, first_seconds, in_unit, noisy_row, renamed, scaled
from .low_shot import draw_low_shot
from .protocols import FrozenTables, embed_splits, fit_probe, linear_protocol

logger = logging.get_logger(__name__)

ENCODERS = ("pretrained", "random_encoder")
"""Encoders that every result has; others are further baselines."""
SETTINGS = ("low_shot", "leads", "noise", "sampling_rate", "unit", "length")
FRACTIONS = (0.01, 0.1)
QUARTILES = (25, 50, 75)
SNRS_DB = (24, 18, 12, 6, 0, -6)
RATES_HZ = (100, 125, 250, 360, 500, 1000)
WRONG_NAMES = {
    "aVL and aVF under each other's name": {"aVL": "aVF", "aVF": "aVL"},
    "V1 to V6 named in reverse": {f"V{number}": f"V{7 - number}" for number in range(1, 7)},
}
"""Orders of leads taken for another one. MIMIC-IV-ECG stores aVL and aVF the other way round than most corpora do."""
SECONDS = (5.0, 2.5)
DECLARED, MISUSE = "declared", "misuse"


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


def check_settings(names: Sequence[str], nstdb_dir: str | Path | None = None):
    """Raises `ValueError` for an unknown name, or noise without its recordings."""
    unknown = [name for name in names if name not in SETTINGS]
    if unknown:
        raise ValueError(f"Unknown settings {unknown}. Choose from {list(SETTINGS)}.")
    if "noise" in names:
        NoiseRecordings(nstdb_dir)


def run_settings(names: Sequence[str], pair: EncoderPair, nstdb_dir: str | Path | None = None) -> dict[str, list]:
    """Entries by setting, ready for JSON.

    `low_shot` embeds nothing; `leads` embeds all splits once a subset; the others embed the test split once a change
    (18 for `noise`), by all encoders.
    """
    check_settings(names, nstdb_dir)
    runs = {
        "low_shot": low_shot,
        "leads": lead_subset_scores,
        "noise": partial(noise_scores, nstdb_dir=nstdb_dir),
        "sampling_rate": rate_scores,
        "unit": unit_scores,
        "length": length_scores,
    }
    found = {}
    for name in names:
        started = time.monotonic()
        try:
            found[name] = runs[name](pair)
        except ValueError as error:  # the other settings and all protocols are worth keeping
            found[name] = [refused(name, name, name.replace("_", " "), str(error))]
        logger.info(f"Setting {name}: {len(found[name])} entries in {time.monotonic() - started:.1f} s.")
    return found


def low_shot(pair: EncoderPair, fractions: Sequence[float] = FRACTIONS, num_draws: int = 5) -> list[dict[str, Any]]:
    """Runs the protocol `linear` on draws of the training records; all of them as the last entry.

    All encoders learn from the same draws. The macro AUROC of a draw is over the labels that it can teach; those
    without a positive (or a negative) are named under `train_draws`, with their number of records and patients. With
    so few records that draws teach different labels, `labels_in_every_draw` lists those that the draws have in common.
    Errors of a regression are divided by the deviations of all training targets, and its draws are stratified by the
    quarters of each target. Draws that cannot be probed are named under `refused_draws`, a fraction without any other
    is `refused`.
    """
    some = pair.tables["pretrained"]
    truth, patients = some.truth["train"], some.tables["train"].patients()
    is_regression = some.problem_type == REGRESSION
    strata = np.concatenate([_quarters(target) for target in truth.T], axis=1) if is_regression else truth
    draws_of = {fraction: draw_low_shot(strata, patients, fraction, num_draws, pair.seed) for fraction in fractions}
    entries = []
    for fraction, draws in (draws_of | {1.0: [np.arange(len(truth))]}).items():
        logger.info(f"low-shot: {fraction:.0%} of the labels")
        results: dict[str, list] = {encoder: [] for encoder in pair.models}
        described, not_probed = [], []
        for rows in draws:
            facts = {
                "num_train_records": len(rows),
                "num_train_patients": len({patients[row] for row in rows}),
                "unlearnt": {} if is_regression else excluded_labels(truth[rows], some.label_names),
            }
            try:
                found = pair.clean if fraction == 1.0 else _on_draw(pair, rows)
            except ValueError as error:
                not_probed.append(facts | {"reason": f"{len(rows)} records: {error}"})
                continue
            described.append(facts)
            for encoder, of_encoder in results.items():
                of_encoder.append(found[encoder])
        label = f"{100 * fraction:g} % of the training records"
        if not described:
            reason = f"None of {len(draws)} draws can be probed. {not_probed[0]['reason']}"
            entries.append(refused("low_shot", fraction, label, reason, refused_draws=not_probed))
            continue
        facts = {"num_draws": len(described), "train_draws": described, "refused_draws": not_probed}
        if not is_regression:
            lost = {name for one in described for name in one["unlearnt"]}
            facts["labels_in_every_draw"] = [name for name in some.label_names if name not in lost]
        deviations = truth.std(axis=0) if is_regression else None
        entries.append(pair.entry("low_shot", fraction, label, None, results, deviations, **facts))
    return entries


def _on_draw(pair: EncoderPair, rows: np.ndarray) -> dict[str, ProtocolResult]:
    """Results by encoder; a `ValueError` where the records teach nothing, or nothing that the test split holds."""
    found = {encoder: linear_protocol(pair.tables[encoder].take_train(rows)) for encoder in pair.models}
    for result in found.values():
        result.resampled(np.ones((1, len(result.test.record_ids))))
    return found


def _quarters(target: np.ndarray) -> np.ndarray:
    """The quarter, multi-hot, in which each value of a target lies, `(num_records, 4)`."""
    quarter = np.searchsorted(np.percentile(target, QUARTILES), target, side="right")
    return np.eye(len(QUARTILES) + 1, dtype=np.int8)[quarter]


def lead_subset_scores(pair: EncoderPair, subsets: Mapping[str, Sequence[str]] = LEAD_SUBSETS) -> list[dict[str, Any]]:
    """Runs the protocol `linear` on training, validation and test records that have the leads of a subset.

    The other leads are removed from the recording, they are not zeros in it: the encoder leaves absent leads out of
    attention and pooling (patches of one lead), or out of the projection (patches of all leads). Where a subset holds
    I and II, limb leads that the model reads are derived from them, as the feature extractor does for everybody
    (unless its `derive_limb_leads` is off): they hold nothing that I and II do not. Hence 12 and 8 leads give a model
    of 12 leads the same input up to the rounding of the recorder, and so do 6 and 2: the first is embedded, and the
    other repeats its numbers. Each entry says what was `derived` and what is `absent`; a subset that the recordings
    lack, or that an encoder cannot take, is `refused` with the reason.
    """
    masking = pair.feature_extractor.changed(missing_leads="mask")
    by_input: dict[str, dict[str, ProtocolResult]] = {}
    entries = []
    for name, leads in subsets.items():
        label, facts = ", ".join(leads), {"leads": list(leads)}
        formulas = _input_of(masking, leads)
        change = partial(keep_leads, leads=leads)
        try:
            if str(formulas) not in by_input:
                logger.info(f"leads {label}")
                by_input[str(formulas)] = {
                    encoder: linear_protocol(embed_splits(model, masking, pair.splits, pair.batch_size, change))
                    for encoder, model in pair.models.items()
                }
        except ValueError as error:
            entries.append(refused("leads", name, label, str(error), **facts))
            continue
        facts["derived"] = [lead for lead, formula in formulas.items() if len(formula) > 1]
        facts["absent"] = [lead for lead, formula in formulas.items() if not formula]
        entries.append(pair.entry("leads", name, label, None, by_input[str(formulas)], **facts))
    return entries


def _input_of(feature_extractor: FeatureExtractionMixin, leads: Sequence[str]) -> dict[str, dict[str, float]]:
    """Weights of the recorded leads in each lead of the model; none where it is absent."""
    plan = plan_leads(tuple(feature_extractor.leads), tuple(leads), feature_extractor.derive_limb_leads, "any")
    recorded = [leads[position] for position in plan.sources]
    return {
        lead: {recorded[position]: weight for position, weight in weights.items()}
        for lead, weights in zip(feature_extractor.leads, plan.weights, strict=True)
    }


def noise_scores(
    pair: EncoderPair,
    nstdb_dir: str | Path | None,
    kinds: Sequence[str] = tuple(NOISES),
    snrs_db: Sequence[float] = SNRS_DB,
) -> list[dict[str, Any]]:
    """Runs probes of clean records on test records with noise: an entry for clean records (`value` `"clean"`), then
    one a kind (`group`) and ratio in dB (`value`)."""
    recordings = NoiseRecordings(nstdb_dir)
    changes = [Change("clean", "no noise added")]
    for kind in kinds:
        for snr_db in snrs_db:
            change = partial(noisy_row, recordings=recordings, kind=kind, snr_db=snr_db, seed=pair.seed)
            changes.append(Change(snr_db, f"{NOISES[kind]}, {snr_db:g} dB", kind, change))
    return pair.entries("noise", changes)


def rate_scores(pair: EncoderPair, rates_hz: Sequence[float] = RATES_HZ) -> list[dict[str, Any]]:
    """Test records resampled to other rates and declared so: an entry a rate (`value`, in Hz), with `recorded_at`, the
    rates of the test records themselves: above these, nothing is gained by a higher rate."""
    facts = {
        "recorded_at": sorted({row["ecg"]["sampling_rate"] for row in pair.splits.test}),
        "model_reads": float(pair.feature_extractor.sampling_rate),
    }
    changes = [Change(rate, f"{rate:g} Hz", None, partial(at_rate, sampling_rate=rate)) for rate in rates_hz]
    return pair.entries("sampling_rate", changes, **facts)


def unit_scores(pair: EncoderPair) -> list[dict[str, Any]]:
    """Test records in other units, declared so; and two kinds of misuse: values that are not in the declared unit,
    leads under wrong names (no change where the model does not read these).

    Entries have the `group` `"declared"` or `"misuse"` and `largest_score_change`, by encoder the largest difference
    of any score from that of the unchanged record: rounding where the contract holds. Dimensionless records have no
    unit to declare: theirs are `refused`.
    """
    first = decoded(pair.splits.test)[0]["ecg"]
    if first["unit"] == DIMENSIONLESS:
        reason = "The recordings are dimensionless: they have no unit that could be declared in another way."
        return [refused("unit", unit, f"declared in {unit}", reason, DECLARED) for unit in ("mV", *UNITS)]
    changes = [Change(unit, f"declared in {unit}", DECLARED, partial(in_unit, unit=unit)) for unit in ("mV", *UNITS)]
    changes.append(Change("mV x 1000", "MISUSE: uV taken for mV", MISUSE, partial(scaled, factor=1e3)))
    changes.append(Change("mV / 1000", "MISUSE: V taken for mV", MISUSE, partial(scaled, factor=1e-3)))
    for mistake, names in WRONG_NAMES.items():
        if set(names) <= set(first["leads"]):
            changes.append(Change(mistake, f"MISUSE: {mistake}", MISUSE, partial(renamed, names=names)))
    entries = []
    for change, results in zip(changes, pair.on_changed_tests(changes), strict=True):
        moved = {encoder: _largest_change(pair.clean[encoder], results[encoder]) for encoder in pair.models}
        entries.append(pair.entry("unit", *change[:3], results, largest_score_change=moved))
    return entries


def _largest_change(clean: ProtocolResult, changed: ProtocolResult) -> float:
    positions = {record_id: position for position, record_id in enumerate(clean.test.record_ids)}
    before = clean.test.scores[[positions[record_id] for record_id in changed.test.record_ids]]
    return float(np.abs(changed.test.scores - before).max())


def length_scores(pair: EncoderPair, seconds: Sequence[float] = SECONDS) -> list[dict[str, Any]]:
    """Test records cut to their first seconds: an entry for whole records (`value` `"whole"`), then one a length (in
    s). What the model misses is zeros after normalisation, which encoders read as a flat signal."""
    padding = pair.feature_extractor.changed(short_records="zero_pad")
    changes = [Change("whole", "whole recordings")]
    changes += [Change(value, f"first {value:g} s", None, partial(first_seconds, seconds=value)) for value in seconds]
    return pair.entries("length", changes, padding)
