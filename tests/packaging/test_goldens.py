"""What a user sees of the commands is what `freeze_goldens.py` froze: words, files, keys, and numbers where it can be.

After a change that is meant to be seen, `python tests/packaging/freeze_goldens.py` freezes anew: read the difference
that git then shows. On the machine that froze them, `--check` compares letter by letter.
"""

import pytest

from . import freeze_goldens
from .freeze_goldens import RUNS, PageText, differences_beyond_the_cpu, exact_differences, read_goldens, run_all

# Measured: with SSE 4 in the place of AVX-512 (in torch, oneDNN, OpenBLAS and numpy) no word changed and no number by
# more than 0.012, that of a p-value; scores moved by 0.001, an end of an interval by 0.005.
TOLERANCE = 0.02
BYTES = 400_000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return run_all(tmp_path_factory.mktemp("work"))


def of(run: str, goldens: dict[str, str]) -> dict[str, str]:
    return {path: text for path, text in goldens.items() if path.startswith(f"{run}/")}


@pytest.mark.slow
@pytest.mark.parametrize("run", [run.name for run in RUNS])
def test_a_user_sees_what_was_frozen(made, run):
    differences = list(differences_beyond_the_cpu(of(run, read_goldens()), of(run, made), TOLERANCE))
    assert not differences, "\n".join(differences[:50])


def test_the_goldens_are_small_and_of_every_run():
    goldens = read_goldens()
    assert sum(len(text.encode()) for text in goldens.values()) < BYTES
    assert {path.split("/")[0] for path in goldens} == {run.name for run in RUNS}


def test_the_goldens_name_no_place_and_no_version():
    for path, text in read_goldens().items():
        for word in ("/tmp/", "/home/", "/root/", "127.0.0.1", "site-packages", "+cpu", "x86_64"):
            assert word not in text, (path, word)


def test_another_number_is_no_difference_in_prose_and_one_in_json_beyond_the_tolerance():
    frozen = {"a/card.md": "AUROC 0.754\n", "a/report.json": '{"auroc": 0.754, "n": 64, "name": "fold 10"}'}
    moved = {"a/card.md": "AUROC 0.76\n", "a/report.json": '{"auroc": 0.760, "n": 64, "name": "fold 10"}'}
    assert not list(differences_beyond_the_cpu(frozen, moved, 0.02))
    assert list(differences_beyond_the_cpu(frozen, moved, 0.001)) == ["a/report.json: /auroc was 0.754 and is 0.76"]
    assert len(exact_differences(frozen, moved)) == 2 * 5


@pytest.mark.parametrize(
    "change",
    [
        {"a/card.md": "AUPRC 0.754\n"},
        {"a/files.txt": "metrics-2.json\n"},
        {"a/report.json": '{"auroc": 0.754, "n": 65}'},
        {"a/report.json": '{"auroc": 0.754}'},
        {"a/report.json": '{"auroc": null, "n": 64}'},
        {"a/digests.json": '{"page.html: ROC": "1"}'},
        {"a/new.md": ""},
    ],
)
def test_other_words_files_keys_counts_and_pictures_are_differences(change):
    frozen = {"a/card.md": "AUROC 0.754\n", "a/files.txt": "metrics-1.json\n"}
    frozen |= {"a/report.json": '{"auroc": 0.754, "n": 64}', "a/digests.json": '{"page.html: bars": "1"}'}
    assert list(differences_beyond_the_cpu(frozen, frozen | change, 0.02))


def test_a_page_becomes_a_line_a_block_and_a_picture_its_description():
    page = PageText()
    page.feed(
        "<style>p {}</style><h1>Title</h1><p>One\n <b>two</b></p><dl><dt>Seed</dt><dd>0</dd></dl><table><tr><th>a</th>"
        "<td>0.1<small>0 to 1</small></td></tr></table><pre>x\ny</pre><img src='data:1' alt='Bars'><svg>no</svg>"
    )
    assert page.text() == "Title\nOne two\nSeed: 0\n| a | 0.1 0 to 1\nx\ny\n[picture: Bars]\n"
    assert page.pictures == [("Bars", "data:1")]


def test_where_nothing_changed_the_check_says_so(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(freeze_goldens, "GOLDENS", tmp_path)
    monkeypatch.setattr(freeze_goldens, "run_all", lambda work: {"a/b.md": "text\n"})
    assert freeze_goldens.main([]) == 0 and freeze_goldens.main(["--check"]) == 0
    monkeypatch.setattr(freeze_goldens, "run_all", lambda work: {"a/c.md": "text\n"})
    assert freeze_goldens.main(["--check"]) == 1
    assert freeze_goldens.main([]) == 0 and freeze_goldens.read_goldens() == {"a/c.md": "text\n"}
