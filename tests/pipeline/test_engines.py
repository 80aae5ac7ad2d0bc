"""The engines on a small real graph: equal answers, whatever is under way beside them."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.engines import Engine, Purpose, infer
from pipeline.frame import Batch
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.placement import Placement
from tests.pipeline.frames import blank
from tests.pipeline.model_files import (
    ENGINES,
    ENTRY,
    HEIGHT,
    SLOTS,
    WIDTH,
    images,
    load,
    write_model,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return read_model_file(write_model(tmp_path_factory.mktemp("model") / "m.onnx"))


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, model: ModelFile) -> Iterator[Engine]:
    with load(model, request.param, batch=3) as engine:
        yield engine


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray], atol: float = 1e-4) -> None:
    assert set(a) == set(b) == set(ENTRY["outputs"])
    for name in a:
        np.testing.assert_allclose(a[name].astype(float), b[name].astype(float), atol=atol)


@pytest.mark.parametrize("purpose", ["recording", "camera"])
@pytest.mark.parametrize("batch", [1, 3])
def test_openvino_and_onnxruntime_agree(model: ModelFile, batch: int, purpose: Purpose) -> None:
    with (
        load(model, "openvino", purpose, batch=batch) as one,
        load(model, "onnxruntime", batch=batch) as other,
    ):
        for n in range(1, batch + 1):
            assert_same(one.infer(images(n)), other.infer(images(n)))


def test_the_arrays_have_the_shapes_of_the_contract(engine: Engine) -> None:
    for n in (1, 2, 3):  # partial batches too
        found = engine.infer(images(n))
        assert found["boxes"].shape == (n, SLOTS, 4)
        assert found["scores"].shape == found["labels"].shape == (n, SLOTS)
        assert found["exact"].tolist() == [True] * n
        assert found["boxes"].dtype == found["scores"].dtype == np.float32
        assert found["labels"].dtype == np.int64


def test_an_image_gets_the_same_answer_in_any_company(engine: Engine) -> None:
    whole = engine.infer(images(3))
    for n in range(3):
        alone = engine.infer(images(3)[n : n + 1])
        assert_same(alone, {name: rows[n : n + 1] for name, rows in whole.items()})


def test_several_calls_may_be_under_way_and_answers_stay_apart(engine: Engine) -> None:
    expected = [engine.infer(images(2, seed)) for seed in range(12)]
    pending = [engine.submit(images(2, seed)) for seed in range(12)]
    for answer, wanted in reversed(list(zip(pending, expected, strict=True))):
        assert_same(answer.result(), wanted)


def test_images_live_as_long_as_the_engine_reads_them(engine: Engine) -> None:
    expected = engine.infer(images(3, seed=1))
    pending = [engine.submit(images(3, seed=1)) for _ in range(8)]  # nobody else holds them
    gc.collect()
    rubbish = [np.full((3, HEIGHT, WIDTH, 3), 255, np.uint8) for _ in range(8)]
    for answer in pending:
        assert_same(answer.result(), expected)
    del rubbish


def test_answers_are_the_callers_own_and_may_be_asked_for_twice(engine: Engine) -> None:
    first = engine.submit(images(3, seed=1))
    found = first.result()
    kept = {name: rows.copy() for name, rows in found.items()}
    engine.infer(images(3, seed=2))
    assert_same(found, kept, atol=0)
    assert first.result() is found
    found["boxes"][:] = -1  # writable


def test_answers_that_nobody_wants_do_not_hinder_the_end(model: ModelFile) -> None:
    for name in ENGINES:
        with load(model, name) as engine:
            for seed in range(6):
                engine.submit(images(1, seed))
        gc.collect()


def test_the_engine_counts_its_calls_and_the_time_it_was_busy(engine: Engine) -> None:
    assert (engine.calls, engine.busy_seconds) == (0, 0.0)  # warming up is not counted
    assert engine.load_seconds > 0
    started = time.perf_counter()
    for pending in [engine.submit(images(3)) for _ in range(5)]:
        pending.result()
    wall = time.perf_counter() - started
    assert engine.calls == 5
    assert 0 < engine.busy_seconds <= wall  # calls that overlap are not counted twice


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, HEIGHT, WIDTH + 1, 3), np.uint8),
        np.zeros((1, HEIGHT, WIDTH, 3), np.float32),
        np.zeros((0, HEIGHT, WIDTH, 3), np.uint8),
        np.zeros((4, HEIGHT, WIDTH, 3), np.uint8),
        np.zeros((HEIGHT, WIDTH, 3), np.uint8),
    ],
)
def test_images_of_the_wrong_kind_are_refused(engine: Engine, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="takes"):
        engine.submit(wrong)


def test_images_need_not_lie_in_one_piece(engine: Engine) -> None:
    wide = images(6)
    assert_same(engine.infer(wide[::2]), engine.infer(wide[::2].copy()))


def test_the_infer_stage_starts_without_waiting(model: ModelFile) -> None:
    frames = [blank(WIDTH, HEIGHT, index=index) for index in range(3)]
    place = Placement.letterbox((HEIGHT, WIDTH), (HEIGHT, WIDTH))
    batches = [Batch((frame,), images(1, frame.index), (place,)) for frame in frames]
    with load(model, "openvino") as engine:
        answers = list(infer(batches, engine))
        assert engine.calls == 0  # nobody has asked for an answer yet
        for (batch, pending), wanted in zip(answers, batches, strict=True):
            assert batch is wanted
            assert_same(pending.result(), engine.infer(wanted.images))
