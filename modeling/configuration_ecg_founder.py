"""Configuration of ECGFounder as an encoder (Li et al., arXiv 2410.04133)."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .leads import STANDARD_LEADS
from .method import Method
from .published_encoder import PublishedEncoderConfigMixin


@strict
class EcgFounderConfig(PublishedEncoderConfigMixin, PreTrainedConfig):
    r"""
    Configuration of an [`EcgFounderModel`], a convolutional network of the RegNet family. The defaults are the network
    that the authors' code builds for their published weights; it has no dropout and uses no batch norm.

    Args:
        leads (`tuple[str, ...]`, *optional*, defaults to the twelve standard leads):
            Names of the leads, the input channels of the first convolution. (The one-lead model: `("I",)`.)
        sampling_rate (`float`, *optional*, defaults to 500): Samples per second, in Hz.
        num_samples (`int`, *optional*, defaults to 5000): Length of the input, in samples (10 s).
        stem_channels (`int`, *optional*, defaults to 64): Channels after the first convolution, whose stride is 2.
        stage_channels (`tuple[int, ...]`, *optional*): Channels of each stage; the last are those of the features.
        stage_depths (`tuple[int, ...]`, *optional*): Blocks of each stage.
        kernel_size (`int`, *optional*, defaults to 16): Width of the kernels, in samples.
        stride (`int`, *optional*, defaults to 2): Factor by which the first block of a stage shortens the sequence.
        group_width (`int`, *optional*, defaults to 16): Channels of one group of the grouped convolutions.
        initializer_range (`float`, *optional*, defaults to 0.02): Deviation of the weights of new linear layers.
        calibration (`dict`, *optional*): See [`EcgViTConfig`].
    """

    model_type = "ecg_founder"
    method = Method(
        name="ECGFounder",
        description=(
            "A convolutional network trained **with labels**, 150 of them. A probe of such features is no measure of "
            "learning without labels."
        ),
        paper=(
            "Jun Li et al.: An Electrocardiogram Foundation Model Built on over 10 Million Recordings with External "
            "Evaluation across Multiple Domains, 2024"
        ),
        url="https://arxiv.org/abs/2410.04133",
    )
    least = {"stem_channels": 1, "kernel_size": 1, "stride": 1, "group_width": 1}

    leads: list[str] | tuple[str, ...] = STANDARD_LEADS
    sampling_rate: int | float = 500
    num_samples: int = 5000
    stem_channels: int = 64
    stage_channels: list[int] | tuple[int, ...] = (64, 160, 160, 400, 400, 1024, 1024)
    stage_depths: list[int] | tuple[int, ...] = (2, 2, 2, 3, 3, 4, 4)
    kernel_size: int = 16
    stride: int = 2
    group_width: int = 16
    initializer_range: float = 0.02
    calibration: dict[str, Any] | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if not self.stage_channels or len(self.stage_channels) != len(self.stage_depths) or min(self.stage_depths) < 1:
            raise ValueError(
                "Expected as many stage_depths of at least 1 as stage_channels, and a stage, got "
                f"{list(self.stage_depths)} and {list(self.stage_channels)}."
            )
        if any(channels % self.group_width for channels in self.stage_channels):
            raise ValueError(
                f"Expected stage_channels that are multiples of group_width ({self.group_width}), got "
                f"{list(self.stage_channels)}."
            )
        widths = [self.stem_channels, *self.stage_channels]
        if widths != sorted(widths):
            raise ValueError(f"Expected channels that never become fewer, from the stem on, got {widths}.")

    @property
    def hidden_size(self) -> int:
        """Width of the features."""
        return self.stage_channels[-1]

    @property
    def num_hidden_layers(self) -> int:
        """Number of blocks."""
        return sum(self.stage_depths)
