"""Configuration of HuBERT-ECG as an encoder (Coppola et al., medRxiv 2024.11.14.24317328)."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import HubertConfig

from .leads import STANDARD_LEADS
from .method import Method
from .published_encoder import PublishedEncoderConfigMixin


@strict
class HubertEcgConfig(PublishedEncoderConfigMixin, HubertConfig):
    r"""
    Configuration of a [`HubertEcgModel`]: that of transformers' HuBERT, and what the model reads. The defaults are the
    published base model at 100 Hz, without the masking of its pretraining.

    Args:
        leads (`tuple[str, ...]`, *optional*, defaults to the twelve standard leads):
            Names of the leads in the order in which they are joined to one sequence.
        sampling_rate (`float`, *optional*, defaults to 100): Samples per second, in Hz.
        num_samples (`int`, *optional*, defaults to 500): Length of the input of one lead, in samples (5 s).
        calibration (`dict`, *optional*): See [`EcgViTConfig`].
        kwargs: Every other field of [`~transformers.HubertConfig`].
    """

    # Not the authors' "hubert_ecg": their own folders, with `trust_remote_code`, have to stay theirs.
    model_type = "ecg_hubert"
    method = Method(
        name="HuBERT-ECG",
        description="A HuBERT on all leads, joined to one sequence: it predicts the clusters of hidden moments.",
        paper=(
            "Edoardo Coppola et al.: HuBERT-ECG as a self-supervised foundation model for broad and scalable cardiac "
            "applications, 2024"
        ),
        url="https://doi.org/10.1101/2024.11.14.24317328",
    )

    leads: list[str] | tuple[str, ...] = STANDARD_LEADS
    sampling_rate: int | float = 100
    num_samples: int = 500
    conv_dim: list[int] | tuple[int, ...] = (512, 512, 512, 512, 512)
    conv_kernel: list[int] | tuple[int, ...] = (10, 3, 3, 2, 2)
    conv_stride: list[int] | tuple[int, ...] = (4, 2, 2, 2, 2)
    layerdrop: float | int = 0.0
    mask_time_prob: float | int = 0.0
    calibration: dict[str, Any] | None = None
