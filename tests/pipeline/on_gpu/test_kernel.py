"""The kernel that makes images: held against numpy and swscale, and compiled for real chips."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import av
import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'models' is not installed")
pytest.importorskip("triton", reason="torch brings it on Linux")

import torch

from pipeline.gpu.pictures import Planes, planes_on_gpu
from pipeline.gpu.preprocess import Conversion, _is_right, trouble_of_kernels, write
from pipeline.gpu.trial import trouble_of_drawing
from pipeline.model_file.reading import Fit
from pipeline.placement import PADDING, Placement
from pipeline.preprocess import preprocess
from pipeline.yuv import Colours
from tests.pipeline.frames import frame_of
from tests.pipeline.stand_in_gpu_picture import on_gpu

pytestmark = pytest.mark.usefixtures("interpreter")

LIMITED, FULL = 1, 2
MATRICES = [1, 4, 6, 7, 9]


def colourful(
    size_wh: tuple[int, int], layout: str = "nv12", matrix: int = 1, colour_range: int = LIMITED
) -> av.VideoFrame:
    """Soft and hard edges in all colours."""
    width, height = size_wh
    chance = np.random.default_rng(width * height)
    coarse = chance.integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), np.uint8)
    rgb = cv2.resize(coarse, size_wh, interpolation=cv2.INTER_CUBIC)
    rgb[height // 3 : height // 2, width // 4 : width // 2] = (255, 0, 90)
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
    full = colour_range == FULL
    swscale = {1: 1, 4: 4, 6: 5, 7: 7, 9: 9}[matrix]
    woven = picture.reformat(
        format=layout, dst_colorspace=swscale, dst_color_range=FULL if full else LIMITED, threads=1
    )
    woven.colorspace, woven.color_range = matrix, colour_range
    return woven


def kernels_image(
    picture: av.VideoFrame, placement: Placement, device: str = "cpu", tile: Any = (128, 256)
) -> np.ndarray:
    planes = Planes(*(plane.to(device) for plane in planes_on_gpu(on_gpu(picture))))
    image = torch.full((*placement.input_hw, 3), 7, dtype=torch.uint8, device=device)
    write(image, planes, placement, Colours.of(picture), tile=tile)
    return image.cpu().numpy()


def swscales_image(picture: av.VideoFrame, input_hw: tuple[int, int], fit: Fit) -> np.ndarray:
    (batch,) = preprocess([[frame_of(picture)]], input_hw, fit)
    return np.asarray(batch.images[0])


# The twin ----------------------------------------------------------------------------------------


def weights(samples: int, pixels: int, shift: float = 0.0) -> np.ndarray:
    """(pixels, samples): how much of each sample is in a pixel, one at a time."""
    matrix = np.zeros((pixels, samples))
    step = samples / pixels
    for pixel in range(pixels):
        middle = (pixel + 0.5) * step - 0.5 + shift
        for sample in range(int(middle - step) - 3, int(middle + step) + 4):
            share = 0.5 + max(step, 1) / 2 - abs(sample - middle)
            matrix[pixel, min(max(sample, 0), samples - 1)] += min(max(share, 0), 1)
    return matrix / matrix.sum(1, keepdims=True)


def twins_image(picture: av.VideoFrame, placement: Placement) -> np.ndarray:
    """(H, W, 3) by the definition, in double precision."""
    height, width = placement.scaled_hw
    kind, unit = (np.uint8, 1) if picture.format.name == "nv12" else (np.uint16, 256)
    luma, chroma = (
        np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1) for plane in picture.planes
    )
    luma = luma[:, : picture.width] / unit
    chroma = chroma[:, : 2 * picture.planes[1].width].reshape(len(chroma), -1, 2) / unit
    y = weights(picture.height, height) @ luma @ weights(picture.width, width).T
    down, across = weights(len(chroma), height), weights(chroma.shape[1], width, 0.25)
    u, v = (down @ chroma[..., i] @ across.T - 128 for i in (0, 1))
    black, gain, red_v, green_u, green_v, blue_u = Conversion.of(Colours.of(picture))
    y = (y - black) * gain
    rgb = np.stack([y + red_v * v, y + green_u * u + green_v * v, y + blue_u * u], 2)
    image = np.full((*placement.input_hw, 3), float(PADDING))
    (top, left) = placement.top_left
    image[top : top + height, left : left + width] = np.clip(np.floor(rgb + 0.5), 0, 255)
    return image


SIZES = [
    ((96, 64), (40, 56), "letterbox"),  # bars above and below
    ((64, 96), (40, 56), "letterbox"),  # bars at the sides
    ((97, 65), (40, 56), "stretch"),  # odd
    ((33, 21), (64, 80), "letterbox"),  # enlarged
    ((80, 20), (40, 40), "stretch"),  # one side shrunk, the other enlarged
    ((60, 90), (60, 50), "stretch"),  # chroma enlarged, luma not
    ((2, 3), (8, 8), "letterbox"),
    ((2, 300), (30, 30), "letterbox"),
]


def assert_twins(picture: av.VideoFrame, placement: Placement, **how: Any) -> None:
    ours, theirs = kernels_image(picture, placement, **how), twins_image(picture, placement)
    # Single precision may round a half to the other side.
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 0.002


@pytest.mark.parametrize(("size_wh", "input_hw", "fit"), SIZES)
@pytest.mark.parametrize("layout", ["nv12", "p010le", "p016le"])
def test_an_image_is_what_the_definition_says(
    size_wh: tuple[int, int], input_hw: tuple[int, int], fit: str, layout: str
) -> None:
    placement = getattr(Placement, fit)(size_wh[::-1], input_hw)
    assert_twins(colourful(size_wh, layout), placement)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
def test_every_matrix_and_range_is_converted_by_its_definition(
    matrix: int, colour_range: int
) -> None:
    picture = colourful((48, 32), matrix=matrix, colour_range=colour_range)
    assert_twins(picture, Placement.stretch((32, 48), (20, 30)))


def test_colours_of_the_conversion_are_those_that_are_drawn_with() -> None:
    for matrix in MATRICES:
        for full in (False, True):
            colours = Colours(matrix, full)
            black, gain, red_v, green_u, green_v, blue_u = Conversion.of(colours)
            for rgb in [(255, 0, 0), (0, 255, 0), (20, 90, 200), (255, 255, 255), (0, 0, 0)]:
                y, u, v = colours.yuv(rgb)
                light, u, v = (y - black) * gain, u - 128, v - 128
                back = light + red_v * v, light + green_u * u + green_v * v, light + blue_u * u
                assert np.abs(np.subtract(back, rgb)).max() < 3


def test_tiles_that_reach_over_the_edge_write_nothing_outside() -> None:
    picture = colourful((50, 34))
    placement = Placement.letterbox((34, 50), (19, 37))
    around = torch.full((3, 19, 37, 3), 7, dtype=torch.uint8)
    planes = planes_on_gpu(on_gpu(picture))
    write(around[1], planes, placement, Colours.of(picture), tile=(8, 16))
    assert (around[0] == 7).all() and (around[2] == 7).all()
    assert np.array_equal(around[1].numpy(), kernels_image(picture, placement))


# swscale, which is what every other engine sees ---------------------------------------------------


def assert_close(picture: av.VideoFrame, input_hw: tuple[int, int], fit: Fit) -> None:
    place = Placement.letterbox if fit == "letterbox" else Placement.stretch
    ours = kernels_image(picture, place((picture.height, picture.width), input_hw))
    apart = np.abs(ours.astype(int) - swscales_image(picture, input_hw, fit))
    assert apart.mean() < 0.05
    assert apart.max() <= 2


CLIPS = ["highway_day_960x540_25fps.mp4", "city_day_480x360_15fps.mp4"]


def some_pictures(path: Path, layout: str) -> Iterator[av.VideoFrame]:
    with av.open(str(path)) as container:
        for number, picture in enumerate(container.decode(video=0)):
            if number in (3, 40):
                woven = picture.reformat(format=layout, threads=1)
                woven.colorspace = picture.colorspace
                woven.color_range = picture.color_range
                yield woven
            if number >= 40:
                return


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("layout", ["nv12", "p010le"])
@pytest.mark.parametrize(
    ("input_hw", "fit"),
    [((320, 576), "letterbox"), ((200, 333), "stretch"), ((640, 1100), "letterbox")],
)
def test_real_pictures_are_those_that_swscale_makes(
    shared_data: Path, clip: str, layout: str, input_hw: tuple[int, int], fit: Fit
) -> None:
    for picture in some_pictures(shared_data / "videos" / clip, layout):
        assert_close(picture, input_hw, fit)


@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
def test_ranges_and_matrices_are_those_of_swscale(
    shared_data: Path, matrix: int, colour_range: int
) -> None:
    for picture in some_pictures(shared_data / "videos" / CLIPS[1], "nv12"):
        picture.colorspace, picture.color_range = matrix, colour_range
        assert_close(picture, (180, 240), "letterbox")


# A compiler --------------------------------------------------------------------------------------

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from pipeline.gpu.kernels import WHOLE, letterbox
kernel = letterbox()
fixed = {"padding": 114, "ROWS": 8, "COLUMNS": 64}
for sample, capability in (("*u8", 75), ("*u16", 90)):
    kinds = {"image": "*u8", "luma": sample, "chroma": sample} | dict.fromkeys(WHOLE, "i32")
    signature = {
        name: "constexpr" if name in fixed else kinds.get(name, "fp32") for name in kernel.arg_names
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=fixed)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    print(capability, f".target sm_{capability}" in made.asm["ptx"], len(made.asm["cubin"]) > 1000)
"""


