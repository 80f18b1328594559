import struct
from base64 import b64encode

import numpy as np
import pytest

from ecg_transformers.data.formats.philips_reader import read_philips
from ecg_transformers.data.formats.xli import decompress_leads
from ecg_transformers.modeling.leads import STANDARD_LEADS

RNG = np.random.default_rng(0)


def compress(samples):
    """One lead as the public description of XLI has it, by an encoder that knows nothing of the decoder."""
    samples = np.asarray(samples, dtype=np.int64)
    corrections = 2 * samples[1:-1] - samples[:-2] - samples[2:]
    codes = np.zeros(len(samples), dtype=np.int64)
    codes[:2], codes[2:-1] = samples[:2], corrections[1:] + 64
    halves = codes.astype(np.uint16) >> 8, codes.astype(np.uint16) & 255
    content = b"".join(half.astype(np.uint8).tobytes() for half in halves)
    words, current, bits = {bytes([value]): value for value in range(256)}, b"", ""
    for value in content:
        longer = current + bytes([value])
        if longer in words:
            current = longer
            continue
        bits += f"{words[current]:010b}"
        if len(words) < 1024:
            words[longer] = len(words)
        current = bytes([value])
    bits += f"{words[current]:010b}"
    packed = bytes(int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8))
    return struct.pack("<ihh", len(packed), 1, int(corrections[0])) + packed


