"""``models/`` knows tensors, ``pipeline/`` knows time: who may import whom, and start what."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PIPELINE = sorted((REPOSITORY / "pipeline").rglob("*.py"))
MODELS = sorted((REPOSITORY / "models").rglob("*.py"))
HEAVY = {"torch", "torchvision", "onnx", "onnxscript", "pycocotools", "matplotlib", "triton"}


def shown(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, at_import: bool = False) -> Iterator[str]:
    """Every module that a file imports; `at_import`: only what merely importing it loads."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{shown(path)}: a relative import hides where it leads"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            waiting.extend(ast.iter_child_nodes(node))


def roots(path: Path, at_import: bool = False) -> set[str]:
    return {name.partition(".")[0] for name in imported(path, at_import)}


@pytest.mark.parametrize("path", PIPELINE, ids=shown)
def test_the_pipeline_imports_nothing_of_the_models_and_no_torch(path):
    assert not roots(path) & {"models", "run_stream", "tests"}
    assert not roots(path, at_import=True) & HEAVY


@pytest.mark.parametrize("path", MODELS, ids=shown)
def test_the_models_import_nothing_of_the_pipeline(path):
    assert not roots(path) & {"pipeline", "run_stream", "tests"}


def test_importing_the_whole_pipeline_and_the_program_loads_no_torch():
    modules = [*map(module_name, PIPELINE), "run_stream"]
    program = (
        f"import sys, {', '.join(modules)}\nprint(*{HEAVY | {'models'}!r} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("path", MODELS, ids=shown)
def test_every_module_of_the_models_can_be_imported_on_its_own(path):
    pytest.importorskip("torch", reason="the extra 'models' is not installed")
    __import__(module_name(path))


def starts_concurrency(path: Path) -> Iterator[str]:
    """Names of classes and modules that start threads or processes, used in a file."""
    starters = {"Thread", "Timer", "ThreadPoolExecutor", "ProcessPoolExecutor", "ThreadPool"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = node.func
            name = getattr(called, "attr", getattr(called, "id", ""))
            if name in starters:
                yield name
    yield from roots(path) & {"multiprocessing", "concurrent", "asyncio", "_thread"}


@pytest.mark.parametrize("path", [*PIPELINE, REPOSITORY / "run_stream.py"], ids=shown)
def test_threads_are_started_in_one_file_only(path):
    # Those of stages, which are joined, and those of what nobody can interrupt, which may not be.
    expected = ["Thread", "Thread"] if shown(path) == "pipeline/graph.py" else []
    # A web server's coroutines are no threads; its thread comes from the graph's file, too.
    allowed = {"asyncio"} if shown(path).startswith("pipeline/serve/") else set()
    assert [start for start in starts_concurrency(path) if start not in allowed] == expected
