"""The ladder's figures as tables (terminal, Markdown), as JSON and as a chart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from models.ladder.rungs import Ladder
from models.ladder.timing import PARTS

Results = Mapping[str, Mapping[str, Any]]
"""Of each rung, by its folder's name, what judging found, and ``title``."""
Row = list[str]
Page = tuple[Row, list[Row]]
"""Head and rows of a table."""

PUBLISHED_SECONDS = {"rcnn": 49.0, "sppnet": 4.3, "fast_rcnn": 2.3, "faster_rcnn": 0.2}
"""A picture of VOC 2007 through VGG-16 on a GPU of 2015, with about 2 s for proposals in the first
three: the test rates of Fast R-CNN's table 4 (47.0, 2.3 and 0.32 s without them), and Faster
R-CNN's own."""
PUBLISHED_WITHOUT_PROPOSALS = {"rcnn": 47.0, "sppnet": 2.3, "fast_rcnn": 0.32}
"""The same table: proposals come from outside and cost all three the same."""
PUBLISHED_HOURS = {"rcnn": 84.0, "sppnet": 25.0, "fast_rcnn": 9.5}
"""Training with VGG-16 (Fast R-CNN, arXiv:1504.08083, table 4)."""
REFERENCE = "rcnn"

DETECTION_NOTE = """\
Published: seconds a picture with proposals, R-CNN 49, SPPnet 4.3, Fast R-CNN 2.3, Faster R-CNN 0.2;
hours of training 84, 25 and 9.5 for the first three (VGG-16 on a GPU, VOC 2007). SPPnet's authors
measured 20 to 100 times R-CNN's speed without proposals."""
CAMVID_NOTE = """\
Published mIoU on CamVid's 11 classes at 480x360, test split: SegNet 60.1, FCN-8 57.0,
DeepLab-LFOV 61.6, Dilation8 65.3. On the validation split, as here, a DeepLab on MobileNet that
learned from Cityscapes alone has 54.1."""

ACCURACY_HEAD = [
    "network",
    "AP50",
    "AP",
    "VOC, 11 points",
    "VOC, all points",
    "AP50 of the softmax",
    "parameters, M",
]
_RATIO = ["R-CNN = 1", "published"]
TIME_HEAD = ["seconds", *PARTS, "a picture", *_RATIO, "without proposals", *_RATIO]
STAGES = ("steps", "features", "svms", "regressors", "total")
TRAINING_HEAD = ["training, min", *STAGES, *_RATIO]
SEGMENTATION_HEAD = ["network", "mIoU, %", "pixel accuracy, %", "parameters, M"]


def share_of(value: float, whole: float | None) -> str:
    """``value`` as a share of ``whole``: three figures, "-" without one."""
    return f"{value / whole:.3g}" if whole else "-"


def detection_tables(results: Results) -> list[Page]:
    """Accuracy, seconds, training; ratios are empty while R-CNN is missing."""
    reference = results.get(REFERENCE)
    whole = reference["seconds"]["total"] if reference else None
    network = without_proposals(reference["seconds"]) if reference else None
    minutes = reference["training"]["total"] if reference else None
    accuracy, time, training = [], [], []
    for name, one in results.items():
        scores = ("AP50", "AP", "VOC_11_points", "VOC_all_points")
        by_softmax = one.get("AP50_of_the_softmax")
        accuracy.append(
            [
                one["title"],
                *(f"{one[k]:.3f}" for k in scores),
                "-" if by_softmax is None else f"{by_softmax:.3f}",
                f"{one['parameters'] / 1e6:.2f}",
            ]
        )
        seconds, learned = one["seconds"], one["training"]
        ratios = [share_of(seconds["total"], whole), published(PUBLISHED_SECONDS, name)]
        parts = [f"{seconds[part]:.3f}" for part in (*PARTS, "total")]
        alone = without_proposals(seconds)
        ratios += [f"{alone:.3f}", share_of(alone, network)]
        time.append([one["title"], *parts, *ratios, published(PUBLISHED_WITHOUT_PROPOSALS, name)])
        ratios = [share_of(learned["total"], minutes), published(PUBLISHED_HOURS, name)]
        parts = [minutes_of(learned, part) for part in STAGES]
        training.append([one["title"], *parts, *ratios])
    return [(ACCURACY_HEAD, accuracy), (TIME_HEAD, time), (TRAINING_HEAD, training)]


def without_proposals(seconds: Mapping[str, float]) -> float:
    """A picture's time, if its regions were there already."""
    return seconds["total"] - seconds["proposals"]


def minutes_of(seconds: Mapping[str, float], part: str) -> str:
    """One part of a training; "-" for what this network has not."""
    return f"{seconds[part] / 60:.1f}" if part in seconds else "-"


def published(figures: Mapping[str, float], name: str) -> str:
    """A paper's own figure as a share of R-CNN's."""
    return share_of(figures[name], figures[REFERENCE]) if name in figures else "-"


