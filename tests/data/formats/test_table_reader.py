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
    with pytest.raises(ValueError, match="3 columns, but 2 leads"):
        read("1,2,3\n", declared)


def test_marks_of_spreadsheets_are_understood(read):
    assert read('\ufeff"I","II"\r\n"1","2"\r\n\r\n3,4\r\n').signal.tolist() == [[1, 3], [2, 4]]


def test_empty_cells_and_nan_are_missing_samples(read):
    signal = read("I,II\n1,\nNaN,2\n").signal
    assert np.isnan(signal).tolist() == [[False, True], [True, False]]


def test_columns_that_are_no_leads_are_not_taken_for_one(read):
    with pytest.raises(ValueError, match=r"columns \['time'\] are no known leads"):
        read("time,I\n0,1\n")
    declared = ArrayDeclaration(leads=["I"], sampling_rate=500, unit="mV")
    assert read("time,I\n7,1\n", declared).signal.tolist() == [[1]]
    assert read("ch 1,I\n7,1\n", rename_leads={"ch 1": "V1"}).leads == ("V1", "I")


def test_wanted_leads_come_in_the_order_asked_for(read):
    declared = ArrayDeclaration(leads=["V1", "I"], sampling_rate=500, unit="mV")
    assert read("I,II,v1\n1,2,3\n", declared).signal.tolist() == [[3], [1]]
    with pytest.raises(ValueError, match=r"leads \['V1'\] are not in"):
        read("I,II\n1,2\n", declared)


def test_a_step_is_what_one_is_worth(read):
    declared = ArrayDeclaration(sampling_rate=500, unit="mV", step=0.005)
    assert read("I\n200\n", declared).signal == pytest.approx(np.array([[1.0]]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("I;II\n0,5;1\n", "line 2: '0,5' is no number. Write decimals with a point"),
        ("I,II\n1,2\n3,x\n", "line 3: 'x' is no number"),
        ("I,II\n1,2\n3\n", "line 3: expected 2 values, got 1"),
        ("I,II\n1,2,3\n", "line 2: expected 2 values, got 3"),
        ("I\ninf\n", "line 2: infinite"),
        ("I,II\n", "declares the shape"),
        ("", "is empty"),
        ("I,I\n1,2\n", "different name"),
        (b"I\n\xff\xfe1\n", "no table of text"),
        (b"I\n" + b"1" * 200_000 + b"x\n", "no table of text"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


def test_rate_and_unit_are_asked_for_and_axes_that_do_not_fit_refused(read):
    with pytest.raises(ValueError, match=r"\['sampling_rate', 'unit'\]"):
        read("I\n1\n", ArrayDeclaration())
    with pytest.raises(ValueError, match="a line for each sample"):
        read("I\n1\n", ArrayDeclaration(sampling_rate=1, unit="mV", axes="lead,sample"))


def write_table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_columns_are_leads(tmp_path):
    path = write_table(tmp_path / "a.parquet", time=[0, 1], I=[0.5, None], V1=[1.0, 2.0])
    declared = ArrayDeclaration(leads=["V1", "I"], sampling_rate=500, unit="mV")
    record = read_lead_columns(path, declared, "r1")
    assert record.signal[0].tolist() == [1, 2] and record.signal[1, 0] == 0.5 and np.isnan(record.signal[1, 1])
    with pytest.raises(ValueError, match=r"columns \['time'\]"):
        read_lead_columns(path, DECLARED, "r1")


def test_parquet_columns_of_whole_numbers_need_a_step(tmp_path):
    path = write_table(tmp_path / "a.parquet", I=pa.array([1, 2], pa.int16()), II=pa.array([3, 4], pa.int16()))
    with pytest.raises(ValueError, match="pass step"):
        read_lead_columns(path, DECLARED, "r1")
    record = read_lead_columns(path, ArrayDeclaration(sampling_rate=500, unit="mV", step=0.01), "r1")
    assert record.signal.dtype == np.int16 and record.signal.tolist() == [[1, 2], [3, 4]]


def test_parquet_columns_of_whole_numbers_with_nulls_need_a_step_too(tmp_path):
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
