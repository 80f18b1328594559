import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModel, Trainer, TrainingArguments

from ecg_transformers.data import load_ecg
from ecg_transformers.train.callbacks import CollapseMonitor, LossWatch, effective_rank
from ecg_transformers.train.pretrain import build_trainer
from ecg_transformers.train.run_folder import last_complete_checkpoint

from .conftest import TINY_RUN, StopAt


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def assert_same_weights(first, second, tolerance=0.0):
    for name, tensor in first.items():
        torch.testing.assert_close(
            second[name], tensor, atol=tolerance, rtol=0, msg=lambda m, name=name: f"{name}: {m}"
        )


def straight_and_resumed(make):
    """A run that is not interrupted, and one that goes on from its checkpoint after a crash."""
    straight = make("straight")
    straight.train()
    crashed = make("crashed")
    crashed.add_callback(StopAt(5))
    with pytest.raises(KeyboardInterrupt):
        crashed.train()
    checkpoint = last_complete_checkpoint(crashed.args.output_dir)
    assert checkpoint.endswith("checkpoint-3")
    resumed = make("crashed")
    resumed.train(resume_from_checkpoint=checkpoint)
    assert resumed.state.global_step == 8
    return straight, resumed


SAVING = {"save_strategy": "steps", "save_steps": 3}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_accumulation_steps": 2, "drop_path_rate": 0.2},
        pytest.param({"bf16": True}, marks=pytest.mark.slow),
        {"num_samples": 500, "patch_size": 50, "long_records": "all", "random_windows": True},
        pytest.param({"dataloader_num_workers": 2}, marks=pytest.mark.slow),
        pytest.param(
            {"dataloader_num_workers": 2, "gradient_accumulation_steps": 2, "bf16": True}, marks=pytest.mark.slow
        ),
        pytest.param({"gradient_checkpointing": True}, marks=pytest.mark.slow),
    ],
    ids=lambda settings: ",".join(settings) or "plain",
)
def test_a_resumed_run_ends_bit_for_bit_where_an_uninterrupted_one_does(make_trainer, settings):
    straight, resumed = straight_and_resumed(lambda name: make_trainer(name=name, **SAVING, **settings))
    assert_same_weights(straight.model.state_dict(), resumed.model.state_dict())
    assert losses(resumed)[-5:] == losses(straight)[-5:]


RESPONSES = {
    name: TINY_RUN[name] for name in ("leads", "sampling_rate", "num_samples", "lr_scheduler_type", "max_steps")
}
RESPONSES |= {
    name: TINY_RUN[name] for name in ("per_device_train_batch_size", "logging_steps", "disable_tqdm", "use_cpu")
}
RESPONSES |= {"model_type": "kernel_response", "stem_widths": [8, 16], "stem_depths": [1, 1], "hidden_size": 16}
RESPONSES |= {"view_samples": 504, "num_kernels": 12, "target_size": 4, "beat_target_size": 2, "fitting_records": 16}
RESPONSES |= {"normalization": "lead", "max_grad_norm": 1.0, "learning_rate": 4e-3}


def test_a_resumed_run_keeps_its_targets_and_ends_where_an_uninterrupted_one_does(tmp_path, recordings):
    made = []

    def make(name):
        made.append(build_trainer(RESPONSES | SAVING | {"output_dir": str(tmp_path / name)}, recordings))
        if len(made) == 3:
            made[-1].model.fit_targets = None  # is not called again
        return made[-1]

    straight, resumed = straight_and_resumed(make)
    assert int(straight.model.targets.num_records) == 16
    assert_same_weights(straight.model.state_dict(), resumed.model.state_dict())
    assert losses(resumed)[-5:] == losses(straight)[-5:]


