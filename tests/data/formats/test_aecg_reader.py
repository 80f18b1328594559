import numpy as np
import pytest

from ecg_transformers.data.formats.aecg_reader import read_aecg

STEPS = {"I": [0, 1, -2, 3, 400], "II": [10, -20, 30, 0, 0], "AVR": [5, 5, 5, 5, -32768]}


def sequence(lead, digits, scale="2.5", unit="uV", origin="0", origin_unit="uV"):
    return f"""<component><sequence>
      <code code="MDC_ECG_LEAD_{lead}" codeSystem="2.16.840.1.113883.6.24"/>
      <value xsi:type="SLIST_PQ"><origin value="{origin}" unit="{origin_unit}"/><scale value="{scale}" unit="{unit}"/>
      <digits>{digits}</digits></value></sequence></component>"""


def series(sequences, code="RHYTHM", increment="0.002", unit="s", tag="series"):
    return f"""<{tag}><code code="{code}" codeSystem="2.16.840.1.113883.5.4"/><component><sequenceSet>
      <component><sequence><code code="TIME_ABSOLUTE" codeSystem="2.16.840.1.113883.5.4"/>
      <value xsi:type="GLIST_TS"><head value="20021122091000.000"/>
      <increment value="{increment}" unit="{unit}"/></value>
      </sequence></component>{sequences}</sequenceSet></component></{tag}>"""


def series_of_time(increment):
    return f"""<component><sequence><code code="TIME_RELATIVE"/><value xsi:type="GLIST_PQ"><head value="0" unit="s"/>
      <increment value="{increment}" unit="s"/></value></sequence></component>"""


def document(body, extra=""):
    """An annotated ECG with the parts of the implementation guide (HL7, 21 March 2005) that hold the waveforms."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
    <AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" type="Observation">
      <id root="728989ec-b8bc-49cd-9a5a-30be5ade1db5"/>
      <code code="93000" codeSystem="2.16.840.1.113883.6.12"/>
      <effectiveTime><low value="20021122091000.000"/><high value="20021122091010.000"/></effectiveTime>
      <componentOf><timepointEvent><componentOf><subjectAssignment><subject><trialSubject>
        <id root="2.16.840.1.113883.3.5" extension="SBJ_42"/>
        <subjectDemographicPerson><administrativeGenderCode code="F"/><birthTime value="19530508"/>
        </subjectDemographicPerson>
      </trialSubject></subject></subjectAssignment></componentOf></timepointEvent></componentOf>
      <component>{body}</component>{extra}</AnnotatedECG>"""


def digits_of(lead):
    return " ".join(map(str, STEPS[lead]))


@pytest.fixture
def read(tmp_path):
    def read(text, **options):
        path = tmp_path / "a.xml"
        path.write_text(text, encoding="utf-8")
        return read_aecg(path, "r1", **options)

    return read


def test_steps_scale_leads_rate_and_patient_are_read(read):
    record = read(document(series("".join(sequence(lead, digits_of(lead)) for lead in ("I", "II")))))
    assert record.leads == ("I", "II") and record.sampling_rate == 500
    assert record.signal.dtype == np.int16 and record.signal.tolist() == [STEPS["I"], STEPS["II"]]
    assert record.to_millivolts() == pytest.approx(np.array([STEPS["I"], STEPS["II"]]) * 0.0025)
    assert (record.record_id, record.patient_id, record.sex, record.age) == ("r1", "SBJ_42", "female", 49)


def test_origin_and_units_of_each_lead_count(read):
    parts = sequence("I", digits_of("I"), scale="5", unit="uV", origin="1", origin_unit="mV")
    parts += sequence("AVR", digits_of("AVR"), scale="0.01", unit="mV")
    record = read(document(series(parts)))
    assert record.leads == ("I", "aVR")
    expected = [1 + 0.005 * np.array(STEPS["I"]), 0.01 * np.array(STEPS["AVR"])]
    assert record.to_millivolts() == pytest.approx(np.array(expected), rel=1e-6)
    assert not np.isnan(record.to_millivolts()).any()  # -32768 is a value here, not a missing sample


def test_derived_series_are_left_out(read):
    median = series(sequence("I", "9 9 9"), code="REPRESENTATIVE_BEAT", tag="derivedSeries")
    rhythm = series(sequence("I", digits_of("I"))).replace("</series>", f"<derivation>{median}</derivation></series>")
    assert read(document(rhythm)).signal.tolist() == [STEPS["I"]]
    beats = f"<component>{series(sequence('I', '9 9'), code='REPRESENTATIVE_BEAT')}</component>"
    assert read(document(series(sequence("I", digits_of("I"))), extra=beats)).signal.tolist() == [STEPS["I"]]


def test_milliseconds_and_renamed_leads_are_understood(read):
    record = read(document(series(sequence("MLII", "1 2 3"), increment="4", unit="ms")), rename_leads={"MLII": "II"})
    assert record.sampling_rate == 250 and record.leads == ("II",)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (series(sequence("I", "1 2 NaN")), "whole numbers as digits of lead 'I'"),
        (series(sequence("I", "1 2.5")), "whole numbers as digits"),
        (series(sequence("I", "1 99999999999999999999")), "whole numbers"),
        (series(sequence("I", "1 2 3") + sequence("II", "1 2")), "equal length, got {'I': 3, 'II': 2}"),
        (series(sequence("I", "1 2 3") + sequence("I", "1 2 3")), "comes twice"),
        (series(sequence("I", "1 2", unit="mmHg")), "Unknown unit 'mmHg'"),
        (series(sequence("I", "1 2", scale="0")), "the scale 0"),
        (series(sequence("I", "1 2", scale="many")), "expected a number for <scale>"),
        (series(sequence("I", "")), "declares the shape"),
        (series(sequence("I", "1 2"), increment="0"), "increment > 0"),
        (series(sequence("I", "1 2"), unit="min"), "increment in"),
        (series(series_of_time("0.004") + sequence("I", "1 2")), "rates 500.0 and 250.0 Hz"),
        (series(""), "sequences of MDC_ECG_LEAD_"),
        (series(sequence("I", "1 2"), code="REPRESENTATIVE_BEAT"), "one rhythm series"),
    ],
)
def test_what_is_wrong_is_said(read, body, message):
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        read(document(body))


def test_two_rhythm_series_are_not_chosen_between(read):
    one = series(sequence("I", "1 2"))
    with pytest.raises(ValueError, match="got 2 sets"):
        read(document(one, extra=f"<component>{one}</component>"))
