"""Each contestant of the full benchmark has an environment that can be made again."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.model_file.reading import read_model_file
from pipeline.placement import Placement
from tests.benchmarks import environments
from tests.benchmarks.detectors import fitted, home
from tests.benchmarks.environments import PINS, Missing, environment, versions
from tests.benchmarks.full import OPT_IN, RIVALS
from tests.pipeline.model_files import write_model

PIN_FILES = sorted(PINS.glob("*.txt"))


@pytest.mark.parametrize("path", PIN_FILES, ids=lambda path: path.stem)
def test_every_package_is_pinned_and_no_line_says_where_from(path):
    lines = path.read_text().splitlines()
    assert lines and all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", x) for x in lines)


def test_each_rival_with_packages_has_its_file_and_each_file_a_rival():
    homes = {rival.home for rival in RIVALS if rival.finds and rival.home}
    assert homes == {path.stem for path in PIN_FILES} and OPT_IN in homes


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Other pins, other environments."""
    monkeypatch.setattr(environments, "PINS", tmp_path)
    monkeypatch.setattr(environments, "ROOT", tmp_path / "made")
    return tmp_path


def test_an_environment_that_is_not_there_and_must_not_be_made_says_how_to_make_it(elsewhere):
    (elsewhere / "small.txt").write_text("numpy==2.4.6\n")
    found = environment("small", may_install=False)
    assert isinstance(found, Missing) and "full --install small" in found.why


def test_what_cannot_be_installed_is_missing_with_the_reason(elsewhere, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    (elsewhere / "small.txt").write_text("boxstream-no-such-thing==1.0\n")
    found = environment("small")
    assert isinstance(found, Missing) and "boxstream-no-such-thing" in found.why
    assert isinstance(environment("small", may_install=False), Missing)


def test_an_environment_is_made_once(elsewhere, capfd):
    (elsewhere / "small.txt").write_text("")
    python = environment("small")
    assert isinstance(python, Path) and python.exists()
    assert environment("small") == python
    assert capfd.readouterr().err.count("installing") == 1


def test_versions_are_those_of_the_environment():
    assert versions(Path(sys.executable), ("numpy", "nobody-has-this")) == {"numpy": np.__version__}


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_boxes_of_the_loops_come_home_as_those_of_the_line_do(fit, tmp_path):
    file = read_model_file(write_model(tmp_path / "small.onnx", {"fit": fit}))
    picture = np.zeros((90, 211, 3), np.uint8)
    image, scale, shift = fitted(picture, file)
    assert image.shape == (*file.input_size_hw, 3)
    boxes = np.array([[3, 9, 20, 22], [0, 0, 48, 32]], np.float32)
    place = getattr(Placement, fit)(picture.shape[:2], file.input_size_hw)
    found = home(boxes, picture, scale, shift)
    np.testing.assert_allclose(found, place.to_frame(boxes), atol=0.01)
