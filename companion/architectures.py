"""The drawings as figures of the companion: the methods, the generator of the synthetic data, training, the family."""

from __future__ import annotations

from collections.abc import Callable

from mmsa_lib.figures import diagrams
from mmsa_lib.figures.registry import figure

DIAGRAMS = (
    diagrams.contrastive_mmcl,
    diagrams.collaborative_mmcl,
    diagrams.modal_alignment,
    diagrams.hrlf,
    diagrams.self_mm,
    diagrams.synthetic,
    diagrams.training,
    diagrams.family,
)


def _register(diagram: Callable[[], diagrams.Diagram]) -> None:
    title = (diagram.__doc__ or "").split("\n")[0].replace("`", "")

    @figure(f"architecture_{diagram.__name__}", [], title=title)
    def draw_architecture():
        return diagrams.draw(diagram())


for _diagram in DIAGRAMS:
    _register(_diagram)
