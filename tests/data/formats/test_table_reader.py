import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecg_transformers.data import EcgRecord
from ecg_transformers.data.formats.array_reader import ArrayDeclaration
from ecg_transformers.data.formats.parquet_reader import holds_stored_rows, read_lead_columns, read_stored_rows
from ecg_transformers.data.formats.table_reader import read_csv

DECLARED = ArrayDeclaration(sampling_rate=500, unit="mV")


@pytest.fixture
def read(tmp_path):
    def read(text, declared=DECLARED, **options):
        path = tmp_path / "a.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_csv(path, declared, "r1", **options)

    return read


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_header_line_names_the_leads(read, delimiter):
    record = read("I,aVR\n0.5,-1e-3\n1,2\n".replace(",", delimiter))
    assert record.leads == ("I", "aVR") and record.sampling_rate == 500 and record.unit == "mV"
    assert record.signal == pytest.approx(np.array([[0.5, 1], [-1e-3, 2]]))


def test_tables_without_a_header_line_need_the_leads(read):
    declared = ArrayDeclaration(leads=["I", "II"], sampling_rate=500, unit="uV", axes="sample,lead")
    assert read("1,2\n3,4\n", declared).signal.tolist() == [[1, 3], [2, 4]]
    with pytest.raises(ValueError, match=r"does not say its \['leads'\]"):
        read("1,2\n3,4\n")
    with pytest.raises(ValueError, match="3 columns and no line of names, but 2 leads"):
        read("1,2,3\n", declared)


def test_marks_of_spreadsheets_are_understood(read):
    assert read('\ufeff"I","II"\r\n"1","2"\r\n\r\n3,4\r\n').signal.tolist() == [[1, 3], [2, 4]]


def test_empty_cells_and_nan_are_missing_samples(read):
    signal = read("I,II\n1,\nNaN,2\n").signal
    assert np.isnan(signal).tolist() == [[False, True], [True, False]]


def test_columns_that_are_no_leads_are_not_taken_for_one(read):
    with pytest.raises(ValueError, match=r"columns \['counter'\] are no known leads"):
        read("counter,I\n0,1\n")
    declared = ArrayDeclaration(leads=["I"], sampling_rate=500, unit="mV")
    assert read("time,I\n7,1\n", declared).signal.tolist() == [[1]]
    assert read("ch 1,I\n7,1\n", rename_leads={"ch 1": "V1"}).leads == ("V1", "I")


def test_wanted_leads_come_in_the_order_asked_for(read):
    declared = ArrayDeclaration(leads=["V1", "I"], sampling_rate=500, unit="mV")
    assert read("I,II,v1\n1,2,3\n", declared).signal.tolist() == [[3], [1]]
    with pytest.raises(ValueError, match=r"leads \['V1'\] are not among its channels I, II"):
        read("I,II\n1,2\n", declared)
    declared = ArrayDeclaration(leads=[1, 3], sampling_rate=500, unit="mV")  # by position
    assert read("ECG,ECG,II,II\n1,2,3,4\n", declared).signal.tolist() == [[2], [4]]


