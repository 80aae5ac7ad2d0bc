"""A process survives its signals, whatever has become of the engines that it has loaded."""

from __future__ import annotations

import gc
import signal
import tempfile
import threading
from pathlib import Path

from pipeline.engines import Engine
from pipeline.model_file.reading import read_model_file
from tests.alone import alone
from tests.pipeline.model_files import load, write_model


def loaded(folder: Path) -> list[Engine]:
    """Two engines of one model, as for two models in one line."""
    model = read_model_file(write_model(folder / "m.onnx"))
    return [load(model, "openvino") for _ in range(2)]


def signals_handled() -> int:
    """How many reach Python's handler: one when the engines are gone in the order they came, one
    when the next have gone in another thread."""
    handled: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: handled.append(number))
    with tempfile.TemporaryDirectory() as folder:
        engines = loaded(Path(folder))
        while engines:
            del engines[0]
            gc.collect()
        signal.raise_signal(signal.SIGUSR1)
        engines = loaded(Path(folder))
    thread = threading.Thread(target=engines.clear)
    thread.start()
    thread.join()
    signal.raise_signal(signal.SIGUSR1)
    return len(handled)


def test_a_signal_is_survived_when_openvinos_engines_have_gone():
    assert alone(signals_handled) == 2
