"""The parts of the doctor: questions in other processes, comparisons, facts of odd machines."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import machine
from pipeline.checkup import packages, video
from pipeline.checkup.anonymous import anonymous
from pipeline.checkup.cards import cards_on_the_bus, driver_version
from pipeline.checkup.isolation import isolated
from pipeline.checkup.parity import EXACT, ROUGH, Bounds, compare_boxes, compare_pixels
from pipeline.checkup.questions import import_package
from pipeline.frame import Detections
from tests.alone import REPOSITORY

CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
HANG = "import threading; threading.Event().wait()"
LEAVE = "import os; os.write(2, b'no such device\\n'); os._exit(7)"


# Questions in other processes


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        ("raise ImportError('libGL.so.1: cannot open')", "ImportError", "libGL.so.1: cannot open"),
        ("raise OSError('a file too short')", "OSError", "OSError: a file too short"),
        ("import a_module_that_nobody_has", "ModuleNotFoundError", "a_module_that_nobody_has"),
        (CRASH, "died", "killed by SIGSEGV"),
        (LEAVE, "died", "ended with exit code 7; the last that it said: no such device"),
    ],
    ids=["ImportError", "OSError", "missing", "crash", "exit"],
)
def test_a_package_that_breaks_gives_its_reason(
    content: str, kind: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = isolated(import_package, module="broken_package")
    assert finding["error_kind"] == kind
    assert words in finding["error"]


def test_a_question_that_is_never_answered_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "began"
    (tmp_path / "broken_package.py").write_text(
        f"import os, pathlib\npathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\n{HANG}"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = isolated(import_package, seconds=3, module="broken_package")
    assert finding == {"error": "no answer within 3 s", "error_kind": "hung"}
    if mark.exists():  # on a very busy machine it was ended before it began
        with pytest.raises(ProcessLookupError):
            os.kill(int(mark.read_text()), 0)


ASK = """
from pipeline.checkup.isolation import isolated
from pipeline.checkup.questions import import_package
isolated(import_package, module="slow_package")
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
def test_a_question_ends_with_who_asked_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign = tmp_path / "sign of life"
    os.mkfifo(sign)
    (tmp_path / "slow_package.py").write_text(
        f"import time\nheld = open({str(sign)!r}, 'w')\ntime.sleep(50)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        subprocess.Popen([sys.executable, "-c", ASK], cwd=REPOSITORY) as asking,
        sign.open() as life,
    ):
        asking.terminate()
        assert asking.wait() == -signal.SIGTERM
        assert select.select([life], [], [], 30.0)[0], "the process that was asked lives on"
        assert life.read() == ""


def test_a_package_that_can_be_imported_is_no_error() -> None:
    assert isolated(import_package, module="json") == {"error": None}


# Nobody's business


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("cannot read '/home/anna/a b/x.onnx'", "cannot read '~/a b/x.onnx'"),
        ("/srv/anna/cam/lib.so: undefined symbol", "…/lib.so: undefined symbol"),
        ("/usr/lib/libcuda.so.1: too short", "/usr/lib/libcuda.so.1: too short"),
        ("rtsp://anna:hunter22@door/1 is silent", "rtsp://***@door/1 is silent"),
        ("no file:///srv/anna/x.so here", "no …/x.so here"),
        ("denied: hunter22", "denied: ***"),
        ("it costs 1/2 of and/or", "it costs 1/2 of and/or"),
        ("two\n  lines", "two lines"),
    ],
)
def test_messages_lose_what_is_private(message: str, shown: str) -> None:
    environment = {"HOME": "/home/anna", "MY_PASSWORD": "hunter22", "LANG": "C"}
    assert anonymous(message, environment) == shown


# Comparisons


def found(*objects: tuple[float, int, float]) -> list[Detections]:
    """One frame of boxes of 100 pixels; each is (left, class, score)."""
    boxes = np.array([(x, 0, x + 100, 100) for x, _, _ in objects], np.float32).reshape(-1, 4)
    scores = np.array([score for _, _, score in objects], np.float32)
    return [Detections(boxes, scores, np.array([n for _, n, _ in objects], np.int64))]


@pytest.mark.parametrize(
    ("other", "bounds", "matched"),
    [
        (found((0, 1, 0.90)), EXACT, 2),
        (found((4, 1, 0.91)), EXACT, 2),  # overlap 0.92
        (found((8, 1, 0.90)), EXACT, 0),  # 0.85
        (found((8, 1, 0.90)), ROUGH, 2),
        (found((20, 1, 0.90)), ROUGH, 0),  # 0.67
        (found((0, 1, 0.87)), EXACT, 0),
        (found((0, 1, 0.85)), ROUGH, 2),
        (found((0, 1, 0.75)), ROUGH, 0),
        (found((0, 2, 0.90)), ROUGH, 0),
    ],
)
def test_two_boxes_are_alike_within_the_bounds_only(
    other: list[Detections], bounds: Bounds, matched: int
) -> None:
    finding = compare_boxes(found((0, 1, 0.90)), other, 0.5, bounds)
    assert (finding["compared"], finding["matched"]) == (2, matched)
    assert finding["equal"] is (matched == 2)


