"""Vector quantisation with a codebook that stays alive (van den Oord, arXiv 1711.00937; EMA form of its appendix A.1).

Every latent is replaced by its nearest code; the gradient goes straight through. Where we differ, by default, from the
code of the SMILES project, whose slides report a collapsed codebook:

* codes start as latents of the first batch, drawn by a keyed generator, instead of N(0, 0.1);
* codes are buffers that only the moving averages move, instead of also a gradient and the weight decay of AdamW;
* the averages start at the codes, instead of at zero, which made every unused code exactly 0 after one step;
* a code that nothing has chosen for `dead_code_steps` steps is put onto a latent of the current batch;
* counts and sums are those of all ranks; everything is float32, also under autocast.

`published=True` repeats the published quantiser: N(0, 0.1) codes that are a trainable parameter, averages from zero
with Laplace smoothing that overwrite the parameter in the forward pass, no restarts. (Sums over ranks are the one
exception: the published code ran on one process.)
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils.generic import maybe_autocast

from .collectives import gather_rows, sum_over_ranks
from .masking import keyed_generator

SMOOTHING = 1e-5
"""Laplace smoothing of the published counts, and the least count that a sum is divided by."""
PUBLISHED_INIT_STD = 0.1


@dataclass
class QuantizerOutput:
    """
    Args:
        quantized (`torch.FloatTensor` of the shape of the latents): The chosen codes; their gradient is the latents'.
        code_indices (`torch.LongTensor` of the same shape without the last axis): Numbers of the chosen codes.
        loss (`torch.FloatTensor` of shape `()`): Part of the loss that the quantiser adds.
        commitment_loss (`torch.FloatTensor` of shape `()`): Mean squared distance of latents from their codes.
        perplexity (`torch.FloatTensor` of shape `()`):
            Number of equally frequent codes as varied as those of this batch, from 1 to `num_codes`.
        codes_in_use (`torch.FloatTensor` of shape `()`):
            Share of the codes that were chosen: in training within the last `dead_code_steps` steps, otherwise by this
            batch.
    """

    quantized: torch.FloatTensor
    code_indices: torch.LongTensor
    loss: torch.FloatTensor
    commitment_loss: torch.FloatTensor
    perplexity: torch.FloatTensor
    codes_in_use: torch.FloatTensor


class VectorQuantizer(nn.Module):
    """Replaces latents by the nearest of `num_codes` codes.

    Args:
        num_codes (`int`): Codes of the codebook.
        code_size (`int`): Width of a code and of a latent.
        commitment_weight (`float`, *optional*, defaults to 0.25): Weight of the commitment loss.
        decay (`float`, *optional*, defaults to 0.99): Share of the old in the moving averages, for each training step.
        dead_code_steps (`int`, *optional*, defaults to 20):
            Training steps (forward passes) after which a code that was never chosen is restarted.
        published (`bool`, *optional*, defaults to `False`): Parity mode, see above.
    """

    def __init__(
        self,
        num_codes: int,
        code_size: int,
        commitment_weight: float = 0.25,
        decay: float = 0.99,
        dead_code_steps: int = 20,
        published: bool = False,
    ):
        super().__init__()
        self.commitment_weight = commitment_weight
        self.decay = decay
        self.dead_code_steps = dead_code_steps
        self.published = published
        if published:
            self.codebook = nn.Parameter(torch.empty(num_codes, code_size))
        else:
            self.register_buffer("codebook", torch.empty(num_codes, code_size))
        self.register_buffer("code_counts", torch.empty(num_codes))
        self.register_buffer("code_sums", torch.empty(num_codes, code_size))
        self.register_buffer("steps_unused", torch.empty(num_codes, dtype=torch.long))
        self.register_buffer("num_updates", torch.empty((), dtype=torch.long))
        self._num_drawn = None
        self.register_load_state_dict_post_hook(_count_anew)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self):
        """An empty codebook: random codes, which the first training batch replaces unless `published`."""
        init.normal_(self.codebook, mean=0.0, std=PUBLISHED_INIT_STD)
        init.zeros_(self.code_counts)
        init.zeros_(self.code_sums)
        init.constant_(self.steps_unused, self.dead_code_steps)
        init.zeros_(self.num_updates)

    def next_order(self, num_latents: int) -> torch.LongTensor:
        """A random order of so many latents, keyed by the number of this training step, which is counted here: the
        buffer is read once, and after loading."""
        if self._num_drawn is None:
            self._num_drawn = int(self.num_updates)
        purpose = "restart" if self._num_drawn else "start"
        generator = keyed_generator("VectorQuantizer", purpose, self._num_drawn)
        self._num_drawn += 1
        return torch.randperm(num_latents, generator=generator)

    def forward(
        self, latents: torch.Tensor, update: bool = False, latent_order: torch.Tensor | None = None
    ) -> QuantizerOutput:
        """
        latents (`torch.FloatTensor` of shape `(..., code_size)`): what to quantise.
        update (`bool`, *optional*, defaults to `False`): whether the codebook learns from them; a training step.
        latent_order (`torch.LongTensor` of shape `(latents of all ranks,)`, *optional*):
            Order in which latents become codes; by default [`~VectorQuantizer.next_order`].
        """
        with maybe_autocast(latents.device.type, enabled=False):
            flat = latents.float().flatten(0, -2)
            if update and self.code_sums.dtype != torch.float32:
                raise ValueError(
                    f"The codebook is in {self.code_sums.dtype}: its averages would stand still. Load the model with "
                    "dtype=torch.float32 and train with bf16=True."
                )
            candidates = None
            if update and not self.published:
                gathered = gather_rows(flat.detach())
                order = self.next_order(len(gathered)) if latent_order is None else latent_order
                order = order.to(gathered.device).repeat(-(-len(self.codebook) // len(order)))
                candidates = gathered[order[: len(self.codebook)]]
                self._start_from(candidates)
            indices = self.nearest_codes(flat)
            quantized = self.codebook[indices].float()
            counts = flat.new_zeros(len(self.codebook)).index_add_(0, indices, flat.new_ones(len(flat)))
            if update:
                counts = sum_over_ranks(counts)
                self._update_averages(flat.detach(), indices, counts, candidates)
            commitment_loss = nn.functional.mse_loss(flat, quantized.detach())
            loss = self.commitment_weight * commitment_loss
            if self.published:
                loss = nn.functional.mse_loss(quantized, flat.detach()) + loss
            straight_through = flat + (quantized - flat).detach()
            frequencies = counts / counts.sum()
            used = self.steps_unused < self.dead_code_steps if update else counts > 0
            return QuantizerOutput(
                quantized=straight_through.view(latents.shape),
                code_indices=indices.view(latents.shape[:-1]),
                loss=loss,
                commitment_loss=commitment_loss,
                perplexity=torch.exp(-torch.special.xlogy(frequencies, frequencies).sum()),
                codes_in_use=used.float().mean(),
            )

    @torch.no_grad()
    def nearest_codes(self, latents: torch.Tensor) -> torch.Tensor:
        """Index of the code at the least squared distance from each of `(tokens, code_size)` latents; the first of
        equals."""
        codebook = self.codebook.float()
        squared_norms = latents.square().sum(dim=1, keepdim=True) + codebook.square().sum(dim=1)
        return (squared_norms - 2.0 * latents @ codebook.T).argmin(dim=1)

    @torch.no_grad()
    def _start_from(self, candidates: torch.Tensor):
        """In the first step puts every code onto a latent; where there are too few, several share one."""
        is_first = self.num_updates == 0
        self.codebook.copy_(torch.where(is_first, candidates, self.codebook))
        self.code_sums.copy_(torch.where(is_first, candidates, self.code_sums))
        self.code_counts.masked_fill_(is_first, 1.0)

    @torch.no_grad()
    def _update_averages(self, latents, indices, counts, candidates: torch.Tensor | None):
        """One step of the moving averages of how many latents chose each code and of their sum."""
        sums = torch.zeros_like(self.code_sums).index_add_(0, indices, latents)
        self.code_counts.mul_(self.decay).add_(counts, alpha=1.0 - self.decay)
        self.code_sums.mul_(self.decay).add_(sum_over_ranks(sums), alpha=1.0 - self.decay)
        if self.published:  # the smoothed counts are what the next step goes on from
            total = self.code_counts.sum()
            self.code_counts.add_(SMOOTHING).mul_(total / (total + len(counts) * SMOOTHING))
        self.codebook.data.copy_(self.code_sums / self.code_counts.clamp(min=SMOOTHING)[:, None])
        self.steps_unused.add_(1).masked_fill_(counts > 0, 0)
        if not self.published:
            self._restart_dead_codes(candidates)
        self.num_updates.add_(1)

    def _restart_dead_codes(self, candidates: torch.Tensor):
        # Again and again, every `dead_code_steps` steps, until something chooses the code. All ranks count alike.
        is_due = (self.steps_unused > 0) & (self.steps_unused % self.dead_code_steps == 0)
        place = (is_due.long().cumsum(dim=0) - 1).clamp(min=0)  # among those that are due
        codes, is_due_code = candidates[place], is_due[:, None]
        self.codebook.copy_(torch.where(is_due_code, codes, self.codebook))
        self.code_sums.copy_(torch.where(is_due_code, codes, self.code_sums))
        self.code_counts.masked_fill_(is_due, 1.0)


def _count_anew(module: VectorQuantizer, incompatible_keys) -> None:
    """After loading, the number of steps is that of the file."""
    module._num_drawn = None
