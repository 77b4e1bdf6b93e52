"""One notebook open in JupyterLab, seen as a reader sees it: what is drawn, what is not, what went wrong."""

import contextlib
import re
import runpy
from urllib.parse import quote

from jupyterlab_session import STARTED, wait_until

from mmsa_lib.paths import project_root

lacks_extra = runpy.run_path(str(project_root() / "notebooks" / "conftest.py"))["lacks_extra"]

# Facts about every cell of the page, in order. A picture counts when it has pixels, a formula when MathJax drew it.
FACTS = """
const one = cell => {
  const all = (where, what) => [...where.querySelectorAll(what)];
  const shown = all(cell, '.jp-RenderedMarkdown, .jp-RenderedHTML, .jp-RenderedLatex').filter(
    e => !e.parentElement.closest('.jp-RenderedMarkdown, .jp-RenderedHTML'));
  const images = all(cell, '.jp-OutputArea-output img, .jp-MarkdownOutput img');
  const prose = shown.map(e => {
    const kept = node => node.nodeType === Node.TEXT_NODE ? NodeFilter.FILTER_ACCEPT
      : node.matches('code, pre, mjx-container') ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_SKIP;
    const walker = document.createTreeWalker(e, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT, kept);
    let text = '';
    while (walker.nextNode()) text += walker.currentNode.data;
    return text;
  }).join('\\n');
  const prompt = cell.querySelector('.jp-InputPrompt');
  return {
    code: cell.classList.contains('jp-CodeCell'),
    empty: !cell.querySelector('.cm-content')?.textContent.trim(),
    prompt: prompt ? prompt.textContent.trim() : '',
    images: images.length,
    broken: images.filter(i => !(i.complete && i.naturalWidth > 0 && i.clientWidth > 0)).map(i => i.alt || 'an output'),
    tables: all(cell, '.jp-RenderedHTMLCommon table, .jp-RenderedHTML table').filter(
      t => t.rows.length > 1 && t.clientWidth > 0).length,
    formulas: all(cell, 'mjx-container').filter(m => m.getBoundingClientRect().width > 0).length,
    bad: all(cell, 'mjx-merror, [data-mjx-error]').map(
      m => m.dataset.mjxError || m.getAttribute('title') || m.textContent),
    raw: prose.match(/\\$[^\\n]{0,60}/g) || [],
    errors: all(cell, '[data-mime-type$="jupyter.error"], [data-mime-type$="jupyter.stderr"]').map(
      e => e.textContent.trim().split('\\n').pop()),
  };
};
return {
  cells: [...document.querySelectorAll('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell')].map(one),
  dialog: document.querySelector('.jp-Dialog')?.textContent || '',
  kernel: document.querySelector(
    '.jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook-ExecutionIndicator')?.dataset.status || '',
};
"""
FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$]+?\$", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)
PIPES = re.compile(r"^\s*\|?[\s:|-]*-[\s:|-]*\|[\s:|-]*$", re.MULTILINE)  # the line below a table's head


def expected(cell):
    """Pictures, tables and formulas that ``cell`` of a notebook file must show."""
    texts = [cell.source] if cell.cell_type == "markdown" else []
    images = html_tables = 0
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        # JupyterLab shows the richest form only, in this order.
        if "text/html" in data:
            html_tables += data["text/html"].count("<table")
        elif "text/markdown" in data:
            texts.append(data["text/markdown"])
        elif "image/svg+xml" in data or "image/png" in data:
            images += 1
    prose = [CODE.sub("", text) for text in texts]
    return {
        "images": images + sum(len(re.findall(r"!\[[^]]*\]\(|<img ", text)) for text in prose),
        "tables": html_tables + sum(len(PIPES.findall(text)) for text in prose),
        "formulas": sum(len(FORMULA.findall(text)) for text in prose),
    }


