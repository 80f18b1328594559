"""Configuration of JEPA on the state-space encoder: its fields and those of the masks and the teacher."""

from huggingface_hub.dataclasses import strict

from .configuration_ecg_s4 import EcgS4Config
from .masking import hidden_count_bounds
from .method import Method
from .teacher import TEACHERS


@strict
class EcgS4JepaConfig(EcgS4Config):
    r"""
    Configuration of an [`EcgS4JepaForPreTraining`]. The defaults are those of the systematic study of objectives
    (arXiv 2605.12241): 2.5 s, a bidirectional encoder. Takes every field of [`EcgS4Config`] too.

    Args:
        mask_ratio (`tuple[float, float]`, *optional*, defaults to `(0.15, 0.2)`):
            Range of the part of the tokens that one hidden block covers.
        num_mask_blocks (`int`, *optional*, defaults to 4): Hidden blocks of each record; they may overlap.
        teacher (`str`, *optional*, defaults to `"ema"`):
            `"ema"`: the moving average of the student. `"random"`: initial weights of its own, which it keeps; a
            control.
        predictor_state_size (`int`, *optional*, defaults to 64): State of the one layer of the predictor.
    """

    model_type = "ecg_s4_jepa"
    method = Method(
        name="JEPA on state spaces",
        description=(
            "An encoder of state spaces sees a recording with hidden blocks and predicts the hidden states that a "
            "slowly moving teacher gives for them. No labels are used and no signal is reconstructed."
        ),
        use_when="Use it when recordings are long or of many lengths: time and memory grow linearly with the length.",
        paper="Al-Masud, Lopez Alcaraz and Strodthoff, 2026 (one of five objectives)",
        url="https://arxiv.org/abs/2605.12241",
    )
    choices = EcgS4Config.choices | {"teacher": TEACHERS}
    least = EcgS4Config.least | {"num_mask_blocks": 1, "predictor_state_size": 1}
    ranges = EcgS4Config.ranges | {"mask_ratio": (0, 1)}

    num_samples: int = 600
    bidirectional: bool = True
    mask_ratio: list[float] | tuple[float, ...] = (0.15, 0.2)
    num_mask_blocks: int = 4
    teacher: str = "ema"
    predictor_state_size: int = 64

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        fewest, most = hidden_count_bounds(self.num_columns, self.mask_ratio)
        if fewest < 1 or most * self.num_mask_blocks >= self.num_columns:
            raise ValueError(
                f"mask_ratio {self.mask_ratio} with {self.num_mask_blocks} blocks can hide between {fewest} and "
                f"{most * self.num_mask_blocks} of {self.num_columns} tokens; at least 1 must be hidden and 1 "
                "visible. Change mask_ratio, num_mask_blocks or num_samples."
            )
