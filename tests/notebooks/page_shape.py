"""What is checked in a notebook that teaches: its sections, its cells, and the numbers of its prose."""

import ast
import base64
import itertools
import re

from page_definitions import DEFINITIONS

MOST_CELLS, MOST_LINES, MOST_NUMBERS = 40, 20, 3
RATIO = (1.1, 2.0)  # Markdown cells per code cell
MOST_SENTENCES = 0.1  # share of code lines that only compose sentences
WIDEST = 1060  # pixels of a picture: the width of a page
METHODS = ("02_", "03_", "04_", "05_")  # notebooks of one paper each
WHERE = "where values come from, provenance(…)"

# --- Sections and cells ---------------------------------------------------------------------------------------------


def shape(name, notebook):
    """Every breach of the shape of a notebook, one line each; cells are counted from 0."""
    return [
        *_sections(name, notebook),
        *_cells(notebook),
        *_opened(notebook),
        *_pictures(notebook),
        *_run(notebook),
    ]


def _sections(name, notebook):
    prose = [cell.source if cell.cell_type == "markdown" else "" for cell in notebook.cells]
    code = [cell.source if cell.cell_type == "code" else "" for cell in notebook.cells]
    wanted = {"In short": _first(prose, r"\bIn short\b")}
    if name.startswith(METHODS):
        wanted["a drawn architecture, draw(…)"] = _first(code, r"\bdraw\(")
        wanted["the claims, claims.told(…)"] = _first(code, r"\bclaims\.told\(")
        wanted[WHERE] = _first(code, r"\bprovenance\(")
    wanted["Try it"] = _first(prose, r"^#+ .*\bTry it\b")
    wanted["Limits"] = _first(prose, r"^#+ .*\bLimits\b")
    wanted["References"] = _first(prose, r"^(#+ .*)?\**References\b")
    yield from (f"no section or cell: {what}" for what, place in wanted.items() if place is None)
    places = [(what, place) for what, place in wanted.items() if place is not None and what != WHERE]
    for (before, first), (after, second) in itertools.pairwise(places):
        if first > second:
            yield f"'{before}' (cell {first}) must come before '{after}' (cell {second})"
    if (place := wanted["In short"]) is not None and place > 1:
        yield f"'In short' stands in cell {place}; the reader needs it in the first or second"
    answers = "\n".join(prose).count("<details")
    if answers < 3:
        yield f"{answers} hidden answers (<details>); three questions of 'Try it' have one each"
    if (place := wanted["References"]) is not None and not re.search(
        r"\]\(https?://|<https?://", "\n".join(prose[place:])
    ):
        yield "references have no link"


def _first(texts, pattern):
    return next((i for i, text in enumerate(texts) if re.search(pattern, text, re.MULTILINE | re.IGNORECASE)), None)


def _cells(notebook):
    kinds = [cell.cell_type for cell in notebook.cells]
    count, code = len(kinds), kinds.count("code")
    if count > MOST_CELLS:
        yield f"{count} cells; at most {MOST_CELLS}"
    ratio = (count - code) / code
    if not RATIO[0] <= ratio <= RATIO[1]:
        yield f"{count - code} Markdown cells for {code} code cells, {ratio:.2f} each; {RATIO[0]} to {RATIO[1]}"
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and any(isinstance(node, DEFINITIONS) for node in _tree(cell).body):
            lines = len([line for line in cell.source.splitlines() if line.strip()])
            if lines > MOST_LINES:
                yield f"cell {number} defines in {lines} lines; at most {MOST_LINES}: {cell.source.splitlines()[0]}"
    share, longest = sentence_share(notebook)
    if share > MOST_SENTENCES:
        yield f"{share:.0%} of code lines only compose sentences, most of them in cell {longest}: write Markdown"


