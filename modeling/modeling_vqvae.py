"""VQ-VAE: an encoder whose tokens are replaced by codes of a codebook, and a decoder that draws the signal from these.

The model of the SMILES project (their `VQVAE`), after van den Oord et al., arXiv 1711.00937. Each token, a moment of
all leads, becomes one of `num_codes` codes; the loss is the squared error of the whole signal plus the commitment of
the latents to their codes.

Where we differ from the authors' code, by default: the codebook stays alive (`codebook="ema"`, see
`vector_quantizer.py`); positions start small (`position_init_std`); a patch holds its leads one after the other
(theirs: sample by sample), which only permutes weights. Their two variants with one code a record (`EncoderVQVAE`,
`EncoderVQVAEFixed`) are not here: 27,000 samples are not drawn from one of 64 codes, and theirs collapsed.

[`EcgVqVaeTokenizer`] turns a trained VQ-VAE into the input of another self-supervised model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .collectives import sum_over_ranks, world_size
from .configuration_vqvae import EcgVqVaeConfig
from .leads import lead_indices
from .masking import DrawKeys, on_device
from .modeling_ecg_vit import (
    EcgViTAttention,
    EcgViTForEmbedding,
    EcgViTForSequenceClassification,
    EcgViTForTokenClassification,
    EcgViTLayer,
    EcgViTModel,
    EcgViTPreTrainedModel,
)
from .patch_embedding import EcgViTEmbeddings, TokenGrid, take_rows
from .pretraining import PretrainingMixin, PretrainingOutput
from .vector_quantizer import QuantizerOutput, VectorQuantizer


@dataclass
class EcgVqVaeModelOutput(ModelOutput):
    """
    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, num_registers + tokens, hidden_size)`):
            Hidden states after the final norm, registers first.
        pooler_output (`torch.FloatTensor` of shape `(batch_size, hidden_size or latent_size)`):
            Mean over the tokens of hidden states, latents or codes, by `config.features`.
        latents (`torch.FloatTensor` of shape `(batch_size, tokens, latent_size)`): Vectors that are quantised.
        quantized (`torch.FloatTensor` of the same shape): The codes; their gradient is that of the latents.
        code_indices (`torch.LongTensor` of shape `(batch_size, tokens)`): Numbers of the codes.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None
    quantized: torch.FloatTensor | None = None
    code_indices: torch.LongTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class EcgVqVaeForPreTrainingOutput(PretrainingOutput):
    """
    Args:
        reconstruction_loss (`torch.FloatTensor` of shape `()`): Mean squared error of all samples of present leads.
        commitment_loss (`torch.FloatTensor` of shape `()`): Mean squared distance of latents from codes, unweighted.
        perplexity (`torch.FloatTensor` of shape `()`): Number of equally frequent codes that would be as varied.
        codes_in_use (`torch.FloatTensor` of shape `()`): Share of the codes chosen, see [`QuantizerOutput`].
        reconstruction (`torch.FloatTensor` of shape `(batch_size, num_leads, num_samples)`): Signal of the decoder.
        code_indices, latents, pooler_output: See [`EcgVqVaeModelOutput`].
        others: See [`PretrainingOutput`].
    """

    reconstruction_loss: torch.FloatTensor | None = None
    commitment_loss: torch.FloatTensor | None = None
    perplexity: torch.FloatTensor | None = None
    codes_in_use: torch.FloatTensor | None = None
    reconstruction: torch.FloatTensor | None = None
    code_indices: torch.LongTensor | None = None
    latents: torch.FloatTensor | None = None


class EcgVqVaePreTrainedModel(EcgViTPreTrainedModel):
    config_class = EcgVqVaeConfig
    _keys_to_ignore_on_load_unexpected = [r"^decoder\."]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, EcgViTEmbeddings) and module.config.position_embedding == "learned":
            init.normal_(module.position_embeddings, mean=0.0, std=self.config.position_init_std)
        elif isinstance(module, EcgVqVaeDecoder):
            init.normal_(module.position_embeddings, mean=0.0, std=self.config.position_init_std)
        elif isinstance(module, VectorQuantizer):
            module.reset_parameters()


class EcgVqVaeModel(EcgVqVaePreTrainedModel, EcgViTModel):
    """The encoder of a VQ-VAE with its codebook: signal in, latents, codes and a pooled feature out.

    The codebook never learns here, not even while the encoder is fine-tuned: only [`EcgVqVaeForPreTraining`] moves it.
    """

    def __init__(self, config: EcgVqVaeConfig):
        super().__init__(config)
        self.latent_projection = nn.Linear(config.hidden_size, config.latent_size, bias=config.use_bias)
        self.quantizer = VectorQuantizer(
            config.num_codes,
            config.latent_size,
            commitment_weight=config.commitment_weight,
            decay=config.codebook_decay,
            dead_code_steps=config.dead_code_steps,
            published=config.codebook == "published",
        )
        self.post_init()

    def quantize_tokens(
        self,
        last_hidden_state: torch.Tensor,
        num_prefix: int,
        update_codebook: bool,
        latent_order: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, QuantizerOutput]:
        """Latents `(batch, tokens, latent_size)` of tokens after the final norm, and what the quantiser makes of
        them."""
        latents = self.latent_projection(last_hidden_state[:, num_prefix:])
        return latents, self.quantizer(latents, update_codebook, latent_order)

    def pool_features(self, last_hidden_state, num_prefix, latents, quantized) -> torch.Tensor:
        """`pooler_output`, by `config.features`."""
        features = {"hidden": last_hidden_state[:, num_prefix:], "latents": latents, "codes": quantized}
        return features[self.config.features].mean(dim=1)

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EcgVqVaeModelOutput:
        r"""input_values, leads, lead_mask, bool_masked_pos: see [`EcgViTModel`]."""
        hidden_states, grid = self.encode_tokens(input_values, leads, lead_mask, bool_masked_pos, **kwargs)
        last_hidden_state = self.layernorm(hidden_states)
        latents, codes = self.quantize_tokens(last_hidden_state, grid.num_prefix, update_codebook=False)
        return EcgVqVaeModelOutput(
            last_hidden_state=last_hidden_state,
            pooler_output=self.pool_features(last_hidden_state, grid.num_prefix, latents, codes.quantized),
            latents=latents,
            quantized=codes.quantized,
            code_indices=codes.code_indices,
        )


class EcgVqVaeHead(EcgVqVaePreTrainedModel):
    """Base of the heads on a VQ-VAE: where they read hidden states, the projection to latents has no part in their
    loss and is frozen, since processes that train together would wait for its gradient."""

    def __init__(self, config: EcgVqVaeConfig):
        super().__init__(config)
        self._freeze_unread_latents()

    def _initialize_missing_keys(self, *args, **kwargs):
        super()._initialize_missing_keys(*args, **kwargs)
        self._freeze_unread_latents()  # loading has replaced the parameters by trainable ones

    def _freeze_unread_latents(self):
        if self.config.features == "hidden" or not self.reads_pooled_features():
            self.ecg_vit.latent_projection.requires_grad_(False)

    def reads_pooled_features(self) -> bool:
        """Says whether the head reads `pooler_output`, not the hidden states themselves."""
        return True


class EcgVqVaeForSequenceClassification(EcgVqVaeHead, EcgViTForSequenceClassification):
    """[`EcgViTForSequenceClassification`] for VQ-VAE checkpoints; what the head reads is up to
    `config.features`."""

    encoder_class = EcgVqVaeModel

    def reads_pooled_features(self) -> bool:
        return self.config.classifier_pooling == "pooled"


class EcgVqVaeForTokenClassification(EcgVqVaeHead, EcgViTForTokenClassification):
    """[`EcgViTForTokenClassification`] for VQ-VAE checkpoints."""

    encoder_class = EcgVqVaeModel

    def reads_pooled_features(self) -> bool:
        return False


class EcgVqVaeForEmbedding(EcgVqVaeHead, EcgViTForEmbedding):
    """[`EcgViTForEmbedding`] for VQ-VAE checkpoints."""

    encoder_class = EcgVqVaeModel


class EcgVqVaeDecoder(nn.Module):
    """Draws the signal from codes: a transformer over the moments, then one linear from a token to its patch."""

    def __init__(self, config: EcgVqVaeConfig):
        super().__init__()
        self.config = config.decoder_config()
        width, num_layers = self.config.hidden_size, self.config.num_hidden_layers
        self.embedding = nn.Linear(config.latent_size, width, bias=config.use_bias)
        self.position_embeddings = nn.Parameter(torch.zeros(1, config.num_columns, width))
        self.layers = nn.ModuleList([EcgViTLayer(self.config, number + 1) for number in range(num_layers)])
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=config.layer_norm_bias)
        self.projection = nn.Linear(width, len(config.position_leads) * config.patch_size, bias=config.use_bias)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """
        codes (`torch.FloatTensor` of shape `(batch, columns, latent_size)`): one code a moment.

        Returns the signal of every lead that the weights know, `(batch, position leads, num_samples)`.
        """
        tokens = self.embedding(codes)
        tokens = tokens + self.position_embeddings.to(tokens.dtype)
        columns = torch.arange(codes.shape[1], device=codes.device)[None]
        grid = TokenGrid(1, codes.shape[1], torch.zeros_like(columns), columns)
        for layer in self.layers:
            tokens = layer(tokens, grid)
        patches = self.projection(self.layernorm(tokens))
        patches = patches.unflatten(-1, (-1, self.config.patch_size))  # (batch, columns, leads, patch)
        return patches.transpose(1, 2).flatten(2)


class EcgVqVaeForPreTraining(PretrainingMixin, EcgVqVaePreTrainedModel):
    """Encoder, codebook and decoder with the loss of the VQ-VAE. Nothing is drawn at random in a forward pass but the
    codes that are restarted, keyed by how often the codebook has learned.

    Use it when a recording is to become a short row of codes, for search, clustering or as input of another model.

    ```python
    import torch
    from ecg_transformers.modeling import EcgVqVaeConfig, EcgVqVaeForPreTraining

    size = {"sampling_rate": 100, "num_samples": 900, "patch_size": 30, "hidden_size": 32, "num_hidden_layers": 2}
    model = EcgVqVaeForPreTraining(EcgVqVaeConfig(**size, num_attention_heads=4, latent_size=16, num_codes=64))
    model(torch.randn(2, 12, 900)).loss.backward()
    ```
    """

    # Of the encoder, and not of the decoder.
    _can_record_outputs = {
        "hidden_states": OutputRecorder(EcgViTLayer, layer_name="ecg_vit"),
        "attentions": OutputRecorder(EcgViTAttention, index=1, layer_name="ecg_vit"),
    }

    def __init__(self, config: EcgVqVaeConfig):
        super().__init__(config)
        self.ecg_vit = EcgVqVaeModel(config)
        self.decoder = EcgVqVaeDecoder(config)
        self.post_init()

    def draw_inputs(self, input_values: torch.Tensor, keys: DrawKeys) -> dict[str, torch.Tensor]:
        """In training the order in which latents of this batch, of all ranks, become codes that nothing has chosen."""
        quantizer = self.ecg_vit.quantizer
        if not self.training or quantizer.published:
            return {}
        num_latents = world_size() * len(input_values) * self.config.num_columns
        return {"latent_order": on_device(quantizer.next_order(num_latents), input_values.device)}

    def set_attn_implementation(self, *args, **kwargs):
        super().set_attn_implementation(*args, **kwargs)
        self.decoder.config._attn_implementation = self.config._attn_implementation

    def decode(self, code_indices: torch.Tensor) -> torch.Tensor:
        """The signal that codes stand for: `(batch, columns)` indices to `(batch, num_leads, num_samples)`."""
        codes = self.ecg_vit.quantizer.codebook[code_indices].to(self.dtype)
        return self.decoder(codes)[:, lead_indices(self.config.leads, self.config.position_leads)]

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        latent_order: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> EcgVqVaeForPreTrainingOutput:
        r"""
        input_values, leads, lead_mask: see [`EcgViTModel`]. In training the codebook learns from this batch.
        latent_order (`torch.LongTensor` of shape `(latents of all ranks,)`, *optional*):
            A random order, as `draw_inputs` gives it; without it the model draws one.
        """
        if input_values is None:
            raise ValueError("Expected input_values of shape (batch, num_leads, num_samples), got None.")
        hidden_states, grid = self.ecg_vit.encode_tokens(input_values, leads, lead_mask, **kwargs)
        last_hidden_state = self.ecg_vit.layernorm(hidden_states)
        latents, codes = self.ecg_vit.quantize_tokens(last_hidden_state, grid.num_prefix, self.training, latent_order)
        rows = lead_indices(self.config.leads if leads is None else leads, self.config.position_leads)
        reconstruction = take_rows(self.decoder(codes.quantized.to(latents.dtype)), rows, dim=1)
        reconstruction_loss = squared_error(reconstruction, input_values, lead_mask)
        return EcgVqVaeForPreTrainingOutput(
            loss=reconstruction_loss + codes.loss,
            reconstruction_loss=reconstruction_loss.detach(),
            commitment_loss=codes.commitment_loss.detach(),
            perplexity=codes.perplexity,
            codes_in_use=codes.codes_in_use,
            reconstruction=reconstruction,
            code_indices=codes.code_indices,
            latents=latents,
            pooler_output=self.ecg_vit.pool_features(last_hidden_state, grid.num_prefix, latents, codes.quantized),
        )


def squared_error(prediction: torch.Tensor, signal: torch.Tensor, lead_mask: torch.Tensor | None) -> torch.Tensor:
    """Mean squared error over all samples of present leads, of all ranks, in float32.

    Use it when a whole signal is reconstructed. The error is divided before it is squared: a sum of squares overflows
    long before their mean does.

    ```python
    import torch
    from ecg_transformers.modeling.modeling_vqvae import squared_error

    lead_mask = torch.tensor([[True, True, False]])
    squared_error(torch.randn(1, 3, 900, requires_grad=True), torch.randn(1, 3, 900), lead_mask).backward()
    ```
    """
    difference = prediction.float() - signal.float()
    if lead_mask is None:
        return (difference * difference.numel() ** -0.5).square().sum()
    # The mean over what is present on all ranks, so that two processes equal one with the whole batch.
    num_present = sum_over_ranks(lead_mask.sum().float()) / world_size()
    error = (difference * (num_present.clamp(min=1.0) * signal.shape[2]) ** -0.5).square().sum(dim=2)
    return torch.where(lead_mask, error, 0.0).sum()


class EcgVqVaeTokenizer(nn.Module):
    """A frozen VQ-VAE as the input of another self-supervised model: one row of codes instead of leads.

    A model of this library cuts its rows into patches of `patch_size` values. Here the codes of a record are written
    one after the other into one row, and a patch is a code: every method then runs on codes with no change, masks,
    positions and all. Configure it with [`~EcgVqVaeTokenizer.input_fields`]. That one row carries the name of the
    VQ-VAE's first lead, since rows have names; it stands for all leads. A latent knows something of the moments
    around it (the VQ-VAE's encoder attends to all), so that hiding it hides less than hiding the signal would.

    Args:
        encoder ([`EcgVqVaeModel`]): trained; it is frozen and stays in evaluation mode.
        tokens (`str`, *optional*, defaults to `"codes"`): Choice of the `"codes"`, or the continuous `"latents"`.

    Example:

    ```python
    >>> import torch
    >>> from ecg_transformers.modeling import EcgVqVaeConfig, EcgVqVaeModel, EcgVqVaeTokenizer
    >>> from ecg_transformers.modeling import StMemConfig, StMemForPreTraining

    >>> encoder = EcgVqVaeModel(EcgVqVaeConfig(hidden_size=36, num_hidden_layers=1, latent_size=16))
    >>> tokenizer = EcgVqVaeTokenizer(encoder)  # in real life a trained one, by `from_pretrained`
    >>> model = StMemForPreTraining(StMemConfig(**tokenizer.input_fields(), hidden_size=32, num_hidden_layers=1))
    >>> model(tokenizer(torch.randn(2, 12, 2250))).reconstruction.shape  # 30 codes of 16 numbers
    torch.Size([2, 1, 30, 16])

    ```
    """

    def __init__(self, encoder: EcgVqVaeModel, tokens: str = "codes"):
        super().__init__()
        if tokens not in ("codes", "latents"):
            raise ValueError(f"Expected tokens to be 'codes' or 'latents', got {tokens!r}.")
        self.tokens = tokens
        self.encoder = encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True):
        super().train(mode)
        self.encoder.eval()
        return self

    def input_fields(self) -> dict:
        """Fields of an [`EcgViTConfig`] that make one token of each code."""
        config = self.encoder.config
        return {
            "leads": config.leads[:1],
            "sampling_rate": config.sampling_rate / config.patch_size * config.latent_size,
            "num_samples": config.num_columns * config.latent_size,
            "patch_size": config.latent_size,
        }

    @torch.no_grad()
    def forward(
        self,
        input_values: torch.Tensor,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        input_values, leads, lead_mask: see [`EcgViTModel`].

        Returns `(batch, 1, columns * latent_size)`.
        """
        outputs = self.encoder(input_values, leads=leads, lead_mask=lead_mask)
        tokens = outputs.quantized if self.tokens == "codes" else outputs.latents
        return tokens.flatten(1)[:, None]
