"""Drawings of boxes and arrows: the methods, the generator of the synthetic data, and whose ideas a method takes up.

What the marks mean: colours are modalities; a dashed arrow passes no gradient back; a grey box exists in training only;
a dotted outline is our reconstruction, which no source states; red is a loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mmsa_lib.data.record import MODALITIES, Modality
from mmsa_lib.errors import unknown_name
from mmsa_lib.figures.palette import BLACK, GREY, MODALITY, VERMILLION
from mmsa_lib.figures.style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONT_SIZE = 9.5
MARGIN, GAP = 0.12, 0.02
FAINT = "#777777"
UNLIT = 0.2
"""How much of a box is left that is not the one spoken of."""


@dataclass(frozen=True)
class Box:
    """A box with its centre, its size (inches) and what is written in it.

    Attributes:
        colour: of the outline.
        training: it exists in training only.
        ours: our reconstruction.
        loss: a loss term, drawn round.
    """

    x: float
    y: float
    text: str
    width: float = 1.2
    height: float = 0.42
    colour: str = BLACK
    training: bool = False
    ours: bool = False
    loss: bool = False


@dataclass(frozen=True)
class Arrow:
    """From one box to another.

    Attributes:
        stopped: no gradient flows back.
        via: corners on its way.
        level: its height, between two high boxes.
        colour: by default that of the first box.
        text: written beside it.
    """

    start: str
    end: str
    stopped: bool = False
    via: tuple[tuple[float, float], ...] = ()
    level: float | None = None
    colour: str = ""
    text: str = ""


@dataclass
class Diagram:
    """Boxes by name and the arrows between them; y grows upwards, lengths are inches.

    Attributes:
        words: texts without a box: x, y, text.
    """

    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: list[Arrow] = field(default_factory=list)
    words: list[tuple[float, float, str]] = field(default_factory=list)

    def add(self, name: str, x: float, y: float, text: str, after: str | Iterable[str] = (), **looks) -> str:
        """Place a box, with arrows from the boxes ``after``; its name. ``looks``: the other fields of :class:`Box`."""
        self.boxes[name] = Box(x, y, text, **looks)
        for start in (after,) if isinstance(after, str) else after:
            self.arrow(start, name)
        return name

    def arrow(self, start: str, end: str, **looks) -> None:
        """Join two boxes."""
        self.arrows.append(Arrow(start, end, **looks))


def draw(diagram: Diagram, lit: str | Sequence[str] = ()) -> Figure:
    """The drawing; ``lit`` names the boxes (or beginnings of their names) that are spoken of, the others fade.

    Raises:
        UnknownNameError: no box is called like that.
    """
    with style():
        return _drawn(diagram, [lit] if isinstance(lit, str) else list(lit))


def _drawn(diagram: Diagram, lit: list[str]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path

    for name in lit:
        if not any(box.startswith(name) for box in diagram.boxes):
            raise unknown_name("part of the diagram", name, diagram.boxes)
    boxes = diagram.boxes.values()
    corners = [point for arrow in diagram.arrows for point in arrow.via]
    xs = [x for x, _ in corners] + [box.x + side * box.width / 2 for box in boxes for side in (-1, 1)]
    ys = [y for _, y in corners] + [box.y + side * box.height / 2 for box in boxes for side in (-1, 1)]
    left, right, low, high = min(xs) - MARGIN, max(xs) + MARGIN, min(ys) - MARGIN, max(ys) + MARGIN
    picture = Figure(figsize=(right - left, high - low), layout="none")
    axes = picture.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(low, high))
    axes.set_axis_off()

    def strength(*names: str) -> float:
        return 1.0 if not lit or any(name.startswith(part) for name in names for part in lit) else UNLIT

    for name, box in diagram.boxes.items():
        rounding = min(box.height / 2, 0.21) if box.loss else 0.05
        axes.add_patch(
            FancyBboxPatch(
                (box.x - box.width / 2, box.y - box.height / 2), box.width, box.height,
                boxstyle=f"round,pad=0,rounding_size={rounding}",
                facecolor="#E8E8E8" if box.training else "white", edgecolor=VERMILLION if box.loss else box.colour,
                linestyle=":" if box.ours else "-", linewidth=1.6, alpha=strength(name), zorder=2,
            )
        )  # fmt: skip
        axes.text(
            box.x, box.y, box.text, ha="center", va="center", fontsize=FONT_SIZE, alpha=strength(name), zorder=3,
            color=VERMILLION if box.loss else BLACK, linespacing=1.15,
        )  # fmt: skip
    for arrow in diagram.arrows:
        start, end = diagram.boxes[arrow.start], diagram.boxes[arrow.end]
        faint = strength(arrow.start) * strength(arrow.end) if lit else 1.0
        in_training = start.training or end.training or end.loss
        colour = FAINT if in_training else arrow.colour or start.colour
        points = _course(start, end, arrow.via, arrow.level)
        axes.add_patch(
            FancyArrowPatch(
                path=Path(points), arrowstyle="-|>", mutation_scale=9, linewidth=1.1, color=colour, joinstyle="round",
                linestyle=(0, (3, 2)) if arrow.stopped else "-", capstyle="butt", alpha=max(faint, UNLIT), zorder=1,
            )
        )  # fmt: skip
        if arrow.text:
            (x, y), (x2, y2) = points[len(points) // 2 - 1 : len(points) // 2 + 1]
            across = abs(x2 - x) >= abs(y2 - y)
            axes.text(
                (x + x2) / 2 + (0 if across else 0.06), (y + y2) / 2 + (0.05 if across else 0), arrow.text,
                ha="center" if across else "left", va="bottom" if across else "center", fontsize=FONT_SIZE, alpha=faint,
            )  # fmt: skip
    for x, y, text in diagram.words:
        axes.text(x, y, text, ha="center", va="center", fontsize=FONT_SIZE, alpha=UNLIT if lit else 1)
    return picture


def _course(
    start: Box, end: Box, via: Sequence[tuple[float, float]], height: float | None
) -> list[tuple[float, float]]:
    """The points of an arrow, from the edge of one box to the edge of the other; through high boxes it runs level."""

    def level(box: Box, y: float) -> tuple[float, float]:
        reach = max(0.0, box.height / 2 - 0.2)
        return box.x, min(max(y, box.y - reach), box.y + reach) if box.height > box.width else box.y

    def edge(box: Box, point: tuple[float, float], towards: tuple[float, float]) -> tuple[float, float]:
        dx, dy = towards[0] - point[0], towards[1] - point[1]
        up = box.height / 2 + GAP - (point[1] - box.y) * (1 if dy > 0 else -1)
        side = box.width / 2 + GAP
        scale = min(side / abs(dx) if dx else float("inf"), up / abs(dy) if dy else float("inf"))
        return point[0] + dx * scale, point[1] + dy * scale

    if height is not None:
        return [edge(start, (start.x, height), (end.x, height)), edge(end, (end.x, height), (start.x, height))]
    first = level(start, via[0][1] if via else end.y)
    last = level(end, via[-1][1] if via else first[1])
    if not via:
        first = level(start, last[1])
    return [edge(start, first, (*via, last)[0]), *via, edge(end, last, (first, *via)[-1])]


ROWS: dict[Modality, float] = dict(zip(MODALITIES, (2.0, 1.0, 0.0), strict=True))
"""Height of each modality's row."""

