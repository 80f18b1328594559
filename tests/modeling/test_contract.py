"""The input contract as properties: whatever is the same recording gives the same features, however it came.

Tolerances are stated where they are used. Millivolts here have peaks of 1 to 3, so that an absolute tolerance of 1e-5
is a hundredth of a microvolt. Equal means equal bit by bit.
"""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_transformers.data.features import ECG_STORAGE, Ecg
from ecg_transformers.data.formats.wfdb_reader import read_record
from ecg_transformers.data.records import INVALID_SAMPLE, EcgRecord
from ecg_transformers.modeling.feature_extraction_ecg import EcgFeatureExtractor, average_windows
from ecg_transformers.modeling.leads import (
    DERIVED_LIMB_LEADS,
    INDEPENDENT_LEADS,
    LIMB_LEADS,
    STANDARD_LEADS,
    electrode_placement_of,
    limb_lead_matrix,
)

examples = settings(max_examples=15, deadline=None, derandomize=True)
few_examples = settings(max_examples=6, deadline=None, derandomize=True)

RATES = (100, 125, 128, 200, 250, 257, 300, 360, 400, 500, 1000)
SECONDS = 4

seeds = st.integers(0, 2**20)
orders = st.permutations(range(8))
extractor_settings = st.fixed_dictionaries(
    {
        "normalization": st.sampled_from([None, "record", "lead"]),
        "highpass_hz": st.sampled_from([None, 0.67]),
        "lowpass_hz": st.sampled_from([None, 40.0]),
        "long_records": st.sampled_from(["first", "center", "all"]),
        "clip": st.sampled_from([None, 2.0]),
    }
)


def steps_of(seed: int, num_leads: int = 8, num_samples: int = 1000) -> np.ndarray:
    """A wandering signal in steps of 5 uV with peaks of 1 mV and more, as a converter gives it."""
    walk = np.random.RandomState(seed).randn(num_leads, num_samples).cumsum(-1)
    walk -= np.linspace(0, 1, num_samples) * walk[:, -1:]  # ends where it starts: resampling does not ring
    return np.rint(walk / np.abs(walk).max() * 400).astype(np.int16)


def small(**options) -> EcgFeatureExtractor:
    return EcgFeatureExtractor(**{"num_samples": 400} | options)


def values_of(extractor: EcgFeatureExtractor, signal, **declared) -> torch.Tensor:
    declared = {"sampling_rate": 250, "leads": INDEPENDENT_LEADS, "unit": "mV"} | declared
    return extractor(signal, **declared)["input_values"]


def tone(sampling_rate: float, seed: int, num_leads: int = 8) -> np.ndarray:
    """Whole numbers of turns in 4 s, up to 20 Hz: the same band-limited signal at every rate."""
    random = np.random.RandomState(seed)
    frequencies = random.randint(1, 20 * SECONDS, size=(num_leads, 5, 1)) / SECONDS
    phases, weights = random.uniform(0, 6, size=(2, num_leads, 5, 1))
    times = np.arange(round(sampling_rate * SECONDS)) / sampling_rate
    return (weights * np.sin(2 * np.pi * frequencies * times + phases)).sum(1) / 10


@examples
@given(seed=seeds, order=orders, options=extractor_settings)
def test_permuting_the_leads_leaves_the_features_equal(seed, order, options):
    signal = steps_of(seed) * np.float32(5e-3)
    extractor = small(**options)
    permuted = values_of(extractor, signal[list(order)], leads=[INDEPENDENT_LEADS[i] for i in order])
    assert torch.equal(permuted, values_of(extractor, signal))


@examples
@given(seed=seeds, order=st.permutations(range(2)), unit=st.sampled_from([("mV", 1), ("uV", 1e3), ("V", 1e-3)]))
def test_deriving_limb_leads_commutes_with_order_and_unit(seed, order, unit):
    two = steps_of(seed, num_leads=2) * 5e-3
    derived = limb_lead_matrix(DERIVED_LIMB_LEADS)[:, :2] @ two
    given_leads = values_of(small(leads=DERIVED_LIMB_LEADS), derived, leads=DERIVED_LIMB_LEADS)
    name, factor = unit
    leads = [("I", "II")[i] for i in order]
    computed = values_of(small(leads=DERIVED_LIMB_LEADS), two[list(order)] * factor, leads=leads, unit=name)
    torch.testing.assert_close(computed, given_leads, rtol=0, atol=2e-6)