class NotebookPage:
    """The notebook at ``path``, below the root of ``server``, opened in ``driver``.

    Args:
        driver: the browser.
        server: the running JupyterLab.
        path: the notebook, relative to the server's root.
        notebook: its content.
        patience: seconds that pictures and formulas have to be drawn.
    """

    def __init__(self, driver, server, path, notebook, patience=15):
        self.driver, self.patience = driver, patience
        driver.get_log("browser")  # what an earlier page said is forgotten
        driver.get(f"{server.url}lab/tree/{quote(path)}?reset&token={server.token}")
        wait_until(lambda: self.facts()["kernel"] == "idle", STARTED, f"{path} to open with an idle kernel")
        self.cells, self.expected = notebook.cells, [expected(cell) for cell in notebook.cells]
        self._settle()

    def facts(self):
        """What the page shows now; see ``FACTS``."""
        return self.driver.execute_script(FACTS)

    def _drawn(self, facts):
        cells = facts["cells"]
        return len(cells) == len(self.expected) and not any(
            cell["broken"] or cell["formulas"] < wanted["formulas"]
            for cell, wanted in zip(cells, self.expected, strict=True)
        )

    def _settle(self):
        """Wait for pictures and formulas; what is not drawn in time is for :meth:`problems` to report."""
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self._drawn(self.facts()), self.patience, "pictures and formulas")

    def choose(self, menu, command):
        """Click an entry of the menu bar."""
        self.driver.find_element(
            "xpath", f"//li[contains(@class, 'lm-MenuBar-item')][normalize-space()='{menu}']"
        ).click()
        entry = f".lm-Menu-item[data-command='{command}']"
        wait_until(lambda: self.driver.find_elements("css selector", entry), 10, f"{menu} > {command}")[0].click()

    def run_all(self, seconds):
        """Clear every output, run all cells, wait until none is left to run or one has failed."""
        self.choose("Edit", "editmenu:clear-all")
        wait_until(lambda: not any(cell["images"] for cell in self._code(self.facts())), 10, "cleared outputs")
        self.choose("Run", "runmenu:run-all")
        wait_until(self._finished, seconds, "all cells to have run")
        for cell, wanted in zip(self.cells, self.expected, strict=True):
            if lacks_extra(cell):
                wanted.update(dict.fromkeys(wanted, 0))  # it says what is missing instead
        self._settle()

    @staticmethod
    def _code(facts):
        return [cell for cell in facts["cells"] if cell["code"] and not cell["empty"]]

    def _finished(self):
        facts = self.facts()
        cells = self._code(facts)
        waiting = [cell for cell in cells if not re.fullmatch(r"\[\d+\]:", cell["prompt"])]
        failed = any(cell["errors"] for cell in cells) and not any("*" in cell["prompt"] for cell in waiting)
        return facts["kernel"] == "idle" and (failed or not waiting)

    def problems(self):
        """Everything that a reader would stumble over, one line each, cells counted from 1."""
        facts = self.facts()
        found = [f"a dialog is open: {facts['dialog']}"] if facts["dialog"] else []
        if len(facts["cells"]) != len(self.expected):
            return [*found, f"{len(facts['cells'])} of {len(self.expected)} cells are on the page"]
        for number, (cell, wanted) in enumerate(zip(facts["cells"], self.expected, strict=True), 1):
            found += [f"cell {number}: {line}" for line in _problems_of(cell, wanted)]
        severe = {line["message"]: None for line in self.driver.get_log("browser") if line["level"] == "SEVERE"}
        return found + [f"console: {line}" for line in severe]

    def screenshot(self, path):
        """Save a picture of the notebook from its top, as much as fits into the longest one Chromium makes."""
        height = self.driver.execute_script(
            "const all = [...document.querySelectorAll('.jp-WindowedPanel-outer')];"
            "all.forEach(each => { each.scrollTop = 0; });"
            "return Math.max(...all.map(each => each.scrollHeight));"
        )
        size = self.driver.get_window_size()
        self.driver.set_window_size(size["width"], min(height + 200, 16_000))
        self.driver.save_screenshot(str(path))
        self.driver.set_window_size(size["width"], size["height"])


def _problems_of(cell, wanted):
    if cell["code"] and not cell["empty"] and not re.fullmatch(r"\[\d+\]:", cell["prompt"]):
        yield f"not executed, its prompt is {cell['prompt'] or 'empty'}"
    for kind, number in wanted.items():
        if cell[kind] != number:
            yield f"{cell[kind]} {kind} drawn of {number}"
    yield from (f"picture not loaded: {name}" for name in cell["broken"])
    yield from (f"formula with an error: {message}" for message in cell["bad"])
    yield from (f"formula not drawn: {text}" for text in cell["raw"])
    yield from (f"error output: {line}" for line in cell["errors"])
