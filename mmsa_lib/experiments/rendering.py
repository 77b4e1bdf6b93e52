"""A table as text, HTML, LaTeX and Markdown: the same bytes for the same cells, wherever printed."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from mmsa_lib.experiments.results import rounded

GREY = "color:#767676"


class Mark(StrEnum):
    """What is special about a cell; the value is its sign in plain text."""

    NONE = ""
    BEST = "*"
    SECOND = "_"


@dataclass(frozen=True)
class Line:
    """One line of a block: its cells, their marks (none, if left out), and whether it stands back in grey."""

    cells: tuple[str, ...]
    marks: tuple[Mark, ...] = ()
    grey: bool = False

    def marked(self) -> list[tuple[str, Mark]]:
        """Each cell with its mark."""
        return list(zip(self.cells, self.marks or (Mark.NONE,) * len(self.cells), strict=True))


@dataclass(frozen=True)
class Block:
    """A table of its own: title, header, lines and notes. ``printed`` ones are small, slanted and grey throughout."""

    title: str
    header: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    printed: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Blocks that print themselves, one below the other, and the numbers behind them.

    Attributes:
        blocks: what is printed, from top to bottom.
        frame: the numbers; what papers print is not among them.
        undefined: labels of class metrics that no row defines: the labels of the samples hold one class alone.
    """

    blocks: tuple[Block, ...]
    frame: pd.DataFrame
    undefined: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What the first block shows."""
        return self.blocks[0].title

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines of the first block."""
        return self.blocks[0].lines

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be said below the first block."""
        return self.blocks[0].notes

    @property
    def published(self) -> tuple[Block, ...]:
        """Numbers of papers, in blocks of their own."""
        return tuple(block for block in self.blocks if block.printed)

    def __repr__(self) -> str:
        return "\n\n".join(_text(block) for block in self.blocks)

    def _repr_html_(self) -> str:
        return "".join(_html(block) for block in self.blocks)

    def to_html(self, *, document: bool = False) -> str:
        """As HTML without identifiers or style sheets; as a whole page for a file of its own."""
        head = '<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>Results</title>\n'
        return f"{head if document else ''}{self._repr_html_()}\n"

    def to_latex(self) -> str:
        """As LaTeX for ``booktabs`` and ``xcolor``, one ``table`` per block."""
        return "% \\usepackage{booktabs, xcolor}\n" + "\n".join(_latex(block) for block in self.blocks)

    def to_markdown(self) -> str:
        """As Markdown tables (GitHub's)."""
        return "\n\n".join(_markdown(block) for block in self.blocks) + "\n"

    def to_csv(self) -> str:
        """The numbers, rounded."""
        return rounded(self.frame).to_csv(index=False, lineterminator="\n")

    def to(self, form: str) -> str:
        """As a file of one of the :data:`FORMS` holds it."""
        makers = {
            "text": lambda: f"{self!r}\n", "csv": self.to_csv, "latex": self.to_latex, "markdown": self.to_markdown,
            "html": lambda: self.to_html(document=True),
        }  # fmt: skip
        return makers[form]()


def _text(block: Block) -> str:
    lines = [block.header, *([f"{mark}{cell}" for cell, mark in line.marked()] for line in block.lines)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(block.header))]
    texts = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    rule = "-" * sum([*widths, 2 * (len(widths) - 1)])
    marks = {mark for line in block.lines for mark in line.marks}
    meanings = {Mark.BEST: f"{Mark.BEST} best mean", Mark.SECOND: f"{Mark.SECOND} second best"}
    legend = ", ".join(words for mark, words in meanings.items() if mark in marks)
    return "\n".join([block.title, texts[0], rule, *texts[1:], *filter(None, [legend]), *block.notes])


def _html(block: Block) -> str:
    # Viewers that drop styles (GitHub's) keep bold, underlined, small and slanted text.
    def words(text: str) -> str:
        return f"<small><i>{html.escape(text)}</i></small>" if block.printed else html.escape(text)

    def row(tag: str, cells: Sequence[str], grey: bool) -> str:
        style = f' style="{GREY}"' if grey else ""
        return f"<tr{style}>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"

    tags = {Mark.NONE: "{}", Mark.BEST: "<b>{}</b>", Mark.SECOND: "<u>{}</u>"}
    head = row("th", [words(name) for name in block.header], block.printed)
    rows = "".join(
        row("td", [tags[mark].format(words(cell)) for cell, mark in line.marked()], line.grey or block.printed)
        for line in block.lines
    )
    span = len(block.header)
    notes = "".join(f'<tr><td colspan="{span}"><small>{html.escape(note)}</small></td></tr>' for note in block.notes)
    foot = f"<tfoot>{notes}</tfoot>" if notes else ""
    return f"<table><caption>{words(block.title)}</caption><thead>{head}</thead><tbody>{rows}</tbody>{foot}</table>"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "↑": r"$\uparrow$",
    "↓": r"$\downarrow$", "±": r"$\pm$", "–": "--", "−": "$-$", "…": r"\dots{}", "≥": r"$\geq$", "≤": r"$\leq$",
    "→": r"$\to$", "×": r"$\times$",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """``text`` so that LaTeX prints it as it is."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _latex(block: Block) -> str:
    def line(cells: Sequence[str], grey: bool = False) -> str:
        return " & ".join(rf"\textcolor{{gray}}{{{cell}}}" if grey else cell for cell in cells) + r" \\"

    tags = {Mark.NONE: "{}", Mark.BEST: r"\textbf{{{}}}", Mark.SECOND: r"\underline{{{}}}"}
    rows = [line([tags[m].format(escape_latex(c)) for c, m in one.marked()], one.grey) for one in block.lines]
    notes = [rf"\par\footnotesize {escape_latex(note)}" for note in block.notes]
    style = [r"\footnotesize\itshape\color{gray}"] if block.printed else []
    return "\n".join(
        [
            r"\begin{table}", *style, r"\centering", rf"\caption{{{escape_latex(block.title)}}}",
            rf"\begin{{tabular}}{{{'l' * len(block.header)}}}", r"\toprule",
            line([escape_latex(name) for name in block.header]), r"\midrule", *rows, r"\bottomrule", r"\end{tabular}",
            *notes, r"\end{table}", "",
        ]
    )  # fmt: skip


def _markdown(block: Block) -> str:
    def words(text: str) -> str:
        escaped = re.sub(r"([\\`*_|\[\]])", r"\\\1", html.escape(text, quote=False))
        return f"<small>*{escaped}*</small>" if block.printed and text else escaped

    tags = {Mark.NONE: "{}", Mark.BEST: "**{}**", Mark.SECOND: "<ins>{}</ins>"}
    rows = [[tags[mark].format(words(cell)) for cell, mark in line.marked()] for line in block.lines]
    lines = [[words(name) for name in block.header], ["---"] * len(block.header), *rows]
    table = ["| " + " | ".join(line) + " |" for line in lines]
    notes = [part for note in block.notes for part in ("", f"<small>{words(note)}</small>")]
    return "\n".join([words(block.title), "", *table, *notes])
