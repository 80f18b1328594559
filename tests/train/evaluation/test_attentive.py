"""The attentive protocol, on made-up recordings of two windows, some of which lack a lead."""

import dataclasses
from itertools import islice

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value

from ecg_transformers.data import ECG_STORAGE, Ecg
from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTConfig, EcgViTForSequenceClassification, EcgViTModel
from ecg_transformers.modeling.modeling_ecg_vit import EcgViTAttentivePooler
from ecg_transformers.train.evaluation.heads import (
    ATTENTIVE,
    AttentiveHead,
    TokenCache,
    attentive_protocol,
    cache_tokens,
    drawn_head,
    shuffled_batches,
    train_head,
)
from ecg_transformers.train.finetune_objective import HeadTask
from ecg_transformers.train.metrics import macro_auroc
from ecg_transformers.train.results import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from ecg_transformers.train.tasks.labelled_splits import LabelledSplits

LEADS = ("I", "II", "V2")
INPUT = {"leads": LEADS, "sampling_rate": 100, "num_samples": 100}
SIZE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 25}
NAMES = {MULTI_LABEL: ("FAST", "TALL"), SINGLE_LABEL: ("SLOW", "FAST", "TALL"), REGRESSION: ("rate_hz", "height_mv")}
SHORT = dataclasses.replace(
    ATTENTIVE, name="short", num_steps=6, batch_size=8, peak_learning_rate=0.01, select_every=2
)
FLOAT32 = {"dtype": "float32"}
FEATURES = {"record_id": Value("string"), "patient_id": Value("string"), "ecg": ECG_STORAGE}
FEATURES |= {"labels": List(Value("string")), "targets": List(Value("float64"))}


