"""What is asked in a process of its own; each imports what it asks about only there."""

from __future__ import annotations

import importlib
from pathlib import Path

from pipeline.checkup.isolation import Finding


def import_package(module: str) -> Finding:
    """Whether it can be imported at all."""
    importlib.import_module(module)
    return {}


def look_at_ffmpeg() -> Finding:
    """See `pipeline.checkup.video`."""
    from pipeline.checkup import video

    return video.look_at_ffmpeg()


def open_on_gpu(names: list[str]) -> Finding:
    """See `pipeline.checkup.video`."""
    from pipeline.checkup import video

    return video.open_on_gpu(names)


def look_at_video_choice(test: bool) -> Finding:
    """See `pipeline.checkup.video_choice`."""
    from pipeline.checkup import video_choice

    return video_choice.look_at_video_choice(test=test)


def look_at_onnxruntime() -> Finding:
    """Its version and what it can compute on."""
    import onnxruntime

    return {
        "version": onnxruntime.__version__,
        "providers": list(onnxruntime.get_available_providers()),
    }


def look_at_openvino() -> Finding:
    """Its version, its devices, and what each of them is fast in."""
    from pipeline.engines.ov_core import openvino, the_core

    core = the_core()
    return {
        "version": openvino.get_version().partition("-")[0],
        "devices": {
            device: {
                "name": str(core.get_property(device, "FULL_DEVICE_NAME")).strip(),
                "capabilities": sorted(core.get_property(device, "OPTIMIZATION_CAPABILITIES")),
            }
            for device in core.available_devices
        },
    }


def look_at_torch() -> Finding:
    """Its version, what it was built for, whether it finds a GPU, and what it compiles with.

    ``unused_gpu`` says why it does not use the GPU of this machine, if there is one.

    ``version`` is None where it is not installed: only ``--engine program`` wants it.
    """
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        return {"version": None, "install": "pip install torch"}
    from pipeline.engines.program import import_torch
    from pipeline.engines.program_tools import cpp_compiler, unused_gpu

    torch, compiler = import_torch(), cpp_compiler()
    on_gpu = bool(torch.cuda.is_available())
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "unused_gpu": unused_gpu(torch),
        "compiler": Path(compiler).name if compiler else None,
        "install": "pip install torch",
    }


def look_at_gpus() -> Finding:
    """What the driver says of itself and of its GPUs; `EngineUnavailable` where there is none."""
    from pipeline.engines import nvidia

    driver = nvidia.driver()
    return {
        "cuda": "{}.{}".format(*driver.cuda_version),
        "gpus": [
            {
                "name": gpu.name,
                "memory_gib": round(gpu.memory_bytes / 2**30, 1),
                "compute_capability": "{}.{}".format(*gpu.compute_capability),
            }
            for gpu in driver.gpus
        ],
    }


def look_at_tensorrt() -> Finding:
    """Which package there is, if any, and how to get one. Imports nothing of it."""
    from pipeline.engines import nvidia

    package = nvidia.tensorrt_package()
    return {
        "module": package.module if package else None,
        "version": (package.version or None) if package else None,
        "can_build": package.can_build if package else False,
        "cuda_bindings": nvidia.cuda_bindings_version(),
        "install": nvidia.INSTALL,
    }


def known_engines() -> Finding:
    """See `pipeline.checkup.trial`."""
    from pipeline.checkup import trial

    return trial.known_engines()


def about_model(model: str) -> Finding:
    """See `pipeline.checkup.trial`."""
    from pipeline.checkup import trial

    return trial.about_model(model)


def try_engine(
    engine: str,
    precision: str,
    model: str,
    answers: str | None,
    witness: str | None,
    build: bool,
) -> Finding:
    """See `pipeline.checkup.trial`."""
    from pipeline.checkup import trial

    return trial.try_engine(engine, precision, model, answers, witness, build)
