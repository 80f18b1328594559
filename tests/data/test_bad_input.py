"""Bad recordings the whole way: file, `load_ecg`, collator, features.

Each is refused in a sentence, or goes on under a stated policy; never does it become features like those of an ECG.
"""

import numpy as np
import pytest
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from ecg_transformers.data import load_ecg
from ecg_transformers.data.bad_record_report import read_report
from ecg_transformers.data.collators import EcgDataCollator, EcgPretrainingCollator
from ecg_transformers.data.recording_file import read_recording
from ecg_transformers.data.records import INVALID_SAMPLE, EcgRecord, dequantise, quantise
from ecg_transformers.modeling.feature_extraction_ecg import EcgFeatureExtractor

LEADS = ("I", "II")


def steps_of(num_samples: int = 100) -> np.ndarray:
    """Two leads at 100 Hz in microvolts, with peaks near 1 mV."""
    times = np.arange(num_samples) / 100
    return np.rint(1000 * np.stack([np.sin(9 * times), np.cos(7 * times)])).astype(np.int64)


def extractor(**options) -> EcgFeatureExtractor:
    return EcgFeatureExtractor(**{"leads": LEADS, "sampling_rate": 100, "num_samples": 50} | options)


@pytest.fixture
def load(tmp_path, write_record):
    """Loads the folder that `write_record` fills, with a good record beside the others; gives rows and reasons."""

    def load(**options):
        write_record("good", steps_of())
        report = tmp_path / "report.jsonl"
        rows = list(load_ecg("wfdb", tmp_path / "records", streaming=True, report_path=report, **options))
        return rows, {record.record_id: record for record in read_report(report)}

    return load


def replace_in_header(path, old: str, new: str):
    header = path.with_suffix(".hea")
    assert old in header.read_text()
    header.write_text(header.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("bad 2 100 100", "bad 2 0 100", "sampling rate > 0"),
        ("bad 2 100 100", "bad 2 1e9 100", "sampling rate > 0"),
        ("bad 2 100 100", "bad 2 100 101", "truncated"),
        ("0 II", "0 lead i", "Expected a different name for every channel"),
        ("1000(0)/mV", "1000(0)/mmHg", "Unknown unit of I (mmHg)"),
        ("1000(0)/mV", "1e400(0)/mV", "gain"),
        ("bad.dat 16", "../good.dat 16", "not inside the folder"),
    ],
)
def test_a_damaged_header_is_left_out_and_reported(load, write_record, old, new, reason):
    replace_in_header(write_record("bad", steps_of()), old, new)
    rows, reasons = load()
    assert [row["record_id"] for row in rows] == ["good"]
    assert reason in reasons["bad"].reason and not reasons["bad"].kept
    assert EcgDataCollator(extractor())(rows)["input_values"].shape == (1, 2, 50)


def test_missing_samples_stay_nan_and_are_refused_or_interpolated(load, write_record):
    steps = steps_of()
    steps[1, 10:13] = INVALID_SAMPLE
    write_record("gaps", steps)
    rows, reasons = load()
    assert reasons["gaps"].kept and reasons["gaps"].reason == "3 of 200 samples are missing"
    collator = EcgDataCollator(extractor())
    assert len(collator(rows)["input_values"]) == 1
    assert "3 of 100 samples of lead II are NaN" in collator.bad_records["gaps"]
    filled = EcgDataCollator(extractor(nan_policy="interpolate"))(rows)["input_values"]
    assert len(filled) == 2 and filled.isfinite().all() and filled.abs().max() < 1.01
    integers = EcgPretrainingCollator(extractor())
    assert len(integers(load(decode=False)[0])["signal"]) == 1
    assert "3 samples are missing" in integers.bad_records["gaps"]


def test_a_lead_without_samples_is_refused_or_masked(load, write_record):
    steps = steps_of()
    steps[1] = INVALID_SAMPLE
    write_record("half", steps)
    rows, _ = load()
    collator = EcgDataCollator(extractor(nan_policy="interpolate"))
    collator(rows)
    assert "lead II has no finite sample" in collator.bad_records["half"]
    masked = EcgDataCollator(extractor(nan_policy="interpolate", missing_leads="mask"))(rows)
    by_name = dict(zip([row["record_id"] for row in rows], masked["lead_mask"].tolist(), strict=True))
    assert by_name == {"good": [True, True], "half": [True, False]}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_no_numbers_are_refused_by_name(tmp_path, value):
    signal = steps_of() * 1e-3
    signal[1, 7] = value
    np.save(tmp_path / "r.npy", signal)
    record = read_recording(tmp_path / "r.npy", leads=LEADS, sampling_rate=100, unit="mV", axes="lead,sample")
    with pytest.raises(ValueError, match="1 of 100 samples of lead II are NaN or infinite"):
        extractor()(record)
    if np.isinf(value):
        with pytest.raises(ValueError, match="1 infinite samples. Mark missing samples by NaN"):
            record.to_row()
    else:
        assert np.isnan(EcgRecord.from_row(record.to_row()).to_millivolts()[1, 7])


