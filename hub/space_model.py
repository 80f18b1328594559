"""The model behind the page of a Space: what it makes of one recording, and the recordings nearest to it."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.utils import CONFIG_NAME, FEATURE_EXTRACTOR_NAME

from ecg_transformers.data import EcgRecord, load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.calibration import calibration_for, names_classifier
from ecg_transformers.modeling.lead_plan import plan_leads
from ecg_transformers.modeling.pipeline_ecg import (
    FUNCTIONS,
    REGRESSION,
    EcgClassificationPipeline,
    EcgFeatureExtractionPipeline,
)
from ecg_transformers.train.checkpoints import check_place
from ecg_transformers.train.explain.recordings import Explanation, explain_recording
from ecg_transformers.train.features import EmbeddingTable, embed
from ecg_transformers.train.publishing.shared_folder import is_model_folder

SAMPLE_CORPUS = "ptb-xl-sample"
NUM_NEIGHBOURS = 4
CURES = {
    "set missing_leads='mask'": "tick “Go on without missing leads”",
    ", or set nan_policy='interpolate'": "",
    ", or set short_records='zero_pad'": "",
}
"""Settings that an error of the feature extractor names, as a visitor finds them on the page."""


class SpaceModel:
    """A classifier, or an encoder without classes, with its feature extractor."""

    def __init__(self, model: PreTrainedModel, feature_extractor: EcgFeatureExtractor):
        self.model = model.eval().requires_grad_(False)
        self.feature_extractor = feature_extractor
        self.is_classifier = names_classifier(type(model).__name__)
        self.is_regression = self.is_classifier and model.config.problem_type == REGRESSION
        # Neighbours are by what the encoder pools, as everybody loads it, whatever the head of a classifier reads.
        self.encoder = model.base_model if self.is_classifier else model

    @classmethod
    def load(cls, checkpoint: str | PathLike, revision: str | None = None) -> "SpaceModel":
        """Loads a folder or an id of the Hub; of a pretraining checkpoint the encoder."""
        checkpoint = str(checkpoint)
        check_files(checkpoint)
        given = {"trust_remote_code": False} | ({} if revision is None else {"revision": revision})
        try:
            config = AutoConfig.from_pretrained(checkpoint, **given)
            feature_extractor = AutoFeatureExtractor.from_pretrained(checkpoint, **given)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"{checkpoint} is no model of this library with its feature extractor: {reason}"
            ) from error
        if not isinstance(feature_extractor, EcgFeatureExtractor):
            raise ValueError(
                f"{checkpoint} is no model of ECGs: its input is made by {type(feature_extractor).__name__}."
            )
        is_classifier = any(map(names_classifier, config.architectures or []))
        if is_classifier and config.problem_type not in FUNCTIONS:
            raise ValueError(
                f"The configuration of {checkpoint} does not say what its labels are: set problem_type to one of "
                f"{list(FUNCTIONS)} in its {CONFIG_NAME}."
            )
        auto_class = AutoModelForSequenceClassification if is_classifier else AutoModel
        try:
            model = auto_class.from_pretrained(checkpoint, dtype=torch.float32, use_safetensors=True, **given)
        except (OSError, ValueError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"The weights of {checkpoint} cannot be read (safetensors only): {reason}") from error
        return cls(model, feature_extractor)

    @property
    def classes(self) -> list[str]:
        """Names of the outputs, in their order; none of an encoder."""
        return [self.model.config.id2label[n] for n in range(self.model.config.num_labels)] * self.is_classifier

    def check(self, record: EcgRecord, mask_missing_leads: bool) -> list[str]:
        """Sentences on how the model reads a recording. What its feature extractor refuses is a `ValueError` in words
        for somebody who sees only the page."""
        extractor = self._extractor(mask_missing_leads)
        try:
            extractor(record)
        except ValueError as error:
            sentence = str(error).replace("Record 0", "The recording")
            for setting, cure in CURES.items():
                sentence = sentence.replace(setting, cure)
            raise ValueError(sentence) from error
        seconds = record.signal.shape[1] / record.sampling_rate
        notes = [f"{len(record.leads)} leads, {seconds:.4g} s at {record.sampling_rate:g} Hz."]
        if record.sampling_rate != extractor.sampling_rate:
            notes.append(f"Resampled to {extractor.sampling_rate:g} Hz for the model.")
        length = extractor.resampled_length(record.signal.shape[1], record.sampling_rate)
        if (windows := len(extractor.window_starts(length))) > 1:
            window = f"{extractor.num_samples / extractor.sampling_rate:g} s"
            notes.append(f"The model reads {windows} windows of {window}; their mean counts.")
        names = tuple(record.leads)
        plan = plan_leads(extractor.leads, names, extractor.derive_limb_leads, extractor.electrode_placement)
        if unread := [name for number, name in enumerate(names) if number not in plan.sources]:
            notes.append(f"Not read by the model: {', '.join(unread)}.")
        return notes

    def scores(self, record: EcgRecord, mask_missing_leads: bool = False) -> list[dict[str, Any]]:
        """Scores as `pipeline("ecg-classification")` gives them."""
        settings = {"missing_leads": "mask"} if mask_missing_leads else {}
        return EcgClassificationPipeline(model=self.model, feature_extractor=self.feature_extractor)(
            record, **settings
        )

    def checks(self, record: EcgRecord, mask_missing_leads: bool) -> dict[str, Any]:
        """Findings of the feature extractor in a recording, see [`EcgFeatureExtractor.check`]."""
        return self._extractor(mask_missing_leads).check(record)[0]

    def calibration_of(self, record: EcgRecord, mask_missing_leads: bool) -> Mapping[str, Any] | None:
        """Temperature and thresholds that count for a recording; `None` where the scores are not calibrated."""
        checks = self.checks(record, mask_missing_leads)
        return calibration_for(self.model.config, self.feature_extractor, checks)[0]

    def features(self, record: EcgRecord, mask_missing_leads: bool = False) -> np.ndarray:
        """The pooled feature, float32 `(hidden_size,)`, averaged over the windows."""
        extractor = self._extractor(mask_missing_leads)
        return EcgFeatureExtractionPipeline(model=self.encoder, feature_extractor=extractor)(record)

    def explain(
        self, record: EcgRecord, method: str, target: str | None = None, mask_missing_leads: bool = False
    ) -> Explanation:
        """See [`explain_recording`]; `target` is a class."""
        given = {"target": target} if method == "integrated_gradients" and self.is_classifier else {}
        return explain_recording(self.model, self._extractor(mask_missing_leads), record, method, **given)

    def _extractor(self, mask_missing_leads: bool) -> EcgFeatureExtractor:
        return self.feature_extractor.changed(**{"missing_leads": "mask"} if mask_missing_leads else {})


class NeighbourIndex:
    """The carried recordings of PTB-XL's training folds by their features, which [`neighbour_table`] gives."""

    def __init__(self, table: EmbeddingTable):
        self.carried = load_ecg(SAMPLE_CORPUS, split="train")
        places = {record_id: place for place, record_id in enumerate(self.carried["record_id"])}
        if unknown := [record_id for record_id in table.record_ids if record_id not in places]:
            raise ValueError(f"The index names recordings that are not carried: {unknown[:5]}. Write the Space again.")
        self.places = [places[record_id] for record_id in table.record_ids]
        self.scaler = StandardScaler().fit(table.features.astype(np.float64))
        self.search = NearestNeighbors(metric="cosine").fit(self.scaler.transform(table.features))

    def nearest(self, features: np.ndarray) -> list[tuple[dict[str, Any], float]]:
        """Rows of [`load_ecg`] nearest to a feature `(hidden_size,)`, the nearest first, with their distances, 0 to 2:
        1 minus the cosine of standardised features, as in the protocol `knn`."""
        if features.shape != self.scaler.mean_.shape:
            raise ValueError("The index of neighbours is that of another model. Write the Space again.")
        count = min(NUM_NEIGHBOURS, len(self.places))
        distances, order = self.search.kneighbors(self.scaler.transform(features[None].astype(np.float64)), count)
        found = zip(order[0], distances[0], strict=True)
        return [(self.carried[self.places[number]], float(distance)) for number, distance in found]


