import numpy as np
import pytest

from ecg_transformers.data.records import INVALID_SAMPLE, EcgRecord, dequantise, quantise


def make_record(**changes):
    values = {
        "record_id": "r1",
        "signal": np.array([[1, -2, 3], [4, 5, -6]], dtype=np.int16),
        "leads": ["I", "AVR"],
        "sampling_rate": 100,
        "gain": np.array([0.001, 0.002]),
    }
    return EcgRecord(**{**values, **changes})


def test_usual_spellings_of_leads_become_the_standard_ones():
    assert make_record().leads == ("I", "aVR")
    assert make_record(leads=["MLII", "V5"]).leads == ("MLII", "V5")


def test_integers_and_floats_become_millivolts_by_gain_and_unit():
    record = make_record(gain=np.array([1.0, 2.0]), unit="uV")
    np.testing.assert_allclose(record.to_millivolts(), [[0.001, -0.002, 0.003], [0.008, 0.01, -0.012]], rtol=1e-6)
    record = make_record(signal=np.array([[1000.0], [-500.0]]), gain=None, unit="µV")
    np.testing.assert_allclose(record.to_millivolts(), [[1.0], [-0.5]])


def test_offset_is_subtracted_in_integers_where_it_fits():
    record = make_record(offset=[1, -4])
    assert record.signal.dtype == np.int16
    np.testing.assert_array_equal(record.signal, [[0, -3, 2], [8, 9, -2]])


def test_offset_that_overflows_int16_gives_floats_instead_of_wrapping():
    record = make_record(signal=np.full((2, 3), 32000, dtype=np.int16), offset=[-178440, 0])
    assert record.signal.dtype == np.float32
    np.testing.assert_allclose(record.to_millivolts()[:, 0], [210.44, 64.0], rtol=1e-6)


def test_missing_samples_stay_missing_through_an_offset():
    signal = np.array([[1, INVALID_SAMPLE, 3], [4, 5, -6]], dtype=np.int16)
    record = make_record(signal=signal, offset=[100, 100])
    assert record.num_missing_samples == 1
    assert np.isnan(record.to_millivolts()[0, 1])


@pytest.mark.parametrize("offset", [None, np.array([3, 0]), np.array([40000, 0])])
def test_a_record_of_other_steps_is_the_one_that_is_checked_anew(offset):
    known = {"leads": ("II", "AVR"), "sampling_rate": 250, "unit": "uV", "gain": [2.0, 5.0], "notes": ("left out X",)}
    first, steps = EcgRecord("", np.zeros((2, 1), np.int16), **known), np.int16([[1, -32768, 3], [4, 5, 6]])
    found = first.with_steps("r", steps.copy(), offset)
    expected = vars(EcgRecord("r", steps.copy(), offset=offset, **known))
    assert vars(found).keys() == expected.keys()
    for name, value in vars(found).items():
        np.testing.assert_array_equal(value, expected[name])
    assert found.signal.dtype == expected["signal"].dtype
    found.extra["age"] = 3
    if offset is None:
        found.gain[0] = 7
    assert first.extra == {} and first.gain.tolist() == [2.0, 5.0]


def test_integer_row_keeps_every_bit():
    record = make_record()
    row = record.to_row()
    stored = np.frombuffer(row["ecg"]["signal"], dtype="<i2").reshape(2, 3)
    np.testing.assert_array_equal(stored, record.signal)
    assert row["ecg"]["unit"] == "mV"


def test_row_gives_the_record_back():
    record = make_record(patient_id="p", labels=["NORM"], fold=3, age=50.0, sex="female", extra={"scp_codes": ["SR"]})
    back = EcgRecord.from_row(record.to_row())
    np.testing.assert_array_equal(back.signal, record.signal)
    assert (back.patient_id, back.labels, back.fold, back.age, back.sex) == ("p", ["NORM"], 3, 50.0, "female")
    assert back.extra == {"scp_codes": ["SR"]}


def test_quantised_floats_are_off_by_half_a_step_at_most():
    signal = np.random.default_rng(0).normal(size=(3, 500))
    steps, gain = quantise(signal)
    error = np.abs(dequantise(steps, gain) - signal)
    assert (error.max(axis=1) <= np.abs(signal).max(axis=1) / 65534 * 1.01).all()


def test_nan_survives_quantisation():
    signal = np.array([[0.1, np.nan, -0.2], [0, 0, 0]])
    steps, gain = quantise(signal)
    assert steps[0, 1] == INVALID_SAMPLE
    np.testing.assert_array_equal(np.isnan(dequantise(steps, gain)), np.isnan(signal))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signal": np.zeros((3, 2), np.int16)}, "Rows are leads"),
        ({"signal": np.zeros((2, 0), np.int16)}, "num_samples > 0"),
        ({"signal": np.zeros((2, 3), np.int32)}, "int16 or float"),
        ({"gain": None}, "needs `gain`"),
        ({"gain": [0.001]}, "2 finite gains"),
        ({"gain": [0.001, 0.0]}, "other than 0"),
        ({"offset": [1]}, "2 offsets"),
        ({"sampling_rate": 0}, "sampling rate > 0"),
        ({"sampling_rate": float("nan")}, "sampling rate > 0"),
        ({"leads": ["I", "i"]}, "different name"),
        ({"unit": "mmHg"}, "Unknown unit"),
        ({"signal": np.zeros((2, 3))}, "belong to int16"),
    ],
)
def test_invalid_record_is_refused_with_a_reason(changes, message):
    with pytest.raises(ValueError, match=message):
        make_record(**changes)