def segmentation_tables(results: Results) -> list[Page]:
    """Scores and cost, then IoU by class; DeepLab v1 has one more row with its CRF."""
    engines, classes = engines_of(results), list(next(iter(results.values()))["classes"])
    head = [*SEGMENTATION_HEAD, *(f"{engine}, ms" for engine in engines), "training, min"]
    rows, by_class = [], []
    for one in results.values():
        known = one["milliseconds"]
        times = [f"{known[engine]:.1f}" if engine in known else "-" for engine in engines]
        cost = [f"{one['parameters'] / 1e6:.2f}", *times, minutes_of(one["training"], "total")]
        for title, scores, more in ((one["title"], one, cost), *_with_crf(one, len(engines))):
            main = [f"{100 * scores[k]:.1f}" for k in ("mIoU", "pixel_accuracy")]
            rows.append([title, *main, *more])
            # -1: a class that neither occurs nor was found
            shares = [f"{100 * v:.1f}" if v >= 0 else "-" for v in scores["classes"].values()]
            by_class.append([title, *shares])
    return [(head, rows), (["IoU, %", *classes], by_class)]


def engines_of(results: Results) -> list[str]:
    """All in which time was taken of some rung; not every command asks for the same."""
    return list(dict.fromkeys(engine for one in results.values() for engine in one["milliseconds"]))


def _with_crf(one: Mapping[str, Any], engines: int) -> list[tuple[str, Mapping[str, Any], Row]]:
    """Title, scores and cost of what a CRF makes of it, if one was tried."""
    if (crf := one.get("CRF")) is None:
        return []
    cost = ["-", f"+{crf['milliseconds']:.0f}", *["-"] * engines]
    return [(f"{one['title']} + CRF", crf, cost)]


def table_of(head: Row, rows: Sequence[Row]) -> Table:
    """For the terminal."""
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    return table


def markdown_of(head: Row, rows: Sequence[Row]) -> str:
    """For a README: the first column is text, the others are numbers."""
    marks = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *rows)) + "\n"


def write_report(
    folder: Path, ladder: Ladder, results: Results, about: Mapping[str, str]
) -> list[Table]:
    """``LADDER.json``, ``LADDER.md`` and ``LADDER.png`` in the folder; returns the tables.

    about: date, machine, versions.
    """
    if ladder == "detection":
        pages, note = detection_tables(results), DETECTION_NOTE
    else:
        pages, note = segmentation_tables(results), CAMVID_NOTE
    content = {"about": dict(about), "rungs": {name: dict(one) for name, one in results.items()}}
    (folder / f"{ladder}.json").write_text(json.dumps(content, indent=1))
    measured = "Time on one thread: " + ", ".join(f"{k} {v}" for k, v in about.items()) + "."
    tables = [markdown_of(head, rows) for head, rows in pages]
    (folder / f"{ladder}.md").write_text("\n".join([*tables, f"{measured}\n", f"{note}\n"]))
    draw(folder / f"{ladder}.png", ladder, results)
    return [table_of(head, rows) for head, rows in pages]


def draw(file: Path, ladder: Ladder, results: Results) -> None:
    """The chart: accuracy beside seconds in parts, or mIoU over milliseconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    if ladder == "detection":
        _draw_detection(figure, results)
    else:
        _draw_segmentation(figure, results)
    figure.savefig(file, dpi=100)


def _draw_detection(figure: Any, results: Results) -> None:
    accuracy, time = figure.subplots(1, 2, sharey=True)
    titles = [one["title"] for one in results.values()][::-1]
    ordered = list(results.values())[::-1]
    accuracy.barh(titles, [one["AP50"] for one in ordered], color="tab:gray")
    accuracy.set(xlabel="AP at IoU 0.5", xlim=(0, 1))
    left = [0.0] * len(ordered)
    for part in PARTS:
        seconds = [one["seconds"][part] for one in ordered]
        time.barh(titles, seconds, left=left, label=part)
        left = [a + b for a, b in zip(left, seconds, strict=True)]
    for place, total in enumerate(left):
        time.text(total, place, f" {total:.2f} s", va="center")
    time.set(xlabel="seconds a picture, one thread", xlim=(0, 1.2 * max(left)))
    time.legend()


def _draw_segmentation(figure: Any, results: Results) -> None:
    timed = [list(one["milliseconds"]) for one in results.values()]
    engine = max(engines_of(results)[::-1], key=lambda name: sum(name in own for own in timed))
    axes = figure.add_subplot(
        title=engine, xlabel="milliseconds a frame, one thread", ylabel="mIoU, %"
    )
    points = sorted(
        (one["milliseconds"][engine], 100 * one["mIoU"], one["title"])
        for one in results.values()
        if engine in one["milliseconds"]
    )
    for place, (milliseconds, share, title) in enumerate(points):
        at = milliseconds, share
        axes.plot(*at, "o")
        # To the left and to the right in turn, so that neighbours' names do not meet.
        side, shift = ("right", -6) if place % 2 else ("left", 6)
        axes.annotate(title, at, (shift, 0), textcoords="offset points", ha=side, va="center")
    axes.set_xlim(0, 1.2 * points[-1][0])
