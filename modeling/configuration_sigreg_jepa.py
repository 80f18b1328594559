"""Configuration of the masked JEPA that SIGReg, and no teacher, keeps from collapsing."""

from huggingface_hub.dataclasses import strict

from .configuration_ecg_jepa import EcgJepaConfig
from .leads import STANDARD_LEADS
from .method import Method


@strict
class SigRegJepaConfig(EcgJepaConfig):
    r"""
    Configuration of a [`SigRegJepaForPreTraining`]. The defaults are the ViT-S of [`LeJepaConfig`] (patches of all
    leads) with the masks and the predictor that LeJEPA-ECG's sibling MyJEPA uses. Takes every field of
    [`EcgViTConfig`] and the masks, the predictor and the loss of [`EcgJepaConfig`]; what belongs to a teacher there is
    refused, and so are targets normalised by `"position"`.

    Args:
        sigreg_weight (`float`, *optional*, defaults to 0.02):
            Weight of SIGReg on the projections of the pooled features of whole records. SIGReg grows with the number
            of records of a batch over all ranks, so the weight does not carry over.
        token_sigreg_weight (`float`, *optional*, defaults to 0.0):
            Weight of SIGReg on the encoder's own tokens: one statistic a place (lead and moment) over the records,
            averaged over the places. It keeps the encoder from shrinking behind a projector that makes up for it.
        projector_hidden_size (`int`, *optional*, defaults to 2048):
            Width of the two hidden layers of the projector.
        projection_size (`int`, *optional*, defaults to 128):
            Width of the projections.
        num_slices (`int`, *optional*, defaults to 1024):
            Random directions of SIGReg, others at each step, the same on all ranks.
        sync_statistics (`bool`, *optional*, defaults to `True`):
            Whether SIGReg and the projector's batch norms use the records of all ranks, so that several processes
            compute what one does on the concatenated batch.
    """

    model_type = "sigreg_jepa"
    method = Method(
        name="Masked JEPA with SIGReg",
        description=(
            "One encoder sees part of a recording; from it, a predictor predicts the hidden states that the same "
            "encoder gives for the rest. SIGReg keeps the features from collapsing. No teacher and no labels."
        ),
        use_when=(
            "Use it when a masked JEPA is wanted without a teacher, hence without a momentum to choose; it needs "
            "batches of many records."
        ),
    )

    least = EcgJepaConfig.least | {"projector_hidden_size": 1, "projection_size": 1, "num_slices": 1}
    only = {"evaluated_encoder": "student", "teacher": "ema", "teacher_drop_path": False}
    only |= {"variance_weight": 0.0, "covariance_weight": 0.0}
    only_because = "there is no teacher here"

    leads: list[str] | tuple[str, ...] = STANDARD_LEADS
    sampling_rate: int | float = 500
    num_samples: int = 5000
    patch_size: int = 25
    patching: str = "all_leads"
    attention_pattern: str = "full"
    position_embedding: str = "sincos_interleaved"
    position_every_layer: bool = False
    num_registers: int = 1
    hidden_size: int = 384
    num_hidden_layers: int = 8
    num_attention_heads: int = 6
    intermediate_size: int = 1536
    layer_norm_eps: float = 1e-6
    mask_type: str = "segments"
    mask_ratio: list[float] | tuple[float, ...] = (0.75, 0.85)
    target_normalization: str = "none"
    predictor_hidden_size: int = 192
    predictor_num_hidden_layers: int = 8
    predictor_num_attention_heads: int = 6
    predictor_intermediate_size: int = 768
    sigreg_weight: float | int = 0.02
    token_sigreg_weight: float | int = 0.0
    projector_hidden_size: int = 2048
    projection_size: int = 128
    num_slices: int = 1024
    sync_statistics: bool = True

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.target_normalization == "position":
            raise ValueError(
                "target_normalization='position' takes statistics without gradient, which these targets need. Choose "
                "'none' or 'layer_norm'."
            )
        if self.sigreg_weight <= 0 or self.token_sigreg_weight < 0:
            raise ValueError(
                "Expected sigreg_weight above 0 and token_sigreg_weight of at least 0, got "
                f"{self.sigreg_weight} and {self.token_sigreg_weight}: without SIGReg the features collapse."
            )
