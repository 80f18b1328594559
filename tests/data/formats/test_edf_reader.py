import datetime

import numpy as np
import pyedflib
import pytest

from ecg_transformers.data.formats.edf_reader import read_edf
from ecg_transformers.data.formats.file_format import find_format

RNG = np.random.default_rng(0)


@pytest.fixture
def write(tmp_path):
    """Writes channels of `(label, unit, physical range, digital steps)` by `pyedflib` and returns the path."""

    def write(channels, name="a.edf", file_type=pyedflib.FILETYPE_EDFPLUS, rates=None, patient=True):
        bits = 24 if name.endswith("bdf") else 16
        path = tmp_path / name
        with pyedflib.EdfWriter(str(path), len(channels), file_type=file_type) as writer:
            writer.setSignalHeaders(
                [
                    {
                        "label": label,
                        "dimension": unit,
                        "sample_frequency": rates[number] if rates else 200,
                        "physical_min": low,
                        "physical_max": high,
                        "digital_min": -(2 ** (bits - 1)),
                        "digital_max": 2 ** (bits - 1) - 1,
                    }
                    for number, (label, unit, (low, high), _) in enumerate(channels)
                ]
            )
            if patient:
                writer.setPatientCode("P-12")
                writer.setSex(0)
                writer.setBirthdate(datetime.date(1970, 5, 2))
                writer.setStartdatetime(datetime.datetime(2020, 5, 1, 12, 0, 0))
            writer.writeSamples([steps.astype(np.int32) for *_, steps in channels], digital=True)
            if file_type in (pyedflib.FILETYPE_EDFPLUS, pyedflib.FILETYPE_BDFPLUS):
                writer.writeAnnotation(0.5, -1, "beat")
        return path

    return write


def ecg(label="ECG II", unit="mV", limits=(-32.768, 32.767), num_samples=400, low=-3000, high=3000):
    return label, unit, limits, RNG.integers(low, high, num_samples)


def test_steps_come_back_exactly_and_patient_age_and_sex_are_read(write):
    channels = [ecg("ECG I"), ecg("ECG V1"), ecg("aVR")]
    record = read_edf(write(channels), "r1")
    assert record.leads == ("I", "V1", "aVR") and record.sampling_rate == 200
    assert record.signal.dtype == np.int16 and np.array_equal(record.signal, [steps for *_, steps in channels])
    assert record.unit == "mV" and record.gain == pytest.approx([0.001] * 3, rel=1e-6)
    assert (record.record_id, record.patient_id, record.age, record.sex) == ("r1", "P-12", 49, "female")


def test_scales_whose_zero_is_no_step_give_the_physical_values(write):
    path = write([ecg("ECG I", "uV", (-1000, 3000)), ecg("II", "mV", (-5, 5))])
    record = read_edf(path, "r1")
    with pyedflib.EdfReader(str(path)) as reader:
        expected = [reader.readSignal(0) / 1000, reader.readSignal(1)]
    assert record.unit == "mV" and record.signal.dtype == np.float32
    assert record.to_millivolts() == pytest.approx(np.array(expected), abs=1e-6)


def test_the_lowest_step_is_a_value_and_not_a_missing_sample(write):
    label, unit, limits, steps = ecg()
    steps[7] = -32768
    signal = read_edf(write([(label, unit, limits, steps)]), "r1").to_millivolts()
    assert not np.isnan(signal).any() and signal[0, 7] == pytest.approx(-32.768)


def test_bdf_with_24_bits_is_read(write):
    channel = ecg("EKG V5", "uV", (-8388.6, 8388.6), low=-80_000, high=80_000)
    record = read_edf(write([channel], "a.bdf", pyedflib.FILETYPE_BDFPLUS), "r1")
    assert record.leads == ("V5",) and record.unit == "uV"
    assert record.to_millivolts()[0] == pytest.approx((channel[3] + 0.5) * 16777.2e-3 / (2**24 - 1), rel=1e-5)


def test_plain_edf_without_patient_is_read(write):
    channel = ecg()
    record = read_edf(write([channel], file_type=pyedflib.FILETYPE_EDF, patient=False), "r1")
    assert np.array_equal(record.signal[0], channel[3])
    assert record.age is None and record.sex is None


def test_only_ecg_channels_are_taken_and_others_by_name(write):
    path = write([ecg("EEG Fpz-Cz", "uV"), ecg("ECG"), ecg("X", "g"), ecg("C3", "uV"), ecg("1"), ecg("Resp chest")])
    assert read_edf(path, "r1").leads == ("ECG",)
    assert read_edf(path, "r1", rename_leads={"ECG": "II", "Resp chest": "resp"}).leads == ("II", "resp")


def test_numbered_channels_are_not_taken_for_leads(write):
    path = write([ecg("ECG1"), ecg("EKG 2")])
    assert read_edf(path, "r1").leads == ("ECG1", "EKG 2")
    assert read_edf(path, "r1", rename_leads={"ECG1": "II"}).leads == ("II", "EKG 2")


def test_files_without_an_ecg_channel_list_their_channels(write):
    with pytest.raises(
        ValueError, match="None of its channels EEG Fpz .mV, 200 Hz., EDF Annotations .* is an ECG lead"
    ):
        read_edf(write([ecg("EEG Fpz")]), "r1")


