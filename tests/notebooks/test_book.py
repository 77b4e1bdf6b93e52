"""The site of `make book`, opened as files in a real browser: it shows all that the pages hold and fetches nothing.

Not part of a plain `pytest`: `make test-system` installs the browser and runs this.
"""

import os
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from filelock import FileLock
from jupyterlab_session import STARTED, browser, missing_programs, wait_until
from notebook_page import expected

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = "https://github.com/someone/companion"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing_programs()), reason=missing_programs() or "a browser is there"),
]

# A formula counts when MathJax drew it, a picture when it has pixels.
FACTS = """
const done = arguments[0];
const drawn = window.MathJax?.startup?.promise ?? Promise.resolve();
drawn.then(() => {
  const article = document.querySelector('article.bd-article') ?? document.body;
  const all = what => [...article.querySelectorAll(what)];
  const kept = node => node.nodeType === Node.TEXT_NODE ? NodeFilter.FILTER_ACCEPT
    : node.matches('code, pre, script, .sig, mjx-container') ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_SKIP;
  const texts = document.createTreeWalker(article, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT, kept);
  let text = '';
  while (texts.nextNode()) text += texts.currentNode.data;
  done({
    images: all('img').length,
    tables: all('table').length,
    formulas: all('mjx-container').length,
    undrawn: all('.math').filter(m => !m.querySelector('mjx-container')).map(m => m.textContent),
    bad: all('mjx-merror, [data-mjx-error]').map(m => m.dataset.mjxError || m.textContent),
    raw: text.match(/\\$[^\\n]{0,60}/g) || [],
    broken: [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.src),
    fetched: performance.getEntriesByType('resource').map(e => e.name).filter(name => name.startsWith('http')),
  });
}).catch(error => done({error: String(error)}));
"""


class Links(HTMLParser):
    """Places that a page offers to links, where its links go, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loaded = {""}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids |= {values[key] for key in ("id", "name") if values.get(key)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif tag in ("script", "img", "iframe", "source") and values.get("src"):
            self.loaded.append(values["src"])
        elif tag == "link" and values.get("rel") in ("stylesheet", "preload", "icon"):
            self.loaded.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site. Built once, also where several processes test: their folders have one parent."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with FileLock(folder / "book.lock"):
        if not (folder / "book" / "README.html").exists():
            command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "book", "-b", "html"]
            environment = {**os.environ, "BOOK_REPOSITORY": REPOSITORY, "PYTHONPATH": str(ROOT)}
            options = ["-d", folder / "doctrees", ".", folder / "book"]
            done = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    return folder / "book"


@pytest.fixture(scope="module")
def pages(site):
    """Every page by its path, with what it links to."""
    found = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    return {path: Links(path.read_text(encoding="utf-8")) for path in found}


def is_outside(link):
    return bool(urlsplit(link).scheme or urlsplit(link).netloc)


def test_every_page_loads_only_what_is_in_the_site(pages):
    found = {link for page in pages.values() for link in page.loaded if is_outside(link) and link[:5] != "data:"}
    assert found == set()
    missing = [
        f"{path}: {link}"
        for path, page in pages.items()
        for link in page.loaded
        if not is_outside(link) and not (path.parent / unquote(urlsplit(link).path)).is_file()
    ]
    assert missing == []


def test_every_link_inside_the_site_arrives(pages, site):
    broken = []
    for path, page in pages.items():
        for link in filter(lambda link: not is_outside(link), page.links):
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file() or (target in pages and unquote(parts.fragment) not in pages[target].ids):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def test_every_notebook_page_and_module_is_there(pages, site):
    for kind, folder in (("*.ipynb", "notebooks"), ("*.md", "docs"), ("*.md", "docs/methods")):
        for source in (ROOT / folder).glob(kind):
            assert site / folder / f"{source.stem}.html" in pages
    text = "".join(path.read_text(encoding="utf-8") for path in (site / "book" / "api").glob("*.html"))
    for module in (ROOT / "mmsa_lib").rglob("*.py"):
        name = ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if not name.startswith("mmsa_lib.cli") and not module.name.startswith("_"):
            assert f'id="module-{name}"' in text, name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_can_be_opened_from_its_page(pages, site, path):
    page = site / "notebooks" / f"{path.stem}.html"
    binder = f"https://mybinder.org/v2/gh/someone/companion/main?urlpath=lab/tree/notebooks/{path.name}"
    assert binder in pages[page].links
    (download,) = {link for link in pages[page].links if link.endswith(f"_sources/notebooks/{path.name}")}
    assert (page.parent / download).read_bytes() == path.read_bytes()


def test_without_an_address_nothing_is_invented(monkeypatch):
    monkeypatch.delenv("BOOK_REPOSITORY", raising=False)
    options = runpy.run_path(str(ROOT / "book" / "conf.py"))
    assert ("launch_buttons" in options["html_theme_options"]) == bool(options["REPOSITORY"])


def facts_of(driver, path):
    """What the page shows once it is there and its formulas are drawn; see ``FACTS``."""
    driver.get(path.as_uri())
    there = "return document.readyState === 'complete' && location.pathname"
    wait_until(lambda: driver.execute_script(there) == str(path), STARTED, str(path))
    facts = driver.execute_async_script(FACTS)
    assert "error" not in facts, (path, facts)
    return facts


def test_every_page_is_shown_whole_without_a_network(pages, site, tmp_path):
    problems = []
    with browser(tmp_path) as driver:
        for path in pages:
            if "http-equiv" in path.read_text(encoding="utf-8")[:200]:  # leads to the first page
                continue
            driver.get_log("browser")
            facts = facts_of(driver, path)
            name = path.relative_to(site)
            for kind in ("undrawn", "bad", "raw", "broken", "fetched"):
                problems += [f"{name}: {kind}: {what}" for what in facts[kind]]
            lines = driver.get_log("browser")
            problems += [f"{name}: console: {line['message']}" for line in lines if line["level"] == "SEVERE"]
            source = site / "_sources" / name.with_suffix(".ipynb")
            if source.is_file():
                cells = [expected(cell) for cell in nbformat.read(source, as_version=4).cells]
                wanted = {kind: sum(cell[kind] for cell in cells) for kind in ("images", "tables", "formulas")}
                problems += [f"{name}: {facts[kind]} {kind} of {n}" for kind, n in wanted.items() if facts[kind] != n]
    assert not problems, "\n".join(problems)


def test_a_word_is_found(site, tmp_path):
    with browser(tmp_path) as driver:
        driver.get(f"{(site / 'search.html').as_uri()}?q=covariance")
        found = wait_until(lambda: driver.find_elements("css selector", "#search-results li a"), STARTED, "results")
        assert any(re.search(r"notebooks/|docs/", link.get_attribute("href")) for link in found)
        assert [line for line in driver.get_log("browser") if line["level"] == "SEVERE"] == []
        driver.get((site / "index.html").as_uri())
        wait_until(lambda: driver.current_url.endswith("README.html"), STARTED, "the first page")
