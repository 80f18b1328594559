"""The input contract: what comes in any lead order, unit, rate or container goes out as one tensor, or is refused."""

import json

import numpy as np
import pytest
import scipy.signal
import torch
from transformers import AutoFeatureExtractor, AutoProcessor
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from ecg_transformers.data.records import INVALID_SAMPLE as STORED_INVALID_SAMPLE
from ecg_transformers.data.records import EcgRecord
from ecg_transformers.modeling.feature_extraction_ecg import INVALID_SAMPLE, EcgFeatureExtractor, EcgProcessor
from ecg_transformers.modeling.leads import INDEPENDENT_LEADS
from ecg_transformers.modeling.signal_processing import butterworth_sos


def ecg(num_leads: int = 8, num_samples: int = 1000, seed: int = 0) -> np.ndarray:
    """A smooth signal of ECG-like amplitude, in mV."""
    noise = np.random.RandomState(seed).randn(num_leads, num_samples)
    return scipy.signal.lfilter([0.1], [1, -0.9], noise).astype(np.float32)


def small(**options) -> EcgFeatureExtractor:
    """An extractor for 2 s at 250 Hz."""
    return EcgFeatureExtractor(**{"num_samples": 500} | options)


DECLARED = {"sampling_rate": 500, "leads": INDEPENDENT_LEADS, "unit": "mV"}


def values_of(extractor: EcgFeatureExtractor, signal, **declaration) -> torch.Tensor:
    return extractor(signal, **(DECLARED | declaration))["input_values"]


# --- what goes out


@pytest.mark.parametrize(("num_samples", "sampling_rate", "expected"), [(4097, 400, 2561), (4096, 400, 2560)])
def test_a_length_that_does_not_divide_is_rounded(num_samples, sampling_rate, expected):
    assert small().resampled_length(num_samples, sampling_rate) == expected
    signal = ecg(num_samples=num_samples)
    values = values_of(EcgFeatureExtractor(num_samples=expected), signal, sampling_rate=sampling_rate)
    assert values.shape[-1] == expected
    np.testing.assert_allclose(values[0].numpy(), scipy.signal.resample(signal, expected, axis=-1), atol=1e-5)


def test_published_preprocessing_of_ecg_jepa(golden):
    stored = golden("kim_data")
    declared = {"sampling_rate": 500, "leads": ["I", "II"], "unit": "mV"}
    plain = EcgFeatureExtractor(leads=["I", "II"])
    filtered = EcgFeatureExtractor(leads=["I", "II"], highpass_hz=0.67, lowpass_hz=40)
    code15 = EcgFeatureExtractor(leads=["I", "II"], resample_to_length=True)
    outputs = {
        "resampled": plain(stored["raw"], **declared),
        "highpass_lowpass": filtered(stored["raw"], **declared),
        "resampled_code15": code15(stored["raw_code15"], **declared | {"sampling_rate": 400}),
    }
    for name, output in outputs.items():
        torch.testing.assert_close(output["input_values"][0], stored[name].float(), rtol=0, atol=1e-5)


def test_resampling_to_length_refuses_another_duration():
    with pytest.raises(ValueError, match="more than 5 % off"):
        values_of(small(resample_to_length=True), ecg(num_samples=2000))


def test_what_already_fits_goes_through_unchanged():
    first = values_of(small(), ecg())
    again = values_of(small(), first[0], sampling_rate=250)
    assert torch.equal(first, again)


def test_the_input_is_not_changed():
    signal = ecg()
    signal[0, 5] = np.nan
    kept = signal.copy()
    values_of(small(nan_policy="interpolate", normalization="lead", clip=1), signal)
    np.testing.assert_array_equal(signal, kept)


# --- leads


def test_a_missing_lead_is_refused_with_a_cure():
    with pytest.raises(ValueError, match=r"lacks \['V6'\].*missing_leads='mask'"):
        values_of(small(), ecg(7), leads=INDEPENDENT_LEADS[:7])
    with pytest.raises(ValueError, match=r"lacks \['aVR'\].*derive_limb_leads=True"):
        values_of(small(leads=["I", "aVR"], derive_limb_leads=False), ecg(2), leads=["I", "II"])


