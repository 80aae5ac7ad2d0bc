"""A playlist and its pieces (HTTP Live Streaming), which browsers play from any web server."""

from __future__ import annotations

import errno
import os
from io import BytesIO, FileIO, RawIOBase
from math import inf
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from pipeline.frame import Result
from pipeline.settings import RecordingSettings, VideoSettings
from pipeline.sinks.container import WholeFile
from pipeline.sinks.encoder import Encoder
from pipeline.sinks.footage import Footage, FootageEncoder, mux
from pipeline.sinks.protocol import SinkTarget, finishing, writing
from pipeline.sinks.territory import NUMBER, Names, Territory, literal, optional

_END = "#EXT-X-ENDLIST\n"
_WRITE = 2  # of FFmpeg's AVIO_FLAG_*


class HlsSink:
    """Write pieces of a few seconds, the list of the newest ones, and delete the others.

    List and pieces appear under their names when they are complete, so whoever reads them at
    any moment finds a list of pieces that are there. A run goes on with the list of the one
    before, with a mark that players need to make sense of the gap; likewise when the size of
    the pictures changes, or a camera was away: a piece as long as that would be announced, and
    players look at the list again after as long as its longest piece. Players are told of the
    end when the run ends, unless it is killed.

    Each piece begins with a keyframe and can be played on its own. There is no sound.
    """

    wants_picture = True
    may_drop = False
    capacity = 4

    def __init__(
        self, path: Path, target: SinkTarget, video: VideoSettings, recording: RecordingSettings
    ) -> None:
        """`ConfigError` if the encoder asked for does not exist here."""
        self.path, self.name = path, str(path)
        self.frames = 0
        self._recording = recording
        # Of our pieces, also of half-written ones.
        self._names = Names([literal(f"{path.stem}-"), NUMBER, literal(".ts"), optional(".tmp")])
        self._encoder = FootageEncoder(target, video, recording.hls_seconds)
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._of: Encoder | None = None
        self._opening = _Opening()
        self._longest_step = 2 * recording.hls_seconds if target.live else inf
        self._last = self._step = 0.0  # seconds: the last picture, and from the one before to it
        self._failed = False

    @property
    def territory(self) -> list[Territory]:
        """The list, and its pieces."""
        folder = self.path.parent
        return [Territory.of(folder, name) for name in (self.path.name, self._names)]

    def __enter__(self) -> HlsSink:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._check()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with finishing(error), writing(self.path):
            self._finish()

    @property
    def takes_gpu_pictures(self) -> bool:
        """Whether NVENC encodes."""
        return self._encoder.takes_gpu_pictures

    def write(self, result: Result) -> None:
        """Encode one picture; what falls out goes into the piece that is being written."""
        try:
            with writing(self.path):
                for footage in self._encoder.encode(result):
                    self._put(footage)
        except BaseException:  # after any failure the end must not write more
            self._failed = True
            raise
        self.frames += 1

    def report(self) -> dict[str, Any]:
        """Path, frames, how many pieces are there with how many bytes, encoder."""
        sizes = [piece.stat().st_size for piece in self._pieces()]
        return {
            "path": self.name,
            "frames": self.frames,
            "files": len(sizes),
            "bytes": sum(sizes),
            **self._encoder.facts(),
        }

    def _put(self, footage: Footage) -> None:
        is_new = self._container is None or footage.encoder is not self._of
        if self._comes_late(footage.moment.seconds) or is_new:
            self._open(footage.encoder)
        assert self._container is not None and self._stream is not None
        mux(self._container, self._stream, footage.packet)

    def _comes_late(self, seconds: float) -> bool:
        """Tell whether a picture, a keyframe then, comes after a gap; some cameras show few."""
        before = self._step
        self._step, self._last = seconds - self._last if self._container else 0.0, seconds
        return self._step > max(self._longest_step, 2 * before)

    def _open(self, encoder: Encoder) -> None:
        self._close()
        self._sweep()
        folder, stem = self.path.parent, self.path.stem.replace("%", "%%")
        options = {
            "hls_time": str(self._recording.hls_seconds),
            "hls_list_size": str(self._recording.hls_pieces),
            "hls_delete_threshold": "2",  # pieces kept for players that hold an older list
            "hls_flags": "delete_segments+append_list+omit_endlist+independent_segments"
            "+program_date_time+temp_file",
            "hls_segment_filename": f"{folder}/{stem}-%d.ts",
        }
        self._container = av.open(
            str(self.path), "w", format="hls", container_options=options, io_open=self._opening
        )
        self._stream = self._container.add_stream_from_template(encoder.template)
        self._of = encoder
        self._container.start_encoding()

    def _close(self) -> None:
        container, self._container = self._container, None
        self._stream = self._of = None
        if container is not None:
            container.close()

    def _finish(self) -> None:
        try:
            for footage in [] if self._failed else self._encoder.flush():
                self._put(footage)
        finally:
            self._encoder.close()
            self._close()
        if self.frames and not self._failed:
            self._say_it_ends()

    def _say_it_ends(self) -> None:
        """Add the mark of the end; FFmpeg would also write it before going on with a list."""
        ended = self.path.with_name(f"{self.path.name}.tmp")
        ended.write_text(self._list() + _END)
        ended.replace(self.path)

    def _pieces(self) -> list[Path]:
        """The pieces on the disk, also half-written ones; nothing else."""
        entries = os.scandir(self.path.parent) if self.path.parent.is_dir() else ()
        return [Path(entry.path) for entry in entries if self._names.match(entry.name)]

    def _check(self) -> None:
        """`OSError` when there is something at our place that is no playlist."""
        if self.path.exists() and not self._list().startswith("#EXTM3U"):
            raise FileExistsError(errno.EEXIST, "there is a file that is no playlist")

    def _list(self) -> str:
        """The playlist as it is."""
        return self.path.read_text(errors="replace") if self.path.exists() else ""

    def _sweep(self) -> None:
        """Delete pieces that no list mentions: those of a killed run, or of a list before."""
        listed = set(self._list().split("\n"))
        for piece in self._pieces():
            if piece.name not in listed:
                piece.unlink()


class _Opening:
    """Opens what FFmpeg asks for: it would not tell us when the disk is full, but Python does.

    It fails once, which fails the sink. FFmpeg asks for other files then, still within that call
    and when it closes, and PyAV prints whatever fails besides; so these lead nowhere.
    """

    def __init__(self) -> None:
        self._failed = False

    def __call__(self, path: str, flags: int, options: dict[str, str]) -> RawIOBase | BytesIO:
        if self._failed or not (flags & _WRITE or os.path.exists(path)):
            return BytesIO()  # the list before the first, too
        try:
            return WholeFile(path, "wb") if flags & _WRITE else FileIO(path, "rb")
        except OSError:
            self._failed = True
            raise
