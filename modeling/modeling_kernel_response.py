"""Prediction of the responses of fixed random convolutions to a recording, from altered windows of it.

The targets are the features of a [`RandomKernelsModel`] on the clean recording: shares of time above and below a
threshold, maxima and minima of the responses of random dilated kernels, which by themselves hold much of what a linear
classifier needs. The encoder sees windows of it with other gains, noise, hidden time and absent leads; a linear head
predicts the principal components of the standardised targets. Targets that are fixed cannot collapse. Predicting
random convolutions is related to random-projection targets of speech (BEST-RQ, arXiv 2202.01855), with ROCKET's
features (arXiv 1910.13051) in place of codes; nothing is published under this name.

Optionally, components of the recording's median beat are predicted too (`median_beat.py`), and views of a record are
brought together by VICReg (arXiv 2105.04906; `vicreg.py`).
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .augmentation import WindowViewSettings, make_window_views
from .collectives import gather_rows, share_of_records
from .configuration_kernel_response import KernelResponseConfig
from .configuration_untrained import RandomKernelsConfig
from .masking import DrawKeys
from .median_beat import align_beats, beat_length, median_beat, reference_beat
from .modeling_ecg_conv import EcgConvPreTrainedModel
from .modeling_ecg_vit import (
    EcgViTForEmbedding,
    EcgViTForSequenceClassification,
    EcgViTForTokenClassification,
    EcgViTModel,
)
from .modeling_untrained import RandomKernelsModel
from .pretraining import PretrainingMixin, PretrainingOutput
from .projector import Projector, ProjectorLinear, SyncedBatchNorm1d, init_projector_weights
from .vicreg import invariance, variance_and_covariance

REMEMBERED_RECORDINGS = 2**17
"""On a CPU: targets of so many recordings are kept, some 40 MB, for they cost as much as a training step."""


@dataclass
class KernelResponseForPreTrainingOutput(PretrainingOutput):
    """
    Args:
        response_loss (`torch.FloatTensor` of shape `()`): The mean squared error; 1 for a constant prediction.
        invariance_loss, variance_loss, covariance_loss (`torch.FloatTensor` of shape `()`, *optional*):
            Terms of VICReg, where one of them has a weight.
        predictions (`torch.FloatTensor` of shape `(batch_size, num_views, target_size + beat_target_size)`).
        targets (`torch.FloatTensor` of shape `(batch_size, target_size + beat_target_size)`): Tensor without gradient.
        others: See [`PretrainingOutput`]. `pooler_output` is the mean over the views of a record.
    """

    response_loss: torch.FloatTensor | None = None
    invariance_loss: torch.FloatTensor | None = None
    variance_loss: torch.FloatTensor | None = None
    covariance_loss: torch.FloatTensor | None = None
    predictions: torch.FloatTensor | None = None
    targets: torch.FloatTensor | None = None


class RecordingTargets(nn.Module):
    """Targets of a recording: principal components of the responses of random kernels and, if wanted, of
    its median beat. Both are taken once from some recordings and kept in buffers, so that a run that is resumed has
    the same targets.
    """

    def __init__(self, config: KernelResponseConfig):
        super().__init__()
        self.config = config
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
        self.num_responses = self.kernels.config.hidden_size
        self.register_buffer("mean", torch.zeros(self.num_responses))
        self.register_buffer("components", torch.zeros(self.num_responses, config.target_size))
        self.beat_shape = (len(config.position_leads), beat_length(config.sampling_rate))
        if config.beat_target_size:
            self.register_buffer("beat_reference", torch.zeros(self.beat_shape))
            self.register_buffer("beat_mean", torch.zeros(math.prod(self.beat_shape)))
            self.register_buffer("beat_components", torch.zeros(math.prod(self.beat_shape), config.beat_target_size))
        self.register_buffer("num_records", torch.zeros((), dtype=torch.long))
        self._is_fitted = False
        self._known = {}

    @property
    def is_fitted(self) -> bool:
        """True if there are components; once there are, no step has to wait for the answer of a device."""
        self._is_fitted = self._is_fitted or bool(self.num_records > 0)
        return self._is_fitted

    @torch.no_grad()
    def describe(
        self, input_values: torch.Tensor, leads: Sequence[str], lead_mask: torch.Tensor | None
    ) -> torch.FloatTensor:
        """Responses and median beats `(batch, width)`. On a CPU of one record after the other, so that they are the
        same to the last bit in every batch."""
        dtype = self.kernels.taps.dtype
        if torch.finfo(dtype).bits < 32:
            raise ValueError(
                f"The targets are in {dtype}, too coarse for their principal components. Load the model with "
                "dtype=torch.float32 and train with bf16=True."
            )
        if input_values.device.type != "cpu":
            rows = self.kernels(input_values, leads=leads, lead_mask=lead_mask).pooler_output
        else:
            records = _one_by_one(input_values, lead_mask)
            rows = torch.cat([self.kernels(x, leads=leads, lead_mask=mask).pooler_output for x, mask in records])
        if not self.config.beat_target_size:
            return rows
        arranged = self.kernels.arrange_leads(input_values, leads, lead_mask).cpu().numpy()
        beats = [torch.from_numpy(median_beat(values, self.config.sampling_rate)).flatten() for values in arranged]
        return torch.cat((rows, torch.stack(beats).to(rows)), dim=1)

    @torch.no_grad()
    def measure(self, descriptions: torch.Tensor) -> dict[str, torch.Tensor]:
        """Means and components of descriptions `(records, width)`, by the names of the buffers."""
        config, responses = self.config, descriptions[:, : self.num_responses]
        mean, components = principal_components(responses, config.target_size, config.target_power)
        measured = {"mean": mean, "components": components}
        if config.beat_target_size:
            beats = descriptions[:, self.num_responses :].unflatten(1, self.beat_shape).cpu().numpy()
            measured["beat_reference"] = torch.from_numpy(reference_beat(beats, config.sampling_rate)).to(mean)
            beats = self._aligned(descriptions, measured["beat_reference"])
            measured["beat_mean"], measured["beat_components"] = principal_components(
                beats, config.beat_target_size, power=1.0, standardize=False
            )
        return measured

    @torch.no_grad()
    def fit(self, descriptions: torch.Tensor, keys: Sequence[bytes] = ()) -> None:
        """Takes means and components from descriptions `(records, width)`; `keys` are of the recordings whose targets
        are worth remembering."""
        for name, tensor in self.measure(descriptions).items():
            self.get_buffer(name).copy_(tensor)
        self.num_records.fill_(len(descriptions))
        rows = zip(keys[:REMEMBERED_RECORDINGS], descriptions.split(1), strict=False)
        self._known = {key: self.project(row) for key, row in rows}

    def project(self, descriptions: torch.Tensor, measured: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Targets `(records, target_size + beat_target_size)` by the buffers, or by what else was measured."""
        measured = dict(self.named_buffers(recurse=False)) if measured is None else measured
        targets = (descriptions[:, : self.num_responses] - measured["mean"]) @ measured["components"]
        if not self.config.beat_target_size:
            return targets
        beats = self._aligned(descriptions, measured["beat_reference"]) - measured["beat_mean"]
        return torch.cat((targets, beats @ measured["beat_components"]), dim=1)

    def _aligned(self, descriptions: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        beats = descriptions[:, self.num_responses :].unflatten(1, self.beat_shape)
        aligned = align_beats(beats.cpu().numpy(), reference.cpu().numpy(), self.config.sampling_rate)
        return torch.from_numpy(aligned).to(descriptions).flatten(1)

    def key_of(self, values: torch.Tensor, leads: Sequence[str], lead_mask: torch.Tensor | None) -> bytes:
        """Content of one recording `(1, num_leads, num_samples)`."""
        key = hashlib.blake2b(repr(tuple(leads)).encode(), digest_size=16)
        for tensor in (values, lead_mask):
            key.update(b"" if tensor is None else tensor.cpu().contiguous().numpy().tobytes())
        return key.digest()

    @torch.no_grad()
    def forward(
        self, input_values: torch.Tensor, leads: Sequence[str], lead_mask: torch.Tensor | None
    ) -> torch.FloatTensor:
        """Targets of recordings `(batch, num_leads, num_samples)`; on a CPU those of known ones are not computed
        again."""
        if input_values.device.type != "cpu":
            return self.project(self.describe(input_values, leads, lead_mask))
        targets = []
        for values, mask in _one_by_one(input_values, lead_mask):
            key = self.key_of(values, leads, mask)
            if key not in self._known:
                if len(self._known) >= REMEMBERED_RECORDINGS:
                    self._known.pop(next(iter(self._known)))
                self._known[key] = self.project(self.describe(values, leads, mask))
            targets.append(self._known[key])
        return torch.cat(targets)


def _one_by_one(input_values: torch.Tensor, lead_mask: torch.Tensor | None):
    masks = [None] * len(input_values) if lead_mask is None else lead_mask.split(1)
    return zip(input_values.split(1), masks, strict=True)


@torch.no_grad()
def principal_components(
    features: torch.Tensor, size: int, power: float, standardize: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of features and the map of their deviations from it to principal components.

    The standard deviation of a component is that in the (standardised) features to the `power`, and the mean square of
    all components over these records 1. Where fewer components have any spread than are wanted, the others are 0.

    Args:
        features (`torch.FloatTensor` of shape `(records, width)`): One row a record.
        size (`int`): Number of components.
        power (`float`): 0 whitens, 1 leaves the components as they are.
        standardize (`bool`, *optional*, defaults to `True`): Whether each feature is divided by its deviation first.

    Returns:
        A tuple of `(width,)` and `(width, size)`.
    """
    mean = features.mean(dim=0)
    deviation = features.std(dim=0, correction=0) + 1e-6 if standardize else torch.ones_like(mean)
    scaled = ((features - mean) / deviation).double()
    # Fewer records than features, as a rule: the small Gram matrix has the same components.
    squares, directions = torch.linalg.eigh(scaled @ scaled.T)
    squares, directions = squares.flip(0)[:size], directions.flip(1)[:, :size]
    spread = squares > 1e-9 * squares[0].clamp(min=1e-9)
    squares, directions = squares[spread], directions[:, spread]
    strengths = squares.pow(power / 2)
    mean_square = (directions * strengths).square().mean()
    found = scaled.T @ (directions / squares * strengths / mean_square.sqrt()) / deviation[:, None]
    # A component has no sign of its own: its largest weight is positive, on every machine.
    found = found * found.gather(0, found.abs().argmax(dim=0, keepdim=True)).sign()
    return mean, nn.functional.pad(found, (0, size - len(squares))).to(features.dtype)


class KernelResponsePreTrainedModel(EcgConvPreTrainedModel):
    config_class = KernelResponseConfig
    _keys_to_ignore_on_load_unexpected = [r"^targets\.", r"^response_norm\.", r"^response_head\.", r"^projector\."]

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, RecordingTargets):
            drawn = RecordingTargets(self.config).state_dict()
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                init.copy_(tensor, drawn[name])
        elif not init_projector_weights(module):
            super()._init_weights(module)


class KernelResponseModel(KernelResponsePreTrainedModel, EcgViTModel):
    """The encoder of a checkpoint that was trained to predict random-kernel responses."""


class KernelResponseForSequenceClassification(KernelResponsePreTrainedModel, EcgViTForSequenceClassification):
    encoder_class = KernelResponseModel


class KernelResponseForTokenClassification(KernelResponsePreTrainedModel, EcgViTForTokenClassification):
    encoder_class = KernelResponseModel


class KernelResponseForEmbedding(KernelResponsePreTrainedModel, EcgViTForEmbedding):
    encoder_class = KernelResponseModel


class KernelResponseForPreTraining(PretrainingMixin, KernelResponsePreTrainedModel):
    """Encoder, fixed random kernels and a linear head that predicts their responses.

    Use it when there are few recordings and no GPU: fixed targets cannot collapse, and minutes on a CPU are enough.

    Before the first step the components of the targets are taken from `config.fitting_records` recordings:
    [`EcgSslTrainer`] does it; before any other loop call [`~KernelResponseForPreTraining.fit_targets`], without which
    they come from the first batch.

    ```python
    import torch
    from ecg_transformers.modeling import KernelResponseConfig, KernelResponseForPreTraining

    model = KernelResponseForPreTraining(KernelResponseConfig(num_kernels=60, target_size=8))
    recordings = torch.randn(16, 12, 1000)  # 10 s at 100 Hz
    model.fit_targets([{"input_values": recordings}])
    model(recordings[:4]).loss.backward()
    ```
    """

    def __init__(self, config: KernelResponseConfig):
        super().__init__(config)
        self.ecg_vit = KernelResponseModel(config)
        self.targets = RecordingTargets(config)
        self.response_norm = SyncedBatchNorm1d(config.pooled_size, affine=False)
        self.response_head = ProjectorLinear(config.pooled_size, config.target_size + config.beat_target_size)
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
        """True if the targets have no components yet."""
        return not self.targets.is_fitted

    @torch.no_grad()
    def fit_targets(self, batches: Iterable[dict[str, torch.Tensor]]) -> None:
        """Takes the components of the targets from recordings, until `config.fitting_records` have come.

        Args:
            batches (`Iterable[dict]`): Batches of `input_values` and, where leads are absent, `lead_mask`.
        """
        descriptions, keys, leads = [], [], self.config.leads
        for batch in batches:
            missing = self.config.fitting_records - len(keys)
            values, mask = batch["input_values"][:missing].float(), batch.get("lead_mask")
            mask = None if mask is None else mask[:missing]
            descriptions.append(self.targets.describe(values, leads, mask))
            keys += [self.targets.key_of(x, leads, m) for x, m in _one_by_one(values, mask)]
            if len(keys) == self.config.fitting_records:
                break
        if len(keys) < 2:
            raise ValueError(f"Expected at least two recordings to fit the targets to, got {len(keys)}.")
        self.targets.fit(torch.cat(descriptions), keys)

    def draw_inputs(self, input_values: torch.Tensor, keys: DrawKeys) -> dict[str, torch.Tensor]:
        """The views of each record, its own, and the leads that they show."""
        config = self.config
        fields = WindowViewSettings.__dataclass_fields__
        settings = WindowViewSettings(**{name: getattr(config, name) for name in fields})
        views, view_leads = make_window_views(input_values, settings, keys.per_record("views"))
        return {"views": views, "view_leads": view_leads}

    def step_inputs(self, inputs: dict[str, torch.Tensor], keys: DrawKeys) -> dict[str, torch.Tensor]:
        """Arguments as of every method, and the targets once they are fitted: they are no part of what is compiled."""
        inputs = super().step_inputs(inputs, keys)
        if self.needs_fitting:
            return inputs
        values = inputs["input_values"].float()
        return inputs | {"targets": self.targets(values, self.config.leads, inputs.get("lead_mask"))}

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        views: torch.Tensor | None = None,
        view_leads: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> KernelResponseForPreTrainingOutput:
        r"""
        input_values, leads, lead_mask: see [`EcgViTModel`]; the kernels answer to this clean recording.
        views (`torch.FloatTensor` of shape `(batch_size, num_views, num_leads, view_samples)`, *optional*):
            Altered windows of each record. [`EcgSslTrainer`] draws them with
            [`~KernelResponseForPreTraining.draw_inputs`], keyed by seed, epoch and record; without them the model
            draws its own: always the same in evaluation, others each time in training.
        view_leads (`torch.BoolTensor` of shape `(batch_size, num_views, num_leads)`, *optional*):
            `True` for the leads that a view shows, drawn with it.
        targets (`torch.FloatTensor` of shape `(batch_size, target_size + beat_target_size)`, *optional*):
            What is predicted, as `step_inputs` gives it.
        """
        if input_values is None or input_values.dim() != 3:
            shape = None if input_values is None else tuple(input_values.shape)
            raise ValueError(f"Expected input_values of shape (batch, num_leads, num_samples), got {shape}.")
        self.check_several_records(len(input_values))
        if views is None:
            drawn = self.draw_missing(input_values, views=views, view_leads=view_leads)
            views, view_leads = drawn["views"], drawn["view_leads"]
        batch, num_views = views.shape[:2]
        if view_leads is None:
            view_leads = views.new_ones(views.shape[:3], dtype=torch.bool)
        if lead_mask is not None:
            view_leads = view_leads & lead_mask[:, None]
        outputs = self.ecg_vit(views.flatten(0, 1), leads=leads, lead_mask=view_leads.flatten(0, 1), **kwargs)
        pooled = outputs.pooler_output
        predictions = self.response_head(self.response_norm(pooled)).float().unflatten(0, (batch, num_views))
        if targets is None:
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
            descriptions = self.targets.describe(input_values.float(), leads, lead_mask)
            if not self.training:  # an evaluation leaves no trace
                return self.targets.project(descriptions, self.targets.measure(descriptions))
            self.targets.fit(gather_rows(descriptions))
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