def test_a_step_is_what_one_is_worth(read):
    declared = ArrayDeclaration(sampling_rate=500, unit="mV", step=0.005)
    assert read("I\n200\n", declared).signal == pytest.approx(np.array([[1.0]]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("I;II\n0,5;1\n0.5;1,5\n", "line 3: expected one decimal mark"),
        ("I;II\n1.234,5;1\n", "line 2: '1.234,5' is no number"),
        ("I,II\n1,2\n3,x\n", "line 3: 'x' is no number"),
        ("I,II\n1,2\n3\n", "line 3: expected 2 values, got 1"),
        ("I,II\n1,2,3\n", "line 2: expected 2 values, got 3"),
        ("I\ninf\n", "line 2: infinite"),
        ("I,II\n", "declares the shape"),
        ("", "is empty"),
        ("I,I\n1,2\n", "different name"),
        (b"I\n\xff\xfe1\n", "no table of text"),
        (b"I\n" + b"1" * 200_000 + b"x\n", "line 2: .* is no number"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


def test_rate_and_unit_are_asked_for_and_axes_that_do_not_fit_refused(read):
    with pytest.raises(ValueError, match=r"\['unit', 'sampling_rate'\]"):
        read("I\n1\n", ArrayDeclaration())
    with pytest.raises(ValueError, match=r"\['sampling_rate'\]"):
        read("I\n1\n", ArrayDeclaration(unit="mV"))
    with pytest.raises(ValueError, match="a line for each sample"):
        read("I\n1\n", ArrayDeclaration(sampling_rate=1, unit="mV", axes="lead,sample"))


NONE = ArrayDeclaration()
MILLIVOLTS = ArrayDeclaration(unit="mV")


def table_of_times(times, name, sign=","):
    lines = [f"{time}{sign}{number % 7}" for number, time in enumerate(times)]
    return "\n".join([f"{name}{sign}II", *lines])


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("time", [number / 500 for number in range(400)]),
        ("Time (ms)", [2 * number for number in range(400)]),
        ("timestamp", [1617354720000 + 2 * number for number in range(400)]),
        ("sensor timestamp [ns]", [599616000000000000 + 2_000_000 * number for number in range(400)]),
        ("time_us", [2000 * number for number in range(400)]),
        ("Timestamp", [f"2021-04-02T09:12:{number // 500:02d}.{number % 500 * 2:03d}Z" for number in range(700)]),
        ("t", [f"9:12:{number // 500:02d}.{number % 500 * 2:03d}" for number in range(700)]),
    ],
)
def test_a_column_of_times_gives_the_rate(read, name, times):
    record = read(table_of_times(times, name), MILLIVOLTS)
    assert record.sampling_rate == 500 and record.leads == ("II",) and "follow from the column" in record.notes[-1]


def test_times_rounded_to_milliseconds_give_the_mean_rate(read):
    times = [round(number / 0.13) for number in range(2000)]
    assert read(table_of_times(times, "time [ms]"), MILLIVOLTS).sampling_rate == 130


def test_a_gap_in_the_times_is_refused_unless_a_rate_is_declared(read):
    text = table_of_times([number / 500 + (number > 300) for number in range(400)], "time")
    with pytest.raises(ValueError, match="1 gaps or steps back, the first after sample 300.*sampling_rate="):
        read(text, MILLIVOLTS)
    record = read(text, DECLARED)
    assert record.sampling_rate == 500 and "the declared rate counts" in record.notes[-1]
    with pytest.raises(ValueError, match="gives 250 Hz, not 500 Hz"):
        read(table_of_times([number / 250 for number in range(400)], "time"), DECLARED)


def test_a_unit_in_brackets_counts_and_columns_not_chosen_are_not_parsed(read):
    text = "phone;note;ecg [uV]\nx;hello, world;100\ny;;-50\n"
    record = read(text, ArrayDeclaration(leads=["ecg [uV]"], sampling_rate=130))
    assert record.unit == "uV" and record.leads == ("ecg",) and record.signal.tolist() == [[100, -50]]
    with pytest.raises(ValueError, match="states the unit 'uV', not 'mV'"):
        read(text, ArrayDeclaration(leads=["ecg [uV]"], sampling_rate=130, unit="mV"))


@pytest.mark.parametrize("sign", [";", "\t"])
def test_decimal_commas_are_read_where_no_comma_separates(read, sign):
    text = "time;I;II\n0,000;0,5;-1,25e-1\n0,002;1;,5\n0,004;;2\n".replace(";", sign)
    record = read(text, MILLIVOLTS)
    assert record.sampling_rate == 500
    assert record.signal[:, :2].tolist() == [[0.5, 1], [-0.125, 0.5]] and np.isnan(record.signal[0, 2])


def test_blanks_and_signs_at_the_end_of_lines_separate(read):
    declared = ArrayDeclaration(leads=["I", "II"], sampling_rate=500, unit="mV")
    assert read(" 1  2\n 3 4\n", declared).signal.tolist() == [[1, 3], [2, 4]]
    assert read("1;2;\n3;4;\n", declared).signal.tolist() == [[1, 3], [2, 4]]


def test_lines_before_the_table_are_left_out_by_number(read):
    text = "A report, of today\nby somebody\n\nI,II\n1,2\n"
    with pytest.raises(ValueError, match="skip_lines="):
        read(text)
    assert read(text, skip_lines=2).signal.tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("rate", "unit", "lead", "values"),
    [
        ("Sample Rate,512 hertz", "Unit,µV", "Lead,Lead I", ["0.5", "-12.25", "100"]),
        ("Messrate,512 Hertz", "Einheit,µV", "Ableitung,Ableitung I", ["0,5", "-12,25", "100"]),
        ("采样率,512赫兹", "单位,µV", "导联,导联I", ["0.5", "-12.25", "100"]),
    ],
)
def test_the_head_of_an_apple_export_states_rate_and_unit_in_any_language(read, rate, unit, lead, values):
    head = ["Name,Test I", "Recorded Date,2000-01-01 12:00:00 +0000", 'Device,"Watch6,1"', "Symptoms,", rate]
    text = "\n".join([*head, "", "", lead, unit, "", *values])
    record = read(text, NONE)
    assert record.sampling_rate == 512 and record.unit == "µV" and record.leads[0] in ("I", "ECG")
    assert record.signal.tolist() == [[0.5, -12.25, 100]]
    with pytest.raises(ValueError, match="states the sampling_rate 512.0, not 500"):
        read(text, DECLARED)


