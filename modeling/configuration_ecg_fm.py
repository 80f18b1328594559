"""Configuration of ECG-FM as an encoder (McKeen et al., arXiv 2408.05178)."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import Wav2Vec2Config

from .leads import STANDARD_LEADS
from .method import Method
from .published_encoder import PublishedEncoderConfigMixin


@strict
class EcgFmConfig(PublishedEncoderConfigMixin, Wav2Vec2Config):
    r"""
    Configuration of an [`EcgFmModel`]: that of transformers' wav2vec 2.0, and what the model reads. The defaults are
    the published model, without the masking of its pretraining.

    Args:
        leads (`tuple[str, ...]`, *optional*, defaults to the twelve standard leads):
            Names of the leads, the input channels of the first convolution.
        sampling_rate (`float`, *optional*, defaults to 500): Samples per second, in Hz.
        num_samples (`int`, *optional*, defaults to 2500): Length of the input, in samples (5 s).
        calibration (`dict`, *optional*): See [`EcgViTConfig`].
        kwargs: Every other field of [`~transformers.Wav2Vec2Config`]; `feat_extract_norm` is `"group"`,
            `do_stable_layer_norm` and `add_adapter` are `False`.
    """

    model_type = "ecg_fm"
    method = Method(
        name="ECG-FM",
        description=(
            "A wav2vec 2.0 that reads all leads at once, pretrained to distinguish hidden moments from others and one "
            "patient's segments from another's, with random leads put to zero (W2V + CMSC + RLM)."
        ),
        paper="Kaden McKeen et al.: ECG-FM: An Open Electrocardiogram Foundation Model, 2024",
        url="https://arxiv.org/abs/2408.05178",
    )

    leads: list[str] | tuple[str, ...] = STANDARD_LEADS
    sampling_rate: int | float = 500
    num_samples: int = 2500
    conv_dim: list[int] | tuple[int, ...] = (256, 256, 256, 256)
    conv_kernel: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    conv_stride: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    layerdrop: float | int = 0.0
    mask_time_prob: float | int = 0.0
    calibration: dict[str, Any] | None = None

    def __post_init__(self, **kwargs):
        if self.feat_extract_norm != "group" or self.do_stable_layer_norm or self.add_adapter:
            raise ValueError(
                "ECG-FM has feat_extract_norm='group' and neither do_stable_layer_norm nor add_adapter, got "
                f"{self.feat_extract_norm!r}, {self.do_stable_layer_norm} and {self.add_adapter}."
            )
        super().__post_init__(**kwargs)
