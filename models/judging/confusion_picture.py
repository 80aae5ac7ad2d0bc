"""A table of confusion as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def draw_confusion(
    table: np.ndarray, rows: Sequence[str], columns: Sequence[str], file: Path
) -> None:
    """Write a PNG: each row is a true class, dark where its share was found as the column.

    Args:
        table: (len(rows), len(columns)) counts.
    """
    from matplotlib.figure import Figure

    total = table.sum(1, keepdims=True)
    share = np.divide(table, total, out=np.zeros(table.shape), where=total > 0)
    side = 1.6 + 0.62 * max(len(rows), len(columns))
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.add_subplot(xlabel="found", ylabel="true")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(rows)), rows)
    for (row, column), value in np.ndenumerate(share):
        if table[row, column]:
            colour = "white" if value > 0.5 else "black"
            text = f"{100 * value:.0f}" if value >= 0.005 else "<1"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_title("share of each true class in percent")
    figure.savefig(file, dpi=120)
