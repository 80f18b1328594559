"""Configuration of ECG-CPC: the state-space encoder's fields and those of the contrast."""

from huggingface_hub.dataclasses import strict

from .configuration_ecg_s4 import EcgS4Config
from .method import Method


@strict
class EcgCpcConfig(EcgS4Config):
    r"""
    Configuration of an [`EcgCpcForPreTraining`]. The defaults are ECG-CPC (arXiv 2509.25095), pretrained on 10 s; the
    systematic study of the same group (arXiv 2605.12241) takes 2.5 s (`num_samples=600`). Takes every field of
    [`EcgS4Config`] too.

    Args:
        horizon_ms (`float`, *optional*, defaults to 116.67):
            Distance of the predicted token, in ms; rounded to whole tokens (published: 14 of 8.33 ms).
        num_negatives (`int`, *optional*, defaults to 128):
            Other tokens of the same crop among which the true one has to be found, drawn with replacement.
        time_reduction (`str`, *optional*, defaults to `"sum"`):
            `"sum"` of the losses of a record's predictions (published; it grows with the record, and a clip of the
            gradient with it) or their `"mean"`.
    """

    model_type = "ecg_cpc"
    method = Method(
        name="ECG-CPC",
        description=(
            "A causal encoder of state spaces predicts, at every moment, the output of its first layers 117 ms later, "
            "and has to distinguish it from other moments of the same recording. No teacher and no labels."
        ),
        use_when=(
            "Use it when the encoder will be fine-tuned on labels, or has to read a recording while it is being made: "
            "it is causal, and frozen features are not its strength."
        ),
        paper="Al-Masud, Lopez Alcaraz and Strodthoff, 2025 (in their benchmark of ECG foundation models)",
        url="https://arxiv.org/abs/2509.25095",
    )
    choices = EcgS4Config.choices | {"time_reduction": ("sum", "mean")}
    least = EcgS4Config.least | {"num_negatives": 1}

    horizon_ms: float | int = 14 / 120 * 1000
    num_negatives: int = 128
    time_reduction: str = "sum"

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.bidirectional:
            raise ValueError("bidirectional=True would show the encoder what it is to predict. Leave it at False.")

    @property
    def horizon(self) -> int:
        """Tokens between a context and what it predicts."""
        return round(self.horizon_ms / 1000 * self.token_rate)
