import logging

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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,value\na,1\nb,x\n", "row 2 .name b. cannot be read: ValueError: could not convert"),
        ("name,value\na\n", "row 1 .name a. cannot be read"),
        ("name,value\na,1\na,1\n", "row 2 .*'a' comes twice"),
        ("name\na\n", r"no columns \['value'\]. It has \['name'\]"),
    ],
    ids=["no number", "short row", "record twice", "column missing"],
)
def test_a_table_that_cannot_be_read_is_refused_with_the_place(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        index(tmp_path, text)


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


@pytest.mark.parametrize(
    ("name", "folder", "words"),
    [
        ("brugada-huca", "brugada-huca", "it holds 10 records of the 363 in its table, the corpus has 363"),
        ("chapman-shaoxing", "cinc2021", "it holds 19 records, the corpus has 10247"),
        ("cinc2017", "cinc2017", "it holds 100 records of the 300 in its table, the corpus has 8528"),
        ("ludb", "ludb", "it holds 150 records of the 200 in its table, the corpus has 200"),
        ("ptb-xl", "ptb-xl", "it lists 500 records, the corpus has 21799"),
        ("sami-trop", "sami-trop", "it holds 5 records, the corpus has 1631"),
    ],
)
def test_a_partial_copy_is_said_to_be_one(shared_data_dir, caplog, name, folder, words):
    corpus = CORPORA[name]
    with caplog.at_level(logging.WARNING):
        corpus.index(shared_data_dir / folder, corpus.complete_options({}))
    assert words in caplog.text