HIGH = 2.45
"""Height of a box that takes in all three rows."""


def _inputs(d: Diagram, x: float = 0.0) -> None:
    for m, y in ROWS.items():
        d.add(f"input {m}", x, y, f"{m}\n$x_{m[0]}$", colour=MODALITY[m], width=0.8, height=0.5)


def contrastive_mmcl() -> Diagram:
    """``contrastive_mmcl``: two cascaded stages of encoders, capsules that are contrasted and that the head reads."""
    d = Diagram()
    _inputs(d)
    d.add("states specific", 3.1, 1, "$H^{sp}$", width=0.5, height=HIGH)
    d.add("shared", 4.5, 1, "one\nencoder\nfor all\n$E^{sh}$", width=1.0, height=HIGH, ours=True)
    d.add("states shared", 5.9, 1, "$H^{sh}$", width=0.5, height=HIGH)
    d.add("fusion", 7.7, 1, "concatenate,\nMLP", width=1.2, height=0.5, ours=True)
    for m, y in ROWS.items():
        letter, colour = m[0], MODALITY[m]
        name = d.add(
            f"specific {m}", 1.6, y, f"encoder\n$E^{{sp}}_{letter}$", f"input {m}", colour=colour, height=0.5, ours=True
        )
        d.arrow(name, "states specific")
        d.arrow("states specific", "shared", level=y, colour=colour, stopped=True)
        d.arrow("shared", "states shared", level=y, colour=colour)
    for stage, x, name, said in (
        ("specific", 3.1, "cmc", "CMC: same category attracts,\nmodality by modality"),
        ("shared", 5.9, "smc", "SMC: same utterance attracts,\nacross modalities"),
    ):
        routing = "dynamic routing to $K$ capsules"
        d.add(f"routing {stage}", x, -0.85, routing, f"states {stage}", ours=True, width=2.4)
        d.add(name, x, -1.7, said, f"routing {stage}", loss=True, width=2.4, height=0.5)
    d.arrow("routing specific", "fusion", via=((4.5, -0.85), (4.5, -0.43), (7.7, -0.43)))
    d.arrow("routing shared", "fusion", via=((7.7, -0.85),))
    d.add("prediction", 9.0, 1, r"$\hat y$", "fusion", width=0.5)
    d.add("task", 9.0, 0, "task loss", "prediction", loss=True, width=0.9)
    return d


