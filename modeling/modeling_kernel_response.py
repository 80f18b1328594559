"""Prediction of random-kernel responses: what fixed random convolutions make of a recording, from altered windows.

The targets are the features of a [`RandomKernelsModel`] on the clean recording: shares of time above and below a
threshold, maxima and minima of the responses of random dilated kernels, which by themselves hold much of what a linear
classifier needs. The encoder sees windows of it with other gains, noise, hidden time and absent leads; a linear head
predicts the principal components of the standardised targets. Targets that are fixed cannot collapse. Predicting
random convolutions is related to random-projection targets of speech (BEST-RQ, arXiv 2202.01855), with ROCKET's
features (arXiv 1910.13051) in place of codes; nothing is published under this name.

Optionally, views of a record are also brought together by VICReg (arXiv 2105.04906; see `vicreg.py`).
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .augmentation import WindowViewSettings, make_window_views
from .collectives import gather_rows
from .configuration_kernel_response import KernelResponseConfig
from .configuration_untrained import RandomKernelsConfig
from .masking import DrawKeys
from .modeling_ecg_conv import EcgConvPreTrainedModel
from .modeling_ecg_vit import (
    EcgViTForEmbedding,
    EcgViTForSequenceClassification,
    EcgViTForTokenClassification,
    EcgViTModel,
)
from .modeling_untrained import RandomKernelsModel
from .projector import Projector, ProjectorLinear, SyncedBatchNorm1d, init_projector_weights
from .vicreg import invariance, share_of_records, variance_and_covariance

REMEMBERED_RECORDINGS = 2**17
"""On a CPU: targets of so many recordings are kept, some 40 MB, for they cost as much as a training step."""


@dataclass
class KernelResponseForPreTrainingOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor` of shape `()`): Mean squared error and the weighted terms of VICReg.
        response_loss (`torch.FloatTensor` of shape `()`): The mean squared error; 1 for a constant prediction.
        invariance_loss, variance_loss, covariance_loss (`torch.FloatTensor` of shape `()`, *optional*):
            Terms of VICReg, where one of them has a weight.
        predictions (`torch.FloatTensor` of shape `(batch_size, num_views, target_size)`).
        targets (`torch.FloatTensor` of shape `(batch_size, target_size)`): Without gradient.
        pooler_output (`torch.FloatTensor` of shape `(batch_size, pooled_size)`): Mean over the views.
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size * num_views, tokens, hidden_size)`).
    """

    loss: torch.FloatTensor | None = None
    response_loss: torch.FloatTensor | None = None
    invariance_loss: torch.FloatTensor | None = None
    variance_loss: torch.FloatTensor | None = None
    covariance_loss: torch.FloatTensor | None = None
    predictions: torch.FloatTensor | None = None
    targets: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class KernelTargets(nn.Module):
    """Random kernels, and the principal components of their standardised responses, taken once from some recordings.

    Buffers hold the components, so that a run that is resumed has the same targets.
    """

    def __init__(self, config: KernelResponseConfig):
        super().__init__()
        self.power = config.target_power
        self.kernels = RandomKernelsModel(
            RandomKernelsConfig(
                leads=config.position_leads,
                sampling_rate=config.sampling_rate,
                num_samples=config.num_samples,
                num_kernels=config.num_kernels,
                seed=config.kernel_seed,
            )
        )
        self.kernels.requires_grad_(False)
        width = self.kernels.config.hidden_size
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("components", torch.zeros(width, config.target_size))
        self.register_buffer("num_records", torch.zeros((), dtype=torch.long))
        self._is_fitted = False
        self._known = {}

    @property
    def is_fitted(self) -> bool:
        """Whether there are components; once there are, no step has to wait for the answer of a device."""
        self._is_fitted = self._is_fitted or bool(self.num_records > 0)
        return self._is_fitted

    @torch.no_grad()
    def responses(
        self, input_values: torch.Tensor, leads: Sequence[str], lead_mask: torch.Tensor | None
    ) -> torch.FloatTensor:
        """Features `(batch, 4 * num_kernels)`. On a CPU of one record after the other, so that they are the same to
        the last bit in every batch."""
        if input_values.device.type != "cpu":
            return self.kernels(input_values, leads=leads, lead_mask=lead_mask).pooler_output
        rows = [
            self.kernels(x, leads=leads, lead_mask=m).pooler_output for x, m in _one_by_one(input_values, lead_mask)
        ]
        return torch.cat(rows)

    @torch.no_grad()
    def fit(self, responses: torch.Tensor, keys: Sequence[bytes] = ()) -> None:
        """Takes means and components from responses `(records, 4 * num_kernels)`; `keys` are of the recordings whose
        targets are worth remembering."""
        mean, components = principal_components(responses, self.components.shape[1], self.power)
        self.mean.copy_(mean)
        self.components.copy_(components)
        self.num_records.fill_(len(responses))
        self._known = {key: self._targets_of(row) for key, row in zip(keys, responses.split(1), strict=False)}

    def _targets_of(self, responses: torch.Tensor) -> torch.FloatTensor:
        return (responses - self.mean) @ self.components

    def key_of(self, values: torch.Tensor, leads: Sequence[str], lead_mask: torch.Tensor | None) -> bytes:
        """Content of one recording `(1, num_leads, num_samples)` on a CPU."""
        key = hashlib.blake2b(repr(tuple(leads)).encode(), digest_size=16)
        key.update(values.contiguous().numpy().tobytes())
        key.update(b"" if lead_mask is None else lead_mask.numpy().tobytes())
        return key.digest()

    @torch.no_grad()
    def forward(
        self, input_values: torch.Tensor, leads: Sequence[str], lead_mask: torch.Tensor | None
    ) -> torch.FloatTensor:
        """Targets `(batch, target_size)` of recordings `(batch, num_leads, num_samples)`."""
        if input_values.device.type != "cpu":
            return self._targets_of(self.responses(input_values, leads, lead_mask))
        targets = []
        for values, mask in _one_by_one(input_values, lead_mask):
            key = self.key_of(values, leads, mask)
            if key not in self._known:
                if len(self._known) >= REMEMBERED_RECORDINGS:
                    self._known.pop(next(iter(self._known)))
                self._known[key] = self._targets_of(self.responses(values, leads, mask))
            targets.append(self._known[key])
        return torch.cat(targets)