def test_targets_are_fitted_to_recordings_as_they_are_trained_on(tmp_path, recordings):
    trainer = build_trainer(RESPONSES | {"output_dir": str(tmp_path)}, recordings)
    fitted = {row.numpy().tobytes() for batch in trainer._fitting_batches() for row in batch["input_values"]}
    assert len(fitted) == len(recordings)
    trainer.model.train()
    for batch in trainer.get_train_dataloader():
        assert {row.numpy().tobytes() for row in trainer._prepare_inputs(batch)["input_values"]} <= fitted


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_resumed_stream_ends_bit_for_bit_where_an_uninterrupted_one_does(make_trainer, num_workers):
    def make(name):
        stream = load_ecg("ptb-xl-sample", split="train", decode=False, streaming=True)
        stream = stream.take(24).shuffle(seed=1, buffer_size=8)
        return make_trainer(stream, name=name, dataloader_num_workers=num_workers, **SAVING)

    straight, resumed = straight_and_resumed(make)
    assert_same_weights(straight.model.state_dict(), resumed.model.state_dict())


def test_accumulating_four_micro_batches_equals_one_large_batch(make_trainer):
    large = make_trainer(per_device_train_batch_size=8, max_steps=3)
    small = make_trainer(per_device_train_batch_size=2, gradient_accumulation_steps=4, max_steps=3)
    large.train()
    small.train()
    assert losses(small) == pytest.approx(losses(large), abs=1e-5)
    assert_same_weights(large.model.state_dict(), small.model.state_dict(), tolerance=1e-5)


def test_the_mask_of_a_step_does_not_depend_on_the_run(make_trainer):
    masks = []
    for _ in range(2):
        trainer = make_trainer(max_steps=3)
        seen = []
        forward = trainer.model.forward
        trainer.model.forward = lambda *args, seen=seen, forward=forward, **kwargs: (
            seen.append(kwargs["bool_masked_pos"]) or forward(*args, **kwargs)
        )
        trainer.train()
        masks.append(torch.cat(seen))
    assert torch.equal(*masks)
    assert len({tuple(mask.tolist()) for mask in masks[0]}) == 3


def test_random_windows_belong_to_record_and_epoch(make_trainer, recordings):
    trainer = make_trainer(num_samples=500, patch_size=50, long_records="all", random_windows=True)
    batch = trainer.data_collator([recordings[row] for row in range(6)])

    def windows(epoch, rows):
        trainer.state.epoch = epoch
        trainer.model.train()
        picked = {name: value if isinstance(value, float | bool) else value[rows] for name, value in batch.items()}
        return trainer._prepare_inputs(picked)["input_values"]

    together = windows(0.5, list(range(6)))
    assert together.shape == (6, 3, 500)
    assert torch.equal(windows(0.9, [4, 2]), together[[4, 2]])
    assert not torch.equal(windows(1.0, list(range(6))), together)
    whole, _ = trainer.processing_class.process_batch(
        batch["signal"], batch["gain"], sampling_rate=100, window_starts=torch.zeros(6, dtype=torch.long)
    )
    starts = trainer._draw_window_starts(batch["sample_id"].tolist(), 1000, 100)
    assert starts.min() >= 0 and starts.max() <= 500 and len(set(starts.tolist())) > 3
    assert whole.shape == together.shape


def test_records_of_several_layouts_give_one_window_each(make_trainer, recordings):
    trainer = make_trainer(num_samples=500, patch_size=50, long_records="all", random_windows=True)
    long, short = dict(recordings[0]), dict(recordings[1])
    samples = np.frombuffer(long["ecg"]["signal"], dtype="<i2").reshape(12, -1)
    long["ecg"] = long["ecg"] | {"signal": np.tile(samples, 3).tobytes()}
    batch = trainer.data_collator([long, short])
    assert len(batch["input_values"]) == 6 + 2  # every window of both
    trainer.model.train()
    trainer.state.epoch = 0.0
    first = trainer._prepare_inputs(dict(batch))["input_values"]
    assert first.shape == (2, 3, 500)
    assert torch.equal(trainer._prepare_inputs(dict(batch))["input_values"], first)


