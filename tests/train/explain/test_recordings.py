import numpy as np
import pytest
import torch
from torch import nn

from ecg_transformers.data import EcgRecord, load_ecg
from ecg_transformers.modeling import EcgFeatureExtractor, EcgViTConfig, EcgViTForSequenceClassification, EcgViTModel
from ecg_transformers.modeling.feature_extraction_ecg import average_windows
from ecg_transformers.train.explain import recordings as explained_recordings
from ecg_transformers.train.explain.recordings import explain_recording, flat_recording

SHAPE = {"leads": ("I", "II", "V2"), "sampling_rate": 100, "num_samples": 200}
WIDTHS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def tiny(model_class=EcgViTForSequenceClassification, **settings):
    torch.manual_seed(0)
    settings = (
        SHAPE | WIDTHS | {"patch_size": 50, "initializer_range": 0.3, "id2label": {0: "NORM", 1: "MI"}} | settings
    )
    model = model_class(EcgViTConfig(**settings))
    for layer in (model.base_model).layers:
        nn.init.normal_(layer.attention.q_proj.weight)
    return model.eval()


@pytest.fixture(scope="module")
def row():
    """A real recording as stored: 12 leads, 10 s at 100 Hz."""
    return load_ecg("ptb-xl-sample", split="test", decode=False)[1]