def self_mm() -> Diagram:
    """``self_mm``: one multimodal and three unimodal predictions; the labels of the latter are generated (ULGM)."""
    d = Diagram()
    _inputs(d)
    encoders = {"text": "text encoder", "audio": "LSTM", "vision": "LSTM"}
    d.add("features", 3.0, 1, "$F_t$\n\n$F_a$\n\n$F_v$", width=0.5, height=HIGH)
    d.add("projected", 5.9, 1, "$F^*_t$\n\n$F^*_a$\n\n$F^*_v$", width=0.5, height=HIGH)
    d.add("l1", 8.75, 1, "$L_1$: errors,\nweighted by\n" + r"$\tanh|y_s-y_m|$", loss=True, width=1.3, height=HIGH)
    for m, y in ROWS.items():
        s, colour = m[0], MODALITY[m]
        d.add(f"encoder {m}", 1.7, y, encoders[m], f"input {m}", colour=colour, width=1.1)
        d.arrow(f"encoder {m}", "features")
        d.add(f"projection {m}", 4.45, y, "linear, ReLU", colour=colour, width=1.1)
        d.arrow("features", f"projection {m}", colour=colour)
        d.arrow(f"projection {m}", "projected")
        d.add(f"prediction {m}", 7.2, y, rf"$\hat y_{s}$", "projected", colour=colour, width=0.6, training=True)
        d.arrow(f"prediction {m}", "l1")
    ulgm = "ULGM: distances to the centres of\npositive and of negative samples"
    d.add("ulgm", 5.9, 2.9, ulgm, training=True, width=2.6, height=0.5)
    d.arrow("projected", "ulgm", stopped=True)
    d.add("labels", 8.75, 2.9, r"generated $y_t, y_a, y_v$", "ulgm", training=True, width=1.7, height=0.5)
    d.arrow("labels", "l1", stopped=True)
    d.add("fusion", 4.45, -0.9, "concatenate, linear,\nReLU: $F^*_m$", width=1.6, height=0.5)
    d.arrow("features", "fusion", via=((3.0, -0.9),))
    d.arrow("fusion", "ulgm", via=((6.4, -0.9), (6.4, 2.0)), stopped=True)
    d.add("prediction m", 7.2, -0.9, r"$\hat y_m$", "fusion", width=0.6)
    d.add("task", 8.75, -0.9, "$L_2$: task loss", "prediction m", loss=True, width=1.3)
    return d


