"""Configuration of LeJEPA: the encoder's fields and those of the views, the projector and SIGReg."""

from huggingface_hub.dataclasses import strict

from .configuration_ecg_vit import EcgViTConfig
from .leads import STANDARD_LEADS
from .method import Method


@strict
class LeJepaConfig(EcgViTConfig):
    r"""
    Configuration of a [`LeJepaForPreTraining`]. The encoder's defaults are the ViT-S of LeJEPA-ECG: 12 leads in one
    token, 200 patches of 50 ms, one register. Takes every field of [`EcgViTConfig`] too.

    The published behaviour (parity) is `augmentation="published"`, `sigreg_pooling="pooled"`, `sync_statistics=False`
    and `decay_all_parameters=True`; the defaults correct it. The numbers of the two are not comparable.

    Args:
        num_views (`int`, *optional*, defaults to 4):
            Views of each record, of which all are alike (no global and local ones).
        augmentation (`str`, *optional*, defaults to `"corrected"`):
            `"corrected"`: crops are cut and stretched back to the full length, shifts repeat the edge, wander has the
            real rate. `"published"`: the shipped law, whose crop does nothing (see [`ViewSettings`]).
        crop_scale (`tuple[float, float]`, *optional*, defaults to `(0.5, 1.0)`):
            Range of the part of the record that a view shows.
        amplitude_scale (`tuple[float, float]`, *optional*, defaults to `(0.8, 1.2)`):
            Range of the factor of all leads of a view.
        noise_std (`float`, *optional*, defaults to 0.05):
            Standard deviation of white noise, in the unit of `input_values`, which the published law normalises.
        wander_amplitude (`float`, *optional*, defaults to 0.05):
            Amplitude of the sine of 0.1 to 0.5 Hz that stands for breathing, in the unit of `input_values`.
        max_shift (`float`, *optional*, defaults to 0.05):
            Largest shift in time, as a part of the record.
        lead_dropout (`float`, *optional*, defaults to 0.0):
            Chance of each lead to be zeroed in a view, in the fifth of the views where it happens at all.
        projector_hidden_size (`int`, *optional*, defaults to 2048):
            Width of the two hidden layers of the projector.
        projection_size (`int`, *optional*, defaults to 128):
            Width of the projections, which the losses compare.
        num_slices (`int`, *optional*, defaults to 1024):
            Random directions of SIGReg, others at each step, the same on all ranks (not so in the authors' code).
        sigreg_weight (`float`, *optional*, defaults to 0.02):
            lambda of `lambda * SIGReg + (1 - lambda) * invariance`. SIGReg grows with the number of records of a
            batch over all ranks (and of views, where pooled), so lambda does not carry over.
        sigreg_pooling (`str`, *optional*, defaults to `"per_view"`):
            `"per_view"`: one statistic a view, averaged (the paper). `"pooled"`: one over the rows of all views
            (LeJEPA-ECG), which views that agree cannot bring below about `num_views`.
        sync_statistics (`bool`, *optional*, defaults to `True`):
            Whether SIGReg and the projector's batch norms use the records of all ranks, so that several processes
            compute what one does on the concatenated batch.
        decay_all_parameters (`bool`, *optional*, defaults to `False`):
            Parity with the authors' code, whose weight decay spares neither biases, norms nor registers.
    """

    model_type = "lejepa"
    method = Method(
        name="LeJEPA",
        description=(
            "Several altered views of a recording have to get the same embedding (invariance), and the embeddings of "
            "all recordings have to look like a standard normal cloud (SIGReg), which keeps them from collapsing. No "
            "teacher and no labels."
        ),
        use_when=(
            "Use it when features should not depend on gain, noise, wander or a shift in time: the views vary in "
            "these. It needs batches of many records."
        ),
        paper=(
            "Randall Balestriero and Yann LeCun: LeJEPA: Provable and Scalable Self-Supervised Learning Without the "
            "Heuristics, 2025"
        ),
        url="https://arxiv.org/abs/2511.08544",
    )
    choices = EcgViTConfig.choices | {
        "augmentation": ("corrected", "published"),
        "sigreg_pooling": ("per_view", "pooled"),
    }
    least = EcgViTConfig.least | {"num_views": 2, "projector_hidden_size": 1, "projection_size": 1, "num_slices": 1}
    least |= {"noise_std": 0, "wander_amplitude": 0}
    fractions = (*EcgViTConfig.fractions, "max_shift", "lead_dropout")
    ranges = {"crop_scale": (0, 1)}

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
    num_views: int = 4
    augmentation: str = "corrected"
    crop_scale: list[float] | tuple[float, ...] = (0.5, 1.0)
    amplitude_scale: list[float] | tuple[float, ...] = (0.8, 1.2)
    noise_std: float | int = 0.05
    wander_amplitude: float | int = 0.05
    max_shift: float | int = 0.05
    lead_dropout: float | int = 0.0
    projector_hidden_size: int = 2048
    projection_size: int = 128
    num_slices: int = 1024
    sigreg_weight: float | int = 0.02
    sigreg_pooling: str = "per_view"
    sync_statistics: bool = True
    decay_all_parameters: bool = False

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.amplitude_scale = tuple(float(scale) for scale in self.amplitude_scale)
        if len(self.amplitude_scale) != 2 or not 0.0 <= self.amplitude_scale[0] <= self.amplitude_scale[1]:
            raise ValueError(f"Expected amplitude_scale as two factors, low <= high, got {self.amplitude_scale}.")
        if not 0.0 < self.sigreg_weight < 1.0:
            raise ValueError(f"Expected 0 < sigreg_weight < 1, got {self.sigreg_weight}.")
