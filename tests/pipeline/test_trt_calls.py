"""Every call of TensorRT and CUDA that we make exists there, under that name, with those arguments.

The bindings are the real ones, of the oldest and the newest TensorRT that are supported. Their
libraries, which are gigabytes and want a GPU, are replaced by empty ones: enough to look at
everything, and to make subclasses. What a call does on a GPU is not tested anywhere.

The packages, a megabyte each, are fetched here and not installed with the others: they exclude
each other, and would be taken for a TensorRT that works.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from pipeline.engines import cuda_calls, trt_calls
from pipeline.engines.cuda_calls import Cuda, CudaRuntime
from pipeline.engines.trt_calls import LeanTensorRt, TensorRt
from pipeline.errors import EngineError
from tests.pipeline import stand_in_tensorrt
from tests.pipeline.stand_in_cuda import StandInCuda
from tests.pipeline.stand_in_tensorrt import LeanStandIn, StandInTensorRt

REPOSITORY = Path(__file__).resolve().parents[2]
OLDEST, NEWEST = "10.13.3.9", "11.4.0.106"
BINDINGS = {
    "oldest": (f"tensorrt-cu12-bindings=={OLDEST}", "tensorrt_bindings", TensorRt),
    "newest": (f"tensorrt-cu13-bindings=={NEWEST}", "tensorrt_bindings", TensorRt),
    "lean": (f"tensorrt-lean-cu13-bindings=={NEWEST}", "tensorrt_lean_bindings", LeanTensorRt),
}
HERE = trt_calls.__name__
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvinfer_lean")
EMPTY = """
#include <stddef.h>
void *createInferBuilder_INTERNAL(void *a, int b) { return NULL; }
void *createInferRefitter_INTERNAL(void *a, void *b, int c) { return NULL; }
void *createInferRuntime_INTERNAL(void *a, int b) { return NULL; }
void *createNvOnnxParserRefitter_INTERNAL(void *a, void *b, int c) { return NULL; }
void *createNvOnnxParser_INTERNAL(void *a, void *b, int c) { return NULL; }
void *getBuilderPluginRegistry(int a) { return NULL; }
int getNvOnnxParserVersion(void) { return 0; }
void *getPluginRegistry(void) { return NULL; }
int initLibNvInferPlugins(void *a, const char *b) { return 1; }
"""

# Runs beside the bindings, of which a process can hold one version: tells what they have, and
# that ours can be subclasses of theirs.
LOOK = """
import importlib, inspect, json, sys
from contextlib import ExitStack
from pipeline.engines.trt_log import TrtLog
from pipeline.engines.trt_progress import build_monitor
from pipeline.errors import EngineError
trt = importlib.import_module(sys.argv[1])

def told(name, thing):
    if isinstance(thing, property):
        return {"property": True, "writable": thing.fset is not None}
    if inspect.isfunction(thing):
        return {"doc": name + str(inspect.signature(thing))}
    members = getattr(thing, "__members__", None)
    return {"doc": getattr(thing, "__doc__", None) or "", "members": list(members or ())}

def members(holder):
    return {name: told(name, inspect.getattr_static(holder, name)) for name in dir(holder)}

found = {"": members(trt)}
for name, thing in vars(trt).items():
    if inspect.isclass(thing):
        found[name] = members(thing)

log = TrtLog(trt)
log.logger.log(trt.ILogger.Severity.ERROR, "it\\n failed")
log.logger.log(trt.ILogger.Severity.WARNING, "it may fail")
assert log.last_error() == "it failed"
if hasattr(trt, "Builder"):
    with build_monitor(trt, "m") as monitor:
        assert isinstance(monitor, trt.IProgressMonitor)
        monitor.phase_start("a", None, 1)
        assert monitor.step_complete("a", 0)
        monitor.phase_finish("a")
    assert trt.init_libnvinfer_plugins(log.logger, "")
    try:
        with log.told("build"):
            trt.Builder(log.logger)
    except EngineError as error:
        assert str(error).startswith("TensorRT could not build (")
    else:
        raise AssertionError("an empty library has made a builder")