def test_evaluation_uses_the_windows_of_the_feature_extractor(make_trainer, recordings):
    trainer = make_trainer(num_samples=500, patch_size=50, long_records="all", random_windows=True)
    trainer.model.eval()
    inputs = trainer._prepare_inputs(trainer.data_collator([recordings[0], recordings[1]]))
    assert inputs["input_values"].shape == (4, 3, 500)


def test_a_checkpoint_folder_loads_with_its_feature_extractor(make_trainer, recordings):
    trainer = make_trainer(max_steps=1)
    trainer.train()
    trainer.save_model()
    extractor = AutoFeatureExtractor.from_pretrained(trainer.args.output_dir)
    encoder = AutoModel.from_pretrained(trainer.args.output_dir)
    row = load_ecg("ptb-xl-sample", split="test")[0]
    features = encoder(**extractor(row["ecg"])).pooler_output
    assert extractor.to_dict() == trainer.processing_class.to_dict()
    assert features.shape == (1, 32)
    assert torch.equal(features, trainer.model.ecg_vit.eval()(**extractor(row["ecg"])).pooler_output)


def test_evaluation_gives_a_loss_that_repeats(make_trainer, recordings):
    trainer = make_trainer(eval_dataset=recordings, max_steps=1)
    first, second = trainer.evaluate(), trainer.evaluate()
    assert math.isfinite(first["eval_loss"]) and first["eval_loss"] == second["eval_loss"]


def test_momentum_of_the_teacher_follows_the_schedule_and_logs_carry_spread_and_rank_of_the_features(make_trainer):
    trainer = make_trainer(ema_start=0.5, ema_end=1.0, max_steps=4)
    momenta = []
    update = trainer.model.update_teacher
    trainer.model.update_teacher = lambda momentum: (momenta.append(momentum), update(momentum))
    trainer.train()
    assert momenta == [0.5, 0.625, 0.75, 0.875]
    log = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    assert log["feature_std"] > 0 and 0 < log["feature_spread"] and 1 <= log["effective_rank"] <= 16


def test_weight_decay_moves_and_spares_norms_and_biases(make_trainer):
    trainer = make_trainer(weight_decay=0.01, weight_decay_end=0.1, max_steps=3)
    trainer.train()
    decays = sorted(group["weight_decay"] for group in trainer.optimizer.param_groups)
    assert decays == [0.0, pytest.approx(0.1)]
    decayed = set(trainer.get_decay_parameter_names(trainer.model))
    assert "predictor.mask_token" in decayed
    assert not any("layernorm" in name or name.endswith("bias") for name in decayed)


def test_the_published_schedule_is_used_when_asked_for(make_trainer):
    trainer = make_trainer(published_schedule="kim", learning_rate=1e-2, warmup_steps=2, max_steps=8)
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    expected = [1e-6, 0.005000500000000001, 0.008535680352542143, 0.006913725820109268]
    assert rates[:4] == pytest.approx(expected, rel=1e-9)


def test_a_nan_loss_stops_the_run_with_a_sentence(make_trainer):
    trainer = make_trainer(learning_rate=1e30, lr_scheduler_type="constant")
    with pytest.raises(
        RuntimeError, match=r"The loss is NaN or infinite at step \d+, first seen on the records .*\. Lower"
    ):
        trainer.train()


def test_collapsed_features_stop_the_run_with_a_sentence(make_trainer):
    trainer = make_trainer(collapse_patience=2)
    with torch.no_grad():  # an encoder that says the same of every record
        trainer.model.teacher.layernorm.weight.zero_()
        trainer.model.ecg_vit.layernorm.weight.zero_()
    with pytest.raises(RuntimeError, match="features have collapsed: at step 2"):
        trainer.train()


