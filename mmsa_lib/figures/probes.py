"""Which planted factor can be read from which representation."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from mmsa_lib.figures import palette


def probe_table(frame: pd.DataFrame, title: str = "") -> Figure:
    """Heat map of out-of-sample R² of linear probes: representations down, planted factors across.

    Args:
        frame: tidy ``representation, factor, r2``. Values below 0 (worse than the mean) are drawn as 0 and printed.
        title: figure title.
    """
    wide = frame.pivot_table(index="representation", columns="factor", values="r2", sort=False)
    rows, columns = wide.shape
    figure = Figure(figsize=(2.2 + 0.85 * columns, 1.2 + 0.34 * rows), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(wide.clip(lower=0).to_numpy(), cmap=palette.SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
    for i in range(rows):
        for j in range(columns):
            value = wide.iloc[i, j]
            axis.text(
                j,
                i,
                f"{round(value, 2) + 0.0:.2f}",
                ha="center",
                va="center",
                color="white" if value < 0.6 else "black",
            )
    axis.set_xticks(range(columns), [str(c).replace("_", "\n") for c in wide.columns])
    axis.set_yticks(range(rows), list(wide.index))
    axis.tick_params(length=0)
    axis.grid(False)
    if title:
        axis.set_title(title)
    figure.colorbar(image, ax=axis, label="R², out of sample")
    return figure
