"""Configurations of encoders without training: random convolution kernels and statistics of each lead."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .leads import STANDARD_LEADS
from .published_encoder import PublishedEncoderConfigMixin

FEATURES_PER_KERNEL = 4
FEATURES_PER_LEAD = 9


class UntrainedConfigMixin(PublishedEncoderConfigMixin):
    """Base of the configuration of features that nothing was learned for."""

    @property
    def num_hidden_layers(self) -> int:
        """The features are the one layer."""
        return 1


@strict
class RandomKernelsConfig(UntrainedConfigMixin, PreTrainedConfig):
    r"""
    Configuration of a [`RandomKernelsModel`].

    Args:
        leads (`tuple[str, ...]`, *optional*, defaults to the twelve standard leads): Names of the leads of the input.
        sampling_rate (`float`, *optional*, defaults to 100): Samples per second, in Hz.
        num_samples (`int`, *optional*, defaults to 1000): Length of the input, in samples.
        num_kernels (`int`, *optional*, defaults to 1200): Kernels, four features each; a multiple of 6.
        seed (`int`, *optional*, defaults to 0): Seed of the kernels.
    """

    model_type = "random_kernels"

    leads: list[str] | tuple[str, ...] = STANDARD_LEADS
    sampling_rate: int | float = 100
    num_samples: int = 1000
    num_kernels: int = 1200
    seed: int = 0
    calibration: None = None

    def __post_init__(self, **kwargs):
        if self.num_kernels < 6 or self.num_kernels % 6:
            raise ValueError(
                f"Expected num_kernels as a multiple of 6 (one share a dilation), got {self.num_kernels}."
            )
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Number of features."""
        return FEATURES_PER_KERNEL * self.num_kernels


@strict
class LeadStatisticsConfig(UntrainedConfigMixin, PreTrainedConfig):
    r"""
    Configuration of a [`LeadStatisticsModel`].

    Args:
        leads (`tuple[str, ...]`, *optional*, defaults to the twelve standard leads): Names of the leads of the input.
        sampling_rate (`float`, *optional*, defaults to 100): Samples per second, in Hz.
        num_samples (`int`, *optional*, defaults to 1000): Length of the input, in samples.
    """

    model_type = "lead_statistics"

    leads: list[str] | tuple[str, ...] = STANDARD_LEADS
    sampling_rate: int | float = 100
    num_samples: int = 1000
    calibration: None = None

    @property
    def hidden_size(self) -> int:
        """Number of features."""
        return FEATURES_PER_LEAD * len(self.leads)
