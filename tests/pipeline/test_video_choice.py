"""What the doctor says of decoding and encoding, and whether it would notice a chip that lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.checkup import video_choice
from pipeline.checkup.page import _video_choice
from pipeline.checkup.verdict import judge
from pipeline.checkup.video_choice import look_at_video_choice
from pipeline.drawn_clip import draw_clip
from pipeline.sources.gpu import trouble_of_gpu
from tests.pipeline.stand_in_chip import Chip, Chips


def repairs_of(found: dict[str, Any]) -> list[str]:
    """What the doctor would have repaired, where nothing but the decoder was looked at."""
    report: dict[str, Any] = {
        "packages": {},
        "video": {"error": None, "chosen": {"decoder": found}},
        "model": {"name": "street", "error": "none"},
        "engine": {"error": "none"},
        "selftest": None,
        "gpu": {"error": "none", "cards": 0},
        "tensorrt": {"error": "none"},
        "system": {"cores": 2, "cores_usable": 2, "instruction_sets": None},
    }
    return list(judge(report)["repair"])


@pytest.mark.skipif(trouble_of_gpu() is None, reason="there is an NVIDIA GPU here")
def test_without_a_gpu_it_says_what_is_taken_and_why() -> None:
    found = look_at_video_choice(test=True)
    assert found["decoder"]["auto"] == "software" and "no NVIDIA GPU" in found["decoder"]["why"]
    assert found["encoder"]["auto"] == "libx264" and "NVENC" in found["encoder"]["why"]
    said = _video_choice(found | {"error": None})
    assert "auto decodes in software: no NVIDIA GPU" in said and "encodes with libx264" in said


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one, drawn once."""
    return draw_clip("160x90", 35, tmp_path_factory.mktemp("street") / "a.mp4")


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, street: Path) -> Any:
    """Try a stand-in."""
    monkeypatch.setattr(video_choice, "trouble_of_gpu", lambda: None)
    monkeypatch.setattr(video_choice, "draw_clip", lambda *_: street)

    def with_options(**options: Any) -> dict[str, Any]:
        monkeypatch.setattr(
            video_choice,
            "GpuDecoding",
            lambda decoder, shortest=0: Chips(options, decoder=decoder, slow=decoder == "auto"),
        )
        return look_at_video_choice(test=True)["decoder"]

    return with_options


def test_a_chip_that_gives_the_pictures_of_software_passes(tried: Any) -> None:
    found = tried()
    assert found["same_pictures"] and found["trouble"] is None
    assert found["auto"] == "software" and " ms on a core" in found["why"]  # it is a slow one


def test_a_chip_that_fails_is_told(tried: Any) -> None:
    found = tried(fails_at=20)
    assert found["same_pictures"] is None and "its decoder failed" in found["trouble"]


def test_a_chip_whose_pictures_are_others_is_something_to_repair(
    tried: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Chip.decode

    def lying(self: Chip, packet: Any = None) -> Any:
        pictures = decode(self, packet)
        for picture in pictures:
            np.frombuffer(memoryview(picture.planes[0]), np.uint8)[:8] ^= 1
        return pictures

    monkeypatch.setattr(Chip, "decode", lying)
    found = tried()
    assert found["same_pictures"] is False
    assert any("other pictures than software" in each for each in repairs_of(found))


@pytest.mark.parametrize("same", [True, False])
def test_images_that_a_gpu_makes_otherwise_are_something_to_repair(tried: Any, same: bool) -> None:
    found = tried() | {"stay": True, "why_copied": None, "same_images": same}
    repairs = [each for each in repairs_of(found) if "other images" in each]
    assert len(repairs) == (not same)
    encoder = {"auto": "libx264", "why": "asked"}
    said = _video_choice({"decoder": found, "encoder": encoder, "error": None})
    assert ("pictures can stay there" in said) == same


@pytest.mark.parametrize("why", [None, "this GPU makes other pictures of it"])
def test_whether_a_gpu_draws_is_told(tried: Any, why: str | None) -> None:
    found = tried() | {"stay": True, "draws": why is None, "why_drawn_here": why}
    encoder = {"auto": "h264_nvenc", "why": "asked"}
    said = _video_choice({"decoder": found, "encoder": encoder, "error": None})
    assert ("boxes can be drawn there" in said) == (why is None)
    assert (f"copied to be drawn on: {why}" in said) == (why is not None)


def test_why_pictures_cannot_stay_is_told(tried: Any) -> None:
    found = tried()
    assert found["stay"] is False and found["why_copied"] and found["same_images"] is None
    encoder = {"auto": "libx264", "why": "asked"}
    said = _video_choice({"decoder": found, "encoder": encoder, "error": None})
    assert f"pictures are copied to main memory: {found['why_copied']}" in said