json.dump({"version": trt.__version__, "found": found}, sys.stdout)
"""


def fetched(package: str, folder: Path) -> Path:
    """The package alone, installed into a folder of its own."""
    words = [
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, "--target", str(folder / "packages"), package],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"pip cannot fetch {package}: {done.stderr.strip()[-300:]}")
    return folder / "packages"


def empty_libraries(folder: Path, version: str) -> Path:
    """Libraries with the names that the bindings are linked against."""
    if not (compiler := shutil.which("gcc")):
        pytest.skip("there is no gcc to make empty libraries with")
    (folder / "empty.c").write_text(EMPTY)
    for name in LIBRARIES:
        library = folder / f"lib{name}.so.{version.partition('.')[0]}"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-o", library, folder / "empty.c"], check=True
        )
    return folder


def looked_at(package: str, module: str, folder: Path) -> dict[str, Any]:
    """What the real bindings have."""
    version = package.partition("==")[2]
    paths = {
        "PYTHONPATH": os.pathsep.join([str(fetched(package, folder)), str(REPOSITORY)]),
        "LD_LIBRARY_PATH": str(empty_libraries(folder, version)),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOOK, module],
        env=os.environ | paths,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["version"] == version
    return told["found"]


@pytest.mark.parametrize("which", BINDINGS)
def test_tensorrt_has_every_call_that_is_made(tmp_path: Path, which: str) -> None:
    package, module, protocol = BINDINGS[which]
    found = looked_at(package, module, tmp_path)
    checked = 0
    for ours in reachable(protocol):
        there = found.get("" if ours is protocol else real_name(ours))
        assert there is not None, f"TensorRT has no {ours.__name__}"
        for name, member in own_members(ours).items():
            assert name in there, f"{ours.__name__} has no {name}"
            checked += 1
            if inspect.isfunction(member):
                constructor = found[name]["__init__"]["doc"] if name in found else None
                doc = constructor or there[name]["doc"]
                assert takes(doc, arguments(member)), f"{ours.__name__}.{name}: {doc[:500]}"
            elif not isinstance(member, property) and there[name].get("property"):
                assert there[name]["writable"], f"{ours.__name__}.{name} cannot be set"
    assert checked > (25 if which == "lean" else 55)


def reachable(protocol: type) -> list[type]:
    """The protocol and all that its members lead to."""
    found, waiting = list[type](), [protocol]
    while waiting:
        ours = waiting.pop()
        if ours in found:
            continue
        found.append(ours)
        for hint in (hint for member in own_members(ours).values() for hint in hints(member)):
            parts = (hint, *get_args(hint))
            waiting += [part for part in parts if getattr(part, "__module__", "") == HERE]
    return found


def hints(member: Any) -> list[Any]:
    """Types of arguments and results, or of an attribute."""
    function = member.fget if isinstance(member, property) else member
    return list(get_type_hints(function).values()) if inspect.isfunction(function) else [member]


def own_members(protocol: type) -> dict[str, Any]:
    """Functions, properties and the types of attributes, inherited ones included."""
    members = dict[str, Any]()
    for part in reversed(protocol.__mro__):
        if part.__module__ in (trt_calls.__name__, cuda_calls.__name__):
            functions = {k: v for k, v in vars(part).items() if inspect.isfunction(v)}
            properties = {k: v for k, v in vars(part).items() if isinstance(v, property)}
            members |= functions | properties | get_type_hints(part)
    return {
        name: member
        for name, member in members.items()
        if name == "__version__" or not name.startswith("_")
    }


def real_name(protocol: type) -> str:
    """The class there; of an enumeration ours has an s more."""
    name = protocol.__name__
    nested = {"Severities": "ILogger"}  # its members stand in the class around it, too
    return nested.get(name) or (name.removesuffix("s") if name[-2:] != "ss" else name)


def arguments(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def takes(doc: str, names: list[str]) -> bool:
    """Whether a signature in a docstring begins with these arguments and needs no others."""
    for inside in re.findall(r"^(?:\d+\. )?\w+\((.*)\)(?: ->.*)?$", doc, re.MULTILINE):
        parts = split(inside)
        there = [re.split(r"[:=]", part)[0].strip() for part in parts if part]
        offset = 1 if there[:1] == ["self"] else 0
        others = parts[offset + len(names) :]
        if there[offset : offset + len(names)] == names and all("=" in part for part in others):
            return True
    return False


def split(inside: str) -> list[str]:
    """At the commas that stand in no brackets."""
    parts, depth = [""], 0
    for letter in inside:
        depth += letter in "([{<"
        depth -= letter in ")]}>"
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


@pytest.mark.parametrize(
    ("doc", "names", "fits"),
    [
        ("parse(self: a.B, model: Buffer, path: str = None) -> bool", ["model"], True),
        ("parse(self: a.B, model: Buffer, path: str) -> bool", ["model"], False),
        ("parse(self: a.B, content: Buffer) -> bool", ["model"], False),
        (
            "f(*args)\nOverloaded.\n\n1. f(self: a, x: int) -> A\n\n2. f(self: a, y: int)",
            ["y"],
            True,
        ),
        ("f(self: a.B) -> None", [], True),
        ("f(self: a.B, t: tuple[int, str], u: float = <A.B: 0>) -> None", ["t"], True),
    ],
)
def test_signatures_are_read_rightly(doc: str, names: list[str], fits: bool) -> None:
    assert takes(doc, names) is fits


def test_cuda_has_every_call_that_is_made() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    members = own_members(CudaRuntime)
    assert len(members) > 25
    for name, member in members.items():
        there = getattr(runtime, name)
        if inspect.isfunction(member):
            (inside,) = re.findall(rf"^{name}\((.*)\)", there.__doc__ or "", re.MULTILINE)
            names = [part.split(":")[0].split()[-1] for part in split(inside) if part]
            assert names == arguments(member), name
        elif getattr(member, "_is_protocol", False):
            assert set(get_type_hints(member)) <= set(dir(there)), name
        else:
            assert isinstance(there, member), name


def test_cudas_errors_and_handles_are_what_they_are_taken_for() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    cuda = Cuda()
    assert cuda.number_of(runtime.cudaStream_t(123)) == 123
    assert cuda.number_of(runtime.cudaEvent_t(456)) == 456
    assert cuda._done("cudaMalloc", (runtime.cudaError_t.cudaSuccess, 5)) == 5
    with pytest.raises(EngineError, match="cudaMalloc: out of memory"):
        cuda._done("cudaMalloc", (runtime.cudaError_t.cudaErrorMemoryAllocation, None))


# The stand-ins


@pytest.mark.parametrize("protocol", [TensorRt, LeanTensorRt])
def test_the_stand_in_of_tensorrt_is_called_as_the_real_one(protocol: type) -> None:
    full = StandInTensorRt(StandInCuda())
    names = {
        "IExecutionContext": "Context",
        "ICudaEngine": "Engine",
        "INetworkDefinition": "Network",
    }
    names |= {"IBuilderConfig": "BuilderConfig", "IOptimizationProfile": "Profile"}
    names |= {"ITimingCache": "TimingCache"}
    for ours in reachable(protocol):
        name = names.get(ours.__name__, ours.__name__)
        there: Any = getattr(stand_in_tensorrt, name, None)
        if ours is protocol:
            there = full if protocol is TensorRt else LeanStandIn(full)
        if there is None:  # enumerations, and what has one or no member
            continue
        for function, member in own_members(ours).items():
            if inspect.isfunction(member):
                assert arguments(getattr(there, function)) == arguments(member), (name, function)


def test_the_stand_in_of_cuda_is_called_as_the_real_one() -> None:
    for name, member in own_members(CudaRuntime).items():
        there = getattr(StandInCuda, name)
        if inspect.isfunction(member):
            assert arguments(there) == arguments(member), name


# Nobody goes past the lists


def test_tensorrt_and_cuda_are_imported_where_their_calls_are_listed_and_nowhere_else() -> None:
    theirs = re.compile(r"(tensorrt|tensorrt_lean|cuda)(\.|$)")
    by_name = set()
    for path in (REPOSITORY / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
                assert not any(map(theirs.match, names)), f"{path}:{node.lineno}"
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                by_name |= {path.name for text in texts if theirs.match(text)}
    assert by_name == {"cuda_calls.py"}  # which of TensorRT's modules it is, is asked of nvidia.py


def test_what_comes_from_tensorrt_is_typed_so_that_mypy_knows_every_call() -> None:
    """`Any` would let every attribute through, listed or not."""
    loose = {
        f"{ours.__name__}.{name}"
        for ours in reachable(TensorRt)
        for name, member in own_members(ours).items()
        for hint in hints(member)
        if Any in (hint, *get_args(hint))
    }
    assert loose == {"TensorRt.nptype"}  # of which NumPy makes a dtype
