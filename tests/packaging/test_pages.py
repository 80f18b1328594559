"""README and docs lead to each other, and say how many methods, presets and corpora there are."""

import re
from importlib import resources
from pathlib import Path

import pytest

from ecg_transformers import modeling
from ecg_transformers.data.corpora import CORPORA
from ecg_transformers.modeling.method import method_of
from ecg_transformers.train.settings import PRESETS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")
METHODS = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if "://" not in target:
            path, _, heading = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), target
            assert not heading or heading in anchors(file), target


def test_the_readme_leads_to_every_page():
    linked = set(re.findall(r"\]\(docs/(\w+\.md)", README))
    assert linked == {page.name for page in PAGES[2:]}


def test_readme_and_methods_name_every_preset():
    presets = {file.name.removesuffix(".yaml") for file in resources.files(PRESETS).iterdir() if ".yaml" in file.name}
    rows = re.findall(r"^\| .* \| (`.*?`.*?) \| `\w+`", METHODS, flags=re.MULTILINE)
    assert presets == {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    in_readme = re.findall(r"^\| .* \| (`.*`.*) \|$", README, flags=re.MULTILINE)
    named = {name for row in in_readme for name in re.findall(r"`(\w+)`", row)}
    each_too = {f"{name}_cpu" for name in ("st_mem", "mtae", "mlae")}
    assert (named | each_too) - {"_cpu"} == presets


def test_the_methods_page_names_every_class_for_pretraining():
    assert {name for name in modeling.__all__ if name.endswith("ForPreTraining")} == set(
        re.findall(r"`(\w+ForPreTraining)`", METHODS)
    )


def test_the_methods_page_says_when_to_use_each_as_its_configuration_does():
    configs = [getattr(modeling, f"{method}Config")() for method in modeling.METHODS]
    page = " ".join(METHODS.split())
    for method in map(method_of, [*configs, modeling.EcgJepaConfig(mask_type="segments")]):
        assert f"**{method.name}**: {method.use_when}" in page


def test_the_readme_counts_the_corpora():
    published = set(CORPORA) - {"ptb-xl-sample", "wfdb", "npy", "ecgfolder"}
    assert f"{len(published)} published corpora" in README


def test_the_pictures_are_small():
    pictures = sorted((ROOT / "docs").glob("*.png"))
    assert len(pictures) >= 2 and all(picture.stat().st_size <= 300_000 for picture in pictures)
