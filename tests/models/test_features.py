"""`python -m models.features`: a video or pictures in, numbers out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision

from models.backbones.features import load_classifier
from models.backbones.resnet import resnet18
from models.features import main
from models.pixels import Normalise


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), file)
    return file


@pytest.fixture
def run(weights, tmp_path):
    """Run the command line; returns its exit code and what it wrote."""

    def run(*words: object, stride: int = 8) -> tuple[int, dict[str, np.ndarray]]:
        out = tmp_path / "features.npz"
        common = ["--backbone", "resnet18", "--stride", stride, "--weights", weights, "--out", out]
        code = main([str(word) for word in (*words, *common)])
        return code, dict(np.load(out)) if out.exists() else {}

    return run


def picture(path: Path, size_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels[:, :, ::-1])
    return pixels


def by_hand(weights: Path, pixels: np.ndarray, stride: int = 8) -> torch.Tensor:
    trunk = resnet18((stride,)).eval()
    load_classifier(trunk, torch.load(weights))
    with torch.inference_mode():
        return trunk(Normalise()(torch.from_numpy(pixels)[None]))[stride][0]


def test_a_video_gives_a_row_and_a_time_for_each_frame(run, make_clip, capsys):
    code, found = run(make_clip(frames=11, fps=10))
    assert code == 0
    assert found.keys() == {"features", "seconds"}
    assert found["features"].shape == (11, 128)
    assert found["features"].dtype == np.float32
    np.testing.assert_allclose(found["seconds"], np.arange(11) / 10, atol=1e-6)
    assert "11 x 128 of resnet18" in capsys.readouterr().out


def test_rows_do_not_depend_on_how_many_frames_go_together(run, make_clip):
    clip = make_clip(frames=5)
    together, alone = run(clip)[1]["features"], run(clip, "--batch", 1)[1]["features"]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_array_equal(run(clip, "--every", 2)[1]["seconds"], [0.0, 0.08, 0.16])


def test_pictures_give_the_means_of_the_trunks_maps(run, weights, tmp_path):
    first = picture(tmp_path / "a.png", (33, 47))
    second = picture(tmp_path / "b.png", (64, 40), seed=1)
    code, found = run(tmp_path)
    assert code == 0
    assert found["names"].tolist() == ["a.png", "b.png"]
    for row, pixels in zip(found["features"], (first, second), strict=True):
        np.testing.assert_allclose(row, by_hand(weights, pixels).mean((1, 2)), atol=1e-5)


def test_maps_come_whole_on_request(run, weights, tmp_path):
    pixels = picture(tmp_path / "a.png", (33, 47))
    _, found = run(tmp_path / "a.png", "--maps")
    assert found.keys() == {"maps", "names"}
    np.testing.assert_allclose(found["maps"][0], by_hand(weights, pixels), atol=1e-5)


def test_a_video_that_lies_on_its_side_is_seen_upright(run, make_clip):
    _, found = run(make_clip(rotation=90, size=(64, 32)), "--maps")
    assert found["maps"].shape[-2:] == (8, 4)


def test_maps_of_different_sizes_ask_for_one(run, tmp_path, capsys):
    picture(tmp_path / "a.png", (32, 32))
    picture(tmp_path / "b.png", (64, 32))
    assert run(tmp_path, "--maps")[0] == 3
    assert "b.png has another size than a.png; give --size HxW" in capsys.readouterr().err
    assert run(tmp_path, "--maps", "--size", "40x48")[1]["maps"].shape == (2, 128, 5, 6)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.mp4", None, "no such file"),
        ("empty.mp4", b"", "cannot read video"),
        ("text.mp4", b"once upon a time", "cannot read video"),
        ("broken.jpg", b"once upon a time", "cannot read picture"),
    ],
)
def test_a_source_that_cannot_be_read_says_why(run, tmp_path, capsys, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert run(tmp_path / name) == (3, {})
    assert words in capsys.readouterr().err


def test_a_folder_without_pictures_and_a_sound_file_are_refused(run, tmp_path, make_clip, capsys):
    (tmp_path / "folder").mkdir()
    assert run(tmp_path / "folder")[0] == 3
    assert run(make_clip(with_video=False, audio_delay=0.0))[0] == 3
    assert run(make_clip("a.mp4"), make_clip("b.mp4"))[0] == 3
    lines = capsys.readouterr().err.splitlines()
    assert "no pictures in the folder" in lines[0]
    assert "has no video in it" in lines[1]
    assert "give one video, or pictures" in lines[2]


def test_wrong_arguments_are_refused_before_anything_is_read(run, tmp_path, weights, capsys):
    assert run(tmp_path, stride=7)[0] == 2
    assert "maps of strides 2, 4, 8, 16, 32; asked for [7]" in capsys.readouterr().err
    words = [tmp_path, "--weights", weights, "--out", tmp_path / "nowhere" / "out.npz"]
    assert main([*map(str, words)]) == 2
    assert "no folder" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, "--every", 0)


def test_weights_of_another_network_are_refused(tmp_path, weights, capsys):
    words = [
        tmp_path,
        "--backbone",
        "mobilenet_v2",
        "--weights",
        weights,
        "--out",
        tmp_path / "out.npz",
    ]
    assert main([*map(str, words)]) == 4
    assert "does not hold a mobilenet_v2" in capsys.readouterr().err


def test_a_picture_too_small_for_the_trunk_is_named(tmp_path, capsys):
    picture(tmp_path / "a.png", (8, 8))
    file = tmp_path / "alexnet.pth"
    with torch.device("meta"):  # drawing random weights would take long
        state = torchvision.models.alexnet(weights=None).features.state_dict(prefix="features.")
    torch.save({name: torch.zeros(value.shape) for name, value in state.items()}, file)
    words = [tmp_path, "--backbone", "alexnet", "--weights", file, "--out", tmp_path / "out.npz"]
    assert main([*map(str, words)]) == 3
    assert "a.png: 8x8 pixels are too few" in capsys.readouterr().err