def spike_at(second, lead, sampling_rate=500, seconds=4, leads=("V2", "I", "II")):
    signal = np.zeros((len(leads), seconds * sampling_rate), dtype=np.float32)
    place = round(second * sampling_rate)
    signal[leads.index(lead), place : place + sampling_rate // 25] = 1.0
    return EcgRecord(record_id="spike", signal=signal, leads=leads, sampling_rate=sampling_rate)


def test_the_map_lies_on_the_recordings_own_leads_and_the_windows_that_were_read(row):
    explanation = explain_recording(tiny(), EcgFeatureExtractor(**SHAPE, long_records="center"), row, num_steps=8)
    assert explanation.leads == tuple(row["ecg"]["leads"]) and explanation.values.shape == (12, 1000)
    read = np.isfinite(explanation.values)
    assert [lead for lead, has in zip(explanation.leads, read.any(axis=1), strict=True) if has] == ["I", "II", "V2"]
    assert np.flatnonzero(read[0]).tolist() == list(range(400, 600))  # 2 s in the middle of 10 s
    assert "Grey: not read by the model." in explanation.caption


@pytest.mark.parametrize("long_records", ["first", "center", "all"])
def test_a_wave_is_found_at_its_lead_and_second_through_order_rate_and_windows(long_records):
    """Nothing but a spike differs from a flat recording, so that the whole map lies under it."""
    feature_extractor = EcgFeatureExtractor(**SHAPE, long_records=long_records, window_stride_samples=150)
    explanation = explain_recording(tiny(), feature_extractor, spike_at(1.62, "II"), target="MI", num_steps=8)
    assert explanation.leads == ("I", "II", "V2") and explanation.values.shape[1] == 400
    found = np.argwhere(np.abs(np.nan_to_num(explanation.values)) > 0.02 * np.nanmax(np.abs(explanation.values)))
    assert len(found) and set(found[:, 0]) == {1}
    assert 1.58 <= found[:, 1].min() / 100 <= found[:, 1].max() / 100 <= 1.70


def test_attributions_of_all_windows_add_up_to_the_difference_of_the_averaged_logits(row):
    """Five windows that overlap by a quarter, and the last of which ends with the recording."""
    feature_extractor = EcgFeatureExtractor(**SHAPE, long_records="all", window_stride_samples=150)
    model = tiny()
    explanation = explain_recording(model, feature_extractor, row, target="MI", num_steps=32)
    inputs = feature_extractor(row)
    with torch.no_grad():
        logits = average_windows(model(inputs["input_values"]).logits, inputs["window_record"])
        flat = model(torch.zeros(1, 3, 200)).logits
    difference = float((logits - flat)[0, 1])
    assert np.nansum(explanation.values) == pytest.approx(difference, abs=0.01 * abs(difference))
    assert f"{float(logits[0, 1]):.2f} here" in explanation.caption


def test_the_padding_of_a_short_recording_gets_nothing():
    settings = SHAPE | {"num_samples": 800, "normalization": "fixed", "lead_means": [0.5] * 3, "lead_stds": [2.0] * 3}
    feature_extractor = EcgFeatureExtractor(**settings, short_records="zero_pad")
    explanation = explain_recording(tiny(num_samples=800), feature_extractor, spike_at(1.0, "I"), num_steps=8)
    assert explanation.values.shape[1] == 400 and np.isfinite(explanation.values).all()
    assert abs(np.nansum(explanation.values)) > 0 and abs(explanation.completeness_error) < 1e-3


def test_flat_is_zero_millivolts_also_where_means_are_subtracted():
    feature_extractor = EcgFeatureExtractor(
        **SHAPE, normalization="fixed", lead_means=[0.1, 0.2, 0.3], lead_stds=[0.5, 0.5, 0.01], clip=5
    )
    flat = torch.zeros(1, 3, 200)
    inputs = feature_extractor.process_batch(flat, sampling_rate=100)[0]
    torch.testing.assert_close(flat_recording(feature_extractor, inputs).expand_as(inputs), inputs)


def test_a_derived_lead_is_drawn_with_the_others():
    record = spike_at(1.0, "II", leads=("I", "II"))
    model = tiny(leads=("I", "III", "II"))
    feature_extractor = EcgFeatureExtractor(**SHAPE | {"leads": ("I", "III", "II")})
    explanation = explain_recording(model, feature_extractor, record, num_steps=8)
    assert explanation.leads == ("I", "II", "III")
    np.testing.assert_allclose(explanation.signal_mv[2], explanation.signal_mv[1] - explanation.signal_mv[0])
    used = np.abs(np.nan_to_num(explanation.values)).max(axis=1)
    assert used[0] < 1e-3 * used[1] and used[2] > 0.01 * used[1]


def test_a_missing_lead_is_left_out():
    feature_extractor = EcgFeatureExtractor(**SHAPE, missing_leads="mask")
    for method in ("integrated_gradients", "attention_rollout"):
        found = explain_recording(
            tiny(), feature_extractor, spike_at(1.0, "II", leads=("I", "II")), method, num_steps=8
        )
        assert found.leads == ("I", "II") and np.nansum(np.abs(found.values)) > 0


def test_the_class_is_the_one_with_the_highest_logit_unless_it_is_given(row):
    model, feature_extractor = tiny(), EcgFeatureExtractor(**SHAPE)
    with torch.no_grad():
        best = model.config.id2label[int(model(feature_extractor(row)["input_values"]).logits.argmax())]
    assert explain_recording(model, feature_extractor, row, num_steps=2).target == f"the output {best}"
    assert explain_recording(model, feature_extractor, row, target="MI", num_steps=2).target == "the output MI"
    found = explain_recording(tiny(EcgViTModel), feature_extractor, row, num_steps=2)
    assert found.target == "the length of the feature"


def test_rollout_is_a_share_on_the_patches_of_the_window(row):
    found = explain_recording(tiny(), EcgFeatureExtractor(**SHAPE), row, "attention_rollout")
    assert np.nansum(found.values) == pytest.approx(1.0) and np.isfinite(found.values).sum() == 3 * 200
    patches = found.values[0, :200].reshape(4, 50)
    assert (patches == patches[:, :1]).all() and len(np.unique(patches)) == 4
    assert "attention goes" in found.caption and found.completeness_error is None


def test_rollout_of_patches_of_all_leads_is_one_row_and_says_so(row):
    model = tiny(patching="all_leads", attention_pattern="full", num_registers=1)
    found = explain_recording(model, EcgFeatureExtractor(**SHAPE, long_records="all"), row, "attention_rollout")
    assert found.values.shape == (1, 1000) and np.nansum(found.values) == pytest.approx(1.0)
    assert "one over time" in found.caption


def test_hybrid_input_says_what_its_channels_of_beats_have(row):
    settings = {"leads": ("I", "II", "V2"), "sampling_rate": 100, "num_samples": 1000}
    feature_extractor = EcgFeatureExtractor(**settings, beat_channels=True)
    model = tiny(num_samples=1000, patch_size=100, extra_channels=len(feature_extractor.beat_channels))
    found = explain_recording(model, feature_extractor, row, "attention_rollout")
    assert found.values.shape == (12, 1000) and 0 < np.nansum(found.values) < 1
    assert "channels of beats and intervals" in found.caption


def test_the_caption_says_what_the_map_is_not(row):
    for method in ("integrated_gradients", "attention_rollout"):
        caption = explain_recording(tiny(), EcgFeatureExtractor(**SHAPE), row, method, num_steps=2).caption
        assert "not for diagnosis" in caption and "20" in caption


def test_a_dimensionless_recording_has_no_place_on_paper():
    scores = EcgRecord("scores", spike_at(1.0, "II").signal * 7, ("I", "II", "V2"), 500, unit="dimensionless")
    with pytest.raises(ValueError, match="Give one in volts"):
        explain_recording(tiny(), EcgFeatureExtractor(**SHAPE, unit="dimensionless"), scores)


def test_missing_samples_are_drawn_as_gaps(row):
    record = EcgRecord.from_row(row)
    record.signal = record.signal.copy()
    record.signal[3, 10:20] = -32768
    found = explain_recording(tiny(), EcgFeatureExtractor(**SHAPE), record, "attention_rollout")
    assert np.isnan(found.signal_mv[3, 10:20]).all() and np.isfinite(found.signal_mv).sum() == 12 * 1000 - 10


def test_more_steps_are_taken_where_the_first_do_not_suffice(row, monkeypatch):
    taken, slow = [], explained_recordings.integrated_gradients

    def counted(model, values, target, baseline, num_steps, **kwargs):
        taken.append(num_steps)
        return slow(model, values, target, baseline, num_steps, **kwargs)

    monkeypatch.setattr(explained_recordings, "integrated_gradients", counted)
    explain_recording(tiny(patch_norm=True), EcgFeatureExtractor(**SHAPE), row, num_steps=4)
    assert taken == [4, 16]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "saliency"}, "Unknown method 'saliency'"),
        ({"method": "attention_rollout", "target": "MI"}, "Attention rollout knows no target"),
        ({"target": "AFIB"}, "Unknown class 'AFIB'"),
    ],
)
def test_what_cannot_be_explained_is_refused(row, arguments, message):
    with pytest.raises(ValueError, match=message):
        explain_recording(tiny(), EcgFeatureExtractor(**SHAPE), row, **arguments)


