"""Configuration of ECG-JEPA: the encoder's fields and those of the masks, the predictor and the targets."""

from huggingface_hub.dataclasses import strict

from .configuration_ecg_vit import EcgViTConfig
from .masking import hidden_count_bounds
from .method import Method
from .teacher import TEACHERS

KIM = Method(
    name="ECG-JEPA",
    description=(
        "A student encoder sees part of a recording; from it, a predictor predicts the hidden states that a slowly "
        "moving teacher gives for the rest. No labels are used and no signal is reconstructed."
    ),
    use_when=(
        "Use it when later recordings may have fewer leads than those of the pretraining: every token belongs to one "
        "lead."
    ),
    paper=(
        "Sehun Kim: Learning General Representation of 12-Lead Electrocardiogram with a Joint-Embedding Predictive "
        "Architecture, 2024"
    ),
    url="https://arxiv.org/abs/2410.08559",
)
WEIMANN = Method(
    name="ECG-JEPA (temporal segments)",
    description=(
        "A student encoder sees a few segments of a recording, all leads at once; from them, a predictor predicts the "
        "hidden states that a slowly moving teacher gives for the hidden time. No labels are used and no signal is "
        "reconstructed."
    ),
    use_when=(
        "Use it when all recordings have the same leads: one token holds them all, and the student reads a fifth of "
        "the time."
    ),
    paper=(
        "Kuba Weimann and Tim O. F. Conrad: Self-Supervised Pre-Training with Joint-Embedding Predictive Architecture "
        "Boosts ECG Classification Performance, 2024"
    ),
    url="https://arxiv.org/abs/2410.13867",
)