def _one_by_one(input_values: torch.Tensor, lead_mask: torch.Tensor | None):
    masks = [None] * len(input_values) if lead_mask is None else lead_mask.split(1)
    return zip(input_values.split(1), masks, strict=True)


@torch.no_grad()
def principal_components(responses: torch.Tensor, size: int, power: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of features and the map of their deviations from it to principal components.

    Features are standardised; the standard deviation of a component is that in the standardised features to the
    `power`, and the mean square of all components over these records 1. Where fewer components have any spread than
    are wanted, the others are 0.

    Args:
        responses (`torch.FloatTensor` of shape `(records, width)`): The features.
        size (`int`): Number of components.
        power (`float`): 0 whitens, 1 leaves the components as they are.

    Returns:
        A tuple of `(width,)` and `(width, size)`.
    """
    mean, deviation = responses.mean(dim=0), responses.std(dim=0, correction=0) + 1e-6
    scaled = ((responses - mean) / deviation).double()
    # Fewer records than features, as a rule: the small Gram matrix has the same components.
    squares, directions = torch.linalg.eigh(scaled @ scaled.T)
    squares, directions = squares.flip(0)[:size], directions.flip(1)[:, :size]
    spread = squares > 1e-9 * squares[0].clamp(min=1e-9)
    squares, directions = squares[spread], directions[:, spread]
    strengths = squares.pow(power / 2)
    mean_square = (directions * strengths).square().mean()
    found = scaled.T @ (directions / squares * strengths / mean_square.sqrt()) / deviation[:, None]
    return mean, nn.functional.pad(found, (0, size - len(squares))).to(responses.dtype)


class KernelResponsePreTrainedModel(EcgConvPreTrainedModel):
    config_class = KernelResponseConfig
    auto_classes = {
        "AutoConfig": "configuration_kernel_response.KernelResponseConfig",
        "AutoModel": "modeling_kernel_response.KernelResponseModel",
        "AutoModelForPreTraining": "modeling_kernel_response.KernelResponseForPreTraining",
        "AutoModelForSequenceClassification": "modeling_kernel_response.KernelResponseForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_kernel_response.KernelResponseForTokenClassification",
    }

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, KernelTargets):
            drawn = KernelTargets(self.config).state_dict()
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                init.copy_(tensor, drawn[name])
        elif not init_projector_weights(module):
            super()._init_weights(module)


# What a pretraining checkpoint holds beside the encoder; not worth a warning when only the encoder is wanted.
PRETRAINING_ONLY = [r"^targets\.", r"^response_norm\.", r"^response_head\.", r"^projector\."]


class KernelResponseModel(KernelResponsePreTrainedModel, EcgViTModel):
    """The encoder of a checkpoint that was trained to predict random-kernel responses."""

    _keys_to_ignore_on_load_unexpected = PRETRAINING_ONLY


class KernelResponseForSequenceClassification(KernelResponsePreTrainedModel, EcgViTForSequenceClassification):
    """[`EcgViTForSequenceClassification`] for checkpoints of [`KernelResponseForPreTraining`]."""

    encoder_class = KernelResponseModel
    _keys_to_ignore_on_load_unexpected = PRETRAINING_ONLY


class KernelResponseForTokenClassification(KernelResponsePreTrainedModel, EcgViTForTokenClassification):
    """[`EcgViTForTokenClassification`] for checkpoints of [`KernelResponseForPreTraining`]."""

    encoder_class = KernelResponseModel
    _keys_to_ignore_on_load_unexpected = PRETRAINING_ONLY


class KernelResponseForEmbedding(KernelResponsePreTrainedModel, EcgViTForEmbedding):
    """[`EcgViTForEmbedding`] for checkpoints of [`KernelResponseForPreTraining`]."""

    encoder_class = KernelResponseModel
    _keys_to_ignore_on_load_unexpected = PRETRAINING_ONLY


class KernelResponseForPreTraining(KernelResponsePreTrainedModel):
    """Encoder, fixed random kernels and a linear head that predicts their responses.

    Before the first step the components of the targets are taken from `config.fitting_records` recordings:
    [`EcgSslTrainer`] does it; before any other loop call [`~KernelResponseForPreTraining.fit_targets`], without which
    they come from the first batch.
    """

    def __init__(self, config: KernelResponseConfig):
        super().__init__(config)
        self.ecg_vit = KernelResponseModel(config)
        self.targets = KernelTargets(config)
        self.response_norm = SyncedBatchNorm1d(config.pooled_size, affine=False)
        self.response_head = ProjectorLinear(config.pooled_size, config.target_size)
        if config.uses_vicreg:
            self.projector = Projector(
                config.pooled_size, config.projector_hidden_size, config.projection_size, sync_statistics=True
            )
        self.post_init()

    def _initialize_missing_keys(self, *args, **kwargs):
        super()._initialize_missing_keys(*args, **kwargs)
        self.targets.kernels.requires_grad_(False)  # loading has replaced the parameters by trainable ones

    @property
    def needs_fitting(self) -> bool:
        """Whether the targets have no components yet."""
        return not self.targets.is_fitted

    @torch.no_grad()
    def fit_targets(self, batches: Iterable[dict[str, torch.Tensor]]) -> None:
        """Takes the components of the targets from recordings, until `config.fitting_records` have come.

        Args:
            batches (`Iterable[dict]`): of `input_values` and, where leads are absent, `lead_mask`.
        """
        responses, keys, leads = [], [], self.config.leads
        for batch in batches:
            missing = self.config.fitting_records - len(keys)
            values, mask = batch["input_values"][:missing].float(), batch.get("lead_mask")
            mask = None if mask is None else mask[:missing]
            responses.append(self.targets.responses(values, leads, mask))
            keys += [
                self.targets.key_of(x.cpu(), leads, None if m is None else m.cpu())
                for x, m in _one_by_one(values, mask)
            ]
            if len(keys) == self.config.fitting_records:
                break
        if len(keys) < 2:
            raise ValueError(f"Expected at least two recordings to fit the targets to, got {len(keys)}.")
        self.targets.fit(torch.cat(responses), keys if self.device.type == "cpu" else ())

    def draw_inputs(self, input_values: torch.Tensor, keys: DrawKeys) -> dict[str, torch.Tensor]:
        """The views of each record, its own, and the leads that they show."""
        config = self.config
        fields = WindowViewSettings.__dataclass_fields__
        settings = WindowViewSettings(**{name: getattr(config, name) for name in fields})
        views, view_leads = make_window_views(input_values, settings, keys.per_record("views"))
        return {"views": views, "view_leads": view_leads}

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        views: torch.Tensor | None = None,
        view_leads: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> KernelResponseForPreTrainingOutput:
        r"""
        input_values, leads, lead_mask: see [`EcgViTModel`]; the kernels answer to this clean recording.
        views (`torch.FloatTensor` of shape `(batch_size, num_views, num_leads, view_samples)`, *optional*),
        view_leads (`torch.BoolTensor` of shape `(batch_size, num_views, num_leads)`, *optional*):
            Altered windows of each record, and `True` for the leads that they show. [`EcgSslTrainer`] draws both with
            [`~KernelResponseForPreTraining.draw_inputs`], keyed by seed, epoch and record; without them the model
            draws its own: always the same in evaluation, others each time in training.
        """
        if input_values is None or input_values.dim() != 3:
            shape = None if input_values is None else tuple(input_values.shape)
            raise ValueError(f"Expected input_values of shape (batch, num_leads, num_samples), got {shape}.")
        if self.training and len(input_values) < 2:
            raise ValueError(
                "A batch of one record has no spread between records, which the norm of the head needs. Set "
                "dataloader_drop_last=True, or a larger batch."
            )
        if views is None:
            drawn = self.draw_inputs(input_values, self.own_keys(len(input_values)))
            views, view_leads = drawn["views"], drawn["view_leads"]
        batch, num_views = views.shape[:2]
        if view_leads is None:
            view_leads = views.new_ones(views.shape[:3], dtype=torch.bool)
        if lead_mask is not None:
            view_leads = view_leads & lead_mask[:, None]
        outputs = self.ecg_vit(views.flatten(0, 1), leads=leads, lead_mask=view_leads.flatten(0, 1), **kwargs)
        pooled = outputs.pooler_output
        predictions = self.response_head(self.response_norm(pooled)).float().unflatten(0, (batch, num_views))
        targets = self._targets(input_values, self.config.leads if leads is None else tuple(leads), lead_mask)
        response_loss = (predictions - targets[:, None]).square().mean() * share_of_records(batch, targets.device)
        loss, terms = response_loss, {}
        if self.config.uses_vicreg:
            terms = self._vicreg(self.projector(pooled).float().unflatten(0, (batch, num_views)).transpose(0, 1))
            for name, term in terms.items():
                loss = loss + getattr(self.config, name.replace("_loss", "_weight")) * term
        return KernelResponseForPreTrainingOutput(
            loss=loss,
            response_loss=response_loss,
            **terms,
            predictions=predictions,
            targets=targets,
            pooler_output=pooled.unflatten(0, (batch, num_views)).mean(dim=1),
            last_hidden_state=outputs.last_hidden_state,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @torch.no_grad()
    def _targets(self, input_values, leads, lead_mask) -> torch.FloatTensor:
        if self.needs_fitting:
            responses = self.targets.responses(input_values.float(), leads, lead_mask)
            if not self.training:  # an evaluation leaves no trace
                mean, components = principal_components(responses, self.config.target_size, self.config.target_power)
                return (responses - mean) @ components
            self.targets.fit(gather_rows(responses))
        return self.targets(input_values.float(), leads, lead_mask)

    def _vicreg(self, projections: torch.Tensor) -> dict[str, torch.Tensor]:
        """Terms of `(num_views, batch, width)` projections, over the records of all ranks."""
        terms = [variance_and_covariance(gather_rows(view), least_std=1.0) for view in projections]
        variance, covariance = (torch.stack(values).mean() for values in zip(*terms, strict=True))
        return {
            "invariance_loss": invariance(projections, over_ranks=True),
            "variance_loss": variance,
            "covariance_loss": covariance,
        }


__all__ = [
    "KernelResponseForEmbedding",
    "KernelResponseForPreTraining",
    "KernelResponseForSequenceClassification",
    "KernelResponseForTokenClassification",
    "KernelResponseModel",
    "KernelResponsePreTrainedModel",
]