def test_a_missing_lead_is_masked_on_request():
    options = {"leads": ("II", "V1", "aVF"), "missing_leads": "mask", "normalization": "fixed"}
    extractor = small(**options, lead_means=(1, 1, 1), lead_stds=(1, 1, 1))
    output = extractor(ecg(1), sampling_rate=500, leads=["II"], unit="mV")
    assert output["lead_mask"].tolist() == [[True, False, False]]
    assert output["input_values"][0, 1:].abs().max() == 0
    complete = extractor(ecg(), **DECLARED)
    assert complete["lead_mask"].all()


def test_record_statistics_leave_missing_leads_out():
    extractor = small(missing_leads="mask", normalization="record")
    two = values_of(extractor, ecg()[:2], leads=["I", "II"])[0, :2]
    expected = scipy.signal.resample(ecg()[:2], 500, axis=-1)
    np.testing.assert_allclose(two.numpy(), (expected - expected.mean()) / expected.std(), atol=1e-4)


def test_frank_leads_never_stand_in():
    with pytest.raises(ValueError, match="lacks"):
        values_of(small(leads=["V1"]), ecg(3), leads=["VX", "VY", "VZ"])
    with pytest.raises(ValueError, match="Frank leads"):
        small(leads=["VX"])
    both = values_of(small(leads=["I"]), ecg(2), leads=["VX", "I"])
    assert torch.equal(both, values_of(small(leads=["I"]), ecg(2)[1:], leads=["I"]))


def test_unknown_channels_are_left_out_with_a_warning():
    logger = logging.get_logger("ecg_transformers.modeling.feature_extraction_ecg")
    logger.warning_once.cache_clear()
    with CaptureLogger(logger) as captured:
        values = values_of(small(leads=["I"]), ecg(2), leads=["RESP", "I"])
    assert "RESP" in captured.out
    assert torch.equal(values, values_of(small(leads=["I"]), ecg(2)[1:], leads=["I"]))


# --- length


def test_first_and_center_windows():
    signal = ecg(num_samples=1200)
    resampled = torch.from_numpy(scipy.signal.resample(signal, 600, axis=-1))
    for policy, start in (("first", 0), ("center", 50)):
        values = values_of(small(long_records=policy), signal)[0]
        torch.testing.assert_close(values, resampled[:, start : start + 500], rtol=0, atol=1e-5)


def test_all_windows_cover_the_record_and_name_it():
    extractor = small(long_records="all", window_stride_samples=250)
    signals = [ecg(num_samples=length) for length in (1000, 2600, 2000)]
    output = extractor(signals, **DECLARED)
    # 500, 1300 and 1000 samples at 250 Hz; the last window of the second record starts at 800
    assert output["window_record"].tolist() == [0, 1, 1, 1, 1, 1, 2, 2, 2]
    resampled = torch.from_numpy(scipy.signal.resample(signals[1], 1300, axis=-1))
    for window, start in zip(output["input_values"][1:6], (0, 250, 500, 750, 800), strict=True):
        torch.testing.assert_close(window, resampled[:, start : start + 500], rtol=0, atol=1e-5)


def test_a_short_record_is_refused_or_padded():
    with pytest.raises(ValueError, match=r"lasts 1.6 s .*reads 2 s .*zero_pad"):
        values_of(small(), ecg(num_samples=800))
    output = small(short_records="zero_pad", normalization="lead")(ecg(num_samples=800), **DECLARED)
    assert output["input_values"][0, :, 400:].abs().max() == 0
    assert output["sample_mask"].sum().item() == 400 and output["sample_mask"][0, :400].all()
    torch.testing.assert_close(output["input_values"][0, :, :400].mean(-1), torch.zeros(8), rtol=0, atol=1e-5)


# --- amplitude


def test_normalisation_of_record_and_lead():
    resampled = scipy.signal.resample(ecg(), 500, axis=-1)
    record = (resampled - resampled.mean()) / resampled.std()
    lead = (resampled - resampled.mean(1, keepdims=True)) / resampled.std(1, keepdims=True)
    np.testing.assert_allclose(values_of(small(normalization="record"), ecg())[0].numpy(), record, atol=1e-4)
    np.testing.assert_allclose(values_of(small(normalization="lead"), ecg())[0].numpy(), lead, atol=1e-4)


