"""ST-MEM, MTAE and MLAE: masked autoencoders of the electrocardiogram on one encoder.

Na et al., "Guiding Masked Representation Learning to Capture Spatio-Temporal Relationship of Electrocardiogram",
ICLR 2024, arXiv 2402.09450. Most patches are hidden, the encoder reads the others, and a small decoder fills in the
values of the hidden ones. What a token is, and which tokens the decoder sees together:

| method | token | the decoder sees | hidden |
|---|---|---|---|
| ST-MEM | a moment of a lead | one lead, between its separators | in every lead on its own |
| MTAE | a moment of all leads | the whole recording | moments |
| MLAE | a whole lead | the whole recording | leads |

Encoder and decoder are those of the authors to the last digit. Where we differ from their code: going back from
patches to a signal works for MTAE and MLAE too (theirs raises); a mask that hides nothing is refused (theirs gives a
loss of NaN); fewer leads go by name (theirs repeats a single lead twelve times); a patch of MTAE holds its leads one
after the other (theirs: sample by sample), which a converted checkpoint accounts for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .collectives import sum_over_ranks, world_size
from .configuration_st_mem import MaskedAutoencoderConfig, MlaeConfig, MtaeConfig, StMemConfig
from .leads import lead_indices
from .masking import DrawKeys, all_on_device, mask_from_noise, num_visible_patches, split_masked, with_indices
from .modeling_ecg_vit import (
    EcgViTAttention,
    EcgViTForEmbedding,
    EcgViTForSequenceClassification,
    EcgViTForTokenClassification,
    EcgViTLayer,
    EcgViTModel,
    EcgViTPreTrainedModel,
)
from .patch_embedding import TokenGrid, index_tensor, position_table, take_rows
from .pretraining import PretrainingMixin, PretrainingOutput


@dataclass
class MaskedAutoencoderOutput(PretrainingOutput):
    """
    Args:
        reconstruction (`torch.FloatTensor` of shape `(batch_size, rows, columns, patch values)`):
            Decoder's version of every patch; with `norm_pix_loss` at zero mean and unit deviation each, so no
            signal yet: see [`~MaskedAutoencoderForPreTraining.reconstruct`]. Only hidden patches are trained.
        bool_masked_pos (`torch.BoolTensor` of shape `(batch_size, rows, columns)`): `True` = hidden.
        others: See [`PretrainingOutput`], of the visible patches; `last_hidden_state` begins with the separators (left
            ones, then right ones) or the class token.
    """

    reconstruction: torch.FloatTensor | None = None
    bool_masked_pos: torch.BoolTensor | None = None


class MaskedAutoencoderPreTrainedModel(EcgViTPreTrainedModel):
    _keys_to_ignore_on_load_unexpected = [r"^decoder\."]

    @torch.no_grad()
    def _init_weights(self, module):
        """Xavier-uniform weights, zero biases, learned tokens from N(0, 0.02)."""
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, MaskedAutoencoderDecoder):
            init.normal_(module.mask_token, mean=0.0, std=self.config.initializer_range)
            init.copy_(module.position_embeddings, module.position_table())
        else:
            super()._init_weights(module)

    @torch.no_grad()
    def initialize_weights(self):
        super().initialize_weights()
        # The authors draw query, key and value as one matrix, whose bound is smaller than that of each alone.
        # (`_init_weights` does not see a module without parameters of its own; weights that were loaded stay.)
        for module in self.modules():
            if isinstance(module, EcgViTAttention):
                out_features, in_features = module.q_proj.weight.shape
                bound = math.sqrt(6.0 / (in_features + 3 * out_features))
                for projection in (module.q_proj, module.k_proj, module.v_proj):
                    init.uniform_(projection.weight, -bound, bound)


class MaskedAutoencoderDecoder(nn.Module):
    """Fills in the hidden patches of sequences of tokens. It knows where a token lies in its sequence, and nothing of
    the lead that the sequence belongs to."""

    def __init__(self, config: MaskedAutoencoderConfig):
        super().__init__()
        self.config = config.decoder_config()
        width = self.config.hidden_size
        patch_values = config.patch_size * (len(config.position_leads) if config.patching == "all_leads" else 1)
        self.embedding = nn.Linear(config.hidden_size, width, bias=config.use_bias)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("position_embeddings", self.position_table(), persistent=False)
        num_layers = self.config.num_hidden_layers
        self.layers = nn.ModuleList([EcgViTLayer(self.config, number + 1) for number in range(num_layers)])
        self.layernorm = nn.LayerNorm(width, eps=config.decoder_layer_norm_eps, bias=config.layer_norm_bias)
        self.projection = nn.Linear(width, patch_values, bias=config.use_bias)

    def position_table(self) -> torch.Tensor:
        """Positions along a sequence, `(columns, width)`, or `(leads, width)` where the leads are the sequence."""
        table = position_table(self.config, self.config.hidden_size)
        return table[:, 0] if self.config.num_columns == 1 else table[0]

    def forward(
        self,
        hidden_states: torch.Tensor,
        num_prefix: int,
        visible: torch.Tensor,
        hidden: torch.Tensor,
        positions: torch.Tensor | None = None,
        present: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        hidden_states (`torch.FloatTensor` of shape `(sequences, num_prefix + visible, hidden_size)`):
            The encoder's tokens; the prefix (separators or class token) has no position.
        visible, hidden (`torch.LongTensor` of shape `(sequences, positions)`): which positions these are, increasing.
        positions (`torch.LongTensor` of shape `(length,)`, *optional*): rows of the position table; by default all.
        present (`torch.BoolTensor` of shape `(sequences, length)`, *optional*): tokens that others may attend to.

        Returns all patches in their order, `(sequences, length, patch values)`.
        """
        order = torch.cat((visible, hidden), dim=1)
        table = self.position_embeddings if positions is None else self.position_embeddings[positions]
        tokens = self.embedding(hidden_states)
        mask_tokens = self.mask_token.to(tokens.dtype).expand(tokens.shape[0], hidden.shape[1], -1)
        tokens = torch.cat((tokens, mask_tokens), dim=1)
        tokens = tokens + nn.functional.pad(table[order].to(tokens.dtype), (0, 0, num_prefix, 0))
        grid = TokenGrid(1, order.shape[1], torch.zeros_like(order), order, num_prefix=num_prefix)
        if present is not None:
            keys = present.gather(1, order)
            grid.attention_mask = nn.functional.pad(keys, (num_prefix, 0), value=True)[:, None, None, :]
        for layer in self.layers:
            tokens = layer(tokens, grid)
        patches = self.projection(self.layernorm(tokens[:, num_prefix:]))
        return patches.gather(1, order.argsort(dim=1)[..., None].expand(-1, -1, patches.shape[-1]))