@strict
class EcgJepaConfig(EcgViTConfig):
    r"""
    Configuration of an [`EcgJepaForPreTraining`]. The defaults are ECG-JEPA with Cross-Pattern Attention and
    multi-block masks (Kim, arXiv 2410.08559). ECG-JEPA of Weimann and Conrad (arXiv 2410.13867) is other values of
    the same fields: the presets `weimann_xs`, `weimann_s`, `weimann_b`. Takes every field of [`EcgViTConfig`] too.

    Args:
        mask_type (`str`, *optional*, defaults to `"multi_block"`):
            Time patches that are hidden in all leads at once: for the whole batch the union of several blocks, or
            `"random"` patches (Kim); or other long `"segments"` in each record, one ratio a batch (Weimann).
        mask_ratio (`tuple[float, float]`, *optional*, defaults to `(0.175, 0.225)`):
            Range of the hidden fraction: of one block, or of all random patches (Kim: 0.6 to 0.7) or segments
            (Weimann: 0.75 to 0.85, stated there as 0.15 to 0.25 kept).
        num_mask_blocks (`int`, *optional*, defaults to 4):
            Number of blocks of `"multi_block"`.
        min_segment_patches (`int`, *optional*, defaults to 10):
            Fewest patches of a block of `"segments"` (the last one may be shorter).
        spare_last_patch (`bool`, *optional*, defaults to `False`):
            Parity with the authors' code, whose blocks never hide the last patch (an off-by-one).
        evaluated_encoder (`str`, *optional*, defaults to `"student"`):
            Encoder that the method is evaluated with, hence `ecg_vit` and what `AutoModel` loads: the trained
            `"student"` (Kim) or its moving average, the `"teacher"` (Weimann).
        teacher (`str`, *optional*, defaults to `"ema"`):
            `"ema"`: the moving average of the student. `"random"`: initial weights of its own, which it keeps; a
            control, for `evaluated_encoder="student"`.
        initializer (`str`, *optional*, defaults to `"kim"`):
            Initial weights: `"kim"` (see [`EcgViTPreTrainedModel`]); `"weimann"`: truncated normal, the last linear
            of every residual branch divided by sqrt(2 x layers of the encoder), in the predictor too;
            `"xavier_uniform"`: Weimann before October 2025, the paper included. With the last two, the mask token and
            the registers have no weight decay.
        target_normalization (`str`, *optional*, defaults to `"layer_norm"`):
            Part of the teacher's hidden states that is predicted: their `"layer_norm"` over the channels, without
            parameters (Kim); `"position"`, the same less its mean over the batch at each lead and moment, every
            channel at unit variance, so that predicting the position earns nothing; or the states themselves,
            `"none"` (Weimann).
        prediction_loss (`str`, *optional*, defaults to `"smooth_l1"`):
            `"smooth_l1"` (Kim), `"l1"` (Weimann) or `"mse"`, with `target_normalization="none"` the plain squared
            distance of the I-JEPA recipe. A mean over all elements.
        variance_weight (`float`, *optional*, defaults to 0.0):
            Weight of a penalty on pooled student features that differ too little between records (the variance term
            of VICReg, arXiv 2105.04906). Not in Kim's method; with few records it keeps features from dying.
        covariance_weight (`float`, *optional*, defaults to 0.0):
            Weight of a penalty on pooled student features that repeat each other (the covariance term of VICReg).
        teacher_drop_path (`bool`, *optional*, defaults to `False`):
            Parity with the authors' code, which leaves stochastic depth on in the teacher, so that targets are noisy.
        predictor_hidden_size (`int`, *optional*, defaults to 384):
            Width of the predictor, which sees one row at a time.
        predictor_num_hidden_layers (`int`, *optional*, defaults to 6):
            Layers of the predictor.
        predictor_num_attention_heads (`int`, *optional*, defaults to 12):
            Attention heads of the predictor.
        predictor_intermediate_size (`int`, *optional*, defaults to 1536):
            Width of the hidden layer of the predictor's MLPs.
    """

    model_type = "ecg_jepa"

    choices = EcgViTConfig.choices | {
        "mask_type": ("random", "multi_block", "segments"),
        "evaluated_encoder": ("student", "teacher"),
        "initializer": ("kim", "weimann", "xavier_uniform"),
        "target_normalization": ("layer_norm", "position", "none"),
        "prediction_loss": ("smooth_l1", "l1", "mse"),
        "teacher": TEACHERS,
    }
    least = EcgViTConfig.least | {"num_mask_blocks": 1, "min_segment_patches": 1}
    ranges = {"mask_ratio": (0, 1)}

    mask_type: str = "multi_block"
    mask_ratio: list[float] | tuple[float, ...] = (0.175, 0.225)
    num_mask_blocks: int = 4
    min_segment_patches: int = 10
    spare_last_patch: bool = False
    evaluated_encoder: str = "student"
    teacher: str = "ema"
    initializer: str = "kim"
    target_normalization: str = "layer_norm"
    prediction_loss: str = "smooth_l1"
    variance_weight: float | int = 0.0
    covariance_weight: float | int = 0.0
    teacher_drop_path: bool = False
    predictor_hidden_size: int = 384
    predictor_num_hidden_layers: int = 6
    predictor_num_attention_heads: int = 12
    predictor_intermediate_size: int = 1536

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.teacher == "random" and self.evaluated_encoder == "teacher":
            raise ValueError("teacher='random' learns nothing to evaluate. Set evaluated_encoder='student' with it.")
        fewest, most = hidden_count_bounds(self.num_columns, self.mask_ratio)
        most *= self.num_mask_blocks if self.mask_type == "multi_block" else 1
        if fewest < 1 or most >= self.num_columns:
            raise ValueError(
                f"mask_ratio {self.mask_ratio} with mask_type {self.mask_type!r} can hide between {fewest} and {most} "
                f"of {self.num_columns} patches; at least 1 must be hidden and 1 visible. Change mask_ratio, "
                "num_mask_blocks or patch_size."
            )

    @property
    def method(self) -> Method:
        """Words for the one of the two papers whose masks these are."""
        return WEIMANN if self.mask_type == "segments" else KIM

    def predictor_config(self) -> EcgViTConfig:
        """The predictor's layers as an encoder of one row: dense attention, the same positions along time."""
        encodes_no_time = self.position_embedding in ("learned", "sincos_leads", "none")
        return self.part_config(
            "predictor",
            leads=self.leads[:1],
            position_embedding="sincos_2d" if encodes_no_time else self.position_embedding,
            position_every_layer=self.position_every_layer,
        )
