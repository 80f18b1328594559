"""Configuration of the VQ-VAE: the encoder's fields and those of the codebook and the decoder."""

from huggingface_hub.dataclasses import strict

from .configuration_ecg_vit import EcgViTConfig
from .leads import STANDARD_LEADS
from .method import Method


@strict
class EcgVqVaeConfig(EcgViTConfig):
    r"""
    Configuration of an [`EcgVqVaeForPreTraining`]. The defaults are the base size of the VQ-VAE of the SMILES project:
    the twelve leads of 300 ms are a token, 30 tokens a record of 9 s, a codebook of 1024. Takes every field of
    [`EcgViTConfig`] too, with `patching="all_leads"`.

    Args:
        latent_size (`int`, *optional*, defaults to 256):
            Width of a latent and of a code.
        num_codes (`int`, *optional*, defaults to 1024):
            Codes of the codebook.
        commitment_weight (`float`, *optional*, defaults to 0.25):
            Weight of the distance of the latents from their codes.
        codebook (`str`, *optional*, defaults to `"ema"`):
            `"ema"`: starts from data, follows by moving averages, dead codes are restarted. `"published"`: parity
            with the authors' code, which loses the codes that nothing chooses at first (see `vector_quantizer.py`).
        codebook_decay (`float`, *optional*, defaults to 0.99):
            Share of the old in the moving averages of the codebook, for each training step.
        dead_code_steps (`int`, *optional*, defaults to 20):
            Training steps after which a code that nothing chose is restarted. Not with `codebook="published"`.
        position_init_std (`float`, *optional*, defaults to 0.02):
            Deviation of the initial positions of encoder and decoder. (Published: 1.0, with which the small preset
            leaves 2.5 times the error after the same 1,000 steps.)
        features (`str`, *optional*, defaults to `"hidden"`):
            Source of the mean in `pooler_output`: the `"hidden"` states that the latents are made of, as in the other
            methods; the continuous `"latents"`; or the `"codes"` that they chose.
        decoder_hidden_size (`int`, *optional*, defaults to 512):
            Width of the decoder.
        decoder_num_hidden_layers (`int`, *optional*, defaults to 4):
            Layers of the decoder.
        decoder_num_attention_heads (`int`, *optional*, defaults to 6):
            Attention heads of the decoder, each as wide as the encoder's (`head_dim`).
        decoder_intermediate_size (`int`, *optional*, defaults to 2048):
            Width of the hidden layer of the decoder's MLPs.
    """

    model_type = "vqvae"
    method = Method(
        name="VQ-VAE",
        description=(
            "An encoder turns every moment of a recording into one code of a learned codebook, and a decoder "
            "reconstructs the signal from the codes."
        ),
        use_when=(
            "Use it when a recording is to become a short row of codes, for search, clustering or as input of another "
            "model."
        ),
        paper="Aaron van den Oord et al.: Neural Discrete Representation Learning, 2017",
        url="https://arxiv.org/abs/1711.00937",
    )
    choices = EcgViTConfig.choices | {"codebook": ("ema", "published"), "features": ("hidden", "latents", "codes")}
    least = EcgViTConfig.least | {"latent_size": 1, "num_codes": 2, "dead_code_steps": 1}
    fractions = (*EcgViTConfig.fractions, "codebook_decay")
    only = {"patching": "all_leads"}
    only_because = "a code stands for a moment of all leads"

    leads: list[str] | tuple[str, ...] = STANDARD_LEADS
    num_samples: int = 2250
    patch_size: int = 75
    patching: str = "all_leads"
    attention_pattern: str = "full"
    position_embedding: str = "learned"
    position_every_layer: bool = False
    patch_norm: bool = True
    num_attention_heads: int = 12
    qkv_bias: bool = True
    latent_size: int = 256
    num_codes: int = 1024
    commitment_weight: float | int = 0.25
    codebook: str = "ema"
    codebook_decay: float | int = 0.99
    dead_code_steps: int = 20
    position_init_std: float | int = 0.02
    features: str = "hidden"
    decoder_hidden_size: int = 512
    decoder_num_hidden_layers: int = 4
    decoder_num_attention_heads: int = 6
    decoder_intermediate_size: int = 2048

    @property
    def pooled_size(self) -> int:
        """Width of `pooler_output`, by `features`."""
        return self.hidden_size if self.features == "hidden" else self.latent_size

    def decoder_config(self) -> EcgViTConfig:
        """The decoder's layers as an encoder of one row."""
        return self.part_config(
            "decoder",
            leads=self.position_leads,
            patching="all_leads",
            position_embedding="learned",
            head_dim=self.head_dim or self.hidden_size // self.num_attention_heads,
        )
