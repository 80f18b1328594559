"""Configuration of LeNEPA: the fields of its encoder, the projector and SIGReg."""

from huggingface_hub.dataclasses import strict

from .configuration_ecg_s4 import EcgS4Config
from .method import Method


@strict
class EcgLeNepaConfig(EcgS4Config):
    r"""
    Configuration of an [`EcgLeNepaForPreTraining`]. The defaults are LeNEPA's ViT-XS on PTB-XL (arXiv 2607.00958): 12
    leads at 500 Hz, 200 causal tokens of 50 ms. Takes the fields of [`EcgViTConfig`] for leads, input, sizes and heads
    and, for the other trunk, those of [`EcgS4Config`].

    Args:
        trunk (`str`, *optional*, defaults to `"vit"`):
            `"vit"`: patches and causal attention with rotary positions. `"s4"`: the stem and the state-space layers of
            [`EcgS4Model`]. What is predicted is the output of patches or stem, so that it changes with the trunk.
        sigreg_weight (`float`, *optional*, defaults to 20.0):
            Weight of SIGReg over the tokens of each record. SIGReg grows with their number. At 0 nothing keeps the
            features from collapsing, and it is refused.
        projector_hidden_size (`int`, *optional*, defaults to 1536): Width of the projector's hidden layer.
        projection_size (`int`, *optional*, defaults to 64): Width of what is predicted and compared.
        num_slices (`int`, *optional*, defaults to 256): Random directions of SIGReg, others at each step.
    """

    model_type = "lenepa"
    method = Method(
        name="LeNEPA",
        description=(
            "A causal encoder predicts, from each 50 ms of a recording, the embedding of the next, and the moments of "
            "every recording have to look like a standard normal cloud (SIGReg), which keeps them from collapsing. No "
            "teacher, no masks and no labels."
        ),
        use_when=(
            "Use it when neither masks nor views nor a teacher should have to be chosen, or a causal encoder is "
            "wanted."
        ),
        paper="Chemeris, Jin and Balestriero, 2026",
        url="https://arxiv.org/abs/2607.00958",
    )
    choices = EcgS4Config.choices | {"trunk": ("vit", "s4")}
    least = EcgS4Config.least | {"projector_hidden_size": 1, "projection_size": 1, "num_slices": 1}

    sampling_rate: int | float = 500
    num_samples: int = 5000
    patch_size: int = 25
    hidden_size: int = 192
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    intermediate_size: int = 512
    hidden_act: str = "silu"
    qkv_bias: bool = True
    layer_norm_eps: float = 1e-6
    dropout: float | int = 0.0
    trunk: str = "vit"
    sigreg_weight: float | int = 20.0
    projector_hidden_size: int = 1536
    projection_size: int = 64
    num_slices: int = 256

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.bidirectional:
            raise ValueError("bidirectional=True would show the encoder what it is to predict. Leave it at False.")
        if self.trunk == "vit" and self.dropout:
            raise ValueError(f"trunk='vit' has no dropout, got {self.dropout}. Set dropout=0, or trunk='s4'.")
        if self.trunk == "vit" and (self.head_dim or self.hidden_size // self.num_attention_heads) % 2:
            raise ValueError("Rotary positions turn pairs of channels: expected heads of an even width.")
        if self.sigreg_weight <= 0:
            raise ValueError(
                f"Expected sigreg_weight above 0, got {self.sigreg_weight}: without SIGReg the features collapse."
            )
        if self.num_columns < 2:
            raise ValueError(f"Expected 2 tokens or more, of which one predicts the next, got {self.num_columns}.")
