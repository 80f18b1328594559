import pytest
import torch
from torch.nn import functional
from transformers.testing_utils import CaptureLogger

from ecg_transformers.modeling import EcgViTConfig
from ecg_transformers.modeling.masking import keyed_generator
from ecg_transformers.modeling.metric_learning import (
    batch_hard_triplets,
    logger,
    matching_pairs,
    mined_triplet_loss,
    random_triplets,
    semi_hard_triplets,
    triplet_loss,
)
from ecg_transformers.modeling.modeling_ecg_vit import EcgViTForEmbedding

from .tiny_methods import SMALL

TINY = SMALL | {"num_samples": 100, "patch_size": 10, "initializer_range": 0.2}
CLASSES = torch.tensor([0, 1, 0, 2, 1, 0, 2, 1])


def embeddings(batch=8, seed=0):
    return functional.normalize(torch.randn(batch, 5, generator=torch.Generator().manual_seed(seed)), dim=1)


def signals():
    """Eight records, each class with a rhythm of its own."""
    noise = torch.randn(8, 3, 100, generator=torch.Generator().manual_seed(7))
    return 0.5 * noise + torch.sin(0.1 * (1 + CLASSES)[:, None, None] * torch.arange(100))


def tiny_model(**fields):
    torch.manual_seed(0)
    return EcgViTForEmbedding(EcgViTConfig(**TINY | fields))


def squared(first, second):
    return sum((a - b) ** 2 for a, b in zip(first.tolist(), second.tolist(), strict=True))


def test_published_triplets_give_the_intended_loss_and_gradient(golden):
    stored = golden("triplet")
    points = stored["embeddings"].clone().requires_grad_()
    parts = [points[stored[f"{part}_idx"]] for part in ("anchor", "positive", "negative")]
    loss = triplet_loss(*parts, margin=1.0)
    torch.testing.assert_close(loss, stored["loss_intended"], rtol=1e-5, atol=1e-6)
    loss.backward()
    torch.testing.assert_close(points.grad, stored["grad_intended"], rtol=1e-5, atol=1e-6)


def broadcast_triplet_loss(anchors, positives, negatives, margin):
    """What the SMILES code computes: an axis too many compares each positive with all anchors, per coordinate."""
    to_positive = (anchors - positives[:, None]).square().sum(dim=1)
    to_negative = (anchors - negatives[:, None]).square().sum(dim=1)
    return functional.relu(to_positive - to_negative + margin).mean()


def test_the_value_of_the_published_code_is_another_loss(golden):
    stored = golden("triplet")
    parts = [stored["embeddings"][stored[f"{part}_idx"]] for part in ("anchor", "positive", "negative")]
    assert broadcast_triplet_loss(*parts, 1.0).item() == pytest.approx(1.309052, rel=1e-5)
    assert triplet_loss(*parts).item() == pytest.approx(0.759464, rel=1e-5)
    with pytest.raises(ValueError, match="three tensors of one shape"):
        triplet_loss(parts[0], parts[1][:, None], parts[2][:, None])


def test_published_projection_head(golden):
    stored = golden("triplet")
    model = tiny_model(hidden_size=768, num_hidden_layers=0, embedding_size=9, embedding_hidden_size=64)
    model.projection.load_state_dict(
        {
            f"{to}.{part}": stored[f"head.{name}.{part}"]
            for to, name in ((0, "fc1"), (2, "fc2"))
            for part in ("weight", "bias")
        }
    )
    output = functional.normalize(model.projection(stored["head.input"]), dim=-1)
    torch.testing.assert_close(output, stored["head.output"], rtol=1e-5, atol=1e-5)


def test_pairs_of_classes_are_equal_or_not_and_a_negative_class_is_unknown():
    positive, negative = matching_pairs(torch.tensor([3, 3, 1, -100]))
    assert positive.nonzero().tolist() == [[0, 1], [1, 0]]
    assert negative.nonzero().tolist() == [[0, 2], [1, 2], [2, 0], [2, 1]]


def test_records_of_several_labels_match_if_they_share_one_and_differ_if_they_share_none():
    labels = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]])
    positive, negative = matching_pairs(labels)
    for first in range(5):
        for second in range(5):
            a, b = labels[first], labels[second]
            known = first != second and a.any() and b.any()
            shares = bool((a * b).any())
            assert positive[first, second] == bool(known and shares)
            assert negative[first, second] == bool(known and not shares)


def test_batch_hard_mining_equals_a_slow_search():
    points = embeddings()
    expected = []
    for anchor in range(8):
        same = [i for i in range(8) if i != anchor and CLASSES[i] == CLASSES[anchor]]
        other = [i for i in range(8) if CLASSES[i] != CLASSES[anchor]]
        expected.append(
            [
                anchor,
                max(same, key=lambda i: squared(points[anchor], points[i])),
                min(other, key=lambda i: squared(points[anchor], points[i])),
            ]
        )
    assert batch_hard_triplets(points, CLASSES).tolist() == expected


