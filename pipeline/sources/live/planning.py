"""From a URL to what opens the live source it names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from pipeline.configuration import strict_yaml
from pipeline.configuration.reading import overlaid
from pipeline.errors import ConfigError
from pipeline.network.address import (
    Address,
    device_address,
    expanded,
    options_of,
    parse_address,
    split_options,
)
from pipeline.settings import LiveSettings
from pipeline.sources.delivery import Limits
from pipeline.sources.gpu import GpuDecoding
from pipeline.sources.live.camera import CameraSource
from pipeline.sources.live.connection import CameraConnection
from pipeline.sources.live.decoder import Effort
from pipeline.sources.live.replay import Recording, ReplayConnection
from pipeline.sources.recorded import RecordedSource
from pipeline.sources.synthetic import StreetSource

_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "tcp")
_NAME = re.compile(r"\w[\w .-]{0,62}")  # as the API takes them, see `pipeline.serve.requests`
_WEBCAM = re.compile(r"camera:([0-9]{1,2})|(/dev/video[0-9]{1,2})")

Opener = Callable[..., CameraSource]  # called with the source's name


def is_live_url(url: str, environment: Mapping[str, str]) -> bool:
    """Tell whether `url` names a source that goes at its own pace."""
    url = expanded(url, environment)
    scheme, found, _ = url.partition("://")
    return (
        (bool(found) and scheme.lower() in _SCHEMES)
        or url.startswith("replay:")
        or _WEBCAM.fullmatch(url.partition("#")[0]) is not None
    )


def plan(
    url: str,
    live: LiveSettings,
    limits: Limits,
    environment: Mapping[str, str],
    decoder_threads: int = 0,
    gpu: GpuDecoding | None = None,
) -> tuple[str, Opener]:
    """The wished name of a live source, and what makes it.

    Args:
        url: As the user gave it; options behind a # count for this source alone.
        live: The settings of all live sources.
        limits: Where to end.
        environment: Holds what the address writes as ``$NAME``.
        decoder_threads: For each connection; 0 takes one.
        gpu: Opens decoders on a GPU; None leaves it to software.

    Raises:
        ConfigError: The address or an option makes no sense.
        SourceError: The recording behind ``replay:`` cannot be opened.
    """
    url = expanded(url, environment)
    if url.startswith("replay:"):
        return _replay(url, live, limits, decoder_threads, gpu)
    webcam = _WEBCAM.fullmatch(url.partition("#")[0])
    bare, options = _options_of_device(url) if webcam else split_options(url)
    name, live = _overlaid(live, options, _scheme_of(url))
    if webcam:
        address = device_address(webcam[2] or f"/dev/video{webcam[1]}")
    else:
        address = parse_address(bare, environment, live.credentials)
    return name or address.name, partial(
        _camera, address=address, live=live, limits=limits, threads=decoder_threads or 1, gpu=gpu
    )


def _camera(
    *,
    name: str,
    address: Address,
    live: LiveSettings,
    limits: Limits,
    threads: int,
    gpu: GpuDecoding | None,
) -> CameraSource:
    effort = Effort()
    connect = partial(CameraConnection, address, live, threads, effort, gpu)
    return CameraSource(
        name=name, url=address.shown, connect=connect, live=live, limits=limits, effort=effort
    )


def _replay(
    url: str, live: LiveSettings, limits: Limits, decoder_threads: int, gpu: GpuDecoding | None
) -> tuple[str, Opener]:
    what, options = _options_of_device(url.removeprefix("replay:"))
    name, live = _overlaid(live, options, "replay:")
    record: Callable[[], Recording]
    if what.startswith("synthetic:"):
        wished = "street"
        record = partial(StreetSource, name=wished, url=what, limits=Limits())
    else:
        path = _recording(what)
        wished, threads = path.stem, decoder_threads or 1
        record = partial(
            RecordedSource,
            path,
            name=wished,
            url=what,
            limits=Limits(),
            decoder_threads=threads,
            gpu=gpu,
        )
    return name or wished, partial(_replayed, url=url, record=record, live=live, limits=limits)


def _replayed(
    *, name: str, url: str, record: Callable[[], Recording], live: LiveSettings, limits: Limits
) -> CameraSource:
    checked = record()  # so that a mistyped name is known before a run starts
    checked.close()
    source = CameraSource(
        name=name,
        url=url,
        connect=partial(ReplayConnection, record, live.loop),
        live=live,
        limits=limits,
        effort=Effort(),
        ends=True,
    )
    source.size_hw, source.rate = checked.size_hw, checked.rate
    source.input_path = checked.input_path
    return source


def _recording(what: str) -> Path:
    path = Path(what.removeprefix("file://") if what.startswith("file:///") else what)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", what) and not what.startswith("file:///"):
        raise ConfigError("replay: takes a video file or synthetic://street?..., not a camera")
    return path.expanduser()


def _options_of_device(url: str) -> tuple[str, dict[str, str]]:
    """As `split_options`, for what is no network address; a file's name may hold a #."""
    if "#" not in url or os.path.exists(Path(url).expanduser()):
        return url, {}
    what, _, fragment = url.rpartition("#")
    return what, options_of(fragment)


def _overlaid(
    live: LiveSettings, options: Mapping[str, str], scheme: str
) -> tuple[str | None, LiveSettings]:
    """The name among the options of one source, and its settings."""
    words = dict(options)
    name = words.pop("name", None)
    if name is not None and not _NAME.fullmatch(name):  # not shown: it may be secret
        raise ConfigError(
            f"the name behind the # of a {scheme} source cannot be one; write 1 to 63 letters, "
            "digits, blanks, _ . or -, and begin with a letter, a digit or _"
        )
    known = ["name", *LiveSettings.__dataclass_fields__]
    for key in words:
        if key not in known:  # not shown whole: it may be the end of a password
            near = get_close_matches(key, known, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"an unknown option behind the # of a {scheme} source{meant}; "
                f"known: {', '.join(known)}. (In a password # is written %23.)"
            )
    words |= {key: strict_yaml.dump(words[key]) for key in ("size", "credentials") if key in words}
    return name, overlaid(live, words, f"the options of a {scheme} source")


def _scheme_of(url: str) -> str:
    scheme, found, _ = url.partition("://")
    return f"{scheme}://" if found else "webcam"
