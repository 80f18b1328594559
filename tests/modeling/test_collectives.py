"""What two processes compute is what one would on the whole batch. Forked, because starting them anew takes seconds;
`test_pretraining_two_processes.py` (slow) starts them as torchrun does, with every method."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist

from ecg_transformers.modeling.collectives import gather_rows
from ecg_transformers.modeling.masking import DrawKeys
from ecg_transformers.modeling.sigreg import draw_directions, sigreg

from .tiny_methods import make

pytestmark = pytest.mark.skipif(
    torch.accelerator.is_available(), reason="autograd does not survive a fork where there is an accelerator"
)
MODELS = {
    "ecg_jepa": ("kim", {"variance_weight": 0.5, "covariance_weight": 30}),
    "ecg_jepa by position": ("kim", {"target_normalization": "position"}),
    "sigreg_jepa": ("sigreg_jepa, per lead", {}),
    "st_mem": ("st_mem", {}),
    "vqvae": ("vqvae", {"num_codes": 4, "latent_size": 4}),
}


def _rank(rank, function, arguments, folder, sender):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    sender.send([tensor.tolist() for tensor in function(slice(4 * rank, 4 * rank + 4), *arguments)])
    dist.destroy_process_group()


def on_two_ranks(function, folder, *arguments):
    """The mean over two processes of what each makes of its half of eight records."""
    context = multiprocessing.get_context("fork")
    processes, receivers = [], []
    for rank in range(2):
        receiver, sender = context.Pipe(duplex=False)
        processes.append(context.Process(target=_rank, args=(rank, function, arguments, folder, sender)))
        processes[-1].start()
        sender.close()
        receivers.append(receiver)
    found = [[torch.tensor(values) for values in receiver.recv()] for receiver in receivers]
    for process in processes:
        process.join()
    return [(first + second) / 2 for first, second in zip(*found, strict=True)]


def loss_and_gradients(records, name):
    method, fields = MODELS[name]
    model, signal = make(method, batch=8, **fields)
    lead_mask = torch.ones(8, 3, dtype=torch.bool)
    lead_mask[:3, 0] = lead_mask[1, 2] = lead_mask[6, 1] = False  # more of them on one rank than on the other
    drawn = model.draw_inputs(signal[records], DrawKeys(seed=0, step=3, epoch=0, sample_ids=tuple(range(8))[records]))
    loss = model(signal[records], lead_mask=lead_mask[records], **drawn).loss
    loss.backward()
    return [loss.detach(), *(weights.grad for weights in model.parameters() if weights.grad is not None)]


@pytest.mark.parametrize("name", MODELS)
def test_two_processes_with_other_absent_leads_learn_as_one(name, tmp_path):
    one = loss_and_gradients(slice(None), name)
    for expected, found in zip(one, on_two_ranks(loss_and_gradients, tmp_path, name), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def gathered(records):
    rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))[records].requires_grad_()
    gather_rows(rows).square().prod(dim=0).sum().backward()
    gradient = torch.zeros(8, 3)
    gradient[records] = rows.grad
    return [gradient]


def of_sigreg(records):
    rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))[records].requires_grad_()
    value = sigreg(rows, draw_directions(3, 5, torch.Generator().manual_seed(1)))
    value.backward()
    gradient = torch.zeros(8, 3)
    gradient[records] = rows.grad
    return [value.detach(), gradient]


@pytest.mark.parametrize("function", [gathered, of_sigreg])
def test_the_mean_gradient_of_two_processes_is_that_of_one(function, tmp_path):
    for expected, found in zip(function(slice(None)), on_two_ranks(function, tmp_path), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
