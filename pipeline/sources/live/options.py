"""What FFmpeg is told when it opens a camera, in the words of the version at hand."""

from __future__ import annotations

from collections.abc import Mapping

import av

from pipeline.settings import LiveSettings

_RENAMED_TIMEOUT = 59  # since this libavformat `timeout` of rtsp:// no longer means "listen"
_PROBE_BYTES = 2_000_000  # a transport stream needs some to find its video; mostly far less
_ANALYSE_MICROSECONDS = 500_000
_REORDER_MICROSECONDS = 200_000  # how long UDP waits for a packet that is late
_TCP_REORDER_PACKETS = 2  # nothing changes its place there; but with less FFmpeg tells no losses
_SOCKET_BYTES = 4_000_000  # a keyframe of a 4K camera comes as one burst
_REFUSED_AT_ONCE = "127.0.0.1:1"

_MICROSECONDS = 1_000_000
_TLS = {"https", "rtsps", "rtmps"}

# What a camera's answers may lead to: a playlist or a redirection must not name files of ours.
_NETWORK = "http,https,httpproxy,tls,tcp,udp,rtp,srtp,rtmp,rtmps,srt,crypto,data"


def input_options(
    scheme: str, live: LiveSettings, libavformat: int = av.library_versions["libavformat"][0]
) -> dict[str, str]:
    """FFmpeg's options for an address of that scheme.

    Opening is kept short: what a stream holds is learnt from its first pictures, which are
    handed on (``nobuffer`` would throw them away, and with them the keyframe that everything
    waits for), and nothing is measured that its pictures tell anyway, such as the frame rate.

    Args:
        scheme: In lower case.
        live: The settings of this source.
        libavformat: Major version; 59 came with FFmpeg 5.
    """
    options = {
        "probesize": str(_PROBE_BYTES),
        "analyzeduration": str(_ANALYSE_MICROSECONDS),
        "fpsprobesize": "0",
        "protocol_whitelist": _NETWORK,
    }
    # Deadlines are kept from outside; FFmpeg's own ones only make sure that nothing hangs for ever.
    waits = str(round(2 * max(live.open_seconds, live.stall_seconds) * _MICROSECONDS))
    if scheme in ("rtsp", "rtsps"):
        options |= _rtsp(live, scheme, waits, libavformat)
    elif scheme in ("http", "https", "rtmp", "rtmps", "tcp"):
        options["rw_timeout"] = waits
    elif scheme == "srt":
        options["timeout"] = waits
        options["connect_timeout"] = str(round(live.open_seconds * 1000))
    elif scheme == "udp":
        options |= {"overrun_nonfatal": "1", "buffer_size": str(_SOCKET_BYTES)}
    elif scheme == "v4l2":
        options = _webcam(live)
    if scheme in _TLS:
        options["tls_verify"] = str(int(live.verify_tls))
    return options


def left_over(scheme: str, options: Mapping[str, str]) -> list[str]:
    """Those of `options` that this FFmpeg does not know for that scheme, and would ignore.

    PyAV does not tell what was left over. But FFmpeg refuses a value that makes no sense before
    it connects; an option for which it does not mind any value is one it does not know. (If it
    knows none, it tries a port of this machine at which nobody listens.)
    """
    return [name for name in options if _is_ignored(scheme, name)]


def _rtsp(live: LiveSettings, scheme: str, waits: str, libavformat: int) -> dict[str, str]:
    options = {
        # Over TLS everything goes through the one connection.
        "rtsp_transport": "tcp" if scheme == "rtsps" else live.transport,
        "allowed_media_types": "video",
        "timeout" if libavformat >= _RENAMED_TIMEOUT else "stimeout": waits,
    }
    if options["rtsp_transport"] == "udp":
        options["max_delay"] = str(_REORDER_MICROSECONDS)
        options["buffer_size"] = str(_SOCKET_BYTES)
    else:
        options["reorder_queue_size"] = str(_TCP_REORDER_PACKETS)
    return options


def _webcam(live: LiveSettings) -> dict[str, str]:
    options = {}
    if live.size is not None:
        options["video_size"] = live.size
    if live.fps is not None:
        options["framerate"] = f"{live.fps:g}"
    return options


def _is_ignored(scheme: str, name: str) -> bool:
    url = "/nowhere" if scheme == "v4l2" else f"{scheme}://{_REFUSED_AT_ONCE}/"
    kind = "v4l2" if scheme == "v4l2" else None
    try:
        av.open(url, "r", format=kind, options={name: "?"}, timeout=1.0).close()
    except av.ArgumentError:
        return False
    except av.FFmpegError:
        return True
    return True
