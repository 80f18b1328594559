"""What the authors of published encoders state, for the cards of their converted weights."""

from dataclasses import dataclass

from ecg_transformers.modeling import EcgFmConfig, EcgFounderConfig, HubertEcgConfig
from ecg_transformers.modeling.method import Method
from ecg_transformers.train.publishing.model_card import Authors


@dataclass(frozen=True)
class PublishedModel:
    """A published encoder in words.

    Args:
        method ([`~ecg_transformers.modeling.method.Method`]): Its name, how it was trained, and its paper.
        weights (`str`): Where its weights lie and on which terms, as far as the authors state them.
        code (`str`): The licence of the authors' code, none of which is here.
        departures (`str`): Where the feature extractor does not do what the authors did, and what follows.
    """

    method: Method
    weights: str
    code: str
    departures: str

    def of_file(self, file: str) -> Authors:
        """For the card of a converted file."""
        return Authors(self.weights, self.code, self.departures, file)


HUBERT_ECG = PublishedModel(
    HubertEcgConfig.method,
    weights="Hub: Edoardo-BS/hubert-ecg-small, -base and -large, CC BY-NC 4.0.",
    code="CC BY-NC 4.0 (github.com/Edoar-do/HuBERT-ECG)",
    departures=(
        "They filter with a FIR of 0.05 to 47 Hz (which keeps 96 % of the slowest waves), and decimate the joined "
        "leads, so that the filter runs across the seams of two leads. The feature extractor resamples once and has a "
        "zero-phase low-pass of 40 Hz on each lead. On 20 recordings of PTB-XL the two inputs correlate by 0.996 and "
        "more: close, not equal."
    ),
)
ECG_FM = PublishedModel(
    EcgFmConfig.method,
    weights="Hub: wanglab/ecg-fm. Their licence is what its page says.",
    code="MIT (github.com/bowang-lab/ECG-FM, github.com/Jwoo5/fairseq-signals)",
    departures=(
        "Recordings of another rate than 500 Hz were resampled linearly, here by Fourier; and what is left after the "
        "last whole 5 s was dropped, here the last window ends with the recording. 10 s at 500 Hz are equal."
    ),
)
ECG_FOUNDER = PublishedModel(
    EcgFounderConfig.method,
    weights=(
        "Hub: PKUDigitalHealth/ECGFounder. Their licence is what its page says. The labels of the head are the lines "
        "of `tasks.txt` in the authors' repository."
    ),
    code="MIT (github.com/PKUDigitalHealth/ECGFounder)",
    departures=(
        "The band-pass is one filter of theirs and two of ours; on 20 recordings of PTB-XL the inputs differ by 0.002 "
        "deviations on average in the median recording, by 0.03 in the worst. Gaps became zeros and are interpolated "
        "here. (Their evaluation on PTB-XL, `ptbxl_eval.py`, does not filter at all.)"
    ),
)