def stored_rows(split: str, num_records: int, seed: int) -> Dataset:
    """Waves of 2 s, every fifth without V2, with labels and targets."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(num_records):
        fast, tall = generator.random(2) < 0.5
        rate, height = 1 + 2 * fast + 0.2 * generator.random(), 1 + tall + 0.1 * generator.random()
        leads = LEADS[:2] if number % 5 == 0 else LEADS
        seconds = np.arange(200) / 100
        signal = height * np.sin(2 * np.pi * (rate * seconds + generator.random(len(leads))[:, None]))
        signal += 0.05 * generator.normal(size=signal.shape)
        ecg = {"signal": signal, "leads": leads, "sampling_rate": 100.0, "unit": "mV"}
        labels = [name for name, is_so in (("FAST", fast), ("TALL", tall)) if is_so]
        ids = {"record_id": f"{split}{number}", "patient_id": f"{split}p{number // 2}"}
        rows.append(ids | {"ecg": Ecg().encode_example(ecg), "labels": labels, "targets": [rate, height]})
    return Dataset.from_list(rows, features=Features(FEATURES))


@pytest.fixture(scope="module")
def splits():
    rows = {"train": stored_rows("train", 24, 0), "validation": stored_rows("validation", 10, 1)}
    return LabelledSplits(**rows, test=stored_rows("test", 10, 2), **task(MULTI_LABEL))


def task(problem_type: str) -> dict:
    kind = {"label_names": NAMES[problem_type], "problem_type": problem_type}
    return kind | {"unlabelled": {}, "left_out": False}


def of_kind(splits: LabelledSplits, problem_type: str) -> LabelledSplits:
    changed = task(problem_type)
    if problem_type == SINGLE_LABEL:  # the last of its labels, or SLOW
        for name, rows in splits.items():
            labels = [[(["SLOW"] + of_record)[-1]] for of_record in rows["labels"]]
            changed[name] = rows.remove_columns("labels").add_column("labels", labels)
    return dataclasses.replace(splits, **changed)


@pytest.fixture(scope="module")
def feature_extractor():
    return EcgFeatureExtractor(**INPUT, long_records="all", missing_leads="mask")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return EcgViTModel(EcgViTConfig(**INPUT, **SIZE, num_registers=2, qkv_bias=True)).eval()


@pytest.fixture(scope="module")
def short(model, feature_extractor, splits):
    """What the protocol finds with the settings SHORT."""
    return attentive_protocol(model, feature_extractor, splits, SHORT, **FLOAT32)


@pytest.fixture(scope="module")
def caches(model, feature_extractor, splits):
    return {name: cache_tokens(model, feature_extractor, rows, dtype="float32") for name, rows in splits.items()}


def test_the_default_is_the_published_form():
    published = {"num_steps": 5000, "batch_size": 128, "peak_learning_rate": 1e-3, "weight_decay": 0.1}
    published |= {"gradient_clip": 1.0, "select_every": 100}
    assert {name: getattr(ATTENTIVE, name) for name in published} == published


@pytest.mark.parametrize("patching", ["per_lead", "all_leads"])
def test_the_head_computes_what_the_classifier_of_the_library_does(feature_extractor, splits, patching):
    torch.manual_seed(1)
    config = EcgViTConfig(**INPUT, **SIZE, num_registers=1, qkv_bias=True, patching=patching, num_labels=3)
    config.classifier_pooling = "attentive"
    classifier = EcgViTForSequenceClassification(config).eval()
    for parameter in classifier.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # biases too
    head = AttentiveHead(config, 3, bias=True)
    own = {name: value for name, value in classifier.state_dict().items() if not name.startswith("ecg_vit.")}
    head.load_state_dict(own)
    inputs = feature_extractor([row["ecg"] for row in splits.test])
    window_record = inputs.pop("window_record")
    assert not inputs["lead_mask"].all() and len(window_record) == 20
    with torch.no_grad():
        logits = classifier(**inputs).logits
    cache = cache_tokens(classifier.ecg_vit, feature_extractor, splits.test, batch_size=7, dtype="float32")
    assert cache.window_record.tolist() == window_record.tolist()
    assert (cache.token_mask is None) == (patching == "all_leads")
    with torch.no_grad():
        torch.testing.assert_close(cache.logits_of_windows(head, np.arange(20)), logits, atol=1e-5, rtol=0)
    expected = logits.unflatten(0, (10, 2)).mean(dim=1)
    torch.testing.assert_close(cache.logits(head), expected, atol=1e-5, rtol=0)


def test_training_equals_a_plain_loop_with_the_modules_of_the_library(model, caches, splits):
    truth = {name: splits.truth_of(name) for name in caches}
    task_of_head = HeadTask(truth["train"], splits.label_names, MULTI_LABEL)
    settings = dataclasses.replace(SHORT, gradient_clip=0.05, weight_decay=0.5, select_every=6)
    head = drawn_head(lambda: AttentiveHead(model.config, 2), seed=3)
    trained = train_head(head, settings, task_of_head, caches, truth, seed=3)

    pooler, layer = EcgViTAttentivePooler(model.config), torch.nn.Linear(16, 2, bias=False)
    start = drawn_head(lambda: AttentiveHead(model.config, 2), seed=3)
    pooler.load_state_dict(start.attentive_pooler.state_dict())
    layer.load_state_dict(start.classifier.state_dict())
    parameters = [*pooler.parameters(), *layer.parameters()]
    weights = [p for name, p in (*pooler.named_parameters(), *layer.named_parameters()) if name.endswith("weight")]
    others = [pooler.query_token, *(m.bias for m in (pooler.q_proj, pooler.k_proj, pooler.v_proj))]
    optimizer = torch.optim.AdamW([{"params": weights, "weight_decay": 0.5}, {"params": others, "weight_decay": 0}])
    generator, cache = torch.Generator().manual_seed(4), caches["train"]
    batches = shuffled_batches(24, 8, generator, drop_last=True)
    for _ in range(6):
        records = next(batches)
        windows = 2 * records + torch.randint(2**62, (8,), generator=generator) % 2
        tokens, mask = torch.from_numpy(cache.tokens[windows]), torch.from_numpy(cache.token_mask[windows])
        logits = layer(pooler(tokens, mask))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, torch.from_numpy(truth["train"])[records].float()
        )
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.05)
        optimizer.step()
    assert trained == (6, 6)
    torch.testing.assert_close(head.classifier.weight, layer.weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(head.attentive_pooler.query_token, pooler.query_token, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(head.attentive_pooler.v_proj.weight, pooler.v_proj.weight, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("problem_type", [MULTI_LABEL, SINGLE_LABEL])
def test_scores_are_probabilities_of_the_task(model, feature_extractor, splits, problem_type):
    splits = of_kind(splits, problem_type)
    result = attentive_protocol(model, feature_extractor, splits, SHORT, **FLOAT32)
    about = (result.protocol, result.problem_type, result.label_names)
    assert about == ("attentive", problem_type, NAMES[problem_type])
    assert np.array_equal(result.validation.labels, splits.truth_of("validation"))
    assert result.test.scores.min() > 0 and result.test.scores.max() < 1
    if problem_type == SINGLE_LABEL:
        np.testing.assert_allclose(result.test.scores.sum(axis=1), 1)


@pytest.mark.slow
def test_it_learns_what_is_there_to_learn(model, feature_extractor, splits):
    settings = dataclasses.replace(SHORT, num_steps=60, batch_size=16, peak_learning_rate=0.03, select_every=20)
    test = attentive_protocol(model, feature_extractor, splits, settings).test
    assert macro_auroc(test.labels, test.scores, splits.label_names).value > 0.95


def test_values_of_a_regression_are_in_the_unit_of_the_target(model, feature_extractor, splits):
    splits = of_kind(splits, REGRESSION)
    targets = [[1000 + 100 * value for value in of_record] for of_record in splits.train["targets"]]
    far = {"train": splits.train.remove_columns("targets").add_column("targets", targets)}
    result = attentive_protocol(model, feature_extractor, dataclasses.replace(splits, **far), SHORT)
    truth = np.array(targets)
    assert (np.abs(result.test.scores - truth.mean(axis=0)) < 3 * truth.std(axis=0)).all()
    assert result.test.labels.max() < 10  # of that split, as they are


def test_a_seed_gives_one_result_and_touches_no_global_generator(model, feature_extractor, splits, short):
    state = torch.get_rng_state()
    again, other = (
        attentive_protocol(model, feature_extractor, splits, SHORT, seed, **FLOAT32).test.scores for seed in (0, 1)
    )
    assert np.array_equal(short.test.scores, again) and not np.allclose(short.test.scores, other)
    assert torch.equal(state, torch.get_rng_state())


def test_what_is_chosen_does_not_depend_on_the_test_split(model, feature_extractor, splits, short):
    labels = splits.test["labels"][::-1]
    other = dataclasses.replace(splits, test=splits.test.remove_columns("labels").add_column("labels", labels))
    found = attentive_protocol(model, feature_extractor, other, SHORT, **FLOAT32)
    assert np.array_equal(found.test.scores, short.test.scores)
    assert not np.array_equal(found.test.labels, short.test.labels)


def test_details_say_what_was_done(short):
    details = short.details
    assert details["form"] == "short" and details["steps"] == 6 and details["best_step"] in (2, 4, 6)
    assert details["windows"] == {"train": 48, "validation": 20, "test": 20}
    assert details["cache_bytes"] == 88 * (2 + 12) * 16 * 4
    assert details["selection"] == "quality" and details["batch"] == 8


def test_tokens_are_the_last_hidden_states_with_registers(model, feature_extractor, splits, caches):
    inputs = feature_extractor([row["ecg"] for row in splits.train])
    with torch.no_grad():
        states = model(inputs["input_values"], lead_mask=inputs["lead_mask"]).last_hidden_state.numpy()
    np.testing.assert_allclose(caches["train"].tokens, states, atol=1e-6)
    absent = ~inputs["lead_mask"].numpy()
    assert np.array_equal(~caches["train"].token_mask[:, 2:].reshape(48, 3, 4).any(axis=2), absent)
    assert caches["train"].token_mask[:, :2].all()


def test_half_precision_is_close_and_refuses_what_it_cannot_hold(model, feature_extractor, splits, caches):
    halves = cache_tokens(model, feature_extractor, splits.test)
    assert halves.tokens.dtype == np.float16
    np.testing.assert_allclose(halves.tokens, caches["test"].tokens, atol=5e-3)
    large = EcgViTModel(model.config)
    torch.nn.init.constant_(large.layernorm.weight, 1e5)
    with pytest.raises(ValueError, match=r"10 records are NaN or beyond 65504.*cache as float32"):
        cache_tokens(large, feature_extractor, splits.test)
    assert np.abs(cache_tokens(large, feature_extractor, splits.test, dtype="float32").tokens).max() > 65504


def test_a_record_that_cannot_become_input_is_left_out_of_tokens_and_truth(model, feature_extractor, splits, short):
    rows = [dict(row) for row in splits.test]
    rows[3]["ecg"] = dict(rows[3]["ecg"], leads=["V5", "V6", "aVR"])
    broken = dataclasses.replace(splits, test=Dataset.from_list(rows, features=splits.test.features))
    found = attentive_protocol(model, feature_extractor, broken, SHORT, **FLOAT32).test
    kept = [number for number in range(10) if number != 3]
    assert found.record_ids == [short.test.record_ids[number] for number in kept]
    assert np.array_equal(found.labels, short.test.labels[kept])
    np.testing.assert_allclose(found.scores, short.test.scores[kept], atol=1e-5)


def test_the_encoder_stays_as_it_was(feature_extractor, splits):
    torch.manual_seed(2)
    model = EcgViTModel(EcgViTConfig(**INPUT, **SIZE, drop_path_rate=0.5)).train()
    model.layernorm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, again = (cache_tokens(model, feature_extractor, splits.test).tokens for _ in range(2))
    assert np.array_equal(first, again)  # no stochastic depth
    assert model.training and not model.layernorm.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_patients_in_two_splits_are_refused(model, feature_extractor, splits):
    with pytest.raises(ValueError, match="both the train and the test"):
        attentive_protocol(model, feature_extractor, dataclasses.replace(splits, test=splits.train), SHORT, **FLOAT32)


def test_training_draws_every_window_of_a_record():
    cache = TokenCache(
        np.zeros((6, 1, 4), np.float32), None, np.array([0, 1, 1, 1, 2, 2]), ["a", "b", "c"], [None] * 3
    )
    generator, seen = torch.Generator().manual_seed(0), set()
    head = WindowNumbers(cache)
    for records in islice(shuffled_batches(3, 2, generator, drop_last=True), 40):
        windows = cache.drawn_logits(head, records, generator).int().flatten().numpy()
        assert cache.window_record[windows].tolist() == records.tolist() and len(set(records.tolist())) == 2
        seen |= set(windows.tolist())
    assert seen == set(range(6))


class WindowNumbers(torch.nn.Module):
    """A head whose logit is the number of the window, which its tokens hold."""

    def __init__(self, cache):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        cache.tokens[:] = np.arange(len(cache.tokens))[:, None, None]

    def forward(self, tokens, mask):
        return tokens[:, 0, :1]
