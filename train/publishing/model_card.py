"""The model card (README.md): one template, rendered from facts.

The facts are the configuration, the feature extractor and the scores, which lie in the folder anyway, and
`card.json` beside them, [`CardFacts`]. A push renders the card anew from these; no text of a card is edited. The rule
for a card that a person has changed: `card.json` holds the SHA-256 of the README.md that was written with it. Where it
differs, or where there is no `card.json`, the text is the person's and goes out as it is; only its header is set. The
same holds for the card of a model whose class is unknown here: no code of the folder is run.
Nothing is invented: a licence that nobody stated is called unknown, and a checkpoint without results says so.
"""

import csv
import dataclasses
import hashlib
import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml
from huggingface_hub.constants import REPOCARD_NAME
from transformers import FeatureExtractionMixin, PreTrainedConfig, TrainingArguments

from ecg_transformers.data.corpus import DataSource
from ecg_transformers.modeling.calibration import names_classifier
from ecg_transformers.modeling.method import Method, method_of

from ..results import REGRESSION, SINGLE_LABEL, Result, encoder_words, format_fact, has_headline, installed_versions
from .licences import CODE_LICENCE, OTHER, hub_licence, is_settled
from .templates import escape_markdown, template_environment

CARD_FACTS_NAME = "card.json"
DATA_LICENCE_KEY = "training_data_license"
"""In the header of a card, beside `license`, which is that of the weights."""
EVAL_RESULTS = ".eval_results/ecg-transformers_"
KINDS = ("pretrained", "finetuned", "converted")

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


class Picture(NamedTuple):
    """A PNG for a card, with alternative text and a caption (Markdown, may be empty)."""

    content: bytes
    alt: str
    caption: str


@dataclass(frozen=True)
class Authors:
    """Converted weights: place and terms of the weights, licence of the authors' code, none of which is here,
    differences of the feature extractor from theirs, and the name of their file."""

    weights: str
    code: str
    departures: str
    file: str


@dataclass(frozen=True)
class RunCosts:
    """Costs of a training, for its card: wall clock, hardware such as `"2 x NVIDIA H100"`, estimates of codecarbon."""

    seconds: float
    hardware: str
    energy_kwh: float | None = None
    emissions_kg: float | None = None

    def sentence(self) -> str:
        measured = "Energy and carbon were not measured."
        if self.emissions_kg is not None:
            measured = f"{self.energy_kwh:.3g} kWh and {self.emissions_kg:.3g} kg of CO2 equivalent (`codecarbon`)."
        return f"{self.seconds:.0f} s on {self.hardware}. {measured}"

    def metadata(self) -> dict[str, Mapping]:
        """`co2_eq_emissions` of the card's header (grams), or nothing."""
        if self.emissions_kg is None:
            return {}
        grams = round(1000 * self.emissions_kg, 3)
        return {"co2_eq_emissions": {"emissions": grams, "source": "codecarbon", "hardware_used": self.hardware}}


def run_costs(seconds: float, args: TrainingArguments) -> RunCosts:
    """Costs of a finished run: the measured time, the devices of `args`, and `emissions.csv` of `codecarbon`."""
    if args.device.type == "cuda":
        hardware = f"{max(args.world_size, args.n_gpu)} x {torch.cuda.get_device_name(args.device)}"
    else:
        hardware = f"{platform.machine()} {args.device.type.upper()}, {torch.get_num_threads()} threads"
        hardware += f" in each of {args.world_size} processes" if args.world_size > 1 else ""
    path = Path(args.output_dir, "emissions.csv")
    if not path.is_file():
        return RunCosts(seconds, hardware)
    try:
        last = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))[-1]
        return RunCosts(seconds, hardware, float(last["energy_consumed"]), float(last["emissions"]))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not what codecarbon writes: it needs the columns energy_consumed and emissions. Remove it, or "
            "let codecarbon write it again."
        ) from error


