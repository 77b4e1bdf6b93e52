"""One colour per modality and per method in every figure, safe for colour blindness.

The Okabe-Ito palette; its yellow fills areas, but lines and dots of it are hard to see on white, so that the method in
its place is drawn in wine, from Paul Tol's muted palette.
"""

from __future__ import annotations

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, BLACK, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#000000", "#8C8C8C"
WINE = "#882255"

MODALITY = {"text": BLUE, "audio": ORANGE, "vision": GREEN, "fusion": BLACK}

METHOD = {
    "text_only": BLUE,
    "early_fusion": SKY,
    "late_fusion": ORANGE,
    "self_mm": GREEN,
    "modal_alignment": VERMILLION,
    "contrastive_mmcl": PURPLE,
    "collaborative_mmcl": WINE,
    "hrlf": BLACK,
    "constant": GREY,
}

SPLIT = {"train": BLUE, "valid": ORANGE, "test": VERMILLION}

DIVERGING, SEQUENTIAL = "RdBu_r", "cividis"


def method_color(method: str) -> str:
    """Colour of a method; constant baselines and unknown names are grey."""
    return METHOD.get(method, GREY)
