"""Notebooks that teach have one shape, and each number that their prose quotes stands in an output."""

import base64

import nbformat
import pytest
from nbformat.v4 import new_code_cell as code
from nbformat.v4 import new_markdown_cell as text
from nbformat.v4 import new_output as shown
from page_shape import paragraphs, prose, quoted, shape

from mmsa_lib.paths import project_root

ROOT = project_root()
BOOKS = {path.stem: nbformat.read(path, as_version=4) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
# A page is written anew once it has this; those without are older.
TAUGHT = [name for name, book in BOOKS.items() if any("In short" in cell.source for cell in book.cells[:3])]


@pytest.mark.parametrize("name", TAUGHT)
def test_a_page_has_the_shape_of_a_lesson(name):
    found = shape(name, BOOKS[name])
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", TAUGHT)
def test_what_prose_quotes_stands_in_an_output(name):
    found = list(prose(BOOKS[name], ROOT))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "map_of_pages",
    [BOOKS["00_start_here"].cells[0].source, (ROOT / "README.md").read_text("utf-8")],
    ids=["00", "README"],
)
def test_every_page_stands_on_the_map(map_of_pages):
    assert [name for name in BOOKS if f"{name}.ipynb)" not in map_of_pages and name != "00_start_here"] == []


# --- The checks see each breach ---------------------------------------------------------------------------------------


OPENED = 'open_page(globals(), "companion")\nfrom companion import claims\n'


def lesson():
    """A small page of the right shape."""
    answers = "\n".join("<details><summary>Why?</summary>Because.</details>" for _ in range(3))
    parameters = code('profile: str = "smoke"\nseed: int = 1', metadata={"tags": ["parameters"]})
    numbers = [shown("stream", name="stdout", text="error 0.8364 of 1,234, 71.2 %")]
    cells = [
        text("# A method\n\n**In short.** It works?"), parameters, text("Setup."),
        code(f'{OPENED}described_run(profile="smoke", seed=1)\ndraw(hrlf())'), text("One part."),
        code("def loss(x):\n    return x", outputs=numbers), text("The error is 0.84."), text("More."),
        code('claims.told("hrlf")'), text(f"## Try it\n\n{answers}"), text("## Limits"),
        code("provenance(Config)"), text("## References\n\n[one](https://arxiv.org/abs/1)"),
    ]  # fmt: skip
    return nbformat.v4.new_notebook(cells=cells)


def test_a_lesson_has_no_breach():
    assert shape("02_a", lesson()) == []
    assert list(prose(lesson(), ROOT)) == []


def picture(width, **metadata):
    head = b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IHDR" + width.to_bytes(4, "big") + bytes(4)
    data = {"image/png": base64.b64encode(head).decode()}
    return shown("display_data", data, metadata={"image/png": metadata})


def sets(place, source):
    return lambda cells: cells[place].update(source=source)


@pytest.mark.parametrize(
    ("breach", "expected"),
    [
        (sets(0, "# A method?"), "no section or cell: In short"),
        (sets(3, f'{OPENED}described_run(profile="smoke")'), "draw"),
        (sets(8, "1"), "claims.told"),
        (sets(11, "1"), "provenance"),
        (sets(9, "## Try it"), "0 hidden answers"),
        (sets(12, "## References\n\nA paper."), "no link"),
        (lambda cells: cells.append(cells.pop(9)), "'Limits' (cell 9)"),
        (lambda cells: cells.extend(text("a") for _ in range(30)), "43 cells"),
        (lambda cells: cells.extend([code("1")] * 3), "Markdown cells for"),
        (sets(5, "def loss(x):\n" + "    x += 1\n" * 20), "defines in 21 lines"),
        (sets(5, 'Markdown(\n    f"All of this is one long sentence of {words}"\n)'), "compose sentences"),
        (sets(5, 'rcParams["figure.dpi"] = 72'), "sets figure.dpi"),
        (lambda cells: cells[5].outputs.append(picture(900)), "without alternative text"),
        (lambda cells: cells[5].outputs.append(picture(1200, alt="errors of all methods")), "1200 pixels"),
        (sets(3, "draw(hrlf())"), "no described_run"),
        (sets(3, "open_page(globals())\nfrom companion import claims"), "begin with open_page(globals(), 'companion')"),
        (sets(3, f"from companion import claims\n{OPENED}"), "begin with open_page(globals(), 'companion')"),
        (sets(3, "draw(hrlf())"), "begin with open_page(globals())"),
        (lambda cells: cells.insert(1, cells.pop(3)), "the first code cell"),
        (sets(3, 'described_run(profile="smoke", seed=2)\ndraw(hrlf())'), "the parameter is 1"),
    ],
)
def test_each_breach_of_shape_is_seen(breach, expected):
    book = lesson()
    breach(book.cells)
    found = shape("02_a", book)
    assert any(expected in line for line in found), found


@pytest.mark.parametrize(
    "words",
    [
        "It is 0.84, or 0.836, of 1234.",
        "It is 1,234 (71 %, or 71.2 points).",
        "See section 12, equations (13) and (14), table 20 and Acc-20, in 2024, `x = 99`, $y = 77$.",
        "In notebook 08, arXiv:2401.12345, DOI 10.1145/3652583.3658004, [link](https://a.org/55), E11.",
        "Sections 11-14 take 30 minutes; 3 of 9 seeds differ; a 95 % interval; printed as 84.1/86.2; issue 19.",
        "| a | 55 |\n|---|---|\n| b | 0.77 |",
        "As in data/results/rows.csv, it is 0.91.",
    ],
)
def test_what_may_be_written(words, tmp_path):
    (tmp_path / "data" / "results").mkdir(parents=True)
    (tmp_path / "data" / "results" / "rows.csv").write_text("run,value\n0a1,0.9112\n")
    book = lesson()
    book.cells[6].source = words
    assert list(prose(book, tmp_path)) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("It is 0.85.", "0.85 stands in no output"),
        ("It is 0.8365.", "0.8365 stands in no output"),
        ("It is 72 %.", "72 % stands in no output"),
        ("It falls by -0.3.", "-0.3 stands in no output"),
        ("After 25 epochs.", "25 stands in no output"),
        ("<details><summary>Why?</summary>It is 0.5.</details>", "0.5 stands in no output"),
        ("0.84, 0.84, 0.84 and 0.84.", "4 numbers in one paragraph"),
    ],
)
def test_what_may_not_be_written(words, expected):
    book = lesson()
    book.cells[6].source = words
    (line,) = prose(book, ROOT)
    assert expected in line
    assert "cell 6" in line


def test_numbers_are_counted_by_paragraph_and_item():
    words = "0.1 and 0.2\n\n- 0.3 and 0.4\n- 0.5\n\n1. 0.6 of 12,000\n2. 0.7"
    counts = [[value for _, value, *_ in quoted(part)] for part in paragraphs(words)]
    assert counts == [[0.1, 0.2], [0.3, 0.4], [0.5], [0.6, 12000], [0.7]]
