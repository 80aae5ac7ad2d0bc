"""When a file is good enough, and what is given back to float until it is."""

from __future__ import annotations

import numpy as np
import pytest

from models.model_file.onnx_file import content_sha256
from models.quantization.agreement import Agreement
from models.quantization.gate import Verdict, entry, until_it_passes
from models.quantization.noise import Noise
from tests.models.quantization.toys import write_toy


def verdict(loss: float, share: float = 0.9) -> Verdict:
    return Verdict(
        Agreement(1000, round(1000 * share)), 0.6, 0.7, {"f32": 0.7 - loss, "bf16": 0.69}
    )


def noise(**noise_by_name: float) -> dict[str, Noise]:
    return {n: Noise(1.0, x, np.zeros(1, np.float32)) for n, x in noise_by_name.items()}


@pytest.mark.parametrize(
    ("loss", "passes"), [(0.0, True), (0.005, True), (0.0051, False), (-0.1, True)]
)
def test_half_a_point_may_be_lost_and_not_more(loss, passes):
    assert verdict(loss, share=0.1).passes is passes


def test_without_labels_agreement_decides():
    assert Verdict(Agreement(10, 6), 0.6, None, {}).passes
    assert not Verdict(Agreement(10, 5), 0.6, None, {}).passes


def test_the_noisiest_layers_are_given_back_until_it_passes():
    tried = []

    def make(kept):
        tried.append(kept)
        return kept

    sounds = noise(**{f"layer{i}": 1.0 / (i + 1) for i in range(10)})
    rounds = list(
        until_it_passes(make, lambda kept: verdict(0.02 - 0.004 * len(kept)), sounds, frozenset())
    )
    assert [len(kept) for kept in tried] == [0, 2, 4]
    assert tried[1] == {"layer0", "layer1"}
    assert rounds[-1][1].passes and not rounds[-2][1].passes


def test_half_of_the_layers_are_the_most_that_is_given_back():
    sounds = noise(**{f"layer{i}": 1.0 / (i + 1) for i in range(10)})
    rounds = list(until_it_passes(lambda kept: kept, lambda _: verdict(1.0), sounds, frozenset()))
    assert [len(kept) for kept, _ in rounds] == [0, 2, 4]
    assert not rounds[-1][1].passes


def test_what_is_to_stay_float_stays_so_and_is_not_counted():
    sounds = noise(a=0.9, b=0.5, c=0.4, d=0.3, e=0.2)
    kept = [
        kept for kept, _ in until_it_passes(set, lambda _: verdict(1.0), sounds, frozenset("a"))
    ]
    assert kept == [{"a"}, {"a", "b", "c"}]


def test_the_metadata_tells_what_was_measured_and_of_which_file_it_was_made(tmp_path):
    original = write_toy(tmp_path / "m.onnx")
    about = {"task": "detection", "precision_check": {"f32": 0.1}}
    told = entry(original, about, "int8", verdict(0.001), {"float_layers": ["a"]})
    assert told["arithmetic"] == "int8"
    assert told["precision_check"] == pytest.approx({"f32": 0.699, "bf16": 0.69, "original": 0.7})
    assert told["rounding"] == {"float_layers": ["a"], "agreement": 0.9}
    assert told["made_from"] == {"file": "m.onnx", "sha256": content_sha256(original)}
    unmeasured = entry(original, about, "f16", None, {})
    assert "precision_check" not in unmeasured  # that of the original is not this file's