def _pictures(notebook):
    """Each is as wide as the page at most, in which 9 points stay 9 points, and is told in words."""
    for number, cell in enumerate(notebook.cells):
        if "figure.dpi" in cell.source:
            yield f"cell {number} sets figure.dpi: pictures have that of the style"
        for output in cell.get("outputs", ()):
            picture = output.get("data", {}).get("image/png")
            if not picture:
                continue
            width = int.from_bytes(base64.b64decode(picture[:32])[16:20], "big")
            if width > WIDEST:
                yield f"cell {number}: a picture of {width} pixels; at most {WIDEST}, or its texts shrink"
            if len(output.metadata.get("image/png", {}).get("alt", "")) < 20:
                yield f"cell {number}: a picture without alternative text; figure.set_label(…)"


def _tree(cell):
    try:
        return ast.parse(cell.source)
    except SyntaxError:
        return ast.Module([], [])


def sentence_share(notebook):
    """Share of the code lines in statements that print or show a text that they compose; the cell with most."""
    every, own = 0, {}
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            every += len([line for line in cell.source.splitlines() if line.strip()])
            spans = [node.end_lineno - node.lineno + 1 for node in _tree(cell).body if _composes(node)]
            own[number] = sum(spans)
    return sum(own.values()) / max(every, 1), max(own, key=own.get, default=0)


def _composes(node):
    """Whether a statement is ``Markdown(…)``, ``print(…)`` or ``display(Markdown(…))`` of words."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return False
    calls = [ast.unparse(part.func) for part in ast.walk(node) if isinstance(part, ast.Call)]
    if calls[0] not in ("Markdown", "print", "display") or (calls[0] == "display" and "Markdown" not in calls):
        return False
    texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return len(" ".join(texts).split()) >= 6  # a name beside a number is a label


def _opened(notebook):
    """The cell after the parameters must call ``open_page``, before it imports the companion, and tell it of that."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [place for place, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", [])]
    if tagged != [0]:
        yield "the parameters must be the first code cell"
    lines = [node for cell in code[1:] for node in _tree(cell).body]
    uses = [place for place, node in enumerate(lines) if re.match(r"(from|import) companion\b", ast.unparse(node))]
    calls = {ast.unparse(node): place for place, node in enumerate(lines[:9]) if "open_page(" in ast.unparse(node)}
    wanted = "open_page(globals(), 'companion')" if uses else "open_page(globals())"
    if calls.get(wanted, 9) > min([*uses, 8]):
        yield f"the cell after the parameters must begin with {wanted}"


def _run(notebook):
    """``described_run`` must be told the values of the parameters cell."""
    defaults, told = {}, None
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            lines = [node for node in _tree(cell).body if isinstance(node, ast.AnnAssign)]
            defaults = {node.target.id: ast.literal_eval(node.value) for node in lines}
        if cell.cell_type == "code":
            for node in ast.walk(_tree(cell)):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("described_run"):
                    told = {word.arg: ast.literal_eval(word.value) for word in node.keywords}
    if told is None:
        yield "no described_run(…) after the parameters: whose run does the text describe?"
        return
    if "profile" not in told:
        yield "described_run(…) is not told of profile"
    for name, value in told.items():
        if name not in defaults or defaults[name] != value:
            yield f"described_run({name}={value!r}), but the parameter is {defaults.get(name, 'not there')!r}"


# --- Numbers of the prose -------------------------------------------------------------------------------------------

