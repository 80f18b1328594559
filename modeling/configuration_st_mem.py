"""Configurations of the masked autoencoders: ST-MEM (leads x time), MTAE (time) and MLAE (leads).

Na et al., "Guiding Masked Representation Learning to Capture Spatio-Temporal Relationship of Electrocardiogram",
ICLR 2024, arXiv 2402.09450. One dataclass holds the masks and the decoder; three subclasses say what a token is.
"""

from huggingface_hub.dataclasses import strict

from .configuration_ecg_vit import EcgViTConfig
from .leads import STANDARD_LEADS
from .method import Method


@strict
class MaskedAutoencoderConfig(EcgViTConfig):
    r"""
    Base of [`StMemConfig`], [`MtaeConfig`] and [`MlaeConfig`]; takes every field of [`EcgViTConfig`] too. The
    defaults are ViT-B of the paper: 12 leads, 9 s at 250 Hz, heads of 64 channels whatever the width.

    Args:
        mask_ratio (`float`, *optional*, defaults to 0.75):
            Fraction of the patches of a sequence that is hidden: `int(n * (1 - mask_ratio))` of n stay visible.
        norm_pix_loss (`bool`, *optional*, defaults to `True`):
            Whether each patch is predicted at zero mean and unit deviation (all published configurations; the class
            default of the authors is `False`).
        decoder_hidden_size (`int`, *optional*, defaults to 256):
            Width of the decoder, whose heads are as wide as the encoder's.
        decoder_num_hidden_layers (`int`, *optional*, defaults to 4):
            Layers of the decoder.
        decoder_num_attention_heads (`int`, *optional*, defaults to 4):
            Attention heads of the decoder.
        decoder_intermediate_size (`int`, *optional*, defaults to 1024):
            Width of the hidden layer of the decoder's MLPs.
        decoder_layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            Epsilon of the norm after the decoder; the norms inside its layers use `layer_norm_eps`.
    """

    leads: list[str] | tuple[str, ...] = STANDARD_LEADS
    num_samples: int = 2250
    patch_size: int = 75
    attention_pattern: str = "full"
    position_embedding: str = "sincos_halves"
    position_every_layer: bool = False
    patch_norm: bool = True
    num_attention_heads: int = 12
    head_dim: int | None = 64
    qkv_bias: bool = True
    mask_ratio: float = 0.75
    norm_pix_loss: bool = True
    decoder_hidden_size: int = 256
    decoder_num_hidden_layers: int = 4
    decoder_num_attention_heads: int = 4
    decoder_intermediate_size: int = 1024
    decoder_layer_norm_eps: float = 1e-6

    # What makes the method what it is; another value would be another method.
    only = {"attention_pattern": "full", "position_every_layer": False, "extra_channels": 0}

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if not 0.0 < self.mask_ratio < 1.0:
            raise ValueError(f"Expected 0 < mask_ratio < 1, a fraction of the patches, got {self.mask_ratio}.")

    def decoder_config(self) -> EcgViTConfig:
        """The decoder's layers as an encoder of its own, with the positions of the encoder's tokens."""
        return self.part_config(
            "decoder",
            leads=self.position_leads,
            patching=self.patching,
            position_embedding="sincos_2d" if self.position_embedding == "learned" else self.position_embedding,
            head_dim=self.head_dim,
            drop_path_rate=0.0,
        )


@strict
class StMemConfig(MaskedAutoencoderConfig):
    r"""
    Configuration of a [`StMemForPreTraining`]: a token is one patch of one lead, between two separators a lead. Fields
    are those of [`MaskedAutoencoderConfig`] and [`EcgViTConfig`].
    """

    model_type = "st_mem"
    method = Method(
        name="ST-MEM",
        description=(
            "Three quarters of the patches of every lead are hidden; a decoder reconstructs them, lead by lead, from "
            "the encoder's hidden states of the others."
        ),
        use_when=(
            "Use it when what was learned should be looked at as a signal, or when later recordings may have fewer "
            "leads."
        ),
        paper=(
            "Yeongyeon Na et al.: Guiding Masked Representation Learning to Capture Spatio-Temporal Relationship of "
            "Electrocardiogram, 2024"
        ),
        url="https://arxiv.org/abs/2402.09450",
    )

    lead_separators: bool = True
    pooling: str = "mean_then_norm"

    only = MaskedAutoencoderConfig.only | {"patching": "per_lead", "lead_separators": True}


@strict
class MtaeConfig(MaskedAutoencoderConfig):
    r"""
    Configuration of an [`MtaeForPreTraining`]: a token is one moment of all leads, after a class token. Fields are
    those of [`MaskedAutoencoderConfig`] and [`EcgViTConfig`].
    """

    model_type = "mtae"
    method = Method(
        name="MTAE, a masked time autoencoder",
        description="Three quarters of the moments are hidden in all leads, and a decoder reconstructs them.",
        use_when="Use it when a masked autoencoder with few tokens is wanted, or as the baseline of ST-MEM.",
        paper="Yeongyeon Na et al., 2024 (a baseline of ST-MEM)",
        url="https://arxiv.org/abs/2402.09450",
    )

    patching: str = "all_leads"
    num_registers: int = 1
    pooling: str = "class_token"

    only = MaskedAutoencoderConfig.only | {"patching": "all_leads", "num_registers": 1}


@strict
class MlaeConfig(MaskedAutoencoderConfig):
    r"""
    Configuration of an [`MlaeForPreTraining`]: a token is one whole lead, after a class token, so that `patch_size` is
    `num_samples`. Fields are those of [`MaskedAutoencoderConfig`] and [`EcgViTConfig`].
    """

    model_type = "mlae"
    method = Method(
        name="MLAE, a masked lead autoencoder",
        description="Three quarters of the leads are hidden, and a decoder reconstructs them from the others.",
        use_when="Use it when missing leads are to be predicted from the others, or as the baseline of ST-MEM.",
        paper="Yeongyeon Na et al., 2024 (a baseline of ST-MEM)",
        url="https://arxiv.org/abs/2402.09450",
    )

    patch_size: int | None = None
    position_embedding: str = "sincos_leads"
    num_registers: int = 1
    pooling: str = "class_token"

    only = MaskedAutoencoderConfig.only | {"patching": "per_lead", "num_registers": 1}

    def __post_init__(self, **kwargs):
        self.patch_size = self.num_samples if self.patch_size is None else self.patch_size
        super().__post_init__(**kwargs)
        if self.patch_size != self.num_samples:
            raise ValueError(
                f"A token of MLAE is a whole lead: expected patch_size {self.num_samples}, as num_samples, got "
                f"{self.patch_size}. Leave patch_size out; a checkpoint reads the length that it was trained with."
            )
