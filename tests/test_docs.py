"""Pages that are cited or linked to are in the repository, and so are the terms of the glossary."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
PAGES = [name for name in TRACKED if name.endswith(".md")]
CITING = [
    name for name in TRACKED if name.endswith((".py", ".yaml", ".ipynb", ".toml", ".md")) and "test_docs" not in name
]


def text_of(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".ipynb"):  # outputs may cite what they ran
        return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return re.sub(r"```.*?```", "", text, flags=re.S) if name.endswith(".md") else text


@pytest.mark.parametrize("name", PAGES)
def test_relative_links_resolve(name):
    links = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text_of(name))
    broken = [link for link in links if "://" not in link and not ((ROOT / name).parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("name", CITING)
def test_cited_pages_exist(name):
    cited = set(
        re.findall(
            r"(?<![\w./@-])((?:(?:docs|data|figures|notebooks|benchmarks)/)?(?:methods/)?[\w-]+\.md)\b", text_of(name)
        )
    )
    own = (ROOT / name).parent
    assert not [page for page in cited if not (ROOT / page).exists() and not (own / page).exists()]


@pytest.mark.parametrize("name", CITING)
def test_no_document_is_cited_that_a_reader_lacks(name):
    assert not re.findall(r"(?<!kernel )\bspecification\b", text_of(name))


def anchor(term):
    """The anchor that GitHub and Sphinx give a heading."""
    return re.sub(r"[^\w -]", "", term.lower()).replace(" ", "-")


TERMS = [anchor(term) for term in re.findall(r"^## (.+)$", text_of("docs/glossary.md"), flags=re.M)]


def test_the_glossary_is_in_order():
    assert len(set(TERMS)) == len(TERMS)
    plain = [term.replace("-", " ") for term in TERMS]
    assert plain == sorted(plain)


@pytest.mark.parametrize("name", [name for name in TRACKED if name.endswith((".md", ".ipynb"))])
def test_links_to_terms_arrive(name):
    linked = re.findall(r"glossary\.md#([^)\s\"'>]+)", text_of(name))
    if name == "docs/glossary.md":
        linked += re.findall(r"\(#([^)\s]+)\)", text_of(name))
    assert not set(linked) - set(TERMS)