def modal_alignment() -> Diagram:
    """``modal_alignment``: Self-MM, and second-order statistics of audio and vision that are made alike."""
    d = self_mm()
    for m in ("audio", "vision"):  # the authors' figure: an LSTM
        d.boxes[f"encoder {m}"] = replace(d.boxes[f"encoder {m}"], text="mean of frames", width=1.2, ours=True)
    d.add("shared audio", 4.45, -1.75, "linear: $M_a$", colour=MODALITY["audio"], ours=True, training=True, width=1.1)
    d.add("shared vision", 4.45, -2.35, "linear: $M_v$", colour=MODALITY["vision"], ours=True, training=True, width=1.1)
    d.arrow("features", "shared audio", via=((3.0, -1.75),))
    d.arrow("features", "shared vision", via=((3.0, -2.35),))
    said = "$L_3$: distance of the correlations\nof audio and vision over a step"
    d.add("l3", 7.2, -2.05, said, ("shared audio", "shared vision"), loss=True, width=2.6, height=0.5)
    return d


def hrlf() -> Diagram:
    """``hrlf``: above, a student on incomplete samples learns from a teacher like it; below, the inside of both."""
    d = Diagram()
    for name, y, sample, said, index in (
        ("teacher", 4.75, "complete\nsample", "teacher, trained first,\nthen frozen", "t"),
        ("student", 3.45, "incomplete\ncopy", "student", "s"),
    ):
        training = name == "teacher"
        d.add(f"{name} input", 0.1, y, sample, width=1.0, height=0.5)
        d.add(name, 2.2, y, said, f"{name} input", width=1.9, height=0.5, training=training)
        scales = f"$E^{index}_1, E^{index}_2, E^{index}_3$"
        d.add(f"scales {name}", 4.9, y, scales, name, width=1.3, training=training)
        d.add(f"prediction {name}", 7.5, y, rf"$\hat y^{index}$", f"scales {name}", width=0.5, training=training)
    d.arrow("teacher input", "student input", text="gaps")
    said = "HMI: mutual information\nHAL: a discriminator is misled"
    d.add("hmi", 4.9, 4.1, said, ("scales teacher", "scales student"), loss=True, width=2.4, height=0.5)
    d.add("kl", 7.5, 4.1, "KL", ("prediction teacher", "prediction student"), loss=True, width=0.7)
    d.add("task", 8.75, 3.45, "task loss", "prediction student", loss=True, width=0.9)
    d.add("states", 2.6, 1, "$Z_t$\n\n$Z_a$\n\n$Z_v$", width=0.5, height=HIGH)
    d.add("joint", 5.5, 1, "$H$", width=0.45, height=HIGH)
    for m, y in ROWS.items():
        s, colour = m[0], MODALITY[m]
        d.add(f"input {m}", 0, y, f"{m}\n$x_{s}$", colour=colour, width=0.8, height=0.5)
        d.add(f"encoder {m}", 1.4, y, "convolution,\nTransformer", f"input {m}", colour=colour, height=0.5, width=1.15)
        d.arrow(f"encoder {m}", "states")
        for part, letter, shift in (("sentiment", "Q", 0.22), ("specific", "U", -0.22)):
            d.add(f"{part} {m}", 4.05, y + shift, f"${letter}_{s}$", colour=colour, width=0.6, height=0.34)
            d.arrow("states", f"{part} {m}", colour=colour)
            d.arrow(f"{part} {m}", "joint")
    before = "joint"
    for place, (text, height) in enumerate((("$I_1$", 1.7), ("$I_2$", 0.9), ("$I_3$", 1.7), (r"$\tilde H$", HIGH))):
        before = d.add(f"stack {place}", 6.2 + 0.65 * place, 1, text, before, width=0.45, height=height)
    d.add("prediction", 8.95, 1, r"$\hat y$", before, width=0.5)
    d.add("decoder", 4.05, -0.9, "decoder $D_r(Q_a, U_b)$", "specific vision", width=1.8, training=True)
    said = "FRF: is it $Z_b$ again,\nand is $Q_a$ in it?"
    d.add("frf", 1.7, -0.9, said, ("decoder", "states"), loss=True, width=1.7, height=0.5)
    d.words.append((7.4, -0.9, r"$E_1 = [H, \tilde H]$,  $E_2 = [I_1, I_3]$,  $E_3 = I_2$"))
    return d