def test_several_recordings_are_refused(row):
    with pytest.raises(ValueError, match="Expected one recording, got 2"):
        explain_recording(tiny(), EcgFeatureExtractor(**SHAPE), [row, row])


def test_a_stretch_is_drawn_with_its_own_part_of_the_map_and_saved(tmp_path):
    feature_extractor = EcgFeatureExtractor(**SHAPE, long_records="all")
    found = explain_recording(tiny(), feature_extractor, spike_at(2.5, "I"), target="MI", num_steps=2)
    figure = found.plot(start_seconds=2.0, seconds=1.0)
    assert figure.get_size_inches()[0] * 25.4 == pytest.approx(20 + 25 + 5)
    traces = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_xdata()) == 500]
    assert [np.ptp(trace) for trace in traces] == pytest.approx([10, 0, 0])
    bands = [collection for collection in figure.axes[0].collections if collection.get_zorder() < 0]
    sums = [band.get_array().sum() for band in bands]
    np.testing.assert_allclose(sums, found.values[:, 200:300].sum(axis=1), rtol=1e-5, atol=1e-9)
    assert found.save(tmp_path / "map.png", dpi=50, seconds=1.0).stat().st_size > 1000
    with pytest.raises(ValueError, match="within the 4 s"):
        found.plot(start_seconds=4.0)
