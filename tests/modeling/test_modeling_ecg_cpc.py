import math

import pytest
import torch

from ecg_transformers.modeling import EcgCpcConfig, EcgCpcForPreTraining
from ecg_transformers.modeling.masking import DrawKeys, keyed_generator
from ecg_transformers.modeling.modeling_ecg_cpc import contrast, sample_negatives

from .tiny_methods import SMALL

TINY = {name: SMALL[name] for name in SMALL if name != "intermediate_size"}
TINY |= {"sampling_rate": 100, "num_samples": 120, "num_negatives": 12, "dropout": 0.0}
KEYS = DrawKeys(seed=1, step=5, epoch=2, sample_ids=(10, 11, 12, 13))


def tiny_model(**fields):
    torch.manual_seed(0)
    return EcgCpcForPreTraining(EcgCpcConfig(**(TINY | fields)))


def signals(batch=4, num_samples=120):
    return torch.randn(batch, 3, num_samples, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@torch.no_grad()
def test_the_loss_equals_a_slow_one(reduction):
    """One prediction of one record at a time: the true token's score and those of its negatives, repeated ones too."""
    model = tiny_model(time_reduction=reduction).eval()
    negatives = model.draw_inputs(signals(), KEYS)["negatives"]
    output = model(signals(), negatives=negatives)
    encoded = model.ecg_vit(signals())
    horizon, num_tokens = 6, 60  # 116.7 ms at 50 tokens a second
    record_losses, found = [], []
    for record in range(4):
        losses = []
        for context in range(num_tokens - horizon):
            predicted = model.prediction.weight @ encoded.last_hidden_state[record, context]
            candidates = [context + horizon, *negatives[record, context].tolist()]
            scores = torch.stack([predicted @ encoded.token_embeddings[record, token] for token in candidates])
            losses.append(-math.log(torch.softmax(scores.double(), 0)[0].item() + 1e-300))
            found.append(bool(scores[0] > scores[1:].max()))
        record_losses.append(sum(losses) if reduction == "sum" else sum(losses) / len(losses))
    assert output.loss.item() == pytest.approx(sum(record_losses) / 4, rel=1e-5)
    assert output.accuracy.item() == pytest.approx(sum(found) / len(found))
    assert 0 < output.accuracy < 1
    assert output.predictions.shape == (4, 54, 32)


def test_the_gradient_is_that_of_gathered_scores():
    scores = torch.randn(2, 7, 10, dtype=torch.float64, requires_grad=True)
    negatives = torch.stack([sample_negatives(10, 3, 20, keyed_generator(record)) for record in range(2)])
    contrast(scores, negatives, 3)[0].sum().backward()
    gradient, scores.grad = scores.grad, None
    columns = torch.cat((torch.arange(3, 10).expand(2, 7)[..., None], negatives), dim=2)
    gathered = scores.gather(2, columns.long())
    (gathered.logsumexp(2) - gathered[..., 0]).sum().backward()
    torch.testing.assert_close(gradient, scores.grad)


def test_negatives_are_all_other_tokens_alike():
    negatives = sample_negatives(20, 6, 4000, torch.Generator().manual_seed(0))
    assert negatives.shape == (14, 4000) and negatives.dtype == torch.int32
    for context, drawn in enumerate(negatives):
        counts = torch.bincount(drawn, minlength=20)
        assert counts[context + 6] == 0 and len(counts) == 20
        others = counts[torch.arange(20) != context + 6].double()
        expected = 4000 / 19
        assert ((others - expected).square() / expected).sum() < 50  # chi-squared of 18 degrees: once in 10^4


def test_negatives_differ_from_record_to_record():
    drawn = tiny_model().draw_inputs(signals(), KEYS)["negatives"]
    assert drawn.shape == (4, 54, 12) and not torch.equal(drawn[0], drawn[1])


def test_the_gradient_flows_into_the_tokens_on_both_sides():
    model = tiny_model().train()
    model(signals()).loss.backward()
    stem = model.ecg_vit.embeddings.projection.weight.grad.clone()
    model.zero_grad()
    outputs = model.ecg_vit(signals())
    tokens = outputs.token_embeddings.detach()  # as candidates only
    scores = model.prediction(outputs.last_hidden_state[:, :-6]) @ tokens.transpose(1, 2)
    negatives = model.draw_inputs(signals(), DrawKeys(0, 1, 1, tuple(range(4))))["negatives"]
    contrast(scores, negatives, 6)[0].sum(1).mean().backward()
    assert not torch.allclose(model.ecg_vit.embeddings.projection.weight.grad, stem)


def test_recordings_may_be_longer_than_configured():
    output = tiny_model().eval()(signals(num_samples=300))
    assert output.predictions.shape == (4, 144, 32) and output.loss.isfinite()


def test_a_recording_shorter_than_the_horizon_is_refused():
    with pytest.raises(ValueError, match="too short"):
        tiny_model()(signals(num_samples=12))
