"""What is asked of NVIDIA's driver, and what is said where it is missing or broken."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.engines import nvidia
from pipeline.errors import EngineUnavailable

DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *number) { *number = 13010; return 0; }
int cuDeviceGetCount(int *count) { *count = GPUS; return 0; }
int cuDeviceGet(int *device, int index) { *device = 40 + index; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
  strncpy(name, device == 40 ? "NVIDIA H200" : "NVIDIA T4", length);
  return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 150000000000; return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
  *value = which == 75 ? 9 : which == 76 ? 0 : -1;
  return 0;
}
int flags_of[64];
int cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) {
  flags_of[device] = flags;
  return ACTIVE ? 708 : 0;
}
int cuGetErrorString(int code, const char **text) { *text = "unknown error"; return 0; }
"""


def write_driver(folder: Path, init: int = 0, gpus: int = 2, active: int = 0) -> Path:
    """A library with the driver's names; `active`: its context is in use, and cannot be set up."""
    if not (compiler := shutil.which("gcc")):
        pytest.skip("there is no gcc to make a driver's stand-in with")
    source, library = folder / "driver.c", folder / "libdriver.so"
    source.write_text(DRIVER)
    values = f"-DINIT={init}", f"-DGPUS={gpus}", f"-DACTIVE={active}"
    subprocess.run([compiler, "-shared", "-fPIC", *values, "-o", library, source], check=True)
    return library


def with_driver(monkeypatch: pytest.MonkeyPatch, library: Path) -> None:
    monkeypatch.setattr(nvidia, "LIBRARY", str(library))


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with_driver(monkeypatch, Path("libcuda-of-nobody.so.1"))
    with pytest.raises(EngineUnavailable, match=r"no NVIDIA driver.*--gpus all") as caught:
        nvidia.driver()
    assert caught.value.exit_code == 4


def test_the_driver_names_its_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_driver(monkeypatch, write_driver(tmp_path))
    found = nvidia.driver()
    assert found.cuda_version == (13, 1)
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA H200", "NVIDIA T4"]
    assert found.gpus[0] == nvidia.Gpu("NVIDIA H200", (9, 0), 150_000_000_000)


def test_a_driver_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_driver(monkeypatch, write_driver(tmp_path, init=999))
    with pytest.raises(EngineUnavailable, match="cuInit gave 999: unknown error"):
        nvidia.driver()


def test_a_driver_without_a_gpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_driver(monkeypatch, write_driver(tmp_path, gpus=0))
    with pytest.raises(EngineUnavailable, match=r"has no GPU.*CUDA_VISIBLE_DEVICES"):
        nvidia.driver()


@pytest.mark.parametrize("active", [0, 1])
def test_the_context_is_set_up_so_that_ffmpeg_shares_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, active: int
) -> None:
    library = write_driver(tmp_path, active=active)
    with_driver(monkeypatch, library)
    assert nvidia.driver().gpus, "what cannot be set up is no reason to end the run"
    flags = (ctypes.c_int * 64).in_dll(ctypes.CDLL(str(library)), "flags_of")
    assert [device for device, set_up in enumerate(flags) if set_up] == [40]
    assert flags[40] == 4  # CU_CTX_SCHED_BLOCKING_SYNC, the only one with which FFmpeg takes it


def test_the_full_tensorrt_is_preferred_to_the_lean_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_lean"):
        monkeypatch.setitem(sys.modules, name, None)
    assert nvidia.tensorrt_package() is None
    monkeypatch.syspath_prepend(tmp_path)

    (tmp_path / "tensorrt_lean.py").touch()
    monkeypatch.delitem(sys.modules, "tensorrt_lean")
    assert nvidia.tensorrt_package() == ("tensorrt_lean", "", False)

    (tmp_path / "tensorrt.py").touch()
    (tmp_path / "tensorrt_cu13-11.4.0.dist-info").mkdir()
    (tmp_path / "tensorrt_cu13-11.4.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: tensorrt_cu13\nVersion: 11.4.0\n"
    )
    monkeypatch.delitem(sys.modules, "tensorrt")
    assert nvidia.tensorrt_package() == ("tensorrt", "11.4.0", True)
    assert "tensorrt" not in sys.modules  # looked for, not imported