def collaborative_mmcl() -> Diagram:
    """``collaborative_mmcl``: a split without parameters, attention on what is common, policies on what is specific."""
    d = Diagram()
    _inputs(d)
    d.add("decoupling", 2.9, 1, "cosine of\nwords with\nthe other\nmodalities", width=1.1, height=HIGH)
    for m, y in ROWS.items():
        d.add(
            f"projection {m}", 1.45, y, f"linear\n$Z_{m[0]}$", f"input {m}", colour=MODALITY[m], width=0.8, height=0.5
        )
        d.arrow(f"projection {m}", "decoupling")
    d.add("common", 4.5, 1.75, "common\n$P_t, P_a, P_v$", width=1.2, height=0.5)
    d.add("specific", 4.5, 0.25, "specific\n$N_t, N_a, N_v$", width=1.2, height=0.5)
    d.arrow("decoupling", "common", text="alike")
    d.arrow("decoupling", "specific", text="unlike")
    d.add("attention", 6.2, 1.75, "self-attention", "common", width=1.25)
    d.add("gates", 6.2, 0.25, r"gated: $N_m \odot a_m$", "specific", width=1.35)
    d.add("policies", 4.5, -0.75, r"policies $a_m = \sigma(w_m^\top s_m)$", width=2.1)
    d.arrow("specific", "policies", text="state $s$")
    d.arrow("policies", "gates", via=((6.2, -0.75),), text="actions $a$")
    d.add("fusion", 7.8, 1, "weigh\nand add", ("attention", "gates"), width=0.9, height=0.5)
    d.add("prediction", 9.0, 1, r"$\hat y$", "fusion", width=0.5)
    d.add("task", 9.0, 1.9, "task loss", "prediction", loss=True, width=0.9)
    d.add("reward", 9.0, -0.4, "joint\nreward $r$", training=True, width=0.9, height=0.5)
    d.arrow("prediction", "reward", stopped=True)
    d.add("critic", 6.8, -1.6, "critic $Q(s, a)$", training=True, width=1.3)
    d.arrow("policies", "critic")
    d.add("critic loss", 9.0, -1.6, "critic: $|Q - r|$", ("critic", "reward"), loss=True, width=1.2)
    d.add("actor loss", 4.5, -1.6, "policies: $-Q$", "critic", loss=True, width=1.2)
    return d


