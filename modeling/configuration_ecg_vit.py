"""Configuration of the ECG vision transformer, the one encoder of every method in this library."""

import math
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .calibration import check_calibration
from .checked_config import CheckedConfigMixin
from .leads import INDEPENDENT_LEADS, canonical_leads, lead_indices
from .method import Method

STATISTICS = ("mean", "std", "max", "min")
"""Features of one channel with `pooling="statistics"`, all unless some are chosen."""


@strict
class EcgViTConfig(CheckedConfigMixin, PreTrainedConfig):
    r"""
    Configuration of an [`EcgViTModel`]. The defaults are the encoder of ECG-JEPA with Cross-Pattern Attention (Kim,
    arXiv 2410.08559): ViT-B on 8 leads x 50 patches of 200 ms.

    Args:
        leads (`tuple[str, ...]`, *optional*, defaults to the eight independent leads):
            Names of the input leads, in the order in which the model expects them. A checkpoint can be loaded for
            fewer: `from_pretrained(..., leads=["II"])`; every lead keeps the place that it was trained at.
        sampling_rate (`float`, *optional*, defaults to 250): Samples per second, in Hz.
        num_samples (`int`, *optional*, defaults to 2500):
            Length of the input, in samples (10 s). The sine-cosine position tables are computed, so a checkpoint can
            be loaded with another length: `from_pretrained(..., num_samples=1250)`.
        patch_size (`int`, *optional*, defaults to 50): Length of one patch, in samples (200 ms).
        patching (`str`, *optional*, defaults to `"per_lead"`):
            `"per_lead"`: one row of tokens a lead. `"all_leads"`: one row, the leads are input channels of a patch.
        attention_pattern (`str`, *optional*, defaults to `"cropa"`):
            `"cropa"`: a token sees its own lead and its own moment (Cross-Pattern Attention). `"full"`: it sees all.
        position_embedding (`str`, *optional*, defaults to `"sincos_2d"`):
            `"sincos_2d"`: half of the channels encode time, half the lead (Kim). `"sincos_interleaved"`: time only,
            sine and cosine alternate (Weimann). `"sincos_halves"`: time only, sines then cosines (ST-MEM).
            `"sincos_leads"`: lead only (MLAE). `"learned"`: a free table of leads x time. `"none"`: none, with a
            convolutional stem, which tells order apart; the input may then have any length in whole patches.
        position_leads (`tuple[str, ...]`, *optional*, defaults to `leads`):
            The leads that the weights know, in the order of the position table (and of the patch embedding with
            `patching="all_leads"`). Leave it alone: it is how a checkpoint remembers the places of its leads.
        position_every_layer (`bool`, *optional*, defaults to `True`):
            Whether the positions are added to the input of every layer (Kim) or once.
        extra_channels (`int`, *optional*, defaults to 0):
            Rows after the leads that are no leads (hybrid input: beats and intervals); with `patching="per_lead"`.
        patch_norm (`bool`, *optional*, defaults to `False`): Layer norms around the patch projection (ST-MEM).
        num_registers (`int`, *optional*, defaults to 0):
            Learned tokens without a position. Every token sees them, and they see every token.
        lead_separators (`bool`, *optional*, defaults to `False`):
            A learned embedding of its lead in every token, and two separators a lead (ST-MEM).
        pooling (`str`, *optional*, defaults to `"mean"`):
            `pooler_output`: `"mean"` of the patch tokens after the final norm, `"mean_then_norm"` (ST-MEM),
            `"class_token"`, the first register after the norm (MTAE, MLAE), or `"statistics"`: mean, standard
            deviation, maximum and minimum of each channel over the patch tokens, four times as wide.
        pooled_layer (`str` or `int`, *optional*, defaults to `"last"`):
            The layer that is pooled: `"last"`, the number of one (0: the stem; negative: from the end), or
            `"mean_last_half"`, the mean of the later half. The final norm is applied to every layer that is read.
        stem (`str`, *optional*, defaults to `"linear"`):
            Maker of tokens from the signal: one `"linear"` map of a patch, or strided convolutions with ConvNeXt
            blocks, `"conv"` (see `conv_stem.py`): for each lead with the same weights, or over all leads.
        stem_widths, stem_depths, stem_strides (`tuple[int, ...]`, *optional*):
            Channels (the last: `hidden_size`), number of blocks and stride in time (multiplied: `patch_size`) of each
            stage of the convolutional stem.
        stem_kernel, stem_block_kernel (`int`, *optional*, default to 9):
            Widths of the first convolution, in samples, and of those of the blocks, in their steps.
        stem_mlp_ratio (`int`, *optional*, defaults to 2): Width of a block's MLP, in widths of its stage.
        pooled_stages (`tuple[int, ...]`, *optional*, defaults to `()`):
            Stages of the stem, from 0, whose statistics stand in `pooler_output` before those of the tokens.
        statistics, stage_statistics (`tuple[str, ...]`, *optional*, default to all four):
            Statistics, of `"mean"`, `"std"`, `"max"` and `"min"`, that `pooling="statistics"` takes of the tokens and
            of each pooled stage.
        head_dim (`int`, *optional*): Width of one head; by default `hidden_size // num_attention_heads`.
        use_bias, qkv_bias, layer_norm_bias (`bool`, *optional*, default to `True`, `False`, `True`):
            Biases of patch embedding, attention output and MLP; of query, key and value; of the layer norms.
        layer_scale_init_value (`float`, *optional*):
            Initial value of the LayerScale of both residual branches; `None` leaves LayerScale out.
        drop_path_rate (`float`, *optional*, defaults to 0.0):
            Stochastic depth of the last layer; the rate rises linearly from 0 in the first. (Of the stem's blocks
            where there are no layers.)
        classifier_pooling (`str`, *optional*, defaults to `"pooled"`), classifier_bias (`bool`, defaults to `True`):
            Input of a classification head: the `"pooled"` feature, the first `"register"`, or an `"attentive"` mean:
            a learned query that attends to registers and patches (Weimann).
        embedding_size (`int`, *optional*), embedding_hidden_size (`int`, *optional*, defaults to 64):
            Widths of the projection (linear, ReLU, linear) of [`EcgViTForEmbedding`]; by default there is none.
        triplet_mining (`str`, *optional*, defaults to `"batch_hard"`), triplet_margin (`float`, defaults to 1.0):
            Triplets of its loss, `"batch_hard"`, `"semi_hard"` or `"random"`, and by how much they are to differ.
        calibration (`dict`, *optional*):
            Lessons of a validation split on the scores of a classifier, for `pipeline("ecg-classification")`:
            `labels`, the class names that it is for; `temperature`, by which logits are divided; and, of several
            labels a record, `thresholds`, label → least score after the temperature that counts as positive.
            `input`, what they were measured on (`leads`, `electrode_placement`, `long_records`), and `subsets`,
            measured on fewer `leads`: for other input they are off. `finetune` writes it.
    """

    model_type = "ecg_vit"
    method = Method(
        name="ECG vision transformer",
        description="An encoder of electrocardiograms without a head.",
    )

    choices = {
        "patching": ("per_lead", "all_leads"),
        "attention_pattern": ("cropa", "full"),
        "position_embedding": ("sincos_2d", "sincos_interleaved", "sincos_halves", "sincos_leads", "learned", "none"),
        "stem": ("linear", "conv"),
        "pooling": ("mean", "mean_then_norm", "class_token", "statistics"),
        "classifier_pooling": ("pooled", "register", "attentive"),
        "triplet_mining": ("batch_hard", "semi_hard", "random"),
    }
    least = {"patch_size": 1, "num_attention_heads": 1, "num_registers": 0, "extra_channels": 0}
    least |= {"hidden_size": 1, "num_hidden_layers": 0, "intermediate_size": 1}
    fractions = ("drop_path_rate",)

    leads: list[str] | tuple[str, ...] = INDEPENDENT_LEADS
    sampling_rate: int | float = 250
    num_samples: int = 2500
    patch_size: int = 50
    patching: str = "per_lead"
    attention_pattern: str = "cropa"
    position_embedding: str = "sincos_2d"
    position_leads: list[str] | tuple[str, ...] | None = None
    position_every_layer: bool = True
    extra_channels: int = 0
    patch_norm: bool = False
    num_registers: int = 0
    lead_separators: bool = False
    pooling: str = "mean"
    pooled_layer: str | int = "last"
    stem: str = "linear"
    stem_widths: list[int] | tuple[int, ...] = ()
    stem_depths: list[int] | tuple[int, ...] = ()
    stem_strides: list[int] | tuple[int, ...] = ()
    stem_kernel: int = 9
    stem_block_kernel: int = 9
    stem_mlp_ratio: int = 2
    pooled_stages: list[int] | tuple[int, ...] = ()
    statistics: list[str] | tuple[str, ...] = STATISTICS
    stage_statistics: list[str] | tuple[str, ...] = STATISTICS
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 16
    head_dim: int | None = None
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    use_bias: bool = True
    qkv_bias: bool = False
    layer_norm_bias: bool = True
    layer_norm_eps: float = 1e-5
    layer_scale_init_value: float | int | None = None
    drop_path_rate: float | int = 0.0
    initializer_range: float = 0.02
    classifier_pooling: str = "pooled"
    classifier_bias: bool = True
    embedding_size: int | None = None
    embedding_hidden_size: int = 64
    triplet_mining: str = "batch_hard"
    triplet_margin: float | int = 1.0
    calibration: dict[str, Any] | None = None

    def __post_init__(self, **kwargs):
        self.leads = canonical_leads(self.leads)
        self.check_fields()
        if not self.leads:
            raise ValueError("Expected at least one lead, got none.")
        self.position_leads = self.leads if self.position_leads is None else canonical_leads(self.position_leads)
        lead_indices(self.leads, self.position_leads)
        if self.num_samples < self.patch_size or self.num_samples % self.patch_size:
            raise ValueError(
                f"num_samples ({self.num_samples}) must be a multiple of patch_size ({self.patch_size}). "
                f"The nearest below is {self.num_samples // self.patch_size * self.patch_size}."
            )
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads}), or give head_dim."
            )
        if self.position_embedding.startswith("sincos") and self.hidden_size % 4:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of 4 for {self.position_embedding!r} positions."
            )
        reads_register = self.pooling == "class_token" or self.classifier_pooling == "register"
        if reads_register and not self.num_registers:
            raise ValueError("This pooling reads the first register: set num_registers to 1 or more.")
        if self.patching == "all_leads" and (self.extra_channels or self.lead_separators):
            raise ValueError("extra_channels and lead_separators need patching='per_lead': they belong to rows.")
        if self.stem == "conv":
            self._check_stem()
        elif self.position_embedding == "none":
            raise ValueError("position_embedding='none' needs stem='conv'. Choose another position_embedding.")
        self._check_pooling()
        check_calibration(self.calibration)
        if self.lead_separators and (self.num_registers or self.extra_channels or self.attention_pattern != "full"):
            raise ValueError("lead_separators need attention_pattern='full', no registers and no extra_channels.")
        super().__post_init__(**kwargs)

    def _check_stem(self):
        """Refuses stages that fit neither each other nor the grid."""
        stages = (self.stem_widths, self.stem_depths, self.stem_strides)
        self.stem_widths, self.stem_depths, self.stem_strides = stages = [tuple(values) for values in stages]
        if len({len(values) for values in stages}) > 1 or not self.stem_widths:
            raise ValueError(
                f"Expected stem_widths, stem_depths and stem_strides with one value a stage, got {stages}."
            )
        if min(*self.stem_widths, *self.stem_strides, self.stem_mlp_ratio) < 1 or min(self.stem_depths) < 0:
            raise ValueError(f"Expected widths, strides and stem_mlp_ratio of at least 1, depths of 0, got {stages}.")
        if self.stem_widths[-1] != self.hidden_size or math.prod(self.stem_strides) != self.patch_size:
            raise ValueError(
                "The stem makes the tokens: its last width is hidden_size, the product of its strides patch_size. Got "
                f"{self.stem_widths[-1]} and {self.hidden_size}, {math.prod(self.stem_strides)} and {self.patch_size}."
            )
        is_even = self.stem_kernel % 2 == 0 and self.stem_strides[0] == 1
        if is_even or self.stem_kernel < self.stem_strides[0] or self.stem_block_kernel % 2 == 0:
            raise ValueError(
                "Expected an odd stem_block_kernel, and a stem_kernel of at least the first stride (odd if that is "
                f"1), got {self.stem_block_kernel}, {self.stem_kernel} and {self.stem_strides[0]}."
            )
        if self.patch_norm:
            raise ValueError("patch_norm belongs to the linear patches; a convolutional stem has norms of its own.")

    def _check_pooling(self):
        """Refuses layers and stages that are not there."""
        self.pooled_stages = tuple(self.pooled_stages)
        self.statistics, self.stage_statistics = tuple(self.statistics), tuple(self.stage_statistics)
        for chosen in (self.statistics, self.stage_statistics):
            if not chosen or not set(chosen) <= set(STATISTICS) or len(set(chosen)) < len(chosen):
                raise ValueError(f"Expected statistics of {list(STATISTICS)}, each once, got {list(chosen)}.")
        layers = self.num_hidden_layers
        is_number = isinstance(self.pooled_layer, int) and -layers - 1 <= self.pooled_layer <= layers
        if not is_number and self.pooled_layer not in ("last", "mean_last_half"):
            raise ValueError(
                f"Expected pooled_layer of 'last', 'mean_last_half' or 0 to {layers}, got {self.pooled_layer!r}."
            )
        # The last stage is the tokens themselves where no layer follows.
        stages = range(len(self.stem_widths) - (layers == 0))
        if self.pooled_stages and (
            self.pooling != "statistics"
            or len(set(self.pooled_stages)) < len(self.pooled_stages)
            or not set(self.pooled_stages) <= set(stages)
        ):
            raise ValueError(
                f"Expected pooled_stages among {list(stages)}, each once, with pooling='statistics', got "
                f"{list(self.pooled_stages)} with {self.pooling!r}."
            )

    def part_config(self, part: str, **fields) -> "EcgViTConfig":
        """Configuration of the layers of a further transformer, as an encoder of one row: sizes from the fields that
        begin with the name of the part (`"predictor"`, `"decoder"`), the others from `fields` or as of the encoder."""
        sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        same = ("sampling_rate", "num_samples", "patch_size", "hidden_act", "use_bias", "qkv_bias", "layer_norm_bias")
        same += ("layer_norm_eps", "drop_path_rate", "initializer_range")
        own = {name: getattr(self, f"{part}_{name}") for name in sizes} | {name: getattr(self, name) for name in same}
        fields = {"attention_pattern": "full", "position_every_layer": False} | fields
        return EcgViTConfig(**own | fields, attn_implementation=self._attn_implementation)

    @property
    def pooled_size(self) -> int:
        """Width of `pooler_output`."""
        if self.pooling != "statistics":
            return self.hidden_size
        stages = sum(self.stem_widths[stage] for stage in self.pooled_stages)
        return len(self.statistics) * self.hidden_size + len(self.stage_statistics) * stages

    @property
    def num_columns(self) -> int:
        """Number of time patches of one row."""
        return self.num_samples // self.patch_size

    @property
    def num_position_rows(self) -> int:
        """Rows of the position table: the leads it knows and the extra channels, or one with `"all_leads"`."""
        return len(self.position_leads) + self.extra_channels if self.patching == "per_lead" else 1
