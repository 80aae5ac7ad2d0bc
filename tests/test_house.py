"""The house: what its rooms are called, and what stands in none of them."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CODE = sorted(
    [
        *(REPOSITORY / "pipeline").rglob("*.py"),
        *(REPOSITORY / "models").rglob("*.py"),
        REPOSITORY / "run_stream.py",
    ]
)
TOP_LEVEL = {
    *("pipeline", "models", "configs", "tests", "run_stream.py", "pyproject.toml", "README.md"),
    *("LICENSE", "CHANGELOG.md", "Makefile", ".ci", ".github", ".gitignore", ".gitattributes"),
}
LARGEST_FILE_BYTES = 25_000_000

in_a_checkout = pytest.mark.skipif(
    not (REPOSITORY / ".git").exists(), reason="what is tracked is known in a checkout only"
)


def shown(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """Every file under version control."""
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [REPOSITORY / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


@in_a_checkout
def test_the_top_level_holds_what_the_design_names_and_nothing_else(tracked):
    assert {path.relative_to(REPOSITORY).parts[0] for path in tracked} <= TOP_LEVEL


@in_a_checkout
def test_no_tracked_file_is_too_large(tracked):
    assert [shown(path) for path in tracked if path.stat().st_size > LARGEST_FILE_BYTES] == []


@pytest.mark.parametrize("path", CODE, ids=shown)
def test_a_file_is_named_after_what_it_holds(path):
    vague = {"utils", "util", "misc", "helpers", "helper", "common", "base", "tools"}
    shadowing = {"queue", "types", "logging", "torch", "tensorrt"}
    assert path.stem not in vague | shadowing


@pytest.mark.parametrize("path", CODE, ids=shown)
def test_every_module_says_what_it_is_for(path):
    content = path.read_text(encoding="utf-8")
    assert not content or ast.get_docstring(ast.parse(content))


@pytest.mark.parametrize("path", CODE, ids=shown)
def test_nothing_sleeps_or_catches_everything_unseen(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in {"time.sleep", "sleep"}, f"line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: says not what it catches"
            assert ast.unparse(node.type) != "Exception", f"line {node.lineno}"


@in_a_checkout
def test_no_text_names_a_path_of_one_machine_or_a_registry(tracked):
    # In pieces, so that this file does not find itself.
    forbidden = re.compile(
        "|".join(["/ro" + "ot/", "/wo" + "rk/", "pypi" + r"\.org", "python" + "hosted"])
    )
    texts = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".txt", ".sh", ""}
    found = [
        f"{shown(path)}: {match.group()}"
        for path in tracked
        if path.suffix in texts
        for match in forbidden.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "path", [path for path in CODE if ">>> " in path.read_text(encoding="utf-8")], ids=shown
)
def test_the_examples_in_docstrings_are_true(path):
    name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    if path.is_relative_to(REPOSITORY / "models"):
        pytest.importorskip("torch", reason="the extra 'models' is not installed")
    result = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_distribution_cannot_be_uploaded_and_ships_its_model():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert "Private :: Do Not Upload" in project["project"]["classifiers"]
    assert project["project"]["scripts"] == {"boxstream": "run_stream:command"}
    assert "zoo/*.onnx" in project["tool"]["setuptools"]["package-data"]["models"]


def test_every_code_folder_is_a_package_so_that_the_wheel_holds_it():
    folders = {path.parent for path in CODE} - {REPOSITORY}
    assert [shown(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_change_log_names_the_version():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert f"\n## {project['version']}\n" in (REPOSITORY / "CHANGELOG.md").read_text()
