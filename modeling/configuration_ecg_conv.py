"""Configuration of the purely convolutional encoder: the convolutional stem, and no transformer layer behind it."""

from huggingface_hub.dataclasses import strict

from .configuration_ecg_vit import EcgViTConfig
from .leads import STANDARD_LEADS
from .method import Method


@strict
class EcgConvConfig(EcgViTConfig):
    r"""
    Configuration of an [`EcgConvModel`]. The defaults are a small encoder of 12 leads at 100 Hz (0.26 M parameters): a
    first stage with a step of 40 ms, a second one with 80 ms, both pooled, 768 features a record.

    Takes every field of [`EcgViTConfig`]. Those of the stages are `stem_widths`, `stem_depths`, `stem_strides`,
    `stem_kernel`, `stem_block_kernel`, `stem_mlp_ratio` and `pooled_stages`; `hidden_size` is the width of the last
    stage and `patch_size` the product of the strides. With `num_hidden_layers` above 0 transformer layers follow,
    which then need `num_attention_heads`, `intermediate_size` and `position_embedding`.

    Example:

    ```python
    >>> import torch
    >>> from ecg_transformers import EcgConvConfig, EcgConvModel

    >>> model = EcgConvModel(EcgConvConfig(leads=["I", "II", "V2"]))
    >>> model(torch.randn(2, 3, 1000)).pooler_output.shape
    torch.Size([2, 768])

    ```
    """

    model_type = "ecg_conv"
    method = Method(
        name="Convolutional ECG encoder",
        description="An encoder of electrocardiograms without a head.",
    )

    leads: list[str] | tuple[str, ...] = STANDARD_LEADS
    sampling_rate: int | float = 100
    num_samples: int = 1000
    patch_size: int = 8
    patching: str = "all_leads"
    attention_pattern: str = "full"
    position_embedding: str = "none"
    position_every_layer: bool = False
    pooling: str = "statistics"
    stem: str = "conv"
    stem_widths: list[int] | tuple[int, ...] = (64, 128)
    stem_depths: list[int] | tuple[int, ...] = (1, 3)
    stem_strides: list[int] | tuple[int, ...] = (4, 2)
    pooled_stages: list[int] | tuple[int, ...] = (0,)
    hidden_size: int = 128
    num_hidden_layers: int = 0
    num_attention_heads: int = 4
    intermediate_size: int = 512
    layer_scale_init_value: float | int | None = 1.0