def test_semi_hard_mining_equals_a_slow_search():
    fallbacks = []
    for seed in range(10):
        points, expected = embeddings(seed=seed), []
        for anchor in range(8):
            distance = [squared(points[anchor], point) for point in points]
            other = [i for i in range(8) if CLASSES[i] != CLASSES[anchor]]
            for positive in range(8):
                if positive != anchor and CLASSES[positive] == CLASSES[anchor]:
                    farther = [i for i in other if distance[i] > distance[positive]]
                    fallbacks.append(not farther)
                    chosen = min(farther or other, key=lambda i, d=distance, sign=1 if farther else -1: sign * d[i])
                    expected.append([anchor, positive, chosen])
        assert semi_hard_triplets(points, CLASSES).tolist() == expected
    assert 0 < sum(fallbacks) < len(fallbacks)


def test_random_mining_draws_every_valid_triplet_by_its_generator_alone():
    state = torch.random.get_rng_state()
    seen = [set() for _ in range(8)]
    for step in range(200):
        triplets = random_triplets(CLASSES, keyed_generator("test", step))
        assert triplets[:, 0].tolist() == list(range(8))
        for anchor, positive, negative in triplets.tolist():
            assert anchor != positive and CLASSES[anchor] == CLASSES[positive] != CLASSES[negative]
            seen[anchor].add((positive, negative))
    for anchor, triplets in enumerate(seen):
        num_same = int((CLASSES == CLASSES[anchor]).sum())
        assert len(triplets) == (num_same - 1) * (8 - num_same)
    assert torch.equal(random_triplets(CLASSES, keyed_generator(1)), random_triplets(CLASSES, keyed_generator(1)))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("mining", ["batch_hard", "semi_hard", "random"])
def test_a_batch_without_a_triplet_has_a_loss_of_zero_with_a_gradient_and_says_so(mining):
    points = embeddings().requires_grad_()
    logger.warning_once.cache_clear()
    with CaptureLogger(logger) as captured:
        loss = mined_triplet_loss(points, torch.arange(8), mining, generator=keyed_generator(0))
    loss.backward()
    assert loss == 0 and torch.equal(points.grad, torch.zeros_like(points))
    assert "8 records holds no triplet" in captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mining": "hardest"}, "mining to be one of"),
        ({"mining": "random"}, "needs a generator"),
        ({"labels": torch.arange(7)}, "one label a record"),
        ({"labels": torch.zeros(8)}, "integer classes"),
    ],
)
def test_what_cannot_be_mined_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mined_triplet_loss(**{"embeddings": embeddings(), "labels": CLASSES} | arguments)


@pytest.mark.parametrize("mining", ["batch_hard", "semi_hard", "random"])
def test_the_models_loss_is_that_of_its_configuration(mining):
    model = tiny_model(triplet_mining=mining, triplet_margin=0.4, embedding_size=6).eval()
    output = model(signals(), labels=CLASSES)
    generator = model.own_keys(8).shared("triplets")
    expected = mined_triplet_loss(output.embeddings, CLASSES, mining, 0.4, generator)
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.embeddings.norm(dim=1), torch.ones(8))
    assert output.embeddings.shape == (8, 6)
    assert model(signals()).loss is None


@pytest.mark.parametrize("mining", ["batch_hard", "semi_hard", "random"])
def test_ten_steps_lower_the_loss(losses_of_ten_steps, mining):
    model = tiny_model(triplet_mining=mining, embedding_size=6).train()
    losses = losses_of_ten_steps(model, 1e-3, signals(), labels=CLASSES)
    assert losses[-1] < 0.9 * losses[0]


def test_embeddings_and_loss_are_float32_under_autocast():
    model = tiny_model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(signals(), labels=CLASSES)
    assert output.embeddings.dtype == output.loss.dtype == torch.float32


def test_the_setting_of_the_loss_and_the_head_are_saved(tmp_path):
    model = tiny_model(embedding_size=6, triplet_mining="semi_hard", triplet_margin=0.5).eval()
    model.save_pretrained(tmp_path)
    loaded = EcgViTForEmbedding.from_pretrained(tmp_path)
    assert (loaded.config.triplet_mining, loaded.config.triplet_margin) == ("semi_hard", 0.5)
    assert torch.equal(loaded(signals(), labels=CLASSES).loss, model(signals(), labels=CLASSES).loss)


def _two_processes(rank, file, results):
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    model = tiny_model(embedding_size=6).train()
    half = slice(4 * rank, 4 * rank + 4)
    output = model(signals()[half], labels=CLASSES[half])
    output.loss.backward()
    for parameter in model.parameters():  # what DistributedDataParallel does
        torch.distributed.all_reduce(parameter.grad)
        parameter.grad /= 2
    torch.save((output.loss.item(), {name: p.grad for name, p in model.named_parameters()}), f"{results}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_mine_the_whole_batch(tmp_path):
    torch.multiprocessing.start_processes(
        _two_processes, args=(tmp_path / "store", tmp_path), nprocs=2, start_method="fork"
    )
    model = tiny_model(embedding_size=6).train()
    loss = model(signals(), labels=CLASSES).loss
    loss.backward()
    for rank in range(2):
        other_loss, gradients = torch.load(tmp_path / f"{rank}.pt")
        assert other_loss == pytest.approx(loss.item(), abs=1e-6)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name)
