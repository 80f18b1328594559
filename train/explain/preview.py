"""The picture on the card of a published model: what it makes of a recording that everybody may see.

The recording is always the same one of PTB-XL (CC BY 4.0), of those that the package carries: never one of the user's.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import CONFIG_NAME

from ecg_transformers.data import load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor
from ecg_transformers.modeling.calibration import calibration_of, names_classifier
from ecg_transformers.modeling.masking import DrawKeys
from ecg_transformers.modeling.modeling_ecg_jepa import EcgJepaForPreTraining
from ecg_transformers.modeling.modeling_sigreg_jepa import SigRegJepaForPreTraining
from ecg_transformers.modeling.modeling_st_mem import MaskedAutoencoderForPreTraining
from ecg_transformers.modeling.pipeline_ecg import REGRESSION, EcgClassificationPipeline

from ..publishing.model_card import Picture, ShownResult
from ..publishing.shared_folder import SharedFolder
from ..report.card_section import results_markdown
from ..report.ecg_paper import draw_paper, plot_recording, usual_layout
from ..report.page import escape_markdown
from ..report.plots import figure_to_bytes
from .reconstructions import reconstruction_figures
from .recordings import explain_recording

logger = logging.getLogger("ecg_transformers")

RECORD_ID = "00063"
ATTRIBUTION = (
    f"Recording {RECORD_ID} of [PTB-XL](https://physionet.org/content/ptb-xl) (Wagner et al., 2020, CC BY 4.0; test "
    "fold 10, at 100 Hz), which the package carries whatever a model was trained on."
)
MOST_SCORES = 8
MASK_COLORS = ListedColormap(["white", "#c6dced"])
DPI = 100


def _picture(figure: Figure, alt: str, caption: str) -> Picture:
    return Picture(figure_to_bytes(figure, dpi=DPI), alt, caption)


def ecg_picture(folder: Path) -> Picture | None:
    """The carried recording on ECG paper, with what the model in a folder makes of it: of a classifier its scores, of
    a masked autoencoder the reconstruction, of a JEPA what was hidden in its pretraining, of another encoder where
    its attention goes. `None` where the model cannot read the recording or be loaded: a model is published without a
    picture rather than not.
    """
    try:
        (row,) = (row for row in load_ecg("ptb-xl-sample", split="test") if row["record_id"] == RECORD_ID)
        feature_extractor = EcgFeatureExtractor.from_pretrained(folder)
        return _draw(_load(folder), feature_extractor, row)
    except Exception as error:  # whatever the model does not do with this one recording
        logger.warning("No preview on ECG paper: %s: %s", type(error).__name__, " ".join(str(error).split()))
        return None


def _load(folder: Path) -> PreTrainedModel:
    """The model by the code of this package, never by that of the folder."""
    name = (json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8")).get("architectures") or [""])[0]
    auto_class = AutoModelForPreTraining if name.endswith("ForPreTraining") else AutoModel
    auto_class = AutoModelForSequenceClassification if names_classifier(name) else auto_class
    return auto_class.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).eval()


def _draw(model: PreTrainedModel, feature_extractor: EcgFeatureExtractor, row: Mapping[str, Any]) -> Picture:
    feature_extractor(row)  # what cannot read the recording has nothing to show of it
    if isinstance(model, MaskedAutoencoderForPreTraining):
        (figure,) = reconstruction_figures(model, feature_extractor, [row])
        return _picture(figure.figure, figure.alt, f"{figure.caption} {ATTRIBUTION}")
    if isinstance(model, EcgJepaForPreTraining | SigRegJepaForPreTraining):
        return _mask_picture(model, feature_extractor, row)
    title, alt = f"PTB-XL {RECORD_ID}", "An electrocardiogram on ECG paper"
    if names_classifier(type(model).__name__):
        title += f" (PTB-XL says: {', '.join(row['labels']) or 'none'})"
        caption = _scores(model, feature_extractor, row)
    else:
        caption = "The leads that the model reads."
        try:
            found = explain_recording(model.base_model, feature_extractor, row, method="attention_rollout")
        except ValueError:  # no attention to show
            pass
        else:
            figure = found.plot(layout=usual_layout(found.leads), title=f"{title}: where the encoder looks")
            alt += "; colour shows where the attention of the encoder goes"
            return _picture(figure, alt, f"Where the attention of the encoder goes. {ATTRIBUTION}")
    figure = plot_recording(*_read_leads(feature_extractor, row), title)
    return _picture(figure, alt, f"{caption} {ATTRIBUTION}")


def _scores(model: PreTrainedModel, feature_extractor: EcgFeatureExtractor, row: Mapping[str, Any]) -> str:
    """The outputs of a classifier in a sentence, the highest first."""
    found = EcgClassificationPipeline(model=model, feature_extractor=feature_extractor, device="cpu")(row)
    is_regression = model.config.problem_type == REGRESSION
    shown = found if is_regression else found[:MOST_SCORES]
    digits = ".4g" if is_regression else ".2f"
    values = ", ".join(f"{escape_markdown(output['label'])} {output['score']:{digits}}" for output in shown)
    if is_regression:
        return f"The model predicts: {values}."
    kind = "Calibrated" if calibration_of(model.config) else "Uncalibrated"
    more = f" and {len(found) - len(shown)} more" if found[MOST_SCORES:] else ""
    return f"{kind} scores: {values}{more}. One recording says nothing of how good the model is."


def _mask_picture(
    model: EcgJepaForPreTraining | SigRegJepaForPreTraining,
    feature_extractor: EcgFeatureExtractor,
    row: Mapping[str, Any],
) -> Picture:
    """Draws the first window with the patches that a mask of the pretraining hides."""
    drawn = model.draw_inputs(torch.zeros(1, 1, 1), DrawKeys(seed=0, step=0, epoch=0, sample_ids=(0,)))
    signal, leads, rate = _read_leads(feature_extractor, row)
    hidden = drawn["bool_masked_pos"][0].numpy()
    patch_seconds = model.config.patch_size / model.config.sampling_rate
    signal = signal[:, : round(len(hidden) * patch_seconds * rate)]
    title = f"PTB-XL {RECORD_ID}: what a mask of the pretraining hides, to be inferred from the rest"
    paper = draw_paper(signal, leads, rate, usual_layout(leads), title)
    paper.color(hidden[None].astype(float), patch_seconds, MASK_COLORS, (0.0, 1.0))
    caption = f"Shaded: what one mask of the pretraining hides ({hidden.mean():.0%}), to be inferred from the rest."
    alt = "An electrocardiogram on ECG paper with hidden patches shaded"
    return _picture(paper.figure, alt, f"{caption} {ATTRIBUTION}")


def _read_leads(feature_extractor: EcgFeatureExtractor, row: Mapping[str, Any]) -> tuple[np.ndarray, list[str], float]:
    """Signal (mV), names and rate (Hz) of the leads that the model reads."""
    ecg = row["ecg"]
    read = [lead for lead in ecg["leads"] if lead in feature_extractor.leads] or list(ecg["leads"])
    return ecg["signal"][[ecg["leads"].index(lead) for lead in read]], read, ecg["sampling_rate"]


def complete_push(shared: SharedFolder, with_model: bool) -> SharedFolder:
    """Adds the scores of a push as Markdown, and a picture of what the model makes of a recording."""
    shown = tuple(ShownResult(result, results_markdown(result)) for result in shared.results.values())
    shared = dataclasses.replace(shared, shown=shown)
    return add_preview(shared) if with_model else shared


def add_preview(shared: SharedFolder) -> SharedFolder:
    """Adds a picture of what the model makes of an electrocardiogram, unless there is one."""
    return shared if shared.picture else dataclasses.replace(shared, picture=ecg_picture(shared.folder))