def test_effective_rank_counts_equal_directions():
    torch.manual_seed(0)
    directions = torch.linalg.qr(torch.randn(200, 5)).Q
    centred = directions - directions.mean(0)
    basis = torch.linalg.qr(centred).Q @ torch.linalg.qr(torch.randn(32, 5)).Q.T
    assert effective_rank(basis + 3.0) == pytest.approx(5.0, rel=1e-3)


def test_the_monitor_keeps_a_window():
    monitor = CollapseMonitor()
    for number in range(100):
        monitor.observe(torch.full((32, 4), float(number)))
    assert 512 <= monitor.num_features < 512 + 32
    assert monitor.features[0][0, 0] == 84


def test_a_stock_trainer_without_our_callback_is_stopped(tmp_path, make_trainer, recordings):
    trainer = make_trainer()
    model, extractor = trainer.model, trainer.processing_class

    def collate(rows):
        values, _ = extractor.process_batch(
            torch.randn(len(rows), 3, 1000), leads=("I", "II", "V2"), sampling_rate=100
        )
        return {"input_values": values}

    arguments = TrainingArguments(
        str(tmp_path / "stock"), max_steps=5, remove_unused_columns=False, report_to="none", use_cpu=True
    )
    stock = Trainer(model=model, args=arguments, train_dataset=recordings, data_collator=collate)
    with pytest.raises(ValueError, match="EcgSslTrainer"):
        stock.train()
    assert stock.state.global_step == 2


def test_a_teacher_in_half_precision_and_a_trainer_without_a_feature_extractor_are_refused(make_trainer, recordings):
    trainer = make_trainer()
    with pytest.raises(ValueError, match="dtype=torch.float32 and train with bf16=True"):
        type(trainer)(model=trainer.model.bfloat16(), args=trainer.args, processing_class=trainer.processing_class)
    with pytest.raises(ValueError, match="processing_class=EcgFeatureExtractor"):
        type(trainer)(model=trainer.model.float(), args=trainer.args, train_dataset=recordings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mask_type": "segments", "mask_ratio": [0.4, 0.6], "min_segment_patches": 2, "highpass_hz": 0.5},
        {"num_samples": 500, "patch_size": 50, "long_records": "all", "random_windows": True},
    ],
    ids=lambda settings: ",".join(settings) or "plain",
)
def test_between_two_logs_the_host_reads_nothing_of_the_device(make_trainer, recordings, monkeypatch, settings):
    """On the meta device, which has no values, so that every read raises."""
    trainer = make_trainer(**settings)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # which meta does not know
    monkeypatch.setattr(type(trainer.args), "device", torch.device("meta"))
    trainer.model.to("meta").train()
    optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    for step in range(4):
        trainer.state.global_step = step
        inputs = trainer._prepare_inputs(trainer.data_collator([recordings[number] for number in range(4)]))
        assert inputs["input_values"].is_meta
        trainer.compute_loss(trainer.model, inputs).backward()
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        optimizer.step()
        trainer.model.update_teacher(0.9)
    with pytest.raises(RuntimeError, match="meta"):
        trainer.log({"loss": 1.0})


def test_a_loss_of_nan_is_named_with_its_step_and_records_when_it_is_looked_for():
    watch = LossWatch()
    watch.check()
    watch.observe(torch.tensor(1.0), 6, ["a"])
    watch.check()
    for step, loss in enumerate([0.5, math.inf, math.nan, 0.5], start=7):
        watch.observe(torch.tensor(loss), step, [f"record {step}"])
    with pytest.raises(RuntimeError, match="at step 8, first seen on the records record 8. Lower"):
        watch.check()
    watch.check()  # said once


def test_nothing_is_saved_after_a_loss_of_nan(make_trainer):
    trainer = make_trainer(save_strategy="steps", save_steps=1, logging_strategy="no")
    trainer.loss_watch.observe(torch.tensor(math.nan), 0, ["a"])
    with pytest.raises(RuntimeError, match="NaN or infinite at step 0"):
        trainer.train()
    assert last_complete_checkpoint(trainer.args.output_dir) is None