# What is no quoted result: code, formulas, addresses, names of sections and the like, identifiers, years, lists.
NOT_QUOTED = [
    r"```.*?```",
    r"`[^`\n]*`",
    r"\$\$.+?\$\$",
    r"\$[^$]+?\$",
    r"\]\([^)]*\)",
    r"<[^>]+>",
    r"https?://\S+",
    r"\b10\.\d{4,}/\S+",
    r"\barXiv[: ]\S+",
    r"\b\d{4}\.\d{4,5}(v\d+)?\b",
    r"\b9[59]\s?%\s+(confidence\s+)?(interval|band|limit)",
    r"(?i)\b(sections?|sec\.|equations?|eqs?\.|tables?|figures?|figs?\.|notebooks?|cells?|pages?|pp?\.|steps?|lines?|"
    r"chapters?|appendix|issues?|questions?|seeds?|version|python|§+)\s*\(?\d[\d.]*\)?((\s*(,|and|to|or|[-–])\s*)\(?\d[\d.]*\)?)*",
    r"\(\d+[a-z]?\)(\s*[-–]\s*\(\d+\))?",
    r"^\s*(#+\s*)?\d+[.)]\s",
    r"\b(1[89]|20)\d\d\b",
    r"\b\d[\d.]*\s*(minutes?|min|seconds?|s|hours?|GB|GiB|MB|MiB|kB|cores?|px|pt)\b",
]
# No letter, digit or hyphen with a word before it: Acc-7, E1, MOSI-2 are names.
NUMBER = re.compile(
    r"(?<![\w.,/])(?<!\w[-–])[-+−]?(\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?(\s?%|\s+points?\b)?(?![\w/]|\.\d)"
)
FOUND = re.compile(r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")
SMALL = 10  # whole numbers below it are counts that a reader sees for himself
FILE = re.compile(r"(?:data/(?:results|published)/)?\b[\w/-]+\.(?:csv|json)\b")


def paragraphs(source):
    """Paragraphs and list items of a Markdown text, without tables; the text as written, without what is no prose."""
    text = source
    for pattern in NOT_QUOTED[:1]:
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+[.)])\s)|(?=<details|</summary>)", text):
        lines = [line for line in block.splitlines() if not line.lstrip().startswith(("|", "#"))]
        if any(line.strip() for line in lines):
            yield "\n".join(lines)


def quoted(paragraph):
    """Numbers that a paragraph quotes: text, value, decimals, whether a percentage."""
    text = paragraph
    for pattern in NOT_QUOTED:
        text = re.sub(pattern, " # ", text, flags=re.DOTALL | re.MULTILINE)
    for match in NUMBER.finditer(text):
        digits = match.group(1).replace(",", "")
        decimals, percent = len(digits.partition(".")[2]), bool(match.group(2))
        if decimals or percent or float(digits) >= SMALL:
            yield match.group().strip(), abs(_number(match.group())), decimals, percent


def _number(text):
    return float(re.sub(r"[,%\s+]|points?", "", text).replace("−", "-"))


def numbers_of(text):
    """Absolute values in an output or a file."""
    return {abs(_number(match.group())) for match in FOUND.finditer(re.sub(r"<[^>]*>", " ", text))}


def shown(notebook):
    """Absolute values in the outputs of a notebook."""
    texts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            texts += [output.get("text", "")] + [data.get(f"text/{kind}", "") for kind in ("plain", "html", "markdown")]
    return set().union(*map(numbers_of, texts))


def settings(notebook):
    """Absolute values of the literals in the code: a setting may be quoted too, but not rounded."""
    trees = [_tree(cell) for cell in notebook.cells if cell.cell_type == "code"]
    found = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {abs(float(value)) for value in found if type(value) in (int, float)}


def stands(value, decimals, percent, known):
    """Whether ``value`` is one of the ``known`` numbers, rounded."""
    near = 0.5 * 10**-decimals * (1 + 1e-9)
    scales = (1, 100) if percent else (1,)
    return any(abs(scale * other - value) <= near + 1e-12 for other in known for scale in scales)


def prose(notebook, root):
    """Numbers of the prose that stand in no output, and paragraphs with more than three numbers, one line each.

    Args:
        notebook: with its outputs.
        root: of the checkout, for the result files that a paragraph names.
    """
    outputs, literals = shown(notebook), settings(notebook)
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        for paragraph in paragraphs(cell.source):
            found = list(quoted(paragraph))
            start = " ".join(paragraph.split())[:50]
            if len(found) > MOST_NUMBERS:
                told = ", ".join(text for text, *_ in found)
                yield f"cell {number}: {len(found)} numbers in one paragraph ({told}): '{start}…'"
            known = outputs | _files(paragraph, root)
            for text, value, decimals, percent in found:
                if value not in literals and not stands(value, decimals, percent, known):
                    yield f"cell {number}: {text} stands in no output of the notebook: '{start}…'"


def _files(paragraph, root):
    known = set()
    for match in FILE.finditer(paragraph):
        name = match.group()
        for path in (root / name, root / "data" / "results" / name, root / "data" / "published" / name):
            if path.is_file():
                known |= numbers_of(path.read_text(encoding="utf-8").replace(",", " "))
                break
    return known