def test_the_kernel_is_compiled_for_real_chips(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "TRITON_CACHE_DIR": str(tmp_path)}
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["75 True True", "90 True True"]


# Whether it works here ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16])
def test_the_proof_passes_what_is_right_and_nothing_else(
    kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _is_right(torch, kind, "cpu")

    def swapped(image: torch.Tensor, *given: object) -> None:
        write(image, *given)
        image.copy_(image.flip(2))

    for wrong in (swapped, lambda image, *_: image.fill_(PADDING)):
        monkeypatch.setattr("pipeline.gpu.preprocess.write", wrong)
        assert not _is_right(torch, kind, "cpu")


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    trouble_of_kernels.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert trouble_of_kernels() == "this torch finds no GPU"
    trouble_of_kernels.cache_clear()
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "triton" in (trouble_of_kernels() or "")
    trouble_of_kernels.cache_clear()


_GCC = CalledProcessError(1, ["/usr/bin/gcc", "/tmp/x/main.c", "-O3", "-shared", "-o", "main.so"])
_INSTALL = "; install gcc and Python's headers (python3-dev)"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RuntimeError("Failed to find C compiler. Please specify\nvia CC"),
            "Failed to find C compiler. Please specify" + _INSTALL,
        ),
        (_GCC, "/usr/bin/gcc gave 1" + _INSTALL),
        (CalledProcessError(2, "/sbin/ldconfig -p"), "/sbin/ldconfig -p gave 2"),
        (
            FileNotFoundError(2, "No such file or directory", "cc"),
            "[Errno 2] No such file or directory: 'cc'" + _INSTALL,
        ),
        (AssertionError(), "AssertionError"),
    ],
)
def test_a_compiler_that_fails_is_a_reason_and_no_end(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def fails(*_: object) -> bool:
        raise error

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr("pipeline.gpu.preprocess._is_right", fails)
    monkeypatch.setattr("pipeline.gpu.trial.draws_alike", fails)
    for asked, begin in (
        (trouble_of_kernels, "Triton cannot compile for it"),
        (trouble_of_drawing, "it fails on this GPU"),
    ):
        asked.cache_clear()
        assert asked() == f"{begin} ({told})"
        asked.cache_clear()


def test_planes_of_a_picture_on_the_gpu_share_its_memory_and_keep_it() -> None:
    picture = colourful((64, 48))
    before = bytes(picture.planes[0])
    luma, chroma = planes_on_gpu(on_gpu(picture))
    assert (luma.shape, chroma.shape) == ((48, 64), (24, 32, 2))
    pointer = luma.data_ptr()
    del picture
    again = av.VideoFrame(64, 48, "nv12")  # would be given the memory, were it free
    assert pointer not in [torch.from_dlpack(plane).data_ptr() for plane in again.planes]
    assert luma.numpy().tobytes() == before[: 64 * 48]
    assert isinstance(Planes(luma, chroma), tuple)
