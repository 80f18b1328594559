"""Files as recorders and other tools write them, read as their `SOURCE.md` says. Skipped where they are absent.

Small twins that are made up, and always run, lie with the tests of each format.
"""

import numpy as np
import pytest

from ecg_transformers.data import read_recording
from ecg_transformers.data.recording_report import examine_recording
from ecg_transformers.modeling.leads import INDEPENDENT_LEADS, STANDARD_LEADS


@pytest.fixture
def real_files(shared_data):
    folder = shared_data / "real_files"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    return folder


@pytest.mark.parametrize("name", ["uv4x.hea", "uvplain.hea"])
def test_microvolts_in_any_encoding_at_the_rate_of_the_samples(real_files, name):
    record = read_recording(real_files / name)
    assert (record.leads, record.sampling_rate, record.signal.shape) == (("II", "V5"), 500, (2, 2000))
    assert 0.5 < record.to_millivolts().max() < 2


def test_ecg_at_its_own_rate_beside_pressures(real_files):
    import wfdb

    record = read_recording(real_files / "mixedsignals.hea")
    assert record.leads == ("II", "III", "V") and record.sampling_rate == pytest.approx(249.89)
    assert all(name in record.notes[0] for name in ("ABP (mmHg", "Pleth (NU", "Resp (Ohm"))
    library = wfdb.rdrecord(str(real_files / "mixedsignals"), smooth_frames=False)
    for row, expected in zip(record.to_millivolts(), library.e_p_signal[:3], strict=True):
        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_intensive_care_channels_are_left_out_by_name(real_files):
    record = read_recording(real_files / "icu.hea")
    assert record.leads == ("II", "V") and "ABP (mmHg)" in record.notes[0]
    assert read_recording(real_files / "icu.hea", leads=["V"]).leads == ("V",)


def test_channels_of_one_name_can_be_told_apart(real_files):
    path = real_files / "svdb_800_like.hea"
    both = read_recording(path)
    assert both.leads == ("ECG", "ECG_2")
    assert np.array_equal(read_recording(path, leads=[1]).signal[0], both.signal[1])
    assert read_recording(path, rename_leads={0: "II", 1: "V1"}).leads == ("II", "V1")


def test_an_uncalibrated_record_needs_a_declaration(real_files):
    with pytest.raises(ValueError, match="uncalibrated"):
        read_recording(real_files / "zerogain.hea")
    assert read_recording(real_files / "zerogain.hea", step=0.001, unit="mV").to_millivolts().max() < 2


def test_a_record_name_with_a_folder_and_32_bits(real_files):
    import wfdb

    record = read_recording(real_files / "00001_medians.hea")
    signals = np.fromfile(real_files / "00001_medians.dat", "<i4").reshape(-1, 2).T
    np.testing.assert_allclose(record.to_millivolts(), (signals + 1842966025.0) / 6344117.125, atol=1e-6)
    assert wfdb.__version__ and record.signal.shape == (2, 2000)


def test_a_padding_value_among_the_samples_is_a_sample(real_files):
    pydicom = pytest.importorskip("pydicom")
    record = read_recording(real_files / "ecgtoolkit_Example.dcm")
    assert record.num_missing_samples == 0 and "1269 samples of the padding value 0" in record.notes[0]
    assert record.age == 50
    expected = pydicom.dcmread(real_files / "ecgtoolkit_Example.dcm").waveform_array(0).T
    np.testing.assert_allclose(record.signal * record.gain[:, None], expected, rtol=1e-6)


def test_ecg_leads_of_a_hemodynamic_object(real_files):
    pydicom = pytest.importorskip("pydicom")
    record = read_recording(real_files / "arturrod_test_ecg.dcm")
    assert record.leads == STANDARD_LEADS and record.sampling_rate == 240
    expected = pydicom.dcmread(real_files / "arturrod_test_ecg.dcm").waveform_array(0).T
    np.testing.assert_allclose(record.to_millivolts(), expected, rtol=1e-5, atol=1e-6)


def test_xml_of_recorders_stays_right(real_files):
    record = read_recording(real_files / "ecg2dcm_guangxi_muse.xml")
    assert record.leads == INDEPENDENT_LEADS and record.sampling_rate == 500
    assert record.gain == pytest.approx([4.88] * 8)
    assert len(read_recording(real_files / "liryc_example.xml").leads) == 12


def test_the_calibration_pulse_of_philips_is_no_ecg(real_files):
    record = read_recording(real_files / "sierra_1_03_129DYPRG.xml")
    assert record.signal.shape == (12, 5000) and "calibration pulse" in record.notes[0]
    assert not {"clipped_seconds", "einthoven"} & set(examine_recording(record).problems)


def test_edf_with_a_text_where_blanks_are_reserved(real_files):
    record = read_recording(real_files / "mne_test_edf_stim_channel.edf")
    assert record.leads == ("ECG1", "ECG2") and "EEG Fp1 (uV)" in record.notes[0]


def test_a_table_of_polar_with_units_and_times(real_files):
    path = real_files / "polar_h10.txt"
    record = read_recording(path, leads=["ecg [uV]"], sampling_rate=130)
    assert record.unit == "uV" and record.leads == ("ecg",)
    assert read_recording(path).sampling_rate == 130


def test_an_export_of_apple_health(real_files):
    record = read_recording(real_files / "apple_watch_en.csv")
    assert (record.leads, record.sampling_rate, record.unit) == (("I",), 512, "µV")
    assert record.signal[0, :3] == pytest.approx([0, 0.113, 0.226])


def test_a_rhythm_strip_of_cardiosoft(real_files):
    record = read_recording(real_files / "cardiosoft.xml")
    assert (record.leads, record.sampling_rate, record.signal.shape) == (("I", "II"), 500, (2, 2000))
    assert record.unit == "uV" and record.gain == pytest.approx([5, 5]) and record.sex == "male"


def test_a_field_of_a_matlab_struct(real_files):
    from scipy.io import loadmat

    path = real_files / "cpsc_struct.mat"
    declared = {"leads": STANDARD_LEADS, "sampling_rate": 500, "unit": "mV", "axes": "lead,sample"}
    record = read_recording(path, dataset="ECG.data", **declared)
    assert np.array_equal(record.signal, loadmat(path)["ECG"]["data"][0, 0].astype(np.float32))