def neighbour_table(model: SpaceModel) -> EmbeddingTable:
    """Features of the carried recordings of the training folds."""
    rows = load_ecg(SAMPLE_CORPUS, split="train", decode=False)
    return embed(model.encoder, model.feature_extractor, rows, batch_size=16, progress=False)


def sample_rows() -> list[dict[str, Any]]:
    """Carried recordings of the test fold to choose from: the first of each class that has no other class, then the
    first with several."""
    carried = load_ecg(SAMPLE_CORPUS, split="test")
    labels = list(carried["labels"])
    kinds = sorted({row[0] for row in labels if len(row) == 1}, key=lambda kind: (kind != "NORM", kind))
    several = next(place for place, row in enumerate(labels) if len(row) > 1)
    return [carried[place] for place in (*(labels.index([kind]) for kind in kinds), several)]


def check_files(checkpoint: str):
    """Raises `ValueError` for what is neither a folder with a whole model nor an id of the Hub, unasked."""
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        lacking = [name for name in (CONFIG_NAME, FEATURE_EXTRACTOR_NAME) if not (folder / name).is_file()]
        if lacking or not is_model_folder(folder):
            raise ValueError(
                f"{folder} is no model: expected {CONFIG_NAME}, {FEATURE_EXTRACTOR_NAME} and weights as `finetune` "
                f"writes them; {', '.join(lacking) or 'the weights'} {'are' if len(lacking) != 1 else 'is'} not there."
            )
    else:
        check_place(checkpoint)
