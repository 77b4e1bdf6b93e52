"""The committed figures: which there are, from which tables each is drawn, redrawing them and checking them.

A figure is a function from tidy tables to a matplotlib ``Figure``, registered under its file name::

    @figure("learning_curves", sources=["data/results/history.csv"])
    def draw_learning_curves(history):
        return learning_curves(history)
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mmsa_lib.errors import ConfigError, DataError, unknown_name
from mmsa_lib.figures.save import DEFAULT_FORMATS, SUFFIXES, figures_folder, save
from mmsa_lib.figures.style import style
from mmsa_lib.paths import project_root

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Draw = TypeVar("Draw", bound=Callable[..., "Figure | tuple[Figure, pd.DataFrame]"])


class RegisteredFigure(NamedTuple):
    """A figure of ``figures/``; ``draw`` returns it, or the pair of it and the table of the numbers as drawn."""

    sources: tuple[str, ...]
    draw: Callable[..., Figure | tuple[Figure, pd.DataFrame]]
    title: str


CATALOGUES = "companion"
"""The folder of a checkout whose modules register its figures; it is no part of the library."""

FIGURES: dict[str, RegisteredFigure] = {}


def figure(name: str, sources: Sequence[str], title: str = "") -> Callable[[Draw], Draw]:
    """Register the decorated function as the figure ``name`` drawn from the CSV files ``sources``.

    Args:
        name: file name without suffix.
        sources: paths below the project folder, such as ``data/results/ablations.csv``. In their columns ``run_id`` and
            ``label`` an empty cell is an empty text.
        title: what it shows, by default the first line of the function's docstring.

    Raises:
        ConfigError: another function has this name.
    """

    def register(draw: Draw) -> Draw:
        known = FIGURES.get(name)
        if known is not None and (known.draw.__module__, known.draw.__name__) != (draw.__module__, draw.__name__):
            raise ConfigError(f"two figures are named {name!r}: {known.draw.__qualname__} and {draw.__qualname__}")
        words = title or (draw.__doc__ or "").split("\n")[0].replace("`", "")
        FIGURES[name] = RegisteredFigure(tuple(sources), draw, words)
        return draw

    return register


def load_figures() -> dict[str, RegisteredFigure]:
    """All registered figures by name, after importing every module of the checkout's ``companion/``.

    Raises:
        ConfigError: the library does not run from a checkout.
    """
    root = project_root()
    if root is None or not (root / CATALOGUES).is_dir():
        raise ConfigError(f"the figures are drawn by {CATALOGUES}/ of a checkout, and there is none; run from one")
    if str(root) not in sys.path:
        sys.path.append(str(root))
    for module in pkgutil.iter_modules([str(root / CATALOGUES)]):
        if not module.name.startswith("_"):
            importlib.import_module(f"{CATALOGUES}.{module.name}")
    return dict(sorted(FIGURES.items()))


def redraw(
    folder: Path | str | None = None,
    names: Iterable[str] | None = None,
    *,
    root: Path | str | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
) -> list[str]:
    """Draw figures anew from their tables; the names of those drawn.

    Args:
        folder: where to write, ``figures/`` of the checkout by default.
        names: which figures, all by default.
        root: the folder below which sources are looked for, the checkout by default.
        formats: of ``svg``, ``png`` and ``pdf``.

    Raises:
        UnknownNameError: a name that is not registered.
        DataError: a source is missing or no CSV file.
        ConfigError: no ``root`` and no checkout.
    """
    known = load_figures()
    chosen = list(known) if names is None else list(names)
    for name in chosen:
        if name not in known:
            raise unknown_name("figure", name, known)
    for name in chosen:
        paths = [Path(root or project_root()) / source for source in known[name].sources]
        tables = [read_source(path, name) for path in paths]
        with style():
            drawn = known[name].draw(*tables)
        picture, data = drawn if isinstance(drawn, tuple) else (drawn, None)
        save(picture, name, paths, data, folder, formats=formats)
    return chosen


def check(folder: Path | str | None = None, *, root: Path | str | None = None) -> list[str]:
    """Redraw all figures elsewhere and compare bytes; one line per difference, none if ``folder`` is up to date.

    Args:
        folder: the folder to check, ``figures/`` of the checkout by default.
        root: as for :func:`redraw`.

    Raises:
        DataError, ConfigError: as for :func:`redraw`.
    """
    folder = Path(folder) if folder is not None else figures_folder()
    with tempfile.TemporaryDirectory(prefix="mmsa-figures-") as fresh:
        redraw(fresh, root=root)
        expected = {path.name: path.read_bytes() for path in Path(fresh).iterdir()}
    present = {path.name: path.read_bytes() for path in folder.glob("*") if path.suffix in SUFFIXES}
    differences = [f"{name} is missing; run `make figures`" for name in sorted(expected.keys() - present.keys())]
    differences += [f"{name} belongs to no figure; delete it" for name in sorted(present.keys() - expected.keys())]
    for name in sorted(expected.keys() & present.keys()):
        if expected[name] != present[name]:
            differences.append(f"{name} differs from what its data give{_version_hint(folder / name)}")
    return differences


def read_source(path: Path, name: str) -> pd.DataFrame:
    """The table of a source as figure ``name`` gets it.

    Raises:
        DataError: it is missing, or no CSV file.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path)
        known = [table[name] for name in ("run_id", "label") if name in table]
        texts = [own for own in known if not pd.api.types.is_numeric_dtype(own) or own.isna().all()]
        return table.assign(**{own.name: own.astype(object).fillna("") for own in texts})
    except FileNotFoundError:
        raise DataError(f"figure {name} needs {path}, which does not exist; run the sweep that produces it") from None
    except ValueError as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"figure {name}: {path} is no CSV table: {str(error).splitlines()[0]}") from None


def _version_hint(path: Path) -> str:
    """Says so where another matplotlib drew the committed figure, since then bytes cannot agree."""
    import matplotlib

    drawn_with = matplotlib.__version__
    with suppress(OSError, ValueError, KeyError):
        drawn_with = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["versions"]["matplotlib"]
    if drawn_with == matplotlib.__version__:
        return "; run `make figures`"
    return f"; it was drawn with matplotlib {drawn_with}, here is {matplotlib.__version__} (see requirements.lock)"
