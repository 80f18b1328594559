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


FILES = {
    # name: leads, samples a second, unit, part of a note
    "uv4x.hea": (("II", "V5"), 500, None, ""),
    "uvplain.hea": (("II", "V5"), 500, None, ""),
    "icu.hea": (("II", "V"), None, None, "ABP (mmHg"),
    "svdb_800_like.hea": (("ECG", "ECG_2"), None, None, ""),
    "ecg2dcm_guangxi_muse.xml": (INDEPENDENT_LEADS, 500, "uV", ""),
    "liryc_example.xml": (12, None, None, ""),
    "mne_test_edf_stim_channel.edf": (("ECG1", "ECG2"), None, None, "EEG Fp1 (uV)"),
    "polar_h10.txt": (("ecg",), 130, "uV", ""),
    "apple_watch_en.csv": (("I",), 512, "µV", ""),
    "cardiosoft.xml": (("I", "II"), 500, "uV", ""),
}


@pytest.mark.parametrize(("name", "expected"), FILES.items(), ids=FILES)
def test_leads_rate_unit_and_notes_are_as_said(real_files, name, expected):
    record = read_recording(real_files / name)
    leads, sampling_rate, unit, words = expected
    assert (len(record.leads) if isinstance(leads, int) else record.leads) == leads
    assert sampling_rate in (None, record.sampling_rate) and unit in (None, record.unit)
    assert not words or words in record.notes[0]
    assert 0.05 < np.nanmax(np.abs(record.to_millivolts())) < 300


def test_ecg_at_its_own_rate_beside_pressures(real_files):
    import wfdb

    record = read_recording(real_files / "mixedsignals.hea")
    assert record.leads == ("II", "III", "V") and record.sampling_rate == pytest.approx(249.89)
    assert all(name in record.notes[0] for name in ("ABP (mmHg", "Pleth (NU", "Resp (Ohm"))
    library = wfdb.rdrecord(str(real_files / "mixedsignals"), smooth_frames=False)
    for row, expected in zip(record.to_millivolts(), library.e_p_signal[:3], strict=True):
        np.testing.assert_allclose(row, expected, atol=1e-6)


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


def test_the_calibration_pulse_of_philips_is_no_ecg(real_files):
    record = read_recording(real_files / "sierra_1_03_129DYPRG.xml")
    assert record.signal.shape == (12, 5000) and "calibration pulse" in record.notes[0]
    assert not {"clipped_seconds", "einthoven"} & set(examine_recording(record).problems)


def test_a_field_of_a_matlab_struct(real_files):
    from scipy.io import loadmat

    path = real_files / "cpsc_struct.mat"
    declared = {"leads": STANDARD_LEADS, "sampling_rate": 500, "unit": "mV", "axes": "lead,sample"}
    record = read_recording(path, dataset="ECG.data", **declared)
    assert np.array_equal(record.signal, loadmat(path)["ECG"]["data"][0, 0].astype(np.float32))
