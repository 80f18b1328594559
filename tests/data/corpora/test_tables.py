import pytest

from ecg_transformers.data.corpora import CORPORA
from ecg_transformers.data.corpora.brugada_huca import BRUGADA_HUCA
from ecg_transformers.data.corpora.tables import check_unique, index_rows, number, truth
from ecg_transformers.data.corpus import SPLITS, IndexEntry

NAMES = "brugada-huca cinc2017 code-15 ludb mimic-iv-ecg mit-bih nstdb sami-trop sph".split()


def entry_of(row):
    return IndexEntry(row["name"], row["name"]) if float(row["value"]) else None


def index(tmp_path, text):
    table = tmp_path / "table.csv"
    table.write_text(text)
    return index_rows(table, BRUGADA_HUCA, ("name", "value"), entry_of)


def test_rows_that_name_no_record_are_counted_but_left_out(tmp_path):
    entries, num_rows = index(tmp_path, "name,value\na,1\nb,0\nc,1\n")
    assert [entry.record_id for entry in entries] == ["a", "c"] and num_rows == 3


def test_row_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match="row 2 .name b. cannot be read: ValueError: could not convert"):
        index(tmp_path, "name,value\na,1\nb,x\n")


def test_short_row_is_named(tmp_path):
    with pytest.raises(ValueError, match="row 1 .name a. cannot be read"):
        index(tmp_path, "name,value\na\n")


def test_record_that_comes_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="row 2 .*'a' comes twice"):
        index(tmp_path, "name,value\na,1\na,1\n")


def test_missing_columns_are_named_with_those_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"no columns \['value'\]. It has \['name'\]"):
        index(tmp_path, "name\na\n")


def test_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"name,value\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match="no CSV table in UTF-8"):
        index_rows(tmp_path / "table.csv", BRUGADA_HUCA, ("name", "value"), entry_of)


def test_cells_become_values_and_empty_ones_unknown():
    assert [truth(cell) for cell in ("True", "0", " 1.0", "")] == [True, False, True, None]
    assert (number("2.5"), number(" ")) == (2.5, None)
    with pytest.raises(ValueError, match="got 'yes'"):
        truth("yes")


def test_two_copies_of_a_record_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the record 'a' twice"):
        check_unique(["a", "b", "a"], tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_corpus_declares_source_licence_citation_and_splits(name):
    corpus = CORPORA[name]
    assert corpus.name == name and corpus.homepage.startswith("https://") and corpus.licence
    assert "doi:10." in corpus.citation
    assert corpus.splits and set(corpus.splits) <= set(SPLITS)


@pytest.mark.parametrize("name", NAMES)
def test_empty_folder_is_refused_with_the_source(name, tmp_path):
    corpus = CORPORA[name]
    with pytest.raises(ValueError, match=corpus.homepage):
        corpus.index(tmp_path, corpus.complete_options({}))


@pytest.mark.parametrize("text", ["", " ", "nan", "NaN", "NA", "null", "None", "<NA>"])
def test_a_missing_cell_is_neither_number_nor_truth(text):
    assert number(text) is None and truth(text) is None
