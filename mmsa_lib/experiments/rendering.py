"""Blocks of text cells as text, HTML, LaTeX and Markdown: the same bytes for the same cells, wherever printed."""

from __future__ import annotations

import html
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

GREY = "color:#767676"


class Mark(StrEnum):
    """What is special about a cell; the value is its sign in plain text."""

    NONE = ""
    BEST = "*"
    SECOND = "_"


LEGEND = f"{Mark.BEST} best mean"
LEGEND_SECOND = f"{Mark.BEST} best mean, {Mark.SECOND} second best"


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

    def legend(self) -> str:
        """What the marks of plain text mean; empty without any."""
        marks = {mark for line in self.lines for _, mark in line.marked()}
        return LEGEND_SECOND if Mark.SECOND in marks else LEGEND if Mark.BEST in marks else ""


class Printable(ABC):
    """A table that prints itself; subclasses give its :meth:`blocks`."""

    @abstractmethod
    def blocks(self) -> tuple[Block, ...]:
        """What is printed, from top to bottom."""

    def __repr__(self) -> str:
        return "\n\n".join(_text(block) for block in self.blocks())

    def _repr_html_(self) -> str:
        return "".join(_html(block) for block in self.blocks())

    def to_html(self, *, document: bool = False) -> str:
        """As HTML without identifiers or style sheets; as a whole page for a file of its own."""
        body = self._repr_html_() + "\n"
        return (
            f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>Results</title>\n{body}'
            if document
            else body
        )

    def to_latex(self) -> str:
        """As LaTeX for ``booktabs`` and ``xcolor``, one ``table`` per block."""
        return "% \\usepackage{booktabs, xcolor}\n" + "\n".join(_latex(block) for block in self.blocks())

    def to_markdown(self) -> str:
        """As Markdown tables (GitHub's)."""
        return "\n\n".join(_markdown(block) for block in self.blocks()) + "\n"


def _text(block: Block) -> str:
    lines = [block.header, *([f"{mark}{cell}" for cell, mark in line.marked()] for line in block.lines)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(block.header))]
    texts = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    rule = "-" * sum([*widths, 2 * (len(widths) - 1)])
    return "\n".join([block.title, texts[0], rule, *texts[1:], *filter(None, [block.legend()]), *block.notes])


def _html(block: Block) -> str:
    # Viewers that drop styles (GitHub's) keep bold, underlined, small and slanted text.
    def words(text: str) -> str:
        return f"<small><i>{html.escape(text)}</i></small>" if block.printed else html.escape(text)

    tags = {Mark.NONE: "{}", Mark.BEST: "<b>{}</b>", Mark.SECOND: "<u>{}</u>"}
    style = f' style="{GREY}"'
    head = "".join(f"<th>{words(name)}</th>" for name in block.header)
    rows = [
        f"<tr{style if line.grey or block.printed else ''}>"
        + "".join(f"<td>{tags[mark].format(words(cell))}</td>" for cell, mark in line.marked())
        + "</tr>"
        for line in block.lines
    ]
    notes = "".join(
        f'<tr><td colspan="{len(block.header)}"><small>{html.escape(note)}</small></td></tr>' for note in block.notes
    )
    return (
        f"<table><caption>{words(block.title)}</caption>"
        f"<thead><tr{style if block.printed else ''}>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
        f"{f'<tfoot>{notes}</tfoot>' if notes else ''}</table>"
    )


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