def synthetic() -> Diagram:
    """The generator of ``synthetic``: what moves the label (left), and which modality shows it (right)."""
    d = Diagram()
    rows = {"text": 3.1, "audio": 1.4, "vision": -0.3}
    d.add("label", 0, 1.4, "label $y$:\n" + r"$3\,\tanh(0.7\,u)$" + "\nin steps of .2", width=1.3, height=0.8)
    d.add("sum", 1.65, 1.4, "sum\n$u$", width=0.5, height=HIGH + 1.2)
    d.add("label noise", 1.65, -1.0, "annotators' noise", width=1.5, colour=GREY)
    d.add("shared", 4.6, 2.3, "shared $s$", width=1.3)
    d.add("product", 3.0, 0.55, "$q_a q_v$", width=0.7)
    for m, y in rows.items():
        s, colour = m[0], MODALITY[m]
        d.add(
            f"frames {m}", 8.0, y, f"words of {m}: factors\nat their peaks, noise", colour=colour, width=2.0, height=0.5
        )
        d.add(f"private {m}", 4.6, y, f"private $p_{s}$", colour=colour, width=1.3)
        d.arrow(f"private {m}", "sum")
        d.arrow(f"private {m}", f"frames {m}")
        d.arrow("shared", f"frames {m}")
    for m, y in (("audio", 0.8), ("vision", 0.3)):
        d.add(f"synergy {m}", 4.6, y, f"synergy $q_{m[0]}$", colour=MODALITY[m], width=1.3, height=0.36)
        d.arrow(f"synergy {m}", "product")
        d.arrow(f"synergy {m}", f"frames {m}")
    d.add("nuisance", 4.6, -1.0, "speaker, recording", width=1.6, colour=GREY)
    for m in MODALITIES:
        d.arrow("nuisance", f"frames {m}")
    for part in ("shared", "product", "label noise"):
        d.arrow(part, "sum")
    d.arrow("sum", "label")
    return d


def training() -> Diagram:
    """A training run: steps on batches (above), and after each epoch a look at the validation split (below)."""
    d = Diagram()
    d.add("step data", 0.5, 1.15, "training\nsplit", width=0.9, height=0.5)
    d.add("step batch", 1.95, 1.15, "a batch", "step data", width=0.9)
    d.add("step method", 3.5, 1.15, "method\nwith its weights", "step batch", width=1.4, height=0.5)
    d.add("step prediction", 5.15, 1.15, r"predictions $\hat y$", "step method", width=1.3)
    d.add("step terms", 6.85, 1.15, "weighted terms", "step prediction", loss=True, width=1.3)
    d.add("step sum", 8.4, 1.15, "sum", "step terms", loss=True, width=0.7)
    d.add("step gradient", 6.0, 2.05, "gradient of the sum", width=1.7)
    d.arrow("step sum", "step gradient", via=((8.4, 2.05),))
    d.add("step optimiser", 3.5, 2.05, "optimiser:\nmoves the weights", "step gradient", width=1.5, height=0.5)
    d.arrow("step optimiser", "step method")
    d.add("validation data", 0.5, 0.15, "validation\nsplit", width=0.9, height=0.5)
    d.add("validation method", 3.5, 0.15, "same weights,\nno dropout", "validation data", width=1.4, height=0.5)
    d.arrow("step method", "validation method", text="after each epoch")
    d.add("validation loss", 5.5, 0.15, "validation loss", "validation method", loss=True, width=1.3)
    d.add("keep", 7.8, 0.15, "lowest so far?\nkeep these weights", "validation loss", width=1.6, height=0.5)
    d.add("stop", 7.8, -0.75, "no better for a while?\nstop", "keep", width=1.9, height=0.5)
    d.add("test", 4.6, -0.75, "test split, once,\nwith the weights kept", "stop", width=1.8, height=0.5)
    return d


def family() -> Diagram:
    """Whose ideas the four methods and the baselines take up, as far as sources or the papers' own names tell."""
    d = Diagram()
    lines = (
        (
            "contrastive_mmcl",
            3.3,
            ("SupCon: pairs by category", "DCL: decoupled contrast", "capsules: dynamic routing"),
        ),
        ("collaborative_mmcl", 1.75, ("Co-SA: policies per modality", "DDPG: actor and critic")),
        ("modal_alignment", 0.5, ("Self-MM: generated labels", "Deep CORAL: covariances")),
        ("hrlf", -1.0, ("DMD: shared and private parts", "Deep InfoMax: mutual information", "GAN: adversaries")),
    )
    for name, y, parents in lines:
        for place, parent in enumerate(parents):
            d.add(parent, 0, y + 0.5 * ((len(parents) - 1) / 2 - place), parent, width=2.6, height=0.36)
        d.add(name, 4.0, y, name, parents, width=1.9)
    return d
