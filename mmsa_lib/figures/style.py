"""The look that all figures share, from ``mmsa.mplstyle`` beside this file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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

    In a notebook, figures that a cell returns are shown in it from here on.
    """
    import matplotlib

    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if hasattr(shell, "kernel"):
        shell.run_line_magic("matplotlib", "inline")
    matplotlib.rcParams.update(_parameters())


def _parameters() -> dict:
    import matplotlib

    return matplotlib.rc_params_from_file(STYLE_FILE, use_default_template=False)
