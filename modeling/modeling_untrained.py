"""Encoders without training, to stand beside every trained one: random convolution kernels, statistics of each lead.

On 1,819 recordings of PTB-XL the features of random kernels were above those of every encoder that this project had
pretrained (docs/evaluate.md). They follow ROCKET (Dempster et al., arXiv 1910.13051) and MiniRocket (arXiv 2012.08791)
with thresholds, pooling and a choice of leads of our own.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import can_return_tuple

from .configuration_untrained import LeadStatisticsConfig, RandomKernelsConfig
from .leads import canonical_leads, lead_indices
from .published_encoder import PublishedEncoderMixin

NUM_TAPS = 9
DILATIONS = (1, 2, 4, 8, 16, 32)
"""In samples at `DILATIONS_RATE_HZ`."""
DILATIONS_RATE_HZ = 100
LEADS_SHARE = 4
"""One lead of so many is seen by a kernel, and at least one."""
THRESHOLD = 0.3
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
KERNELS_AT_ONCE = 200


class UntrainedPreTrainedModel(PublishedEncoderMixin, PreTrainedModel):
    main_input_name = "input_values"
    input_modalities = ("time",)
    admits_missing_leads = True

    def present_leads(
        self, values: torch.Tensor, leads: Sequence[str] | None, lead_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """`True` for each lead of `config.leads` that a record has, `(batch, num_leads)`."""
        rows = self.config.leads if leads is None else canonical_leads(leads)
        present = torch.zeros(len(values), len(self.config.leads), dtype=torch.bool, device=values.device)
        present[:, lead_indices(rows, self.config.leads)] = True if lead_mask is None else lead_mask
        return present

    def as_output(self, features: torch.Tensor) -> BaseModelOutputWithPooling:
        """The features of a record as its only token."""
        return BaseModelOutputWithPooling(last_hidden_state=features[:, None], pooler_output=features)


class RandomKernelsModel(UntrainedPreTrainedModel):
    r"""
    Features of a recording by random dilated convolutions, drawn from `config.seed` and never trained.

    Each lead is standardised (mean 0, deviation 1). A kernel has 9 normally distributed taps in a quarter of the leads
    that a record has, with mean zero in each lead and unit norm; its dilation is 1, 2, 4, 8, 16 or 32 samples of
    100 Hz. Its features are the share of its responses above 0.3, the share below -0.3, the maximum and the minimum.

    Example:

    ```python
    >>> import torch
    >>> from ecg_transformers import RandomKernelsConfig, RandomKernelsModel

    >>> model = RandomKernelsModel(RandomKernelsConfig(num_kernels=126))
    >>> model(torch.randn(2, 12, 1000)).pooler_output.shape
    torch.Size([2, 504])

    ```
    """

    config: RandomKernelsConfig
    config_class = RandomKernelsConfig
    base_model_prefix = "random_kernels"

    def __init__(self, config: RandomKernelsConfig):
        super().__init__(config)
        num_leads = len(config.leads)
        generator = np.random.default_rng(config.seed)
        taps = generator.standard_normal((config.num_kernels, seen_leads(num_leads), NUM_TAPS), dtype=np.float32)
        order = generator.permuted(np.tile(np.arange(num_leads), (config.num_kernels, 1)), axis=1)
        self.taps = nn.Parameter(torch.from_numpy(taps - taps.mean(axis=-1, keepdims=True)), requires_grad=False)
        self.register_buffer("order", torch.from_numpy(order))
        self.post_init()

    def _init_weights(self, module):
        """Nothing to draw: the kernels follow from the seed and are stored with the model."""

    def kernels(self, present: torch.Tensor) -> torch.Tensor:
        """Kernels `(num_kernels, num_leads, 9)` for records with these leads, bool `(num_leads,)`.

        Each kernel goes through the leads in an order of its own and sees the first that are present.
        """
        num_seen = seen_leads(int(present.sum()))
        in_order = present[self.order]
        place = in_order.cumsum(dim=-1) - 1
        seen = in_order & (place < num_seen)
        taps = self.taps[:, :num_seen]
        taps = taps / taps.square().sum(dim=(1, 2), keepdim=True).sqrt()
        kernels = taps.new_zeros(len(taps), len(present), NUM_TAPS)
        number, column = seen.nonzero(as_tuple=True)
        kernels[number, self.order[number, column]] = taps[number, place[number, column]]
        return kernels

    @torch.no_grad()
    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        r"""
        input_values (`torch.FloatTensor` of shape `(batch_size, num_leads, num_samples)`):
            What the feature extractor gives, in any unit.
        leads (`Sequence[str]`, *optional*): Names of the rows of this batch where they are not `config.leads`.
        lead_mask (`torch.BoolTensor` of shape `(batch_size, num_leads)`, *optional*):
            `True` where a lead was recorded. Kernels see present leads only.

        Returns `pooler_output` `(batch_size, 4 * num_kernels)`, and the same as the only token of
        `last_hidden_state`.
        """
        values = self.arrange_leads(input_values, leads, lead_mask)
        deviation, mean = torch.std_mean(values, dim=-1, keepdim=True, correction=0)
        values = (values - mean) / torch.where(deviation > 0, deviation, 1.0)
        present = self.present_leads(values, leads, lead_mask)
        features = values.new_zeros(len(values), self.config.hidden_size)
        patterns, number = present.unique(dim=0, return_inverse=True)
        for row, pattern in enumerate(patterns):
            if pattern.any():
                features[number == row] = self._responses(values[number == row], self.kernels(pattern))
        return self.as_output(features)

    def _responses(self, values: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        """Features `(batch, 4 * num_kernels)`, kernel by kernel of each dilation."""
        features = []
        for dilation, same_dilation in zip(DILATIONS, kernels.chunk(len(DILATIONS)), strict=True):
            scaled = max(1, round(dilation * self.config.sampling_rate / DILATIONS_RATE_HZ))
            for some in same_dilation.split(KERNELS_AT_ONCE):
                response = nn.functional.conv1d(values, some, padding=scaled * (NUM_TAPS // 2), dilation=scaled)
                shares = [(response > THRESHOLD).float().mean(-1), (response < -THRESHOLD).float().mean(-1)]
                lowest, highest = response.aminmax(dim=-1)
                features.append(torch.cat([*shares, highest, lowest], dim=-1))
        return torch.cat(features, dim=-1).to(values.dtype)


class LeadStatisticsModel(UntrainedPreTrainedModel):
    r"""
    Mean, deviation and seven quantiles (1, 5, 25, 50, 75, 95, 99 %) of each lead, in the unit of the input.

    Example:

    ```python
    >>> import torch
    >>> from ecg_transformers import LeadStatisticsConfig, LeadStatisticsModel

    >>> LeadStatisticsModel(LeadStatisticsConfig())(torch.randn(2, 12, 1000)).pooler_output.shape
    torch.Size([2, 108])

    ```
    """

    config: LeadStatisticsConfig
    config_class = LeadStatisticsConfig
    base_model_prefix = "lead_statistics"

    def __init__(self, config: LeadStatisticsConfig):
        super().__init__(config)
        self.quantiles = nn.Parameter(torch.tensor(QUANTILES), requires_grad=False)
        self.post_init()

    def _init_weights(self, module):
        """Nothing to draw."""

    @torch.no_grad()
    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        leads: Sequence[str] | None = None,
        lead_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        r"""
        input_values, leads, lead_mask: as of [`RandomKernelsModel`]; the statistics of an absent lead are 0.

        Returns `pooler_output` `(batch_size, 9 * num_leads)`, and the same as the only token of `last_hidden_state`.
        """
        values = self.arrange_leads(input_values, leads, lead_mask)
        deviation, mean = torch.std_mean(values, dim=-1, correction=0)
        quantiles = values.quantile(self.quantiles, dim=-1)
        return self.as_output(torch.cat([mean[None], deviation[None], quantiles]).permute(1, 0, 2).flatten(1))


def seen_leads(num_leads: int) -> int:
    """Number of leads that one kernel sees."""
    return max(1, round(num_leads / LEADS_SHARE))
