"""Configuration of the state-space encoder: a convolutional stem and S4 layers."""

import math

from huggingface_hub.dataclasses import strict

from .configuration_ecg_vit import EcgViTConfig
from .leads import STANDARD_LEADS
from .method import Method


@strict
class EcgS4Config(EcgViTConfig):
    r"""
    Configuration of an [`EcgS4Model`]. The defaults are the encoder of ECG-CPC (arXiv 2509.25095): a token of 512
    channels every 8.3 ms, four causal state-space layers, on 10 s in mV. Takes the leads, the input, the heads and the
    sizes of [`EcgViTConfig`] too; what belongs to its patches and positions there is refused or has no effect.

    Args:
        num_samples (`int`, *optional*, defaults to 2400):
            Length of the input, in samples. The weights do not depend on it, and the encoder takes other lengths as
            they come.
        patch_size (`int`, *optional*, defaults to 2):
            Samples from token to token: the stride of the stem, whose kernel spans one sample more.
        num_stem_layers (`int`, *optional*, defaults to 4): Layers of the stem; those after the first see one token.
        hidden_size (`int`, *optional*, defaults to 512): Width of stem and layers.
        num_hidden_layers (`int`, *optional*, defaults to 4): State-space layers.
        num_attention_heads (`int`, *optional*, defaults to 16): Heads of an attentive pooler; the encoder has none.
        state_size (`int`, *optional*, defaults to 8): Numbers in the state of a channel.
        memory_seconds (`tuple[float, float]`, *optional*, defaults to `(1 / 12, 25 / 3)`):
            Range of the time that a channel's state remembers (one over its step), drawn once, log-uniformly, and
            never trained. In seconds, so that another token rate does not change it; published: 10 to 1000 tokens.
        bidirectional (`bool`, *optional*, defaults to `False`): Whether a token sees what comes after it.
        dropout (`float`, *optional*, defaults to 0.2): Share of the channels that a layer drops, over all time alike.
        sync_statistics (`bool`, *optional*, defaults to `True`):
            Whether the batch norms of the stem, in training, use the records of all ranks.
    """

    model_type = "ecg_s4"
    method = Method(
        name="ECG state-space encoder",
        description="An encoder of electrocardiograms without a head.",
    )
    least = EcgViTConfig.least | {"num_stem_layers": 1, "state_size": 1}
    fractions = (*EcgViTConfig.fractions, "dropout")
    ranges = {"memory_seconds": (0, math.inf)}
    only = {"patching": "all_leads", "attention_pattern": "full", "stem": "linear", "num_registers": 0}
    only |= {"extra_channels": 0, "patch_norm": False, "lead_separators": False, "drop_path_rate": 0.0}
    only_because = "this encoder has one row of tokens, which hold all leads"

    leads: list[str] | tuple[str, ...] = STANDARD_LEADS
    sampling_rate: int | float = 240
    num_samples: int = 2400
    patch_size: int = 2
    patching: str = "all_leads"
    attention_pattern: str = "full"
    hidden_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 16
    num_stem_layers: int = 4
    state_size: int = 8
    memory_seconds: list[float | int] | tuple[float | int, ...] = (1 / 12, 25 / 3)
    bidirectional: bool = False
    dropout: float | int = 0.2
    sync_statistics: bool = True

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.pooling in ("class_token", "mean_then_norm"):
            raise ValueError(f"pooling={self.pooling!r} needs what this encoder does not have. Choose 'mean'.")

    @property
    def token_rate(self) -> float:
        """Tokens a second, in Hz."""
        return self.sampling_rate / self.patch_size
