"""Configuration of the prediction of random-kernel responses: the encoder's fields, those of views and of targets."""

from huggingface_hub.dataclasses import strict

from .configuration_ecg_conv import EcgConvConfig
from .method import Method


@strict
class KernelResponseConfig(EcgConvConfig):
    r"""
    Configuration of a [`KernelResponseForPreTraining`]. The encoder's defaults are those of [`EcgConvConfig`], all of
    whose fields it takes; with `stem="linear"` or layers behind the stem it is a vision transformer.

    Amplitudes and deviations are in the unit of `input_values`.

    Args:
        num_views (`int`, *optional*, defaults to 2): Altered views of each record.
        view_samples (`int`, *optional*, defaults to 504):
            Length of a view, in samples; other than `num_samples` with `position_embedding="none"` only.
        time_warp (`float`, *optional*, defaults to 0.0): Largest part of itself by which a view is faster or slower.
        lead_gain_std (`float`, *optional*, defaults to 0.2):
            Standard deviation of the logarithm of the factor of each lead.
        wander_amplitude (`float`, *optional*, defaults to 0.0):
            Standard deviation of the amplitude of a sine of 0.1 to 0.5 Hz in each lead.
        noise_std (`float`, *optional*, defaults to 0.3):
            Largest standard deviation of white noise; that of a view is uniform between 0 and this.
        time_mask_ratio (`float`, *optional*, defaults to 0.1): Part of a view that is set to 0, on average.
        num_time_masks (`int`, *optional*, defaults to 1): Number of stretches that make up this part.
        lead_dropout (`float`, *optional*, defaults to 0.2): Part of the leads that a view does not show, on average.
        few_leads_chance (`float`, *optional*, defaults to 0.0): Chance of a view to show one to three leads only.
        num_kernels (`int`, *optional*, defaults to 1200):
            Random kernels whose responses are predicted, four features each; a multiple of 6.
        kernel_seed (`int`, *optional*, defaults to 0): Seed of the kernels.
        target_size (`int`, *optional*, defaults to 64):
            Principal components of the standardised responses that are predicted.
        target_power (`float`, *optional*, defaults to 1.0):
            Power of a component's standard deviation that its target keeps: 0 whitens, 1 leaves the components as
            they are. Targets have unit mean square in all.
        beat_target_size (`int`, *optional*, defaults to 0):
            Principal components of the recording's median beat, in the unit of the input, that are predicted too.
        fitting_records (`int`, *optional*, defaults to 2048):
            Recordings from which the components are taken before the first step.
        invariance_weight, variance_weight, covariance_weight (`float`, *optional*, default to 0.0):
            Weights of the terms of VICReg (arXiv 2105.04906) on projections of the views. All 0: no projector.
        projector_hidden_size, projection_size (`int`, *optional*, default to 512 and 256):
            Widths of the projector of these terms.
    """

    model_type = "kernel_response"
    method = Method(
        name="Prediction of random-kernel responses",
        description=(
            "Fixed random convolutions respond to a recording; from altered windows of it, with noise, hidden time "
            "and absent leads, the encoder predicts the pooled responses. Fixed targets cannot collapse. No teacher "
            "and no labels."
        ),
        use_when=(
            "Use it when there are few recordings and no GPU: fixed targets cannot collapse, and minutes on a CPU are "
            "enough."
        ),
    )
    least = EcgConvConfig.least | dict.fromkeys(("lead_gain_std", "wander_amplitude", "noise_std", "target_power"), 0)
    least |= dict.fromkeys(("beat_target_size", "invariance_weight", "variance_weight", "covariance_weight"), 0)
    least |= {"num_views": 1, "num_time_masks": 1, "target_size": 1, "projector_hidden_size": 1, "projection_size": 1}

    num_views: int = 2
    view_samples: int = 504
    time_warp: float | int = 0.0
    lead_gain_std: float | int = 0.2
    wander_amplitude: float | int = 0.0
    noise_std: float | int = 0.3
    time_mask_ratio: float | int = 0.1
    num_time_masks: int = 1
    lead_dropout: float | int = 0.2
    few_leads_chance: float | int = 0.0
    num_kernels: int = 1200
    kernel_seed: int = 0
    target_size: int = 64
    target_power: float | int = 1.0
    beat_target_size: int = 0
    fitting_records: int = 2048
    invariance_weight: float | int = 0.0
    variance_weight: float | int = 0.0
    covariance_weight: float | int = 0.0
    projector_hidden_size: int = 512
    projection_size: int = 256

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        for field, most in {
            "time_warp": 0.9,
            "time_mask_ratio": 0.5,
            "lead_dropout": 0.5,
            "few_leads_chance": 1.0,
        }.items():
            if not 0.0 <= getattr(self, field) <= most:
                raise ValueError(f"Expected {field} of 0 to {most}, got {getattr(self, field)}.")
        if self.fitting_records < 2 or self.num_kernels < 6 or self.num_kernels % 6:
            raise ValueError(
                "Expected fitting_records of at least 2 and num_kernels as a multiple of 6, got "
                f"{self.fitting_records} and {self.num_kernels}."
            )
        if not 2 <= self.view_samples <= self.num_samples or self.view_samples % self.patch_size:
            raise ValueError(
                f"Expected view_samples as a multiple of patch_size ({self.patch_size}) up to num_samples "
                f"({self.num_samples}), got {self.view_samples}."
            )
        if self.view_samples != self.num_samples and self.position_embedding != "none":
            raise ValueError(
                f"Views of another length ({self.view_samples}) than the record's ({self.num_samples}) need "
                "position_embedding='none'. Set view_samples to num_samples, or num_samples and random_windows."
            )
        if self.uses_vicreg and self.num_views < 2:
            raise ValueError(
                "invariance_weight, variance_weight and covariance_weight compare views: set num_views=2."
            )

    @property
    def uses_vicreg(self) -> bool:
        """True if views are compared, so that there is a projector."""
        return any((self.invariance_weight, self.variance_weight, self.covariance_weight))
