"""The doctor's report for people, on one screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Report = Mapping[str, Any]

_UNKNOWN = {"error": "not looked at", "error_kind": "EngineUnavailable"}
_STYLES = {"failed": "red", "broken": "red", "unproven": "yellow", "passed": "green"}


def print_page(report: Report, console: Console) -> None:
    """Facts, the self-test, and the verdict at the end."""
    facts = Table(box=None, pad_edge=False, show_header=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, said in _facts(report):
        facts.add_row(name, Text(said))
    console.print(facts)
    if report["selftest"]:
        console.print()
        console.print(_trials(report["selftest"]))
    console.print()
    for line, style in _conclusion(report["verdict"]):
        console.print(Text(line, style=style), soft_wrap=True)


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    yield "system", _system(report["system"])
    yield "packages", _packages(report["packages"])
    yield "gpu", _gpu(report["gpu"])
    yield "tensorrt", _tensorrt(report["tensorrt"])
    yield "openvino", _runtime(report["openvino"], _devices)
    yield "onnxruntime", _runtime(report["onnxruntime"], lambda f: ", ".join(f["providers"]))
    yield "torch", _torch(report["torch"])
    yield "video", _video(report["video"])
    yield "gpu video", _gpu_video(report["video"], report["gpu"])
    yield "video taken", _video_choice(report["video"].get("chosen") or _UNKNOWN)
    yield "extras", _extras(report["extras"])
    yield "engine", _engine(report["engine"], report["model"])


def _system(system: Report) -> str:
    sets = system["instruction_sets"]
    has = [name for name, there in (sets or {}).items() if there]
    lacks = [name for name, there in (sets or {}).items() if not there]
    parts = [
        f"{system['os']}, Python {system['python']}",
        f"{system['cpu'] or 'a processor without a name'}, {system['cores_usable']} of "
        f"{system['cores'] or 'unknown'} cores usable",
        f"{system['memory_gib'] or 'unknown'} GiB of memory",
        "instructions unknown"
        if sets is None
        else " ".join(has) + (f" (no {', '.join(lacks)})" if lacks else ""),
    ]
    return "; ".join(parts)


def _packages(packages: Mapping[str, Report]) -> str:
    return ", ".join(
        f"{name} cannot be imported ({found['error']})"
        if found["error"]
        else f"{name} {found['version'] or '(version unknown)'}"
        for name, found in packages.items()
    )


def _gpu(gpu: Report) -> str:
    version = gpu["driver"]
    if gpu["error"]:
        cards = f"{gpu['cards']} NVIDIA card(s), but " if gpu["cards"] else ""
        loaded = f"; the kernel's driver is {version}" if version else ""
        return f"{cards}{_trouble(gpu)}{loaded}"
    gpus = ", ".join(
        f"{each['name']} ({each['memory_gib']} GiB, compute capability "
        f"{each['compute_capability']})"
        for each in gpu["gpus"]
    )
    return f"{gpus}; driver {version or 'of unknown version'}, CUDA up to {gpu['cuda']}"


def _tensorrt(tensorrt: Report) -> str:
    if not tensorrt.get("module"):
        if tensorrt["error"]:
            return _trouble(tensorrt)
        return f"not installed; with an NVIDIA GPU: {tensorrt['install']}"
    kind = "builds and runs" if tensorrt["can_build"] else "lean: runs only what was built"
    parts = [f"{tensorrt['version'] or 'of unknown version'} ({kind})"]
    if tensorrt["error"]:
        parts.append(f"cannot be imported ({tensorrt['error']})")
    if not tensorrt["cuda_bindings"]:
        parts.append(f"without cuda-bindings, which it needs: {tensorrt['install']}")
    return "; ".join(parts)


def _runtime(found: Report, detail: Callable[[Report], str]) -> str:
    return _trouble(found) if found["error"] else f"{found['version']}: {detail(found)}"


def _torch(torch: Report) -> str:
    if torch["error"]:
        return _trouble(torch)
    if not torch["version"]:
        return f"not installed; for model files that end in .pt2: {torch['install']}"
    built = f"built for CUDA {torch['cuda']}" if torch["cuda"] else "built for the CPU"
    runs = f"runs programs (.pt2) on {torch['gpu'] or 'the CPU'}"
    compiler = torch["compiler"]
    how = f"compiled with {compiler}" if compiler else "uncompiled: there is no C++ compiler"
    return f"{torch['version']}: {built}, {runs}, {how}"


def _devices(found: Report) -> str:
    return "; ".join(
        f"{device} ({', '.join(about['capabilities'])})"
        for device, about in found["devices"].items()
    )


def _video(video: Report) -> str:
    if video["error"]:
        return _trouble(video)
    kinds = (("reads", "decoders"), ("writes", "encoders"), ("receives", "protocols"))
    has = [
        f"{verb} {', '.join(n for n, there in video[key].items() if there)}" for verb, key in kinds
    ]
    lacks = [name for _, key in kinds for name, there in video[key].items() if not there]
    line = f"FFmpeg {video['ffmpeg']} in PyAV {video['pyav']}: {'; '.join(has)}"
    if not lacks:
        return line
    return (
        f"{line}; lacks {', '.join(lacks)} (pip install --no-binary av av, beside an FFmpeg that "
        "has them)"
    )


def _gpu_video(video: Report, gpu: Report) -> str:
    if video["error"]:
        return "unknown"
    built = [name for name, there in video["on_the_gpu"].items() if there]
    if not built:
        return "this FFmpeg was built without NVIDIA's decoders and encoders"
    opened = video["opened_on_the_gpu"]
    if opened is None:
        return f"built in: {', '.join(built)}; not tried without a driver"
    if opened["error"]:
        return f"trying {', '.join(built)}: {opened['error']}"
    return ", ".join(
        f"{n} {'works' if why is None else why}" for n, why in opened["codecs"].items()
    )


def _video_choice(chosen: Report) -> str:
    if chosen["error"]:
        return _trouble(chosen)
    parts = []
    for what, verb in (("decoder", "decodes"), ("encoder", "encodes")):
        found = chosen[what]
        where = {"gpu": "on the GPU", "software": "in software"}.get(
            found["auto"], f"with {found['auto']}"
        )
        parts.append(f"auto {verb} {where}: {found['why']}")
    if chosen["decoder"].get("same_pictures"):
        parts.append("the GPU's pictures are those of software")
    if chosen["decoder"].get("same_images"):
        parts.append("pictures can stay there, and give the CPU's images")
    if chosen["decoder"].get("draws"):
        parts.append("boxes can be drawn there, as on the CPU")
    if chosen["decoder"].get("why_drawn_here"):
        parts.append(f"pictures are copied to be drawn on: {chosen['decoder']['why_drawn_here']}")
    if chosen["decoder"].get("why_copied"):
        parts.append(f"pictures are copied to main memory: {chosen['decoder']['why_copied']}")
    if chosen["decoder"].get("trouble"):
        parts.append(f"the GPU was left: {chosen['decoder']['trouble']}")
    return "; ".join(parts)


def _extras(extras: Mapping[str, Report]) -> str:
    there = [name for name, extra in extras.items() if extra["installed"]]
    lacking = [f"{name}: {extra['install']}" for name, extra in extras.items() if name not in there]
    return "; ".join([f"installed: {', '.join(there) or 'none'}", *lacking])


def _engine(engine: Report, model: Report) -> str:
    if model["error"] or engine["error"]:
        return str(model["error"] or engine["error"])
    height, width = model["input_size_hw"]
    return (
        f"auto takes {engine['name']} ({engine['precision']}) for {model['name']} at "
        f"{width}x{height}: {engine['reason']}; loaded in {engine['load_seconds']:.2f} s"
    )


def _trials(selftest: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("self-test", "precision", "result"):
        table.add_column(heading, no_wrap=heading != "result")
    for heading in ("most apart: score", "pixels", "IoU", "ms a call"):
        table.add_column(heading, justify="right")
    for row in selftest["engines"]:
        largest = (row["parity"] or {}).get("largest") or {}
        said = ": ".join(filter(None, (row["state"], row["remark"])))
        table.add_row(
            Text(row["engine"]),
            row["precision"],
            Text(said, style=_STYLES.get(row["state"], "")),
            _cell(largest.get("score"), 4),
            _cell(largest.get("box_pixels"), 1),
            _cell(largest.get("iou"), 2),
            _cell(row["ms_per_call"], 1),
        )
    return table


def _conclusion(verdict: Report) -> Iterator[tuple[str, str]]:
    for sentence in verdict["repair"]:
        yield f"to repair: {sentence}", "red"
    for sentence in verdict["faster"]:
        yield f"faster: {sentence}", ""
    yield f"verdict: {verdict['expect']}", "bold green" if verdict["good"] else "bold red"


def _trouble(found: Report) -> str:
    """A reason of ours is a sentence; of other people's words one is told where they belong."""
    expected = found["error_kind"] == "EngineUnavailable"
    return str(found["error"]) if expected else f"cannot be used or looked at: {found['error']}"


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