def test_a_clipped_record_goes_on_and_is_reported(load, write_record):
    write_record("clipped", np.clip(3 * steps_of(), -1500, 1500))
    rows, _ = load()
    reports = extractor()(rows, return_report=True)["report"]
    by_name = dict(zip([row["record_id"] for row in rows], reports, strict=True))
    assert any("Lead II is at its largest or smallest value" in sentence for sentence in by_name["clipped"])
    assert not any("clipped" in sentence for sentence in by_name["good"])


@pytest.mark.parametrize(("gain", "number"), [("1(0)/mV", "1e+03 mV"), ("1000000(0)/mV", "1e-03 mV")])
def test_a_wrong_gain_is_warned_about_with_the_number(load, write_record, gain, number):
    write_record("wrong", steps_of(), gain=gain)
    rows, _ = load()
    logger = logging.get_logger("ecg_transformers.modeling.feature_extraction_ecg")
    logger.warning_once.cache_clear()
    with CaptureLogger(logger) as captured:
        EcgDataCollator(extractor())(rows)
        EcgDataCollator(extractor())(rows)
    assert captured.out.count(f"peaks of about {number}") == 1


@pytest.mark.parametrize("peak", [1e-30, 1e-3, 1.0, 32767.0, 32768.0, 1e30])
def test_rounding_to_16_bits_never_overflows_nor_invents_gaps(peak):
    signal = np.array([[-peak, peak, 0.0, peak / 3]])
    steps, gain = quantise(signal)
    assert steps.min() >= -32767
    np.testing.assert_allclose(dequantise(steps, gain), signal, rtol=0, atol=peak / 65000)


@pytest.mark.parametrize(("peak", "reason"), [(1e300, "beyond"), (1e-300, None)])
def test_values_beyond_float32_are_refused_or_zero(peak, reason):
    signal = np.array([[-peak, peak]])
    if reason:
        with pytest.raises(ValueError, match=reason):
            quantise(signal)
    else:
        assert not dequantise(*quantise(signal)).any()


def test_one_sample_is_refused_or_padded(load, write_record):
    write_record("one", steps_of(1) + 500)
    rows, _ = load()
    collator = EcgDataCollator(extractor())
    assert len(collator(rows)["input_values"]) == 1
    assert "lasts 0.01 s" in collator.bad_records["one"]
    one = [row for row in rows if row["record_id"] == "one"]
    padded = extractor(short_records="zero_pad")(one)
    assert padded["sample_mask"].sum() == 1 and not padded["input_values"][..., 1:].any()
    with pytest.raises(ValueError, match="too short for this filter"):
        extractor(short_records="zero_pad", highpass_hz=0.5)(one)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 1e9, 1e-9, True, "100"])
def test_absurd_rates_are_refused_wherever_they_are_declared(rate):
    signal = (steps_of() * 1e-3).astype(np.float32)
    with pytest.raises(ValueError, match="Expected a sampling rate in Hz"):
        EcgRecord("r", signal, LEADS, rate)
    with pytest.raises(ValueError, match="Expected a sampling rate in Hz"):
        extractor()(signal, sampling_rate=rate, leads=LEADS, unit="mV")
    with pytest.raises(ValueError, match="Expected a sampling rate in Hz"):
        extractor()({"signal": signal, "leads": LEADS, "sampling_rate": rate, "unit": "mV"})
    with pytest.raises(ValueError, match="Expected a sampling rate in Hz"):
        extractor(sampling_rate=rate)


def test_a_link_in_the_folder_is_followed_and_a_name_that_leads_out_is_not(load, write_record, tmp_path):
    outside = write_record("elsewhere", steps_of(), folder="outside")
    linked = write_record("linked", steps_of())
    linked.with_suffix(".dat").unlink()
    linked.with_suffix(".dat").symlink_to(outside.with_suffix(".dat"))
    escaping = write_record("escaping", steps_of())
    replace_in_header(escaping, "escaping.dat", "../outside/elsewhere.dat")
    absolute = write_record("absolute", steps_of())
    replace_in_header(absolute, "absolute.dat", str(outside.with_suffix(".dat")))
    rows, reasons = load()
    assert sorted(row["record_id"] for row in rows) == ["good", "linked"]
    assert all("not inside the folder" in reasons[name].reason for name in ("escaping", "absolute"))


@pytest.mark.parametrize("collator_class", [EcgDataCollator, EcgPretrainingCollator])
@pytest.mark.parametrize("placement", ["standard", "mason_likar"])
def test_a_batch_holds_limb_leads_of_the_models_placement_only(collator_class, placement):
    rows = [
        EcgRecord(name, steps_of().astype(np.int16), LEADS, 100, gain=[1e-3] * 2, electrode_placement=name).to_row()
        for name in ("standard", "mason_likar")
    ]
    collator = collator_class(extractor(electrode_placement=placement))
    batch = collator(rows)
    assert len(batch["input_values"]) == 1
    assert list(collator.bad_records) == [row["record_id"] for row in rows if row["record_id"] != placement]
    for row in rows:  # the fast path of equal layouts as well
        if row["record_id"] != placement:
            with pytest.raises(ValueError, match="electrode placement"):
                collator([row])
