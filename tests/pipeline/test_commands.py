"""What all commands have in common."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commands import MODELS, leave, model_path


def test_a_model_that_ships_goes_by_its_name_and_others_by_their_path() -> None:
    assert model_path("street") == MODELS["street"] and MODELS["street"].exists()
    for mine in ("mine.onnx", "street.onnx", str(MODELS["street"].with_suffix(""))):
        assert model_path(mine) == Path(mine)


def test_a_command_that_is_stopped_says_so_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    with pytest.raises(SystemExit) as ended:
        leave(main)
    assert ended.value.code == 130 and capsys.readouterr().err == "stopped\n"


def test_a_command_ends_with_its_exit_code() -> None:
    with pytest.raises(SystemExit) as ended:
        leave(lambda: 4)
    assert ended.value.code == 4


@pytest.mark.parametrize("tool", ["tune", "capacity", "doctor", "build"])
def test_each_tool_ends_so(tool: str) -> None:
    code = f"""
import runpy, signal, sys
def stop(*_): raise KeyboardInterrupt
import argparse
argparse.ArgumentParser.parse_args = stop
sys.argv = ["{tool}"]
runpy.run_module("pipeline.{tool}", run_name="__main__")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "stopped\n")
