"""The conclusion: what to expect of this machine, and what would make it faster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Report = Mapping[str, Any]

BAD = ("failed", "broken", "unproven")  # states of a row of the self-test
# As `pipeline.engines.tuning` says it, which is not imported: what it needs may be broken.
_MEASURED = "measured on this machine"
_BAD_WORDS = {
    "failed": "does not say what ONNX Runtime says: do not use it; name another with --engine, and "
    "report this",
    "broken": "is there but cannot be used",
    "unproven": "could not be compared",
}


def judge(report: Report) -> dict[str, Any]:
    """Whether all is well (``good``), what to expect, what to repair, and what would be faster."""
    repairs = list(_repairs(report))
    return {
        "good": not repairs,
        "expect": _expectation(report),
        "repair": repairs,
        "faster": list(_faster(report)),
    }


def _expectation(report: Report) -> str:
    engine = report["engine"]
    if engine["error"]:
        return f"boxstream cannot run {report['model']['name']} here"
    what = f"boxstream runs {engine['model']} on {engine['name']} in {engine['precision']}"
    if engine.get("ms_per_call"):
        per_second = 1000 / engine["ms_per_call"]
        what += f", about {per_second:.0f} frames/s for the network alone (a glance, no benchmark)"
    compared = [row for row in _rows(report) if row["state"] == "passed"]
    if compared:
        names = ", ".join(f"{row['engine']} {row['precision']}" for row in compared)
        what += f"; found the same as ONNX Runtime: {names}"
    return what


def _repairs(report: Report) -> Iterator[str]:
    """What is broken; empty where all is well."""
    model, engine = report["model"], report["engine"]
    packages = report["packages"] | {"av": report["video"]}
    broken = {name: found["error"] for name, found in packages.items() if found["error"]}
    for name, why in broken.items():
        yield f"{name}: pip install --force-reinstall {name} ({why})"
    chosen = report["video"].get("chosen") or {}
    if (chosen.get("decoder") or {}).get("same_pictures") is False:
        yield (
            "the GPU's video decoder gives other pictures than software: set decoder: software, "
            "update the driver, and report this"
        )
    if (chosen.get("decoder") or {}).get("same_images") is False:
        yield (
            "the GPU makes other images of its pictures than the CPU: set decoder: software, "
            "update the driver and torch, and report this"
        )
    if model["error"]:
        if not broken:  # else nothing can read a model file
            yield model["error"]
        return
    if engine["error"]:
        yield f"no engine can be used: {engine['error']}"
    for row in _rows(report):
        if row["state"] in BAD:
            name = " ".join(filter(None, (row["engine"], row["precision"])))
            yield f"{name} {_BAD_WORDS[row['state']]}: {row['remark']}"


def _faster(report: Report) -> Iterator[str]:
    yield from _faster_with_gpu(report)
    engine, system = report["engine"], report["system"]
    if not engine["error"] and engine["name"] == "onnxruntime" and report["openvino"]["error"]:
        broken = any(r["engine"] == "openvino" and r["state"] == "broken" for r in _rows(report))
        how = "--force-reinstall" if broken else "--upgrade"
        yield f"OpenVINO, about twice as fast on most processors: pip install {how} openvino"
    if not engine["error"] and engine["name"] == "openvino":
        yield from _faster_in_openvino(report)
    if not engine["error"] and engine["name"] != "tensorrt" and _MEASURED not in engine["reason"]:
        yield "perhaps another division of the cores, which `python -m pipeline.tune` measures"
    usable, cores = system["cores_usable"], system["cores"]
    if cores and usable < cores:
        yield f"all {cores} cores; this process may use {usable} (affinity or container limit)"
    if report["model"].get("smaller_hw"):
        height, width = report["model"]["smaller_hw"][0]
        yield f"cameras: --latency-budget MS lets the input shrink to {width}x{height} under load"


def _faster_in_openvino(report: Report) -> Iterator[str]:
    """Fewer bits; why a form in int8 that is there is left, the reason of the engine says."""
    model, precision = report["model"], report["engine"]["precision"]
    has = report["system"]["instruction_sets"] or {}
    if precision == "f32":
        if has.get("bf16"):
            yield "a model file that knows its accuracy in bf16, exported with its check"
        else:
            yield "a processor with bf16 (AVX-512 BF16 or AMX), about 1.6 times as fast"
    if model["arithmetic"] != "f32" or precision.startswith("int8"):
        return
    if model["has_int8_form"] and has and not has["vnni"]:
        yield "a processor for 8-bit integers (VNNI or AMX), about twice as fast as in f32"
    # The products of 8-bit integers that ARM has are called vnni there, and have not been measured.
    if not model["has_int8_form"] and has.get("vnni") and has.get("avx2"):
        yield (
            f"8-bit integers, about twice as fast as f32: python -m models.quantize {model['name']}"
        )


def _faster_with_gpu(report: Report) -> Iterator[str]:
    gpu, tensorrt = report["gpu"], report["tensorrt"]
    if gpu["error"]:
        if gpu["cards"]:
            yield f"the NVIDIA card, which does not work yet: {gpu['error']}"
        return
    if tensorrt["error"]:
        yield f"TensorRT, which cannot be looked at: {tensorrt['error']}"
    elif not (tensorrt["can_build"] and tensorrt["cuda_bindings"]):
        yield f"TensorRT on the {gpu['gpus'][0]['name']}: {tensorrt['install']}"
    torch = report.get("torch") or {}
    if torch.get("unused_gpu"):
        yield f"programs of torch (.pt2) on the GPU: {torch['unused_gpu']}"
    if torch.get("gpu") and report["engine"].get("name") != "tensorrt":
        yield (
            f"a program of torch on the {gpu['gpus'][0]['name']}: python -m models.program "
            "MODEL.onnx --out MODEL.pt2"
        )


def _rows(report: Report) -> list[dict[str, Any]]:
    selftest = report["selftest"]
    return selftest["engines"] if selftest else []