def test_a_box_has_one_partner_only_and_what_one_side_invents_counts() -> None:
    finding = compare_boxes(found((0, 1, 0.9)), found((0, 1, 0.9), (1, 1, 0.9)), 0.5, EXACT)
    assert (finding["compared"], finding["matched"]) == (3, 2)
    assert not finding["equal"]


def test_a_score_on_the_other_side_of_the_threshold_is_no_difference() -> None:
    finding = compare_boxes(found((0, 1, 0.505)), found((0, 1, 0.495)), 0.5, EXACT)
    assert (finding["compared"], finding["matched"]) == (1, 1)
    assert finding["largest"]["score"] == pytest.approx(0.01, abs=1e-4)


def test_nothing_found_is_not_equal() -> None:
    finding = compare_boxes(found(), found((0, 1, 0.2)), 0.5, EXACT)
    assert (finding["compared"], finding["share"], finding["equal"]) == (0, None, False)


def test_pixels_are_counted() -> None:
    witness = np.zeros((2, 100, 100), np.uint8)
    other = witness.copy()
    other[0, 0, :30] = 1  # 30 of 20,000
    assert not compare_pixels(witness, other, EXACT)["equal"]
    assert compare_pixels(witness, other, ROUGH)["equal"]
    assert not compare_pixels(witness, other[:, :50], ROUGH)["equal"]


# Odd machines


def test_a_machine_without_proc_has_a_report_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.delattr(machine.os, "sysconf")
    assert machine.cpu_name(tmp_path / "nothing") is None
    assert machine.instruction_sets(tmp_path / "nothing") is None
    assert machine.memory_gib() is None
    assert machine.machine()["memory_gib"] is None


@pytest.mark.parametrize(
    ("text", "name", "has"),
    [
        (
            "model name\t: A B-9\nflags\t\t: fpu avx2 avx_vnni\n\nmodel name\t: C\n",
            "A B-9",
            {"avx2", "vnni"},
        ),
        (
            "model name :\nflags : avx512f avx512_bf16 amx_tile avx2",
            None,
            {"avx2", "avx512", "bf16", "amx"},
        ),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp bf16\n", None, {"vnni", "bf16"}),
    ],
    ids=["x86", "no name", "arm"],
)
def test_processors_are_read_from_the_kernels_list(
    text: str, name: str | None, has: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    (tmp_path / "cpuinfo").write_text(text)
    assert machine.cpu_name(tmp_path / "cpuinfo") == name
    sets = machine.instruction_sets(tmp_path / "cpuinfo")
    assert sets is not None
    assert {each for each, there in sets.items() if there} == has


def test_cards_are_counted_without_their_driver(tmp_path: Path) -> None:
    for name, vendor, kind in [
        ("0000:01:00.0", "0x10de", "0x030000"),
        ("0000:01:00.1", "0x10de", "0x040300"),  # its sound
        ("0000:02:00.0", "0x1002", "0x030000"),
    ]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert cards_on_the_bus(tmp_path) == 1
    assert cards_on_the_bus(tmp_path / "nothing") is None


def test_the_drivers_version_is_read_or_unknown(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("580.95.05\n")
    assert driver_version(tmp_path / "version") == "580.95.05"
    (tmp_path / "version").write_text("something else\n")
    assert driver_version(tmp_path / "version") is None
    assert driver_version(tmp_path / "nothing") is None


# Packages and FFmpeg


def test_every_extra_for_users_is_told_and_those_of_developers_are_not() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    listed: dict[str, Any] = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    assert set(packages.extras()) == set(listed) - {"test", "bench"}


def test_an_extra_that_is_not_whole_names_what_it_lacks(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(
        '[project.optional-dependencies]\nthere = ["numpy>=1.0,<99"]\n'
        'gone = ["numpy>=99", "a-package-that-nobody-has"]\n'
    )
    found = packages.extras(project)
    assert found["there"] == {
        "installed": True,
        "lacking": [],
        "install": 'pip install -e ".[there]"',
    }
    assert found["gone"]["lacking"] == ["numpy>=99", "a-package-that-nobody-has"]


def test_beside_no_checkout_the_extras_are_those_of_what_was_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["numpy>=2.0", 'redis>=5.2; extra == "brokers"', 'pytest>=8; extra == "test"']
    monkeypatch.setattr(packages, "requires", lambda _: lines)
    assert packages.known_extras(tmp_path / "nothing") == {"brokers": ["redis>=5.2"]}
    assert packages.install_line("brokers", tmp_path / "nothing") == 'pip install ".[brokers]"'


def test_ffmpeg_is_asked_for_what_it_was_built_with() -> None:
    assert video.has_codec("mpeg4", "r") and video.has_codec("mpeg4", "w")
    assert not video.has_codec("nonsense", "r")
    assert video.has_protocol("http") and video.has_protocol("rtsp")
    assert not video.has_protocol("nonsense")
    assert video.look_at_ffmpeg()["decoders"]["h264"]