def test_the_rate_of_most_ecg_channels_wins_and_leads_choose_others(write):
    channels = [ecg("ECG I", num_samples=400), ecg("ECG II", num_samples=200), ecg("ECG V1", num_samples=400)]
    path = write(channels, rates=[200, 100, 200])
    record = read_edf(path, "r1")
    assert record.leads == ("I", "V1") and "ECG II (mV, 100 Hz)" in record.notes[0]
    record = read_edf(path, "r1", leads=["ECG II"])
    assert record.sampling_rate == 100 and np.array_equal(record.signal[0], channels[1][-1])


def test_other_channels_may_have_other_rates(write):
    path = write([ecg("ECG I", num_samples=400), ecg("SpO2", "%", num_samples=2)], rates=[200, 1])
    assert read_edf(path, "r1").signal.shape == (1, 400)


@pytest.mark.parametrize("unit", ["mmHg", "", "%"])
def test_units_that_are_no_voltage_are_refused(write, unit):
    with pytest.raises(ValueError, match="Unknown unit of ECG II"):
        read_edf(write([ecg(unit=unit)]), "r1")


def test_a_unit_that_is_not_stated_can_be_declared(write):
    record = read_edf(write([ecg(unit="")]), "r1", unit="mV")
    assert record.unit == "mV" and record.gain == pytest.approx([0.001], rel=1e-6)
    with pytest.raises(ValueError, match="states the unit .'mV'., not 'uV'"):
        read_edf(write([ecg()], "b.edf"), "r1", unit="uV")


def test_channels_of_one_label_are_numbered_and_chosen_by_position(write):
    channels = [ecg("ECG"), ecg("ECG"), ecg("ECG")]
    record = read_edf(write(channels), "r1")
    assert record.leads == ("ECG", "ECG_2", "ECG_3") and "numbered" in record.notes[-1]
    record = read_edf(write(channels, "b.edf"), "r1", leads=[2], rename_leads={2: "V5"})
    assert record.leads == ("V5",) and np.array_equal(record.signal[0], channels[2][-1])


def test_faults_of_channels_that_are_not_taken_do_not_matter(write):
    path = write([ecg("EEG Fpz"), ecg("ECG II")])
    for field in (104, 112, 120, 128):  # physical and digital minimum and maximum of the first channel
        overwrite(path, 256 + 3 * field, "0       ")
    assert read_edf(path, "r1").leads == ("II",)


def test_a_dummy_channel_whose_minimum_is_its_maximum_is_left_out_by_name(write):
    path = overwrite(write([ecg("ECG I"), ecg("ECG II")]), 256 + 3 * 104, "32.767  ")
    record = read_edf(path, "r1")
    assert record.leads == ("II",) and "ECG I (mV without a scale" in record.notes[0]


def test_fields_that_zero_bytes_fill_up_and_a_reserved_text_are_read(write):
    path = write([ecg("ECG II")], file_type=pyedflib.FILETYPE_EDF)
    expected = read_edf(path, "r1").signal
    count = path.read_bytes()[236:244].strip().decode()
    overwrite(overwrite(path, 236, count.ljust(8, "\0")), 192, "reserved")
    assert find_format(path) == "EDF" and np.array_equal(read_edf(path, "r1").signal, expected)


def test_a_recording_that_was_not_closed_gives_its_whole_records(write):
    path = write([ecg("ECG II")])
    expected = read_edf(path, "r1").signal
    record = read_edf(overwrite(path, 236, "-1      "), "r1")
    assert np.array_equal(record.signal, expected) and "not closed" in record.notes[0]


def overwrite(path, position, text):
    content = bytearray(path.read_bytes())
    content[position : position + len(text)] = text.encode()
    path.write_bytes(content)
    return path


ONE_SIGNAL = 256  # where the fields of the signals begin; a file with annotations has two


@pytest.mark.parametrize(
    ("position", "text", "message"),
    [
        (236, "99999999", "is truncated"),
        (236, "-2      ", "data records and their duration > 0"),
        (236, "many    ", "number of data records"),
        (244, "0       ", "duration > 0"),
        (244, "nan     ", "duration > 0"),
        (252, "9999", "1 to 512 signals"),
        (252, "0   ", "1 to 512 signals"),
        (184, "256     ", "size is not that of"),
        (ONE_SIGNAL + 2 * 216, "99999999", "is truncated"),
        (ONE_SIGNAL + 2 * 216, "-5      ", "expected samples"),
        (ONE_SIGNAL + 2 * 104, "32.767  ", "without a scale"),
        (ONE_SIGNAL + 2 * 104, "low     ", "without a scale"),
    ],
)
def test_headers_are_checked_before_anything_is_allocated(write, position, text, message):
    with pytest.raises(ValueError, match=message):
        read_edf(overwrite(write([ecg()]), position, text), "r1")


def test_discontinuous_files_are_refused(write):
    with pytest.raises(ValueError, match="discontinuous"):
        read_edf(overwrite(write([ecg()]), 192, "EDF+D"), "r1")