class MaskedAutoencoderForPreTraining(PretrainingMixin, MaskedAutoencoderPreTrainedModel):
    """The encoder, the decoder and the loss that ST-MEM, MTAE and MLAE share."""

    encoder_class = EcgViTModel
    random_stream = "by counter"
    # Whether the tokens of a sequence are leads (MLAE) and not moments.
    sequence_of_leads = False
    # Of the encoder, and not of the decoder.
    _can_record_outputs = {
        "hidden_states": OutputRecorder(EcgViTLayer, layer_name="ecg_vit"),
        "attentions": OutputRecorder(EcgViTAttention, index=1, layer_name="ecg_vit"),
    }

    def __init__(self, config: MaskedAutoencoderConfig):
        super().__init__(config)
        self.ecg_vit = self.encoder_class(config)
        self.decoder = MaskedAutoencoderDecoder(config)
        num_visible_patches(self._sequence_shape(len(config.leads))[1], config.mask_ratio)
        self.post_init()

    def set_attn_implementation(self, *args, **kwargs):
        super().set_attn_implementation(*args, **kwargs)
        self.decoder.config._attn_implementation = self.config._attn_implementation

    # --- masks --------------------------------------------------------------------------------------------------

    def draw_inputs(self, input_values: torch.Tensor, keys: DrawKeys) -> dict[str, torch.Tensor]:
        """A mask for every record, `bool_masked_pos` of shape `(batch, rows, columns)`, by uniform noise of which the
        smallest stay visible, and the indices of each sequence that it leaves and hides.

        ST-MEM hides as many patches in every lead, drawn for each lead on its own; MTAE moments; MLAE leads.
        """
        shape = self._sequence_shape(input_values.shape[1])
        noise = torch.from_numpy(keys.uniforms("mask").draw(0, math.prod(shape)).T).reshape(-1, *shape)
        drawn = with_indices(mask_from_noise(noise, self.config.mask_ratio))
        drawn["bool_masked_pos"] = self._between_grid_and_sequences(drawn["bool_masked_pos"])
        return all_on_device(drawn, input_values.device)

    def _sequence_shape(self, num_leads: int) -> tuple[int, int]:
        """Number and length of the sequences that one record is cut into."""
        if self.sequence_of_leads:
            return 1, num_leads
        return (num_leads if self.config.patching == "per_lead" else 1), self.config.num_columns

    def _between_grid_and_sequences(self, tensor: torch.Tensor) -> torch.Tensor:
        """`(batch, rows, columns, ...)` as `(batch, sequences, length, ...)`, and back."""
        return tensor.transpose(1, 2) if self.sequence_of_leads else tensor

    def _sequence_mask(self, bool_masked_pos: torch.Tensor, input_values: torch.Tensor) -> torch.Tensor:
        batch, num_leads = input_values.shape[:2]
        num_sequences, length = self._sequence_shape(num_leads)
        expected = (batch, length, 1) if self.sequence_of_leads else (batch, num_sequences, length)
        if bool_masked_pos.shape in ((batch, length), (1, length)):
            mask = bool_masked_pos[:, None].expand(batch, num_sequences, length)
        elif bool_masked_pos.shape == expected:
            mask = self._between_grid_and_sequences(bool_masked_pos)
        else:
            raise ValueError(
                f"Expected bool_masked_pos of shape {expected} or {(batch, length)}, got "
                f"{tuple(bool_masked_pos.shape)}."
            )
        return mask.to(input_values.device)

    # --- patches ------------------------------------------------------------------------------------------------

    def patchify(self, input_values: torch.Tensor) -> torch.Tensor:
        """`(batch, num_leads, num_samples)` as patches `(batch, rows, columns, patch values)`. With one row for all
        leads (MTAE), a patch holds the samples of the first lead, then those of the second, and so on."""
        patches = input_values.unflatten(-1, (self.config.num_columns, self.config.patch_size))
        return patches if self.config.patching == "per_lead" else patches.transpose(1, 2).flatten(2)[:, None]

    def unpatchify(self, patches: torch.Tensor) -> torch.Tensor:
        """The way back, `(batch, num_leads, num_samples)`. (The authors' MTAE and MLAE raise here.)"""
        if self.config.patching == "all_leads":
            patches = patches[:, 0].unflatten(-1, (-1, self.config.patch_size)).transpose(1, 2)
        return patches.flatten(2)

    def _presence(self, lead_mask: torch.Tensor | None) -> torch.Tensor | None:
        """Finds the values of a patch that belong to a recorded lead, `(batch, rows, 1, patch values)`."""
        if lead_mask is None:
            return None
        present = lead_mask[..., None].expand(-1, -1, self.config.patch_size)
        present = present if self.config.patching == "per_lead" else present.flatten(1)[:, None]
        return present[:, :, None]

    # --- loss ---------------------------------------------------------------------------------------------------

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        visible_patches: torch.Tensor | None = None,
        hidden_patches: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaskedAutoencoderOutput:
        r"""
        input_values, leads, lead_mask: see [`EcgViTModel`]. Absent leads count neither as context nor in the loss.
        bool_masked_pos (`torch.BoolTensor`, *optional*):
            `True` = hidden: `(batch_size, rows, columns)`, with as many hidden patches in every sequence (ST-MEM: in
            every lead); or `(batch_size or 1, length)`, the same in all sequences: moments, for MLAE leads.
            [`EcgSslTrainer`] draws it with [`~MaskedAutoencoderForPreTraining.draw_inputs`]; without it the model
            draws one itself, in evaluation always the same.
        visible_patches, hidden_patches (`torch.LongTensor` of shape `(batch_size, sequences, positions)`, *optional*):
            Increasing indices of what it leaves visible and hides in each sequence, as `draw_inputs` gives them.
        """
        drawn = self.draw_missing(input_values, bool_masked_pos=bool_masked_pos)
        if bool_masked_pos is None:
            visible_patches, hidden_patches = drawn["visible_patches"], drawn["hidden_patches"]
        bool_masked_pos = drawn["bool_masked_pos"]
        if hidden_patches is None and not bool_masked_pos.any():
            raise ValueError(
                "bool_masked_pos hides nothing, so that there is nothing to reconstruct and no loss. Hide a patch or "
                "more; for features of the whole recording call the encoder, `model.ecg_vit`."
            )
        output = self._reconstruct_patches(
            input_values, leads, lead_mask, bool_masked_pos, visible_patches, hidden_patches, **kwargs
        )
        present = self._presence(lead_mask)
        output.loss = masked_patch_loss(
            output.reconstruction, self._targets(input_values, lead_mask), output.bool_masked_pos, present
        )
        return output

    def reconstruct(
        self,
        input_values: torch.Tensor,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        visible_patches: torch.Tensor | None = None,
        hidden_patches: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The decoder's reconstruction as a signal, in the unit of `input_values`.

        With `norm_pix_loss` the decoder gives the **shape** of a patch at zero mean and unit deviation; level and size
        are then taken from the recording itself, also where it was hidden. A figure of it shows how well shapes are
        filled in, not that amplitudes are known. Arguments as in `forward`.

        Returns:
            The signal, `(batch, num_leads, num_samples)`, visible patches reconstructed as well (nothing trains
            these), and bool `(batch, num_leads, columns)`, `True` = hidden.
        """
        masks = {"visible_patches": visible_patches, "hidden_patches": hidden_patches}
        masks |= self.draw_missing(input_values, bool_masked_pos=bool_masked_pos)
        output = self._reconstruct_patches(input_values, leads, lead_mask, **masks)
        patches = output.reconstruction.float()
        if self.config.norm_pix_loss:
            mean, deviation = patch_statistics(self.patchify(input_values.float()), self._presence(lead_mask))
            patches = patches * deviation + mean
        hidden = output.bool_masked_pos.expand(-1, input_values.shape[1], -1)
        return self.unpatchify(patches), hidden

    def _reconstruct_patches(
        self, input_values, leads, lead_mask, bool_masked_pos, visible_patches=None, hidden_patches=None, **kwargs
    ) -> MaskedAutoencoderOutput:
        mask = self._sequence_mask(bool_masked_pos, input_values)  # (batch, sequences, length)
        batch, num_sequences, length = mask.shape
        visible, hidden = visible_patches, hidden_patches
        if visible is None or hidden is None:
            visible, hidden = (part.unflatten(0, mask.shape[:2]) for part in split_masked(mask.flatten(0, 1)))
        # In the grid one sequence follows the other.
        starts = length * torch.arange(num_sequences, device=mask.device)[:, None]
        grid_mask = self._between_grid_and_sequences(mask)
        hidden_states, grid = self.ecg_vit.encode_tokens(
            input_values,
            leads=leads,
            lead_mask=lead_mask,
            bool_masked_pos=grid_mask,
            visible_patches=(starts + visible).flatten(1),
            **kwargs,
        )
        normed = self.ecg_vit.layernorm(hidden_states)
        prefix, tokens = normed.split((grid.num_prefix, normed.shape[1] - grid.num_prefix), dim=1)
        # Separators come as left ones of all leads, then right ones; a class token belongs to the one sequence.
        prefix = prefix.unflatten(1, (-1, num_sequences)).transpose(1, 2)
        tokens = tokens.unflatten(1, (num_sequences, visible.shape[-1]))
        rows = lead_indices(self.config.leads if leads is None else leads, self.config.position_leads)
        reconstruction = self.decoder(
            torch.cat((prefix, tokens), dim=2).flatten(0, 1),
            prefix.shape[2],
            visible.flatten(0, 1),
            hidden.flatten(0, 1),
            index_tensor(rows, mask.device) if self.sequence_of_leads else None,
            lead_mask if self.sequence_of_leads else None,
        )
        reconstruction = self._between_grid_and_sequences(reconstruction.unflatten(0, (batch, num_sequences)))
        if self.config.patching == "all_leads":
            per_lead = reconstruction.unflatten(-1, (len(self.config.position_leads), -1))
            reconstruction = take_rows(per_lead, rows, dim=-2).flatten(-2)
        return MaskedAutoencoderOutput(
            reconstruction=reconstruction,
            bool_masked_pos=grid_mask,
            pooler_output=self.ecg_vit.pool(hidden_states, normed, grid),
            last_hidden_state=normed,
        )

    def _targets(self, input_values: torch.Tensor, lead_mask: torch.Tensor | None) -> torch.Tensor:
        present = self._presence(lead_mask)
        patches = self.patchify(input_values.float())
        if present is not None:
            patches = torch.where(present, patches, 0.0)
        if not self.config.norm_pix_loss:
            return patches
        mean, deviation = patch_statistics(patches, present)
        return (patches - mean) / deviation


def patch_statistics(
    patches: torch.Tensor, present: torch.Tensor | None = None, eps: float = 1e-6
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and `sqrt(variance + eps)` of every patch, each `(batch, rows, columns, 1)`; the variance is unbiased.

    Args:
        patches (`torch.FloatTensor` of shape `(batch, rows, columns, patch values)`): float32.
        present (`torch.BoolTensor` of shape `(batch, rows, 1, patch values)`, *optional*): values that count.
    """
    if present is None:
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return mean, (variance + eps).sqrt()
    count = present.sum(dim=-1, keepdim=True)
    mean = torch.where(present, patches, 0.0).sum(dim=-1, keepdim=True) / count.clamp(min=1)
    squares = torch.where(present, (patches - mean).square(), 0.0).sum(dim=-1, keepdim=True)
    return mean, (squares / (count - 1).clamp(min=1) + eps).sqrt()


def masked_patch_loss(
    reconstruction: torch.Tensor,
    targets: torch.Tensor,
    bool_masked_pos: torch.Tensor,
    present: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over the hidden patches of the mean squared error of a patch, in float32.

    Use it when hidden patches are reconstructed as values: visible ones do not count.

    Args:
        reconstruction, targets (`torch.FloatTensor` of shape `(batch, rows, columns, patch values)`): any unit.
        bool_masked_pos (`torch.BoolTensor` of shape `(batch, rows, columns)`): `True` = hidden.
        present (`torch.BoolTensor` of shape `(batch, rows, 1, patch values)`, *optional*):
            Values of recorded leads; others are left out of the mean of a patch, patches without any out of the sum.
            The mean is then over what is present on all ranks, so that two processes equal one with the whole batch.

    ```python
    import torch
    from ecg_transformers.modeling.modeling_st_mem import masked_patch_loss

    reconstruction = torch.randn(2, 12, 40, 25, requires_grad=True)
    hidden = torch.rand(2, 12, 40) < 0.75
    masked_patch_loss(reconstruction, torch.randn(2, 12, 40, 25), hidden).backward()
    ```
    """
    squares = (reconstruction.float() - targets.float()).square()
    if present is None:
        weight = bool_masked_pos.float()
        return (squares.mean(dim=-1) * weight).sum() / weight.sum()
    count = present.sum(dim=-1)
    errors = torch.where(present, squares, 0.0).sum(dim=-1) / count.clamp(min=1)
    weight = (bool_masked_pos & (count > 0)).float()
    total = sum_over_ranks(weight.sum()) / world_size()
    return (errors * weight).sum() / total.clamp(min=1e-6)


class StMemPreTrainedModel(MaskedAutoencoderPreTrainedModel):
    config_class = StMemConfig


class StMemModel(StMemPreTrainedModel, EcgViTModel):
    """The encoder of an ST-MEM checkpoint; `pooler_output` is the mean over leads and patches, then the norm."""


class StMemForPreTraining(StMemPreTrainedModel, MaskedAutoencoderForPreTraining):
    """ST-MEM: patches hidden in every lead, each lead decoded on its own from its tokens and separators.

    Use it when what was learned should be looked at as a signal, or when later recordings may have fewer leads.

    ```python
    import torch
    from ecg_transformers.modeling import StMemConfig, StMemForPreTraining

    size = {"sampling_rate": 100, "num_samples": 1000, "patch_size": 25, "hidden_size": 32, "num_hidden_layers": 2}
    model = StMemForPreTraining(StMemConfig(**size, num_attention_heads=4, decoder_hidden_size=32))
    model(torch.randn(2, 12, 1000)).loss.backward()
    ```
    """

    encoder_class = StMemModel


class StMemForSequenceClassification(StMemPreTrainedModel, EcgViTForSequenceClassification):
    encoder_class = StMemModel


class StMemForTokenClassification(StMemPreTrainedModel, EcgViTForTokenClassification):
    encoder_class = StMemModel


class StMemForEmbedding(StMemPreTrainedModel, EcgViTForEmbedding):
    encoder_class = StMemModel


class MtaePreTrainedModel(MaskedAutoencoderPreTrainedModel):
    config_class = MtaeConfig


class MtaeModel(MtaePreTrainedModel, EcgViTModel):
    """The encoder of an MTAE checkpoint; `pooler_output` is its class token after the norm."""


class MtaeForPreTraining(MtaePreTrainedModel, MaskedAutoencoderForPreTraining):
    """MTAE: moments hidden in all leads at once.

    Use it when a masked autoencoder with few tokens is wanted, or as the baseline of ST-MEM.

    ```python
    import torch
    from ecg_transformers.modeling import MtaeConfig, MtaeForPreTraining

    size = {"sampling_rate": 100, "num_samples": 1000, "patch_size": 25, "hidden_size": 32, "num_hidden_layers": 2}
    model = MtaeForPreTraining(MtaeConfig(**size, num_attention_heads=4, decoder_hidden_size=32))
    model(torch.randn(2, 12, 1000)).loss.backward()
    ```
    """

    encoder_class = MtaeModel


class MtaeForSequenceClassification(MtaePreTrainedModel, EcgViTForSequenceClassification):
    encoder_class = MtaeModel


class MtaeForTokenClassification(MtaePreTrainedModel, EcgViTForTokenClassification):
    encoder_class = MtaeModel


class MtaeForEmbedding(MtaePreTrainedModel, EcgViTForEmbedding):
    encoder_class = MtaeModel


class MlaePreTrainedModel(MaskedAutoencoderPreTrainedModel):
    config_class = MlaeConfig


class MlaeModel(MlaePreTrainedModel, EcgViTModel):
    """The encoder of an MLAE checkpoint; `pooler_output` is its class token after the norm."""


class MlaeForPreTraining(MlaePreTrainedModel, MaskedAutoencoderForPreTraining):
    """MLAE: whole leads hidden.

    Use it when missing leads are to be predicted from the others, or as the baseline of ST-MEM.

    ```python
    import torch
    from ecg_transformers.modeling import MlaeConfig, MlaeForPreTraining

    size = {"sampling_rate": 100, "num_samples": 1000, "hidden_size": 32, "num_hidden_layers": 2}
    model = MlaeForPreTraining(MlaeConfig(**size, num_attention_heads=4, decoder_hidden_size=32))
    model(torch.randn(2, 12, 1000)).loss.backward()
    ```
    """

    encoder_class = MlaeModel
    sequence_of_leads = True


class MlaeForSequenceClassification(MlaePreTrainedModel, EcgViTForSequenceClassification):
    encoder_class = MlaeModel


class MlaeForTokenClassification(MlaePreTrainedModel, EcgViTForTokenClassification):
    encoder_class = MlaeModel


class MlaeForEmbedding(MlaePreTrainedModel, EcgViTForEmbedding):
    encoder_class = MlaeModel
