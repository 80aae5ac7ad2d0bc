"""The checkerboard that the one way has and the other has not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from models.segmentation.checkerboard import main, overlap, pattern_share, ways


def test_an_uneven_kernel_hears_more_cells_at_every_other_pixel():
    assert overlap(3, 2, 4)[2:6, 2:6].tolist() == [[4, 2, 4, 2], [2, 1, 2, 1]] * 2
    assert (overlap(4, 2, 4)[2:-2, 2:-2] == 4).all()


def test_the_measure_knows_a_checkerboard_from_other_pictures():
    y, x = np.mgrid[:32, :48]
    board = ((y + x) % 2).astype(float)
    assert pattern_share(board, 2) == pytest.approx(1.0)
    assert pattern_share(np.sin(x / 5.0), 2) < 0.01
    assert pattern_share(np.ones((8, 8)), 2) == 0
    noise = np.random.default_rng(0).random((64, 64))
    assert pattern_share(noise, 2) < 0.02
    assert 0.2 < pattern_share(board + 2 * noise[:32, :48], 2) < 0.9


@pytest.mark.parametrize("stride", [2, 4])
def test_transposed_convolution_leaves_a_pattern_and_resizing_does_not(stride):
    torch.manual_seed(0)
    even_map = torch.ones(1, 1, 16, 16)
    with torch.no_grad():
        shares = {
            name: pattern_share(layer(even_map)[0, 0, 8:-8, 8:-8].numpy(), stride)
            for name, layer in ways(stride).items()
        }
    uneven, even, resized = shares.values()
    assert uneven > 0.99
    assert even > 0.99
    assert resized == 0


def test_on_a_smooth_picture_the_pattern_is_many_times_stronger():
    torch.manual_seed(0)
    smooth = torch.linspace(0, 3, 24).sin()[None, None, None].expand(1, 1, 24, 24)
    with torch.no_grad():
        uneven, even, resized = (
            pattern_share(layer(smooth)[0, 0, 4:-4, 4:-4].numpy(), 2) for layer in ways().values()
        )
    assert min(uneven, even) > 20 * resized


def test_the_picture_is_written_where_it_is_asked_for(tmp_path):
    assert main([str(tmp_path / "board.png")]) == 0
    drawn = cv2.imread(str(tmp_path / "board.png"), cv2.IMREAD_GRAYSCALE)
    panels = np.hsplit(drawn[4:244], 3)
    spread = [panel[20:200, 20:200].std() for panel in panels]
    assert min(spread[:2]) > 10
    assert spread[2] == 0