@examples
@given(seed=seeds, absent=st.sets(st.sampled_from(INDEPENDENT_LEADS), max_size=6))
def test_missing_leads_are_zeros_in_the_values_and_false_in_the_mask(seed, absent):
    kept = [i for i, lead in enumerate(INDEPENDENT_LEADS) if lead not in absent]
    extractor = small(missing_leads="mask", normalization="lead")
    signal = steps_of(seed) * np.float32(5e-3)
    leads = [INDEPENDENT_LEADS[i] for i in kept]
    output = extractor(signal[kept], sampling_rate=250, leads=leads, unit="mV")
    assert output["lead_mask"][0].nonzero().flatten().tolist() == kept
    whole = values_of(extractor, signal)[0]
    assert torch.equal(output["input_values"][0, kept], whole[kept])
    assert not output["input_values"][0, ~output["lead_mask"][0]].any()


@pytest.mark.parametrize(
    ("options", "declared", "message"),
    [
        ({}, {"electrode_placement": "mason_likar"}, "mason_likar.*electrode_placement='any'"),
        ({"missing_leads": "mask"}, {"electrode_placement": "mason_likar"}, "mason_likar"),
        ({"electrode_placement": "mason_likar"}, {}, "mason_likar.*are of the standard one"),
    ],
)
def test_limb_leads_of_another_placement_are_refused(options, declared, message):
    with pytest.raises(ValueError, match=message):
        values_of(small(**options), steps_of(0) * 5e-3, **declared)


@pytest.mark.parametrize("admitted", ["mason_likar", "any"])
def test_a_model_that_admits_the_torso_reads_and_derives_its_limb_leads(admitted):
    signal = steps_of(0) * 5e-3
    options = {"leads": STANDARD_LEADS}
    expected = values_of(small(**options), signal)
    extractor = small(electrode_placement=admitted, **options)
    output = extractor(
        signal,
        sampling_rate=250,
        leads=INDEPENDENT_LEADS,
        unit="mV",
        electrode_placement="mason_likar",
        return_report=True,
    )
    assert torch.equal(output["input_values"], expected)
    assert "The limb leads are from electrodes on the torso (Mason-Likar)." in output["report"][0]


def test_chest_leads_do_not_depend_on_the_limb_electrodes_placement():
    signal = steps_of(0) * 5e-3
    extractor = small(leads=["V1", "V6"])
    torso = values_of(extractor, signal, electrode_placement="mason_likar")
    assert torch.equal(torso, values_of(extractor, signal))


def test_the_placement_goes_with_a_record_through_its_row_and_storage():
    record = EcgRecord(
        "r1", steps_of(0), INDEPENDENT_LEADS, 250, gain=np.full(8, 5e-3), electrode_placement="mason_likar"
    )
    assert record.leads[:3] == ("I-ML", "II-ML", "V1")
    stored = Dataset.from_list([{"ecg": record.to_row()["ecg"]}], features=Features({"ecg": ECG_STORAGE}))
    decoded = stored.cast_column("ecg", Ecg())[0]
    again = EcgRecord.from_row({"record_id": "r1", **decoded})
    assert (again.electrode_placement, again.leads) == ("mason_likar", record.leads)
    for recording in (record, again, decoded, stored[0]):
        with pytest.raises(ValueError, match="mason_likar"):
            small()(recording)


def test_a_record_has_one_placement_of_known_name():
    with pytest.raises(ValueError, match=r"\['I-ML'\] from the torso.*\['II'\] from the limbs"):
        EcgRecord("r1", steps_of(0, 2), ["I-ML", "II"], 250, gain=np.ones(2))
    with pytest.raises(ValueError, match="Unknown electrode_placement 'holter'"):
        EcgRecord("r1", steps_of(0, 2), ["I", "II"], 250, gain=np.ones(2), electrode_placement="holter")
    assert electrode_placement_of(["V1", "MLII"]) is None
    assert electrode_placement_of(LIMB_LEADS) == "standard"


@examples
@given(seed=seeds, options=extractor_settings)
def test_the_unit_leaves_the_features_equal(seed, options):
    steps, extractor = steps_of(seed), small(**options)
    expected = values_of(extractor, steps * 5e-3)
    gains = np.full(8, 5.0)
    forms = {
        "uV": values_of(extractor, steps * 5.0, unit="uV"),
        "µV": values_of(extractor, steps * 5.0, unit="µV"),
        "μV": values_of(extractor, steps * 5.0, unit="μV"),
        "V": values_of(extractor, steps * 5e-6, unit="V"),
        "nV": values_of(extractor, steps * 5e3, unit="nV"),
        "mv": values_of(extractor, steps * 5e-3, unit="mv"),
        "int16, other bytes": values_of(extractor, steps.astype(">i2"), unit="uV", gain=gains),
        "int64": values_of(extractor, steps.astype(np.int64), unit="uV", gain=gains),
        "torch": values_of(extractor, torch.from_numpy(steps), unit="uV", gain=gains),
        "int16, uV per step": values_of(extractor, steps, unit="uV", gain=gains),
        "int16, mV per step": values_of(extractor, steps, unit="adc", gain=gains / 1e3),
        "int32": values_of(extractor, steps.astype(np.int32) * 2**8, unit="uV", gain=gains / 2**8),
        "offset": values_of(extractor, steps + np.int16(1024), unit="uV", gain=gains, offset=1024),
        "record": extractor(EcgRecord("r", steps, INDEPENDENT_LEADS, 250, unit="uV", gain=gains))["input_values"],
    }
    for form, values in forms.items():
        # Float32 rounds the input to 1e-7 of itself, and the high-pass keeps that; z-scores divide by 0.1 mV or more.
        torch.testing.assert_close(values, expected, rtol=0, atol=2e-5, msg=lambda text, form=form: f"{form}: {text}")