def test_fixed_constants_and_clipping():
    extractor = small(normalization="fixed", lead_means=[0.1] * 8, lead_stds=[0.2] * 8, clip=1.5)
    expected = ((scipy.signal.resample(ecg(), 500, axis=-1) - 0.1) / 0.2).clip(-1.5, 1.5)
    np.testing.assert_allclose(values_of(extractor, ecg())[0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("normalization", ["record", "lead"])
def test_a_flat_signal_becomes_zeros_not_noise(normalization):
    extractor = small(normalization=normalization, highpass_hz=0.67)
    assert values_of(extractor, np.full((8, 1000), 1.25)).abs().max() == 0


def test_output_in_microvolts():
    torch.testing.assert_close(values_of(small(unit="uV"), ecg()), values_of(small(), ecg()) * 1e3)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_amplitudes_of_another_unit_are_warned_about(factor):
    logger = logging.get_logger("ecg_transformers.modeling.feature_extraction_ecg")
    logger.warning_once.cache_clear()
    with CaptureLogger(logger) as captured:
        output = small()(ecg() * factor, **DECLARED, return_report=True)
        values_of(small(), ecg() * factor)
    assert captured.out.count("check the declared unit") == 1
    assert "is no ECG's" in output["report"][0][-2]


# --- NaN


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gap_is_refused_with_record_and_lead(bad):
    signal = np.stack([ecg(), ecg()])
    signal[1, 2, 10:13] = bad
    with pytest.raises(ValueError, match=r"Record 1: 3 of 1000 samples of lead V1 are NaN"):
        values_of(small(), signal)


def test_a_value_that_nobody_recorded_is_a_gap():
    signal = ecg()
    signal[3, 100] = 1e18
    with pytest.raises(ValueError, match="1 of 1000 samples of lead V2"):
        small()(signal, **DECLARED)
    values = values_of(small(nan_policy="interpolate"), signal, **DECLARED)
    assert values.abs().max() < 100


def test_a_gap_in_an_unused_lead_does_not_matter():
    signal = ecg()
    signal[2] = np.nan
    assert torch.equal(values_of(small(leads=["II"]), signal), values_of(small(leads=["II"]), ecg()))


def test_a_gap_is_interpolated_and_reported():
    steps = np.round(ecg() * 1000).astype(np.int16)
    steps[2, 100:120], steps[5, :7] = INVALID_SAMPLE, INVALID_SAMPLE
    filled = steps.astype(np.float32)
    filled[2, 99:121] = np.linspace(filled[2, 99], filled[2, 120], 22)
    filled[5, :7] = filled[5, 7]
    extractor = small(nan_policy="interpolate")
    output = extractor(steps, **DECLARED | {"unit": "uV"}, gain=1, return_report=True)
    torch.testing.assert_close(output["input_values"], values_of(extractor, filled, unit="uV"), rtol=0, atol=1e-5)
    assert "Interpolated 20 of 1000 samples of lead V1." in output["report"][0]
    assert "Interpolated 7 of 1000 samples of lead V4." in output["report"][0]


def test_a_lead_without_samples_is_missing():
    signal = np.stack([ecg(), ecg()])
    signal[1, 0] = np.nan
    with pytest.raises(ValueError, match="Record 1: lead I has no finite sample"):
        values_of(small(nan_policy="interpolate"), signal)
    extractor = small(leads=("I", "II", "III"), nan_policy="interpolate", missing_leads="mask")
    output = extractor(signal, **DECLARED)
    assert output["lead_mask"].tolist() == [[True] * 3, [False, True, False]]  # III needs both
    assert output["input_values"][1, [0, 2]].abs().max() == 0
    signal[1, :2] = np.nan
    with pytest.raises(ValueError, match="Record 1 has none of the leads"):
        extractor(signal, **DECLARED)


def test_the_mark_of_missing_samples_is_that_of_the_storage():
    assert INVALID_SAMPLE == STORED_INVALID_SAMPLE


# --- what comes in


def test_rows_and_records_declare_themselves():
    record = EcgRecord("a", np.round(ecg() * 1000).astype(np.int16), INDEPENDENT_LEADS, 500, "uV", gain=np.ones(8))
    row = record.to_row()
    decoded = row | {"ecg": row["ecg"] | {"signal": record.to_millivolts()}}
    expected = values_of(small(), record.to_millivolts())
    nested = row["ecg"] | {"signal": record.to_millivolts().tolist()}
    for form in (record, row, row["ecg"], decoded, decoded["ecg"], nested, [record], [decoded], {"ecg": [row["ecg"]]}):
        torch.testing.assert_close(small()(form)["input_values"], expected, rtol=0, atol=1e-6)
    assert small()([row, record, decoded])["input_values"].shape[0] == 3


def test_rows_accept_no_second_declaration():
    row = {"signal": ecg(), "leads": list(INDEPENDENT_LEADS), "sampling_rate": 500, "unit": "mV"}
    with pytest.raises(ValueError, match=r"declare \['sampling_rate'\] themselves"):
        small()(row, sampling_rate=500)
    del row["unit"]
    with pytest.raises(ValueError, match=r"Record 1 lacks \['unit'\]"):
        small()([row | {"unit": "mV"}, row])
    with pytest.raises(ValueError, match=r"declare \['electrode_placement'\] themselves"):
        small()(EcgRecord("r", ecg(), INDEPENDENT_LEADS, 250), electrode_placement="standard")


@pytest.mark.parametrize("name", ["sampling_rate", "leads", "unit"])
def test_arrays_need_a_declaration(name):
    declared = {key: value for key, value in DECLARED.items() if key != name}
    with pytest.raises(ValueError, match=f"Pass {name} .*None of these has a default"):
        small()(ecg(), **declared)


@pytest.mark.parametrize(
    ("signal", "options", "sentence"),
    [
        (ecg().T, {}, r"got \(1000, 8\).*transpose it"),
        (ecg(12), {}, r"expected \(8, num_samples\).*got \(12, 1000\)"),
        (ecg()[0], {"leads": ["I"]}, r"pass signal\[None\]"),
        (ecg()[:, :0], {}, "has no samples"),
        ([], {}, "expected .8, num_samples."),
        (np.zeros((0, 8, 1000)), {}, "at least one recording"),
        (ecg().astype(np.int16), {}, "int16 samples in 'mV' need `gain`"),
        (ecg(), {"unit": "adc"}, "float32 samples in 'adc' need `gain`, the mV per step"),
        (ecg(), {"gain": 0.001}, "floats in 'mV' need no gain"),
        (ecg().astype(np.int16), {"gain": 0}, "one finite gain other than 0"),
        (ecg().astype(np.int16), {"gain": [0.1, 0.2]}, "or 8 of them"),
        (np.stack([ecg()] * 2).astype(np.int16), {"gain": np.ones((3, 8))}, "gains for 3 recordings, but 2"),
        (ecg().astype(np.int64) + 2**40, {"gain": 1}, "beyond 32 bits"),
        (ecg(), {"unit": "volts"}, "Unknown unit 'volts'"),
        (ecg(), {"sampling_rate": 0}, "sampling rate in Hz, above 0"),
        (ecg(), {"sampling_rate": float("nan")}, "sampling rate in Hz, above 0"),
        (ecg(), {"sampling_rate": "500"}, "sampling rate in Hz, above 0"),
        (ecg(2), {"leads": ["I", "DI"]}, "come more than once"),
        (ecg(1), {"leads": "I"}, "sequence of lead names"),
        (ecg() > 0, {}, "type bool"),
        ([[0.0, 1.0], [0.0]], {}, "no rectangular array"),
        (ecg(), {"sampling_rate": True}, "sampling rate in Hz"),
        (ecg(), {"leads": set(INDEPENDENT_LEADS)}, "lead names .list or tuple., in the order of the rows"),
        (ecg(), {"leads": iter(INDEPENDENT_LEADS)}, "lead names .list or tuple., in the order of the rows"),
        (np.ma.masked_all((8, 1000)), {}, "masked array"),
        (np.full((8, 1000), INVALID_SAMPLE, np.int64), {"unit": "adc", "gain": 0.001}, "NaN or infinite"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(signal, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        small()(signal, **DECLARED | options)


def test_numpy_tensors_on_request():
    assert isinstance(small()(ecg(), **DECLARED, return_tensors="np")["input_values"], np.ndarray)


def test_the_report_says_what_was_done():
    extractor = small(leads=("III", "V1", "V2"), missing_leads="mask", highpass_hz=0.5)
    signal = ecg(3, 1200) * 1000
    signal[1] = 0
    declared = {"sampling_rate": 500, "leads": ["II", "V1", "I"], "unit": "uV"}
    assert extractor(signal, **declared, return_report=True)["report"] == [
        [
            "Converted from uV to mV.",
            "Took the leads ['I', 'II', 'V1'] from ['II', 'V1', 'I'] by name.",
            "Derived ['III'] from I and II.",
            "Masked the missing leads ['V2'].",
            "Lead V1 is flat.",
            "Resampled 1200 samples at 500 Hz to 600 at 250 Hz.",
            "High-passed at 0.5 Hz, zero phase, order 5.",
            "Kept the first 500 of 600 samples.",
        ]
    ]
    assert small()(ecg(8, 500), **DECLARED | {"sampling_rate": 250}, return_report=True)["report"] == [[]]


# --- the batched core


def test_the_batched_core_gives_what_the_call_gives():
    extractor = small(highpass_hz=0.67, lowpass_hz=40, normalization="lead", clip=5)
    steps = torch.from_numpy(np.stack([np.round(ecg(seed=seed) * 1000) for seed in range(3)]).astype(np.int16))
    gain = torch.full((3, 8), 1e-3)
    values, lead_mask = extractor.process_batch(steps, gain, INDEPENDENT_LEADS, 500)
    assert lead_mask is None
    torch.testing.assert_close(values, values_of(extractor, steps, unit="uV", gain=1), rtol=0, atol=1e-5)
    own_leads, _ = extractor.process_batch(steps, gain, sampling_rate=500)
    assert torch.equal(own_leads, values)


def test_the_batched_core_takes_a_lead_mask():
    extractor = small(leads=("I", "II", "aVF"), missing_leads="mask", normalization="record")
    signal = torch.from_numpy(np.stack([ecg(2), ecg(2)]))
    source_mask = torch.tensor([[True, True], [True, False]])
    values, lead_mask = extractor.process_batch(signal, None, ["I", "II"], 500, source_mask)
    assert lead_mask.tolist() == [[True] * 3, [True, False, False]]
    torch.testing.assert_close(values[1:, :1], values_of(extractor, ecg(2)[:1], leads=["I"])[:, :1])


def test_the_batched_core_repeats_the_mask_for_windows():
    extractor = small(long_records="all", missing_leads="mask")
    values, lead_mask = extractor.process_batch(torch.randn(2, 8, 1000), None, INDEPENDENT_LEADS, 250)
    assert (tuple(values.shape), tuple(lead_mask.shape)) == ((4, 8, 500), (4, 8))


def test_the_batched_core_is_float32_under_mixed_precision():
    signal = torch.from_numpy(ecg()[None])
    extractor = small(highpass_hz=0.67)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values, _ = extractor.process_batch(signal, None, INDEPENDENT_LEADS, 500)
    assert torch.equal(values, extractor.process_batch(signal, None, INDEPENDENT_LEADS, 500)[0])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"signal": torch.zeros(1, 8, 1000)}, "needs sampling_rate"),
        ({"signal": torch.zeros(8, 1000), "sampling_rate": 500}, r"shape \(batch, 8, num_samples > 0\)"),
        ({"signal": torch.zeros(1, 8, 1000).short(), "sampling_rate": 500}, "needs `gain`"),
    ],
)
def test_the_batched_core_refuses_in_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        small().process_batch(**arguments)


# --- settings


def test_settings_survive_saving(tmp_path):
    extractor = small(
        leads=["II", "AVF"],
        sampling_rate=257.5,
        normalization="fixed",
        lead_means=[0.1, 0.2],
        lead_stds=np.array([1.0, 2.0]),
        clip=5,
        highpass_hz=0.5,
        long_records="all",
        window_stride_samples=100,
        short_records="zero_pad",
        missing_leads="mask",
        nan_policy="interpolate",
    )
    extractor.save_pretrained(tmp_path)
    loaded = EcgFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == extractor.to_dict()
    assert loaded.leads == ("II", "aVF")
    assert EcgFeatureExtractor.from_dict(extractor.to_dict()).to_dict() == extractor.to_dict()
    stored = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert "padding_side" not in stored and stored["feature_extractor_type"] == "EcgFeatureExtractor"
    shorter = EcgFeatureExtractor.from_pretrained(tmp_path, num_samples=250)
    assert shorter.num_samples == 250


def test_the_processor_has_the_call_and_the_file_of_the_feature_extractor(tmp_path):
    extractor = small(leads=["II", "aVF"], clip=5)
    processor = EcgProcessor(extractor)
    declared = {"sampling_rate": 250, "leads": ["I", "II"], "unit": "mV"}
    signal = np.random.default_rng(0).normal(size=(2, 2500))
    assert torch.equal(processor(signal, **declared).input_values, extractor(signal, **declared).input_values)
    assert processor.save_pretrained(tmp_path) == [str(tmp_path / "preprocessor_config.json")]
    for auto_class in (AutoProcessor, AutoFeatureExtractor):
        loaded = auto_class.from_pretrained(tmp_path, clip=4)
        loaded = loaded.feature_extractor if auto_class is AutoProcessor else loaded
        assert loaded.to_dict() | {"clip": 5.0} == EcgFeatureExtractor.from_pretrained(tmp_path).to_dict()
    assert processor.model_input_names == extractor.model_input_names


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"window": "first"}, r"no setting \['window'\]"),
        ({"normalization": "zscore"}, "normalization is 'zscore'. Choose from"),
        ({"nan_policy": "zero"}, "Choose from"),
        ({"normalization": "fixed"}, "needs lead_means"),
        ({"lead_stds": [1.0] * 8}, "used by normalization='fixed' only"),
        ({"normalization": "fixed", "lead_means": [0] * 8, "lead_stds": [0] * 8}, "must be positive"),
        ({"highpass_hz": 40, "lowpass_hz": 0.5}, "nothing would pass"),
        ({"lowpass_hz": 125}, "increasing cutoff"),
        ({"leads": []}, "Expected standard leads"),
        ({"leads": ["V7"]}, "Unknown lead 'V7'"),
        ({"clip": 0}, "clip must be positive"),
        ({"num_samples": 0}, "at least 1"),
        ({"unit": "adc"}, "Unknown unit"),
        ({"sampling_rate": -1}, "above 0"),
        ({"sampling_rate": float("nan")}, "above 0"),
        ({"derive_limb_leads": "no"}, "True or False"),
        ({"filter_order": 10**6, "lowpass_hz": 40}, "filter_order"),
        ({"num_samples": 10**12}, "at most"),
        ({"normalization": "fixed", "lead_means": [float("nan")] * 8, "lead_stds": [1] * 8}, "must be finite"),
    ],
)
def test_impossible_settings_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        small(**options)


def test_filters_run_over_the_whole_record_at_the_rate_of_the_model():
    signal = ecg(num_samples=2400)
    resampled = scipy.signal.resample(signal, 1200, axis=-1)
    for kind, cutoff in (("highpass", 0.67), ("lowpass", 40.0)):
        resampled = scipy.signal.sosfiltfilt(butterworth_sos(4, cutoff, 250, kind).copy(), resampled, axis=-1)
    extractor = small(highpass_hz=0.67, lowpass_hz=40, filter_order=4, long_records="center")
    np.testing.assert_allclose(values_of(extractor, signal)[0].numpy(), resampled[:, 350:850], rtol=0, atol=1e-5)
