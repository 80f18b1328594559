import numpy as np
import pytest

from ecg_transformers.data import read_recording
from ecg_transformers.data.formats.cardiosoft_reader import read_cardiosoft

RNG = np.random.default_rng(0)


def part(name, steps, rate=500, resolution='<Resolution units="uVperLsb">5</Resolution>', count=None):
    leads = "".join(
        f'<WaveformData lead="{lead}">\t\t{",".join(map(str, row))}</WaveformData>'
        for lead, row in zip(("I", "II"), steps.tolist(), strict=True)
    )
    return (
        f'<{name}><NumberOfLeads>2</NumberOfLeads><SampleRate units="Hz">{rate}</SampleRate>'
        f"<ChannelSampleCountTotal>{count or steps.shape[1]}</ChannelSampleCountTotal>{resolution}{leads}</{name}>"
    )


def document(*parts):
    return (
        '<?xml version="1.0" encoding="ISO8859-1" ?><CardiologyXML>'
        "<ObservationDateTime><Day>1</Day><Month>5</Month>"
        "<Year>2020</Year></ObservationDateTime><PatientInfo><PID>7</PID><Gender>FEMALE</Gender><BirthDateTime>"
        f"<Day>2</Day><Month>5</Month><Year>1970</Year></BirthDateTime></PatientInfo>{''.join(parts)}</CardiologyXML>"
    )


@pytest.fixture
def write(tmp_path):
    def write(*parts):
        path = tmp_path / "a.xml"
        path.write_text(document(*parts))
        return path

    return write


def test_the_strip_and_the_median_beats_are_two_recordings(write):
    strip, medians = RNG.integers(-900, 900, (2, 50)), RNG.integers(-900, 900, (2, 20))
    measurements = f"<RestingECGMeasurements>{part('MedianSamples', medians)}</RestingECGMeasurements>"
    path = write(measurements, part("StripData", strip))
    record = read_recording(path)
    assert record.leads == ("I", "II") and record.sampling_rate == 500 and record.unit == "uV"
    assert np.array_equal(record.signal, strip) and record.gain.tolist() == [5, 5]
    assert (record.patient_id, record.age, record.sex) == ("7", 49, "female")
    assert np.array_equal(read_recording(path, dataset="MedianSamples").signal, medians)
    with pytest.raises(ValueError, match="expected dataset='StripData' or 'MedianSamples', got 'Other'"):
        read_recording(path, dataset="Other")


@pytest.mark.parametrize(
    ("strip", "message"),
    [
        (part("MedianSamples", np.ones((2, 3), int)), "one <StripData>, got 0.*dataset='MedianSamples'"),
        (part("StripData", np.ones((2, 3), int), count=4), "leads of 4 samples"),
        (part("StripData", np.ones((2, 3), int), resolution=""), "expected <Resolution>"),
        (part("StripData", np.ones((2, 3), int), resolution="<Resolution>5</Resolution>"), "units of Resolution"),
        (part("StripData", np.full((2, 3), 0.5)), "whole numbers"),
        (part("StripData", np.full((2, 3), 2**31)), "32-bit"),
    ],
)
def test_what_is_wrong_is_said(write, strip, message):
    with pytest.raises(ValueError, match=message):
        read_cardiosoft(write(strip), "r1")
