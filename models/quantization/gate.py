"""Whether a file of lower precision is good enough, and which layers to give back if it is not.

Where labelled pictures are given, they decide: at most half a point of average precision, or of
mIoU, may be lost. Else it is the share of the original's sure detections (of pixels) that the file
finds, too; that is stricter than it looks, because a score that moves by 0.03 counts as lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.judging.detectors import load_detector
from models.judging.segmenters import load_segmenter
from models.model_file.reading import description
from models.precision_check import measure, precisions_here
from models.quantization.agreement import Agreement, objects_agree, pixels_agree
from models.quantization.eight_bits import FLOAT8
from models.quantization.noise import Noise
from models.quantization.origin import origin

MOST_LOSS = 0.005
LEAST_SHARE = {"detection": 0.6, "instance": 0.6, "semantic": 0.9}
"""Of what both find, where nothing is labelled. Chosen with a view to the bundled models in int8,
which have 0.78 and 0.92 at AP and mIoU that are those of the originals."""
FIRST_GIVEN_BACK = 2


@dataclass(frozen=True)
class Verdict:
    """What became of a file's accuracy.

    Attributes:
        agreement: With the original, on the frames.
        least_share: Of agreement, if nothing else decides.
        original: AP or mIoU of the original in f32; None without labelled pictures.
        scores: The file's own by precision of what is not rounded.
        most_loss: Of AP or mIoU.
    """

    agreement: Agreement
    least_share: float
    original: float | None
    scores: Mapping[str, float]
    most_loss: float = MOST_LOSS

    @property
    def passes(self) -> bool:
        """Whether the file may be used in place of the original."""
        if self.original is None:
            return self.agreement.share >= self.least_share
        # Rounded: 0.700 - 0.695 is a little over 0.005 in binary.
        return round(self.original - self.scores["f32"], 9) <= self.most_loss

    @property
    def precision_check(self) -> dict[str, float] | None:
        """The entry of the metadata that the line's ``auto`` precision reads."""
        if self.original is None:
            return None
        return {**self.scores, "original": self.original}

    def __str__(self) -> str:
        shared = f"{self.agreement.share:.1%} of {self.agreement.compared} found alike"
        if self.original is None:
            return f"{shared} (at least {self.least_share:.0%} wanted)"
        return f"{self.scores['f32']:.4f} against {self.original:.4f} of the original, {shared}"


class Gate:
    """Judges files that were made from one original; what that finds is found only once.

    Args:
        original: the model file.
        frames: (H, W, 3) uint8 RGB of any size.
        data: labelled sets as :func:`models.precision_check.measure` takes them.
        most_loss: of AP or mIoU, if there are labelled sets.
    """

    def __init__(
        self,
        original: Path,
        frames: Sequence[np.ndarray],
        data: Sequence[str] = (),
        most_loss: float = MOST_LOSS,
    ) -> None:
        self.original, self.frames, self.data = original, frames, data
        self.most_loss, self.about = most_loss, description(original)
        self.score = round(measure(original, data, "f32"), 4) if data else None

    def judge(self, file: Path) -> Verdict:
        """Run both over the frames and the file over the labelled sets."""
        is_float8 = description(file).get("arithmetic") == FLOAT8.name
        precisions = ("f32",) if is_float8 else precisions_here()
        scores = {p: round(measure(file, self.data, p), 4) for p in precisions if self.data}
        return Verdict(
            self._agreement(file),
            LEAST_SHARE[self.about["task"]],
            self.score,
            scores,
            self.most_loss,
        )

    def _agreement(self, file: Path) -> Agreement:
        names = str(self.original), str(file)
        if self.about["task"] == "semantic":
            plain, rounded = (load_segmenter(name, "openvino") for name in names)
            return pixels_agree(plain, rounded, self.frames)
        original, other = (load_detector(name, "openvino") for name in names)
        return objects_agree(original, other, self.frames, self.about["score_threshold"])


def until_it_passes(
    make: Callable[[frozenset[str]], Path],
    judge: Callable[[Path], Verdict],
    noise: Mapping[str, Noise],
    kept: frozenset[str],
) -> Iterator[tuple[frozenset[str], Verdict]]:
    """Round everything, then give back the noisiest layers, twice as many each time.

    make: a file whose layers of these names stay float.
    kept: names that stay float whatever happens.

    Yields:
        what stayed float and the verdict, until one passes or half of the layers are float.
    """
    noisiest = [n for n in sorted(noise, key=lambda n: noise[n].decibels) if n not in kept]
    count = 0
    while count <= len(noisiest) // 2:
        chosen = kept | frozenset(noisiest[:count])
        verdict = judge(make(chosen))
        yield chosen, verdict
        if verdict.passes:
            return
        count = max(FIRST_GIVEN_BACK, 2 * count)


def entry(
    original: Path,
    about: Mapping[str, Any],
    arithmetic: str,
    verdict: Verdict | None,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """The metadata of a file that was made from `original`, which has the metadata `about`."""
    made = {key: value for key, value in about.items() if key != "precision_check"}
    made["made_from"] = origin(original)
    told = dict(more)
    if verdict is not None:
        told["agreement"] = round(verdict.agreement.share, 4)
        if verdict.precision_check:
            made["precision_check"] = verdict.precision_check
    return json.loads(json.dumps(made | {"arithmetic": arithmetic, "rounding": told}))
