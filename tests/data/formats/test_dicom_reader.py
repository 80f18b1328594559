from functools import partial

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from ecg_transformers.data.formats.dicom_reader import read_dicom
from ecg_transformers.modeling.leads import STANDARD_LEADS

MDC = {"I": "2:1", "II": "2:2", "III": "2:61", "aVR": "2:62", "aVL": "2:63", "aVF": "2:64", "V1": "2:3", "V6": "2:8"}
RNG = np.random.default_rng(0)


def code(value, scheme, meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def channel(lead="I", scheme="MDC", value=None, meaning=None, sensitivity="2.5", unit="uV", **further):
    item = Dataset()
    item.ChannelSourceSequence = [
        code(MDC.get(lead, "x") if value is None else value, scheme, meaning or f"Lead {lead}")
    ]
    if sensitivity is not None:
        item.ChannelSensitivity = sensitivity
        item.ChannelSensitivityUnitsSequence = [code(unit, "UCUM", unit)]
        item.ChannelSensitivityCorrectionFactor = "1"
        item.ChannelBaseline = "0"
    for name, content in further.items():
        setattr(item, name, content)
    return item


def group(steps, channels, label="RHYTHM", originality="ORIGINAL", interpretation="SS", **further):
    item = Dataset()
    item.MultiplexGroupLabel, item.WaveformOriginality = label, originality
    item.NumberOfWaveformChannels, item.NumberOfWaveformSamples = steps.shape
    item.SamplingFrequency = "500"
    item.ChannelDefinitionSequence = channels
    item.WaveformBitsAllocated = 8 * steps.dtype.itemsize
    item.WaveformSampleInterpretation = interpretation
    item.WaveformData = np.ascontiguousarray(steps.T).tobytes()
    for name, content in further.items():
        setattr(item, name, content)
    return item


def save(path, *groups, sop_class="1.2.840.10008.5.1.4.1.1.9.1.2", syntax=ExplicitVRLittleEndian, **further):
    """Writes a DICOM file with these waveform groups (PS3.3, C.10.9) and returns its path."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = sop_class
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.PatientID, data.PatientSex, data.PatientAge = "P-3", "M", "018M"
    data.WaveformSequence = list(groups)
    for name, content in further.items():
        setattr(data, name, content)
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def write(tmp_path):
    return partial(save, tmp_path / "a.dcm")


def steps(num_leads=2, num_samples=50, low=-3000, high=3000, dtype=np.int16):
    return RNG.integers(low, high, (num_leads, num_samples)).astype(dtype)


def test_the_recording_that_pydicom_carries_equals_pydicom():
    path = get_testdata_file("waveform_ecg.dcm", download=False)
    record = read_dicom(path, "r1")
    assert record.leads == STANDARD_LEADS and record.sampling_rate == 1000 and record.signal.dtype == np.int16
    expected = pydicom.dcmread(path).waveform_array(0).T / 1000  # µV
    assert record.to_millivolts() == pytest.approx(expected, abs=1e-6)
    assert record.sex == "female" and record.age == 42 and record.patient_id


def test_median_beats_are_read_only_when_asked_for():
    path = get_testdata_file("waveform_ecg.dcm", download=False)
    assert read_dicom(path, "r1").signal.shape == (12, 10000)
    assert read_dicom(path, "r1", group="MEDIAN BEAT").signal.shape == (12, 1200)
    assert read_dicom(path, "r1", group="1").signal.shape == (12, 1200)


def test_median_beats_that_are_called_original_are_left_out_too(write):
    values = steps(1)
    path = write(group(steps(1, 20), [channel("I")], "MEDIAN BEAT"), group(values, [channel("I")]))
    assert np.array_equal(read_dicom(path, "r1").signal, values)


def test_mdc_codes_scale_and_patient_are_read(write):
    values = steps(8)
    record = read_dicom(write(group(values, [channel(lead) for lead in MDC])), "r1")
    assert record.leads == tuple(MDC) and record.sampling_rate == 500 and record.unit == "uV"
    assert np.array_equal(record.signal, values) and record.gain == pytest.approx([2.5] * 8)
    assert (record.patient_id, record.sex, record.age) == ("P-3", "male", 1.5)


def test_correction_factor_baseline_and_units_of_each_channel_count(write):
    values = steps(2)
    channels = [
        channel("I", ChannelSensitivityCorrectionFactor="2", ChannelBaseline="10"),
        channel("V1", sensitivity="0.01", unit="mV", ChannelBaseline="-0.5"),
    ]
    record = read_dicom(write(group(values, channels)), "r1")
    expected = np.stack([values[0] * 0.005 + 0.01, values[1] * 0.01 - 0.5])
    assert record.to_millivolts() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("interpretation", "dtype"), [("US", np.uint16), ("SB", np.int8), ("UB", np.uint8)])
def test_other_sample_types_are_read(write, interpretation, dtype):
    values = steps(2, 25, 0, 100, dtype)
    record = read_dicom(write(group(values, [channel("I"), channel("II")], interpretation=interpretation)), "r1")
    assert np.array_equal(record.signal, values)


def test_padding_values_are_missing_samples(write):
    values = steps(2)
    values[1, 5:] = -32768
    padding = np.array([-32768], dtype="<i2").tobytes()
    item = group(values, [channel("I"), channel("II")])
    item.add_new("WaveformPaddingValue", "OW", padding)
    signal = read_dicom(write(item), "r1").to_millivolts()
    assert np.isnan(signal[1, 5:]).all() and np.isnan(signal).sum() == 45
    assert signal[0] == pytest.approx(values[0] * 0.0025, abs=1e-6)


def padded(values, value):
    item = group(values, [channel("I"), channel("II")])
    item.add_new("WaveformPaddingValue", "OW", np.array([value], dtype="<i2").tobytes())
    return item


def test_a_padding_value_that_is_scattered_over_the_signal_is_a_sample(write):
    values = RNG.integers(-20, 20, size=(2, 3000)).astype(np.int16)
    record = read_dicom(write(padded(values, 0)), "r1")
    assert np.array_equal(record.signal, values) and record.num_missing_samples == 0
    assert f"kept {(values == 0).sum()} samples of the padding value 0" in record.notes[0]


def test_a_padding_value_among_the_samples_marks_long_ends_and_gaps_in_all_channels(write):
    values = RNG.integers(1, 20, size=(2, 3000)).astype(np.int16) * RNG.choice([-1, 1], size=(2, 3000)).astype(
        np.int16
    )
    values[0, :600] = values[:, 1000:1100] = 0
    values[1, 2000:2200] = 0
    signal = read_dicom(write(padded(values, 0)), "r1").to_millivolts()
    assert np.isnan(signal[0, :600]).all() and np.isnan(signal[:, 1000:1100]).all()
    assert np.isnan(signal).sum() == 800


def test_the_age_follows_from_birth_and_acquisition(write):
    dates = {"PatientBirthDate": "19500702", "AcquisitionDateTime": "20000701120000", "PatientAge": ""}
    assert read_dicom(write(group(steps(1), [channel()]), **dates), "r1").age == 49


def test_unknown_codes_keep_their_meaning_and_can_be_renamed(write):
    item = group(steps(1), [channel("modified II", scheme="99LOCAL")])
    assert read_dicom(write(item), "r1").leads == ("modified II",)
    assert read_dicom(write(item), "r1", rename_leads={"Lead modified II": "II"}).leads == ("II",)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (group(steps(), [channel("I"), channel("II", sensitivity=None)]), r"Lead II \(no sensitivity"),
        (group(steps(), [channel("I"), channel("II", unit="mm[Hg]")]), "Unknown unit"),
        (group(steps(), [channel("I"), channel("II", sensitivity="0")]), "sensitivity 0"),
        (group(steps(), [channel("I")]), "defines 1 channels and stores 2"),
        (group(steps(), [channel("I"), channel("I")]), "different name"),
        (group(steps(), [channel("I"), channel("II", ChannelSampleSkew="3")]), "different times"),
        (group(steps(), [channel("I"), channel("II")], NumberOfWaveformSamples=10**9), "declares the shape"),
        (group(steps(), [channel("I"), channel("II")], NumberOfWaveformSamples=60), "need 240 bytes, it has 200"),
        (group(steps(), [channel("I"), channel("II")], interpretation="MB"), "samples are 16 bits of MB"),
        (group(steps(), [channel("I"), channel("II")], originality="DERIVED"), "0 of its waveform groups"),
        (group(steps(), [channel("I"), channel("II")], SamplingFrequency="0"), "sampling rate"),
    ],
)
def test_what_is_wrong_is_said(write, item, message):
    with pytest.raises(ValueError, match=message):
        read_dicom(write(item), "r1")


def test_several_rhythm_groups_are_chosen_by_label_or_position_only(write):
    values = [steps(1), steps(1)]
    path = write(group(values[0], [channel("I")], "first"), group(values[1], [channel("V1")], "second"))
    with pytest.raises(ValueError, match=r"2 of its waveform groups \['first', 'second'\]"):
        read_dicom(path, "r1")
    assert read_dicom(path, "r1", group="second").leads == ("V1",)
    assert np.array_equal(read_dicom(path, "r1", group="0").signal, values[0])
    with pytest.raises(ValueError, match="0 of its .* named third"):
        read_dicom(path, "r1", group="third")


def test_other_classes_are_refused(write):
    with pytest.raises(ValueError, match="its class 1.2.840.10008.5.1.4.1.1.2 is no waveform"):
        read_dicom(write(group(steps(1), [channel()]), sop_class="1.2.840.10008.5.1.4.1.1.2"), "r1")


def test_ecg_leads_of_hemodynamic_waveforms_are_read_and_the_pressure_is_left_out(write):
    values = steps(2)
    item = group(values, [channel("x", meaning="Aortic pressure", unit="mm[Hg]"), channel("II")])
    record = read_dicom(write(item, sop_class="1.2.840.10008.5.1.4.1.1.9.2.1"), "r1")
    assert record.leads == ("II",) and np.array_equal(record.signal[0], values[1])
    assert "Aortic pressure (mm[Hg])" in record.notes[0]
    with pytest.raises(ValueError, match="None of its channels Left ventricle"):
        item = group(steps(1), [channel("x", meaning="Left ventricle", unit="mV")])
        read_dicom(write(item, sop_class="1.2.840.10008.5.1.4.1.1.9.2.1"), "r1")


def test_deflated_files_are_refused_before_they_are_inflated(write):
    with pytest.raises(ValueError, match="deflated"):
        read_dicom(write(group(steps(1), [channel()]), syntax=DeflatedExplicitVRLittleEndian), "r1")
