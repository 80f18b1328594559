"""README and docs lead to each other."""

import re
import shlex
from pathlib import Path

import pytest

from ecg_transformers.train.cli import build_parser
from ecg_transformers.train.settings import parse_flags, read_config, split_settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")


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
    notebooks = {path.name for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    assert notebooks == set(re.findall(r"\]\(docs/notebooks/(\w+\.ipynb)", README))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_has_the_flags_that_there_are(page):
    text = page.read_text(encoding="utf-8").replace("$SLURM_ARRAY_TASK_ID", "3")
    commands = re.findall(r"^ecg-transformers ((?:.*\\\n)*.*)", text, flags=re.MULTILINE)
    for command in (command for command in commands if not re.search(r"\||\.\.\.", command)):  # those are calls
        args, rest = build_parser().parse_known_args(shlex.split(command.replace("\\\n", " "), comments=True))
        if args.command == "pretrain":
            split_settings(read_config(args.config) | parse_flags(rest))
        else:
            assert not rest or args.command == "compare", command


def test_the_pictures_are_small():
    pictures = sorted((ROOT / "docs").glob("*.png"))
    assert len(pictures) >= 2 and all(picture.stat().st_size <= 300_000 for picture in pictures)
