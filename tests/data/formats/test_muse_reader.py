from base64 import b64encode

import numpy as np
import pytest

from ecg_transformers.data.formats.muse_reader import read_muse
from ecg_transformers.modeling.leads import INDEPENDENT_LEADS

STEPS = np.random.default_rng(0).integers(-32768, 32767, (8, 40), dtype=np.int16)


def lead_data(name, steps, count=None, gain="4.88", unit="MICROVOLTS", text=None, offset=0, size=2):
    text = b64encode(steps.astype("<i2").tobytes()).decode() if text is None else text
    text = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    return f"""<LeadData><LeadByteCountTotal>{2 * len(steps)}</LeadByteCountTotal>
      <LeadTimeOffset>{offset}</LeadTimeOffset>
      <LeadSampleCountTotal>{len(steps) if count is None else count}</LeadSampleCountTotal>
      <LeadAmplitudeUnitsPerBit>{gain}</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>{unit}</LeadAmplitudeUnits>
      <LeadHighLimit>32767</LeadHighLimit><LeadLowLimit>-32768</LeadLowLimit><LeadID>{name}</LeadID>
      <LeadSampleSize>{size}</LeadSampleSize><LeadOff>FALSE</LeadOff><WaveFormData>{text}</WaveFormData></LeadData>"""


def waveform(leads, kind="Rhythm", base=500, exponent=0):
    return f"""<Waveform><WaveformType>{kind}</WaveformType><NumberofLeads>8</NumberofLeads>
      <SampleType>CONTINUOUS_SAMPLES</SampleType><SampleBase>{base}</SampleBase><SampleExponent>{exponent}</SampleExponent>{leads}</Waveform>"""


def document(*waveforms):
    """The elements of GE's MUSE XML export that hold the waveforms, with the document type that it writes."""
    return f"""<?xml version="1.0" encoding="ISO-8859-1"?>
    <!DOCTYPE RestingECG SYSTEM "restecg.dtd">
    <RestingECG><PatientDemographics><PatientID>MR-7</PatientID><PatientAge>61</PatientAge><AgeUnits>YEARS</AgeUnits>
      <Gender>MALE</Gender></PatientDemographics>{"".join(waveforms)}</RestingECG>"""


EIGHT = "".join(lead_data(name, row) for name, row in zip(INDEPENDENT_LEADS, STEPS, strict=True))


@pytest.fixture
def read(tmp_path):
    def read(text, **options):
        path = tmp_path / "a.xml"
        path.write_text(text, encoding="latin-1")
        return read_muse(path, "r1", **options)

    return read


def test_the_eight_stored_leads_come_as_they_are_and_no_others(read):
    record = read(document(waveform(EIGHT)))
    assert record.leads == INDEPENDENT_LEADS and record.sampling_rate == 500
    assert record.to_millivolts() == pytest.approx(STEPS * 0.00488, rel=1e-6)
    assert (record.patient_id, record.age, record.sex) == ("MR-7", 61, "male")
    text = document(waveform(EIGHT, base=25, exponent=1)).replace("<AgeUnits>YEARS", "<AgeUnits>MONTHS")
    assert read(text).sampling_rate == 250 and read(text).age == pytest.approx(61 / 12)


def test_samples_stay_whole_numbers(read):
    median = waveform(lead_data("I", np.array([9, 9])), kind="Median")  # is left out
    record = read(document(median, waveform(lead_data("I", np.array([1, -2, 3])))))
    assert record.signal.dtype == np.int16 and record.signal.tolist() == [[1, -2, 3]] and record.unit == "uV"
    assert record.gain == pytest.approx([4.88])


ONE = np.array([1, 2, 3])


@pytest.mark.parametrize(
    ("waveforms", "message"),
    [
        ([waveform(lead_data("I", ONE, text="not base64!"))], "no Base64"),
        ([waveform(lead_data("I", ONE, text="AAA"))], "no Base64"),
        ([waveform(lead_data("I", ONE, count=10**12))], "declares 1e\\+12 samples and holds 6 bytes"),
        ([waveform(lead_data("I", ONE, count="NaN"))], "expected a number for LeadSampleCountTotal"),
        ([waveform(lead_data("I", ONE) + lead_data("II", ONE[:2]))], "one length"),
        ([waveform(lead_data("I", ONE) + lead_data("II", ONE, offset=2500))], "start together"),
        ([waveform(lead_data("I", ONE, unit="PASCAL"))], "LeadAmplitudeUnits"),
        ([waveform(lead_data("I", ONE, gain="0"))], "gains other than 0"),
        ([waveform(lead_data("I", ONE, size=4))], "2 bytes a sample"),
        ([waveform(lead_data("I", ONE) + lead_data("I", ONE))], "different name"),
        ([waveform(lead_data("I", np.array([])))], "declares the shape"),
        ([waveform("")], "no <LeadData>"),
        ([waveform(lead_data("I", ONE).replace("LeadAmplitudeUnits>", "Other>"))], "<LeadAmplitudeUnits>"),
        ([waveform(EIGHT, kind="Median")], "got 0"),
        ([waveform(EIGHT), waveform(EIGHT)], "got 2"),
        ([waveform(EIGHT, base=0)], "sampling rate"),
        ([waveform(EIGHT, base="fast")], "SampleBase"),
        ([waveform(EIGHT, exponent=400)], "SampleExponent"),
    ],
)
def test_what_is_wrong_is_said(read, waveforms, message):
    with pytest.raises(ValueError, match=message):
        read(document(*waveforms))