@dataclass(frozen=True)
class CardFacts:
    """Everything that a card states beside configuration, feature extractor and scores.

    Args:
        kind (`str`): `"pretrained"`, `"finetuned"` or `"converted"`.
        data ([`~ecg_transformers.data.corpus.DataSource`]): Recordings of the training; its licence counts.
        split (`str`, *optional*): Records of it, for example `"folds 1-8, 398 records of 371 patients"`.
        training (`Mapping`, *optional*): Facts and arguments of the training by name.
        weights_licence (`str`, *optional*): Licence of the weights; `None` says "unknown".
        start (`str`, *optional*): Name of the checkpoint that a fine-tuning began with.
        method ([`Method`], *optional*): Method of the weights; by default [`method_of`] the configuration.
        authors ([`Authors`], *optional*): Authors of converted weights.
        costs ([`RunCosts`], *optional*): Time, hardware and carbon of the training; `None` says "not recorded".
        versions (`Mapping[str, str]`, *optional*): Package versions; by default those that are installed.
        header (`Mapping`, *optional*): Further fields of the card's header; `tags` are added to ours.
        ongoing (`bool`, *optional*, defaults to `False`): `True` while the training goes on.

    Example:

    ```python
    from ecg_transformers.data.corpus import DataSource
    from ecg_transformers.train.publishing.model_card import CardFacts

    data = DataSource("PTB-XL", "CC BY 4.0", "Wagner et al., 2020")
    facts = CardFacts("pretrained", data, split="folds 1-8", training={"Learning rate": 1e-3})
    ```
    """

    kind: str
    data: DataSource
    split: str = ""
    training: Mapping[str, str | int | float] = field(default_factory=dict)
    weights_licence: str | None = None
    start: str | None = None
    method: Method | None = None
    authors: Authors | None = None
    costs: RunCosts | None = None
    versions: Mapping[str, str] = field(default_factory=installed_versions)
    header: Mapping[str, Any] = field(default_factory=dict)
    ongoing: bool = False

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"Expected a card of the kinds {list(KINDS)}, got {self.kind!r}.")

    def with_licences(self, data_licence: str | None, weights_licence: str | None) -> "CardFacts":
        """The same with other licences; `None` keeps the one of the weights."""
        data = dataclasses.replace(self.data, licence=data_licence)
        return dataclasses.replace(self, data=data, weights_licence=weights_licence or self.weights_licence)

    def to_json(self, readme: str) -> str:
        """Content of `card.json` beside a README.md."""
        digest = {"readme_sha256": hashlib.sha256(readme.encode()).hexdigest()}
        return json.dumps(dataclasses.asdict(self) | digest, indent=2) + "\n"

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str | Path) -> "CardFacts":
        """Reads `card.json`."""
        try:
            known = {name: value for name, value in content.items() if name != "readme_sha256"}
            classes = {"data": DataSource, "method": Method, "authors": Authors, "costs": RunCosts}
            found = {name: classes[name](**known[name]) for name in classes if known.get(name) is not None}
            facts = cls(**(known | found))
            return dataclasses.replace(
                facts, **{name: dict(known[name]) for name in ("training", "versions", "header")}
            )
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(
                f"{where} does not hold the facts of a card ({' '.join(str(error).split())}). Remove it: then the "
                "text of README.md goes out as it is."
            ) from error


class ShownResult(NamedTuple):
    """Scores, and their Markdown for the card."""

    result: Result
    markdown: str


def render_card(
    facts: CardFacts,
    config: PreTrainedConfig,
    feature_extractor: FeatureExtractionMixin,
    model_id: str,
    results: Sequence[ShownResult] = (),
    picture: Picture | None = None,
) -> ModelCard:
    """Renders the card of a checkpoint, which its snippet loads by `model_id`; [`write_card`] puts it beside the
    weights."""
    is_classifier = facts.kind == "finetuned" or names_classifier((config.architectures or [""])[0])
    template = template_environment("ecg_transformers.train.publishing", autoescape=False)
    body = template.get_template("model_card_template.md.j2").render(
        facts=facts,
        config=config,
        encoder=encoder_words(config),
        extractor=feature_extractor,
        model_id=model_id,
        method=facts.method or method_of(config),
        is_classifier=is_classifier,
        is_regression=config.problem_type == REGRESSION,
        is_single_label=config.problem_type == SINGLE_LABEL,
        label_names=list(config.id2label.values()),
        contract=input_contract(feature_extractor),
        training={name: format_fact(value) for name, value in facts.training.items()},
        results=[shown.markdown for shown in results],
        picture=picture,
        data_url=facts.data.url if (facts.data.url or "").startswith(("https://", "http://")) else None,
        licences=licence_section(facts.data.licence, facts.weights_licence),
    )
    more = dict(facts.header) | ({} if facts.costs is None else facts.costs.metadata())
    tags = ["ecg", "electrocardiogram"]
    tags += ["self-supervised-learning"] * (facts.kind == "pretrained") + [config.model_type]
    header = {
        "library_name": "transformers",
        "pipeline_tag": None if is_classifier else "feature-extraction",
        "tags": list(dict.fromkeys(tags + more.pop("tags", []))),
        "datasets": None if facts.data.dataset_id is None else [facts.data.dataset_id],
    }
    header |= more | licence_header(facts.data.licence, facts.weights_licence)
    return ModelCard(f"---\n{card_header(header, results, model_id).to_yaml()}\n---\n\n{body}")


def licence_header(data_licence: str | None, weights_licence: str | None) -> dict[str, str]:
    """Fields of the header that state both licences."""
    return hub_licence(weights_licence) | ({DATA_LICENCE_KEY: data_licence} if is_settled(data_licence) else {})