def test_the_json_of_opensignals_names_columns_and_rate(read):
    device = {"sensor": ["ECG"], "column": ["nSeq", "I1", "A2"], "label": ["A2"], "sampling rate": 1000}
    text = f'# OpenSignals Text File Format. Version 1\n# {{"00:07": {json.dumps(device)}}}\n# EndOfHeader\n'
    text += "".join(f"{n % 16}\t0\t{500 + n}\t\n" for n in range(20))
    record = read(text, ArrayDeclaration(leads=["ECG"], unit="mV", step=0.01))
    assert record.sampling_rate == 1000 and record.signal[0, :2] == pytest.approx([5, 5.01])


def test_the_head_of_biosppy_names_rate_and_columns(read):
    text = "# Simple Text Format\n# Sampling Rate (Hz):= 1000.00\n# Resolution:= 12\n# Labels:= ECG\n1.5e+00\n2\n"
    record = read(text, MILLIVOLTS)
    assert (record.sampling_rate, record.leads, record.signal.tolist()) == (1000, ("ECG",), [[1.5, 2]])


def test_parquet_times_give_the_rate(tmp_path):
    clock = np.datetime64("2021-04-02T09:00:00", "ns") + np.arange(50) * np.timedelta64(4, "ms")
    path = write_table(tmp_path / "a.parquet", time=clock, II=np.arange(50.0))
    assert read_lead_columns(path, MILLIVOLTS, "r1").sampling_rate == 250


def write_table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_columns_are_leads(tmp_path):
    path = write_table(tmp_path / "a.parquet", counter=[0, 1], I=[0.5, None], V1=[1.0, 2.0])
    declared = ArrayDeclaration(leads=["V1", "I"], sampling_rate=500, unit="mV")
    record = read_lead_columns(path, declared, "r1")
    assert record.signal[0].tolist() == [1, 2] and record.signal[1, 0] == 0.5 and np.isnan(record.signal[1, 1])
    with pytest.raises(ValueError, match=r"columns \['counter'\]"):
        read_lead_columns(path, DECLARED, "r1")


def test_parquet_columns_of_whole_numbers_need_a_step(tmp_path):
    path = write_table(tmp_path / "a.parquet", I=pa.array([1, 2], pa.int16()), II=pa.array([3, 4], pa.int16()))
    with pytest.raises(ValueError, match="pass step"):
        read_lead_columns(path, DECLARED, "r1")
    record = read_lead_columns(path, ArrayDeclaration(sampling_rate=500, unit="mV", step=0.01), "r1")
    assert record.signal.dtype == np.int16 and record.signal.tolist() == [[1, 2], [3, 4]]
    path = write_table(tmp_path / "a.parquet", I=pa.array([100, None], pa.int16()))
    with pytest.raises(ValueError, match="pass step"):
        read_lead_columns(path, DECLARED, "r1")
    signal = read_lead_columns(path, ArrayDeclaration(sampling_rate=500, unit="mV", step=0.01), "r1").signal
    assert signal[0, 0] == 1 and np.isnan(signal[0, 1])


@pytest.mark.parametrize("column", [["a", "b"], [True, False], [[1.0], [2.0]]])
def test_parquet_columns_that_hold_no_numbers_are_refused(tmp_path, column):
    with pytest.raises(ValueError, match="columns of numbers|damaged"):
        read_lead_columns(write_table(tmp_path / "a.parquet", I=column), DECLARED, "r1")


def stored_rows(count=20):
    signal = np.arange(60, dtype=np.int16).reshape(2, 30)
    return [
        EcgRecord(f"r{i}", signal + i, ["I", "II"], 500, gain=[0.005, 0.005], patient_id=f"p{i}", labels=["NORM"])
        for i in range(count)
    ]


def test_stored_rows_come_back_as_they_were(tmp_path):
    records = stored_rows()
    pq.write_table(pa.Table.from_pylist([record.to_row() for record in records]), tmp_path / "a.parquet")
    assert holds_stored_rows(tmp_path / "a.parquet")
    found = list(read_stored_rows(tmp_path / "a.parquet"))
    assert [record.to_row() for record in found] == [record.to_row() for record in records]


def test_damaged_rows_and_files_are_a_value_error(tmp_path):
    row = stored_rows(1)[0].to_row()
    row["ecg"]["signal"] = row["ecg"]["signal"][:-1]
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="row 'r0' is damaged"):
        list(read_stored_rows(tmp_path / "a.parquet"))
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-10])
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        holds_stored_rows(tmp_path / "b.parquet")
