"""Colours that are safe for colour blindness: the Okabe-Ito palette.

Its yellow fills areas, but lines and dots of it are hard to see on white; there wine, from Paul Tol's muted palette,
takes its place, and olive and indigo of that palette stand beside it.
"""

from __future__ import annotations

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, BLACK, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#000000", "#8C8C8C"
WINE, OLIVE, INDIGO = "#882255", "#999933", "#332288"

CYCLE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK)
"""Colours of lines that have none of their own, in their order."""

MODALITY = {"text": BLUE, "audio": ORANGE, "vision": GREEN, "fusion": BLACK}

SPLIT = {"train": BLUE, "valid": ORANGE, "test": VERMILLION}

DIVERGING, SEQUENTIAL = "RdBu_r", "cividis"
