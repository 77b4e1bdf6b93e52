"""The look that all figures share, from ``mmsa.mplstyle`` beside this file."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE_FILE = Path(__file__).with_name("mmsa.mplstyle")


@contextmanager
def style() -> Iterator[None]:
    """Draw in the project's style within a ``with`` block, whatever the user's matplotlib settings are."""
    import matplotlib

    with matplotlib.rc_context():
        # Settings that the style leaves open would otherwise come from the user's matplotlibrc.
        backend = matplotlib.rcParams["backend"]
        matplotlib.rcdefaults()
        matplotlib.rcParams["backend"] = backend
        matplotlib.rcParams.update(_parameters())
        yield


def use_style() -> None:
    """Set the project's style for the whole session; the first cell of a notebook calls this.

    In a notebook, figures that a cell returns are shown in it from here on, with :func:`alternative_text`.
    """
    import matplotlib

    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if hasattr(shell, "kernel"):
        shell.run_line_magic("matplotlib", "inline")
        _describe_pictures(shell)
    matplotlib.rcParams.update(_parameters())


def alternative_text(figure: Figure) -> str:
    """What a reader who cannot see ``figure`` is told: its label (``figure.set_label``), or else its own words.

    These are its title, and for each panel title, axes, named lines and legend.
    """
    if label := figure.get_label():
        return str(label)
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    parts = {
        "": [figure.get_suptitle()],
        "panels": [axes.get_title() for axes in panels],
        "horizontal": [axes.get_xlabel() for axes in panels],
        "vertical": [axes.get_ylabel() for axes in panels],
        "legend": [text.get_text() for legend in legends if legend for text in legend.get_texts()],
        "lines": [label.get_text() for axes in panels for label in axes.get_yticklabels()],
        "boxes": [text.get_text() for axes in panels if not axes.axison for text in axes.texts],  # of a diagram
    }
    if all(re.fullmatch(r"[−\d.,]*|.*mathdefault.*", label) for label in parts["lines"]):
        parts["lines"] = []  # the ticks of a scale
    said = {part: ", ".join(filter(None, dict.fromkeys(words))) for part, words in parts.items()}
    told = [f"{part}: {words}".removeprefix(": ") for part, words in said.items() if words]
    return " ".join("; ".join(["Figure", *told]).replace("$", "").split())


def _describe_pictures(shell: Any) -> None:
    """Give pictures of figures their alternative text, as metadata of the output, which pages made of it show."""
    from matplotlib.figure import Figure

    png = shell.display_formatter.formatters["image/png"]
    draw = png.lookup_by_type(Figure)

    def described(figure: Figure) -> tuple[Any, dict[str, str]]:
        picture = draw(figure)
        picture, known = picture if isinstance(picture, tuple) else (picture, {})
        return picture, {**known, "alt": alternative_text(figure)}

    png.for_type(Figure, described)


def _parameters() -> dict:
    import matplotlib

    return matplotlib.rc_params_from_file(STYLE_FILE, use_default_template=False)
