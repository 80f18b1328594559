import pytest

from ecg_transformers.data.formats import limits, safe_xml
from ecg_transformers.data.formats.patient import age_between
from ecg_transformers.data.formats.safe_xml import parse_xml, read_xml, root_name

BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<RestingECG>&c;</RestingECG>"""


def test_namespaces_utf_16_and_the_name_of_a_document_type_are_read():
    root = parse_xml(b'<p:a xmlns:p="urn:x" xmlns:s="urn:y" s:type="T"><p:b>1</p:b></p:a>')
    assert root.tag == "a" and root.get("type") == "T" and root.findtext("b") == "1"
    assert parse_xml('<?xml version="1.0" encoding="utf-16"?><a>µV</a>'.encode("utf-16")).text == "µV"
    assert parse_xml(b'<!DOCTYPE RestingECG SYSTEM "restecg.dtd"><RestingECG>1</RestingECG>').text == "1"


@pytest.mark.parametrize(
    "content",
    [
        BOMB,
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        b'<!DOCTYPE a [<!ENTITY % p SYSTEM "http://localhost/p.dtd"> %p;]><a/>',
        b'<!DOCTYPE a SYSTEM "a.dtd"><a>&undeclared;</a>',
    ],
    ids=["bomb", "external file", "parameter entity", "entity of an external type"],
)
def test_entities_are_refused(content, tmp_path):
    with pytest.raises(ValueError, match="entities"):
        parse_xml(content)
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="entities"):
        read_xml(path, "a")


def test_depth_number_of_elements_and_size_are_bounded(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="levels"):
        parse_xml(b"<a>" * 65 + b"</a>" * 65)
    monkeypatch.setattr(safe_xml, "MAX_ELEMENTS", 10)
    with pytest.raises(ValueError, match="10 elements"):
        parse_xml(b"<a>" + b"<b/>" * 10 + b"</a>")
    monkeypatch.setattr(safe_xml, "MAX_TEXT_BYTES", 8)
    (tmp_path / "a.xml").write_bytes(b"<a>123456</a>")
    with pytest.raises(ValueError, match="larger than 8 bytes"):
        read_xml(tmp_path / "a.xml", "a")


@pytest.mark.parametrize("content", [b"", b"<a>", b"<a></b>", b"text", b"<a>\xff</a>"])
def test_what_is_no_xml_is_a_value_error(content):
    with pytest.raises(ValueError, match="no well-formed XML"):
        parse_xml(content)


def test_the_root_is_named_without_reading_the_rest(tmp_path):
    path = tmp_path / "a.xml"
    path.write_bytes(b'<x:a xmlns:x="urn:x"><b>' + b"1 " * 10**6)
    assert root_name(path) == "a"
    with pytest.raises(ValueError, match="expected the root element 'b', got 'a'|no well-formed XML"):
        read_xml(path, "b")
    path.write_bytes(b"I,II\n1,2\n")
    assert root_name(path) is None


def test_ages_are_whole_years_and_nothing_is_made_of_a_date_that_is_none():
    assert age_between("19760101", "20081223194446.000") == 32
    assert age_between("1976-12-24", "2008-12-23") == 31
    assert age_between("1976", "20081223") is None
    assert age_between("20081223", "1976-12-24") is None


def test_bounds_are_what_a_day_of_twelve_leads_needs():
    assert limits.MAX_VALUES >= 12 * 1000 * 24 * 3600
    with pytest.raises(ValueError, match="declares the shape"):
        limits.check_num_values("f", (2**16, 2**16))
    with pytest.raises(ValueError, match="declares the shape"):
        limits.check_num_values("f", (0, 10))