@examples
@given(offsets=st.lists(st.integers(-40000, 40000), min_size=8, max_size=8))
def test_an_offset_never_wraps_around(offsets):
    steps = np.random.RandomState(0).randint(-32767, 32768, size=(8, 400)).astype(np.int16)
    steps[3, 7] = INVALID_SAMPLE
    expected = (steps.astype(np.float64) - np.array(offsets)[:, None]) * 1e-3
    expected[3, 7] = np.nan
    extractor = small(nan_policy="interpolate")
    arrays = values_of(extractor, steps, unit="adc", gain=1e-3, offset=offsets)
    record = EcgRecord("r", steps, INDEPENDENT_LEADS, 250, gain=np.full(8, 1e-3), offset=np.array(offsets))
    np.testing.assert_allclose(record.to_millivolts(), expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(arrays, values_of(extractor, expected), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(extractor(record)["input_values"], arrays, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("sampling_rate", RATES)
def test_a_band_limited_signal_gives_the_same_features_at_any_rate(sampling_rate):
    extractor = small(num_samples=250 * SECONDS, normalization="lead")
    expected = values_of(extractor, tone(250, seed=sampling_rate))
    values = values_of(extractor, tone(sampling_rate, seed=sampling_rate), sampling_rate=sampling_rate)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-5)


@examples
@given(seed=seeds, pair=st.tuples(st.sampled_from(RATES), st.sampled_from(RATES)))
def test_recordings_of_different_rates_share_a_call(seed, pair):
    extractor = small(num_samples=250 * SECONDS)
    records = [
        EcgRecord(str(rate), tone(rate, seed).astype(np.float32), INDEPENDENT_LEADS, rate, unit="mV") for rate in pair
    ]
    first, second = extractor(records)["input_values"]
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


@examples
@given(num_samples=st.integers(100, 1500), stride=st.integers(1, 400), long=st.sampled_from(["all"]))
def test_windows_cover_every_sample(num_samples, stride, long):
    extractor = small(num_samples=100, long_records=long, window_stride_samples=min(stride, 100))
    ramp = np.tile(np.arange(num_samples, dtype=np.float32) * 1e-3 + 1, (8, 1))
    output = extractor(ramp, sampling_rate=250, leads=INDEPENDENT_LEADS, unit="mV")
    seen = np.rint((output["input_values"][:, 0].numpy() - 1) * 1e3).astype(int)
    assert sorted(set(seen.ravel().tolist())) == list(range(num_samples))
    assert (np.diff(seen, axis=1) == 1).all()
    assert output["window_record"].tolist() == [0] * len(seen)


@examples
@given(lengths=st.lists(st.integers(100, 700), min_size=1, max_size=4), stride=st.integers(20, 100))
def test_averages_over_windows_are_those_of_each_record(lengths, stride):
    extractor = small(num_samples=100, long_records="all", window_stride_samples=stride)
    signals = [steps_of(number, num_samples=length) * 5e-3 for number, length in enumerate(lengths)]
    declared = {"sampling_rate": 250, "leads": INDEPENDENT_LEADS, "unit": "mV"}
    output = extractor(signals, **declared)
    averages = average_windows(output["input_values"].mean(-1), output["window_record"])
    alone = [extractor(signal, **declared)["input_values"].mean(-1).mean(0) for signal in signals]
    torch.testing.assert_close(averages, torch.stack(alone), rtol=0, atol=1e-6)


@examples
@given(seed=seeds, num_samples=st.integers(30, 400), options=extractor_settings)
def test_padding_never_changes_the_recorded_part(seed, num_samples, options):
    signal = steps_of(seed, num_samples=num_samples) * 5e-3
    padded = small(short_records="zero_pad", **options)(signal, sampling_rate=250, leads=INDEPENDENT_LEADS, unit="mV")
    exact = values_of(small(**options | {"num_samples": num_samples}), signal)
    recorded = padded["sample_mask"][0]
    assert recorded.nonzero().flatten().tolist() == list(range(num_samples))
    torch.testing.assert_close(padded["input_values"][..., recorded], exact, rtol=0, atol=1e-6)
    assert not padded["input_values"][..., ~recorded].any()


@examples
@given(lengths=st.lists(st.integers(400, 900), min_size=1, max_size=5), options=extractor_settings)
def test_a_batch_equals_its_records_one_by_one(lengths, options):
    extractor = small(**options)
    rates = [RATES[length % len(RATES)] for length in lengths]
    records = [
        EcgRecord(
            str(number), steps_of(number, num_samples=4 * length), INDEPENDENT_LEADS, rate, gain=np.full(8, 5e-3)
        )
        for number, (length, rate) in enumerate(zip(lengths, rates, strict=True))
    ]
    together = extractor(records)["input_values"]
    alone = torch.cat([extractor(record)["input_values"] for record in records])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)


STORED_COLUMNS = Features(
    {name: Value("string") for name in ("record_id", "patient_id", "sex")}
    | {"ecg": ECG_STORAGE, "labels": [Value("string")], "age": Value("float64")}
)


records = st.builds(
    lambda seed, leads, num_samples, is_digital, unit, missing, rate, placement: EcgRecord(
        record_id=f"r{seed}",
        signal=with_gaps(
            steps_of(seed, len(leads), num_samples)
            if is_digital
            else steps_of(seed, len(leads), num_samples).astype(np.float32),
            missing,
        ),
        leads=leads,
        sampling_rate=rate,
        unit=unit,
        gain=np.linspace(0.5, 2, len(leads)).astype(np.float32) if is_digital else None,
        patient_id=f"p{seed}",
        labels=["NORM", "µ"],
        age=61.5,
        sex="female",
        electrode_placement=placement,
    ),
    seed=seeds,
    leads=st.lists(st.sampled_from([*STANDARD_LEADS, "VX", "MLII"]), min_size=1, max_size=5, unique=True),
    num_samples=st.integers(1, 60),
    is_digital=st.booleans(),
    unit=st.sampled_from(["mV", "uV", "V"]),
    missing=st.sets(st.integers(0, 59), max_size=3),
    rate=st.sampled_from(RATES),
    placement=st.sampled_from([None, "standard", "mason_likar"]),
)


def with_gaps(signal: np.ndarray, positions: set[int]) -> np.ndarray:
    signal[0, [position for position in positions if position < signal.shape[1]]] = (
        INVALID_SAMPLE if signal.dtype == np.int16 else np.nan
    )
    return signal


@examples
@given(record=records)
def test_a_record_comes_back_from_parquet_as_it_went(record):
    row, file = record.to_row(), io.BytesIO()
    columns = {name: row[name] for name in STORED_COLUMNS}
    pq.write_table(pa.Table.from_pylist([columns], schema=STORED_COLUMNS.arrow_schema), file)
    stored = pq.read_table(file).to_pylist()[0]
    assert stored["ecg"]["signal"] == row["ecg"]["signal"]
    again = EcgRecord.from_row(stored)
    scale = np.nanmax(np.abs(record.to_millivolts()), initial=0)
    # int16 keeps every bit; floats are rounded to 1/65534 of their peak.
    tolerance = scale * (3e-7 if record.gain is not None else 1 / 65000)
    np.testing.assert_allclose(again.to_millivolts(), record.to_millivolts(), rtol=0, atol=tolerance)
    for name in ("record_id", "patient_id", "leads", "sampling_rate", "labels", "age", "sex", "electrode_placement"):
        stated, kept = getattr(record, name), getattr(again, name)
        assert list(kept) == list(stated) if name in ("labels", "leads") else kept == stated
    assert EcgRecord.from_row(again.to_row()).to_row() == again.to_row()


@few_examples
@given(seed=seeds, num_samples=st.integers(5, 300), offset=st.integers(-200, 200), storage=st.sampled_from([16, 212]))
def test_a_record_comes_back_from_wfdb_as_it_went(seed, num_samples, offset, storage, tmp_path_factory):
    import wfdb

    folder = tmp_path_factory.mktemp("wfdb")
    steps = steps_of(seed, 3, num_samples)
    wfdb.wrsamp(
        "made",
        fs=250,
        units=["uV"] * 3,
        sig_name=["aVF", "I", "V2"],
        d_signal=steps.T.astype(np.int64) + offset,
        fmt=[str(storage)] * 3,
        adc_gain=[0.2] * 3,
        baseline=[offset] * 3,
        write_dir=str(folder),
    )
    record, _ = read_record(folder / "made")
    assert (record.leads, record.sampling_rate) == (("aVF", "I", "V2"), 250)
    np.testing.assert_array_equal(record.signal, steps)
    np.testing.assert_allclose(record.to_millivolts(), steps * 5e-3, rtol=1e-6)