def twelve_leads(num_samples=500):
    i, ii, *chest = np.cumsum(RNG.integers(-9, 10, (8, num_samples)), axis=1)
    iii = ii - i
    return np.stack([i, ii, iii, -((i + ii) // 2), (i - iii) // 2, (ii + iii) // 2, *chest])


def stored(leads):
    """III and the augmented leads as what is subtracted from those that I and II give (here: nothing)."""
    return np.concatenate([leads[:2], np.zeros_like(leads[2:6]), leads[6:]])


def document_1_04(content, num_samples, encoding="Base64", **changes):
    """The elements of SierraECGSchema_1_04_01.xsd that say what the samples are."""
    attributes = {
        "dataencoding": encoding,
        "compression": "XLI",
        "numberofleads": "12",
        "leadlabels": " ".join(STANDARD_LEADS),
        "durationperchannel": str(num_samples * 2),
        "samplespersecond": "500",
        "resolution": "5",
        "signaloffset": "0",
        "signalsigned": "True",
        "bitspersample": "16",
    } | changes
    text = " ".join(f'{name}="{value}"' for name, value in attributes.items() if value is not None)
    return f"""<?xml version="1.0" encoding="utf-16"?>
    <restingecgdata xmlns="http://www3.medical.philips.com">
      <documentinfo><documenttype>PhilipsECG</documenttype><documentversion>1.04.01</documentversion></documentinfo>
      <reportinfo date="2020-05-18" time="15:48:11"/>
      <dataacquisition><signalcharacteristics><samplingrate>500</samplingrate><resolution>5</resolution>
        <acquisitiontype>10-WIRE</acquisitiontype><bitspersample>16</bitspersample><signaloffset>0</signaloffset>
        <numberchannelsallocated>12</numberchannelsallocated><electrodeplacement>STD</electrodeplacement>
      </signalcharacteristics></dataacquisition>
      <patient><generalpatientdata><patientid>77</patientid><age><dateofbirth>1951-06-01</dateofbirth></age>
        <sex>Female</sex></generalpatientdata></patient>
      <waveforms><parsedwaveforms {text}>{b64encode(content).decode()}</parsedwaveforms>
        <repbeats><repbeat leadname="I"><waveform>AAAA</waveform></repbeat></repbeats></waveforms>
    </restingecgdata>"""


@pytest.fixture
def read(tmp_path):
    def read(text, **options):
        path = tmp_path / "a.xml"
        path.write_bytes(text.encode("utf-16"))
        return read_philips(path, "r1", **options)

    return read


def compressed(leads):
    return b"".join(compress(lead) for lead in stored(leads))


def test_compressed_leads_come_back_exactly(read):
    leads = twelve_leads()
    record = read(document_1_04(compressed(leads), 500))
    assert record.leads == STANDARD_LEADS and record.sampling_rate == 500 and record.unit == "uV"
    expected = leads.copy()
    expected[3] = 0 - (leads[0] + leads[1]) // 2
    assert record.signal.dtype == np.int16 and np.array_equal(record.signal, expected)
    assert record.gain == pytest.approx([5.0] * 12)
    assert (record.patient_id, record.age, record.sex) == ("77", 68, "female")


def test_what_the_limb_leads_deviate_by_is_subtracted(read):
    leads = twelve_leads()
    values = stored(leads)
    values[2:6] = RNG.integers(-2, 3, (4, 500))
    i, ii = leads[:2]
    iii = ii - i - values[2]
    record = read(document_1_04(b"".join(compress(lead) for lead in values), 500))
    assert np.array_equal(record.signal[2], iii)
    assert np.array_equal(record.signal[3], -values[3] - (i + ii) // 2)
    assert np.array_equal(record.signal[4], (i - iii) // 2 - values[4])
    assert np.array_equal(record.signal[5], (ii + iii) // 2 - values[5])


@pytest.mark.parametrize("num_samples", [4, 5, 63, 3000])
def test_blocks_of_any_length_round_trip(num_samples):
    samples = RNG.integers(-8000, 8000, num_samples)  # noise fills the dictionary
    assert np.array_equal(decompress_leads(compress(samples), 1, num_samples)[0], samples)


def test_the_older_schema_keeps_its_statements_elsewhere(read):
    leads = twelve_leads()
    text = document_1_04(compressed(leads), 500).replace("1.04.01", "1.03")
    start, end = text.index("<parsedwaveforms ") + len("<parsedwaveforms "), text.index("bitspersample=")
    text = (
        text[:start] + 'compressflag="True" compressmethod="XLI" dataencoding="Base64" nbitspersample="16" '
        'durationperchannel="1000">' + text[text.index(">", end) + 1 :]
    )
    text = text.replace("<resolution>5</resolution>", "<signalresolution>2.5</signalresolution>")
    record = read(text)
    assert record.leads == STANDARD_LEADS and record.gain == pytest.approx([2.5] * 12)
    assert np.array_equal(record.signal[:3], leads[:3])


def test_plain_leads_that_obey_einthoven_are_read_and_the_offset_is_subtracted(read):
    leads = twelve_leads()
    content = (leads + 2048).astype("<i2").tobytes()
    record = read(document_1_04(content, 500, compression="Uncompressed", signaloffset="2048"))
    assert np.array_equal(record.signal, leads) and record.signal.dtype == np.int16


def test_plain_leads_whose_meaning_is_not_certain_are_refused(read):
    content = stored(twelve_leads()).astype("<i2").tobytes()
    with pytest.raises(ValueError, match="III = II - I in .*not certain"):
        read(document_1_04(content, 500, compression="Uncompressed"))


def test_torso_electrodes_are_said_and_computed_leads_wrong_base64_and_unknown_versions_refused(read):
    text = document_1_04(compressed(twelve_leads()), 500)
    record = read(text.replace(">STD<", ">MASON-LIKAR<"))
    assert record.electrode_placement == "mason_likar"
    for old, new, message in (
        (">STD<", ">EASI<", "computed from other electrodes"),
        ("</parsedwaveforms>", "?</parsedwaveforms>", "no Base64"),
        ("1.04.01", "2.0", "version '2.0'"),
    ):
        with pytest.raises(ValueError, match=message):
            read(text.replace(old, new))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compression": "LZMA"}, "compression 'XLI' or 'Uncompressed'"),
        ({"encoding": "Hex"}, "encoding 'Base64'"),
        ({"bitspersample": "24"}, "16 bits"),
        ({"resolution": "NaN"}, "expected a number for the resolution"),
        ({"durationperchannel": "10"}, "expands to 10.. bytes. Expected 10|expands to"),
        ({"durationperchannel": "1e15"}, "declares the shape"),
        ({"durationperchannel": "-5"}, "declares the shape"),
        ({"leadlabels": "I II V1"}, "12 leads and labels"),
        ({"numberofleads": "11", "leadlabels": " ".join(STANDARD_LEADS[1:])}, "limb leads .* first"),
        ({"leadlabels": " ".join(["I"] * 12)}, "different name"),
        ({"samplespersecond": "0"}, "declares the shape"),
    ],
)
def test_what_is_wrong_is_said(read, changes, message):
    with pytest.raises(ValueError, match=message):
        read(document_1_04(compressed(twelve_leads()), 500, **changes))


@pytest.mark.parametrize("cut", [3, 40, 900])
def test_truncated_blocks_are_a_value_error(read, cut):
    with pytest.raises(ValueError, match="the data end|declares|expands"):
        read(document_1_04(compressed(twelve_leads())[:-cut], 500))


def test_damaged_codes_and_blocks_that_expand_beyond_what_was_declared_are_a_value_error():
    content = struct.pack("<ihh", 5, 1, 0) + b"\xff" * 5
    with pytest.raises(ValueError, match="code 1023, of 256 known"):
        decompress_leads(content, 1, 100)
    bomb = compress(np.zeros(20_000, dtype=int))
    with pytest.raises(ValueError, match="Expected 20"):
        decompress_leads(bomb, 1, 10)


@pytest.mark.parametrize("tail", [0, 260])
def test_a_calibration_pulse_after_the_ecg_is_cut_off_with_a_note(read, tail):
    leads = twelve_leads(5500)
    leads[:, 5000 + tail :] = 0
    leads[:, 5350:5450] = 200
    content = leads.astype("<i2").tobytes()
    record = read(document_1_04(content, 5500, compression="Uncompressed"))
    assert np.array_equal(record.signal, leads[:, :5000]) and "calibration pulse" in record.notes[0]
    leads = twelve_leads(5500)  # an ECG of eleven seconds is kept whole
    record = read(document_1_04(leads.astype("<i2").tobytes(), 5500, compression="Uncompressed"))
    assert np.array_equal(record.signal, leads) and not record.notes