def card_header(header: Mapping[str, Any], results: Sequence[ShownResult], model_id: str) -> ModelCardData:
    """The YAML header. Results become its model-index, with protocol, interval and baselines beside each score."""
    found = [entry for shown in results for entry in index_of(shown.result)]
    if not found:
        return ModelCardData(**header)
    metrics = sorted({entry.metric_type for entry in found})
    return ModelCardData(**header, eval_results=found, metrics=metrics, model_name=model_id.rsplit("/", 1)[-1])


def index_of(result: Result) -> Iterable[EvalResult]:
    """An entry of the model-index for each protocol that has a score, of enough records for a headline."""
    has_test = "test" in result.splits or result.validation is not None
    name = result.task if "test" in result.task else f"{result.task}, {'test split' if has_test else 'all records'}"
    for outcome in result.outcomes:
        kind, protocol = outcome.kind, outcome.protocol
        if kind.score is not None and has_headline(outcome.scores):
            yield EvalResult(
                task_type=kind.task_type,
                task_name=result.task,
                dataset_type=result.task.split()[0].lower(),
                dataset_name=name,
                dataset_config=result.task,
                dataset_split="test",
                metric_type=kind.metric_type,
                metric_name=f"{kind.title} ({protocol if ' ' in protocol else f'{protocol} protocol'})",
                metric_value=round(outcome.scores[kind.score], 4),
                metric_args=outcome.hub_details(),
            )


def eval_result_files(result: Result) -> dict[str, bytes]:
    """`.eval_results/*.yaml` by path, which the Hub shows on the pages of the model and of the dataset
    (https://huggingface.co/docs/hub/eval-results): a file for each protocol, where the records came from a dataset of
    the Hub, which the command line names."""
    dataset = re.search(r"hf://datasets/([\w.-]+/[\w.-]+)", str(result.other.get("command", "")))
    files = {}
    for entry in index_of(result) if dataset else ():
        details = dict(entry.metric_args)
        name, task = dataset[1].split("/")[1], "_".join(result.task.split()[1:]) or "default"
        stated = ", ".join(f"{key} {value}" for key, value in details.items())
        found = EvalResultEntry(
            dataset[1], task, entry.metric_value, date=result.other.get("date"), notes=f"{entry.metric_name}: {stated}"
        )
        path = f"{EVAL_RESULTS}{name}_{task}_{details['protocol'].replace(' ', '_')}.yaml"
        files[path] = yaml.safe_dump(eval_result_entries_to_yaml([found]), sort_keys=False).encode()
    return files


def write_card(
    folder: str | Path,
    facts: CardFacts,
    config: PreTrainedConfig,
    feature_extractor: FeatureExtractionMixin,
    results: Sequence[ShownResult] = (),
) -> ModelCard:
    """Writes README.md and `card.json` into the folder of the weights, whose name is that of the model."""
    folder = Path(folder)
    card = render_card(facts, config, feature_extractor, folder.absolute().name, results)
    card.save(folder / REPOCARD_NAME)
    readme = (folder / REPOCARD_NAME).read_text(encoding="utf-8")
    (folder / CARD_FACTS_NAME).write_text(facts.to_json(readme), encoding="utf-8")
    return card


def input_contract(feature_extractor: FeatureExtractionMixin) -> dict[str, str]:
    """Steps of the feature extractor by name; those that it leaves out are left out."""

    def describe(value) -> str:
        if isinstance(value, (list, tuple)):
            return ", ".join(map(describe, value))
        return f"{value:g}" if isinstance(value, float) else format_fact(value)

    settings = feature_extractor.to_dict()
    settings["normalization"] = settings["normalization"] or "none, amplitudes keep their unit"
    if settings["highpass_hz"] is None and settings["lowpass_hz"] is None:
        settings["filter_order"] = None
    used = (key for key in INPUT_CONTRACT if settings[key] is not None and settings[key] is not False)
    return {INPUT_CONTRACT[key]: describe(settings[key]) for key in used}


def licence_section(data_licence: str | None, weights_licence: str | None) -> str:
    """The section of a card that states all three licences."""
    weights, data = (
        escape_markdown(licence.removeprefix(OTHER).strip()) if is_settled(licence) else "**unknown**"
        for licence in (weights_licence, data_licence)
    )
    lines = ["## Licences", "", f"* Code beside the weights: {CODE_LICENCE}.", f"* Weights: {weights}."]
    lines.append(f"* Training data: {data}.")
    if not is_settled(weights_licence):
        lines += ["", "Unknown: whoever trained this model has not stated a licence. That is no permission to use it."]
    return "\n".join(lines) + "\n"
