"""Bad input ends in a clear error or a counted loss: never a crash, a hang, an empty success."""

from __future__ import annotations

import faulthandler
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import (
    ConfigError,
    NoVideo,
    SourceError,
    SourceNotFound,
    UnsupportedCodec,
)
from pipeline.frame import Frame
from pipeline.sources import Source, open_sources
from pipeline.sources.live.hearing import Hearing
from pipeline.sources.upright import Upright
from tests.alone import alone
from tests.clips import read_number, write_clip

MakeClip = Callable[..., Path]
EditPacket = Callable[[int, av.Packet], av.Packet | None]

NOBODY = 65534  # a user without any right, to root
pytestmark = pytest.mark.timeout(60)


def open_one(path: Path, decoder_threads: int = 0) -> Source:
    (source,) = open_sources([str(path)], decoder_threads=decoder_threads)
    return source


def play(path: Path, decoder_threads: int = 0) -> tuple[Source, list[int]]:
    """Run a source to its end; check what must hold always; return it and the numbers shown."""
    source = open_one(path, decoder_threads)
    frames = list(source.frames())
    check_promises(source, frames)
    return source, [read_number(frame.picture) for frame in frames]


def check_promises(source: Source, frames: list[Frame]) -> None:
    stats = source.stats
    assert frames, "an empty success"
    assert stats.state == "ENDED"
    assert stats.in_flight == len(frames)
    assert set(stats.frames_dropped) <= {"corrupt"}
    assert all(count > 0 for count in (stats.anomalies + stats.frames_dropped).values())
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    assert [frame.index for frame in frames] == list(range(len(frames)))


def remux(source: Path, target: Path, edit: EditPacket) -> Path:
    """Copy packets through `edit`, which may change them or leave them out (None)."""
    with av.open(str(source)) as given, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        packets = (packet for packet in given.demux(video=0) if packet.size)
        for number, packet in enumerate(packets):
            edited = edit(number, packet)
            if edited is not None:
                edited.stream = stream
                output.mux(edited)
    return target


def cut(path: Path, keep: float) -> Path:
    """Keep this share of the file's bytes."""
    data = path.read_bytes()
    shorter = path.with_name(f"cut_{path.name}")
    shorter.write_bytes(data[: int(len(data) * keep)])
    return shorter


# What cannot be opened ---------------------------------------------------------------------------


def test_a_missing_file_is_named_with_the_nearest_one(make_clip: MakeClip, tmp_path: Path) -> None:
    make_clip("drive.mp4", frames=1)
    with pytest.raises(SourceNotFound, match=r"no such file: .*drvie\.mp4.*did you mean.*drive"):
        open_one(tmp_path / "drvie.mp4")
    with pytest.raises(SourceNotFound, match=r"did you mean '.*drive\.mp4'"):
        open_one(tmp_path / "drive")
    with pytest.raises(SourceNotFound) as caught:
        open_one(tmp_path / "trip.mp4")
    assert "did you mean" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="nor is there a folder"):
        open_one(tmp_path / "nowhere" / "a.mp4")
    with pytest.raises(SourceNotFound, match="nothing matches"):
        open_one(tmp_path / "*.mkv")
    with pytest.raises(SourceNotFound):
        open_one(tmp_path / "drive.mp4" / "a.mp4")


def test_a_folder_without_media_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(NoVideo, match="no video and no picture, among 0 files"):
        open_one(tmp_path)
    (tmp_path / "readme.txt").write_text("nothing to see")
    with pytest.raises(NoVideo, match="among 1 files"):
        open_one(tmp_path)


def test_no_source_at_all_is_a_bad_argument() -> None:
    with pytest.raises(ConfigError, match="no source given"):
        open_sources([])


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(NoVideo, match=r"is empty \(0 bytes\)"):
        open_one(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.avi", "a.ts", "a"])
@pytest.mark.parametrize("text", ["hello world\n" * 300, "#EXTM3U\nhttp://127.0.0.1:9/a.ts\n"])
def test_text_is_not_video_whatever_it_is_called(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(NoVideo, match="is text"):
        open_one(tmp_path / name)


def test_noise_is_not_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(np.random.default_rng(1).bytes(60_000))
    with pytest.raises(NoVideo, match="is it a video at all"):
        open_one(tmp_path / "a.mp4")


def test_a_playlist_reaches_no_other_place_than_this_folder(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0.2)
        port = listening.getsockname()[1]
        lines = [
            "#EXTM3U",
            "#EXT-X-TARGETDURATION:9",
            "#EXTINF:9,",
            f"http://127.0.0.1:{port}/a.ts",
        ]
        (tmp_path / "a.m3u8").write_text("\n".join([*lines, "#EXT-X-ENDLIST", ""]))
        with pytest.raises(SourceError):
            open_one(tmp_path / "a.m3u8")
        with pytest.raises(TimeoutError):
            listening.accept()


def test_an_mp4_without_its_index_says_what_that_means(make_clip: MakeClip) -> None:
    with pytest.raises(NoVideo, match=r"moov atom.*cut off before it was finished"):
        open_one(cut(make_clip("a.mp4"), 0.5))


def test_sound_alone_is_no_video(make_clip: MakeClip) -> None:
    with pytest.raises(NoVideo, match="holds no video, only audio"):
        open_one(make_clip("a.mp4", with_video=False, audio_delay=0.0))


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as output:
        cover = output.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        output.mux(cover.encode(av.VideoFrame(64, 64, "yuvj420p")))
        output.mux(cover.encode(None))
    with pytest.raises(NoVideo, match="only cover art"):
        open_one(path)


@pytest.mark.parametrize(
    ("name", "code", "unknown"),
    [("a.mp4", b"avc1", b"zzzz"), ("a.mkv", b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/AVC")],
)
def test_video_without_a_decoder_is_named(
    make_clip: MakeClip, name: str, code: bytes, unknown: bytes
) -> None:
    path = make_clip(name)
    path.write_bytes(path.read_bytes().replace(code, unknown))
    named = "zzzz" if name == "a.mp4" else "unknown kind"
    with pytest.raises(UnsupportedCodec, match=rf"{named}.*no decoder; convert it"):
        open_one(path)


def test_pictures_that_nothing_can_convert_are_the_fault_of_their_own_file(
    make_clip: MakeClip,
) -> None:
    path = make_clip("a.nut", codec="rawvideo", pix_fmt="rgb4")
    with pytest.raises(UnsupportedCodec, match=r"a\.nut' holds .* format rgb4, .*convert it to"):
        open_one(path)


def test_a_pixel_format_that_nothing_can_convert_is_found_out_when_it_comes() -> None:
    upright = Upright("a camera")
    good, bad = (av.VideoFrame(64, 48, name) for name in ("yuv420p", "rgb4"))
    assert upright(good) is good
    with pytest.raises(UnsupportedCodec, match="a camera holds pictures in pixel format rgb4"):
        upright(bad)
    assert upright(good) is good


def test_a_file_whose_every_picture_is_damaged_is_an_error(make_clip: MakeClip) -> None:
    path = make_clip("a.mkv", codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for start, size in spans:
        data[start + 20 : start + size] = bytes(size - 20)
    path.write_bytes(data)
    with pytest.raises(NoVideo, match=r"no picture of .* can be decoded .*packets failed"):
        open_one(path)


def test_a_pipe_a_socket_a_device_and_a_folder_named_like_a_video_never_hang(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(SourceError, match="is a pipe, not a file"):
        open_one(tmp_path / "pipe.mp4")
    with pytest.raises(SourceError, match="is a device, not a file"):
        open_one(Path("/dev/zero"))
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(NoVideo, match="no video and no picture"):
        open_one(tmp_path / "folder.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    with pytest.raises(SourceError, match="cannot read"):
        open_one(tmp_path / "loop.mp4")


@pytest.fixture
def clip_of_another(tmp_path: Path) -> Iterator[Path]:
    """A clip that can be read; root, who may read everything, is nobody meanwhile."""
    with tempfile.TemporaryDirectory() as name:  # nobody may not look into `tmp_path`
        folder = Path(name)
        folder.chmod(0o755)
        clip = write_clip(folder / "a.mp4")
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(NOBODY)
        try:
            open_one(clip).close()
            yield clip
        finally:
            if is_root:
                os.seteuid(0)
            folder.chmod(0o755)


def close_to_all(path: Path) -> None:
    """Its owner takes all rights from everybody."""
    me = os.geteuid()
    os.seteuid(path.stat().st_uid)
    path.chmod(0)
    os.seteuid(me)


def test_a_file_that_may_not_be_read_says_so(clip_of_another: Path) -> None:
    close_to_all(clip_of_another)
    with pytest.raises(SourceError, match="permission denied; let this user read it"):
        open_one(clip_of_another)


def test_a_folder_that_may_not_be_read_or_entered_says_so(clip_of_another: Path) -> None:
    clip = clip_of_another
    close_to_all(clip.parent)
    for url in (clip.parent, clip, clip.with_suffix(".jpg"), clip.parent / "*.mp4"):
        with pytest.raises(SourceError, match="permission denied; let this user read it"):
            open_one(url)


def test_a_name_that_is_too_long_is_no_source(tmp_path: Path) -> None:
    for name in ("x" * 300, f"{'x' * 300}*", f"{'x' * 300}.png"):
        with pytest.raises(SourceError, match=r"cannot read .*: File name too long"):
            open_one(tmp_path / name)


def test_one_bad_source_among_good_ones_is_found_before_anything_runs(
    make_clip: MakeClip, tmp_path: Path
) -> None:
    good = str(make_clip("good.mp4"))
    (tmp_path / "bad.mp4").write_text("no")
    with pytest.raises(NoVideo, match="bad"):
        open_sources([good, str(tmp_path / "bad.mp4"), good])


@pytest.mark.parametrize(
    "url",
    [
        "gopher://user:s3cret@camera.example/live",
        "ftp://user:s3cret@camera.example:80/a%40b.mp4?token=s3cret",
        "sctp://s3cret@:1234",
        "rtsp:/user:s3cret@camera.example/live",
        "user:s3cret@camera.example/live.mp4",
        "user:s3cret/x@camera.example/live*.mp4",
    ],
)
def test_secrets_in_urls_appear_in_no_message(url: str) -> None:
    with pytest.raises((ConfigError, SourceNotFound)) as caught:
        open_sources([url])
    assert "s3cret" not in str(caught.value)


def test_schemes_that_are_not_supported_name_what_is() -> None:
    with pytest.raises(ConfigError, match=r"gopher:// sources are not supported; name a video"):
        open_sources(["gopher://camera/live"])


# What can be shown in part -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "mpeg4", {"movflags": "faststart"}),
        ("a.mp4", "libx264", {"movflags": "faststart"}),
        ("a.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.mkv", "libx264", {}),
        ("a.webm", "libvpx-vp9", {}),
        ("a.ts", "libx264", {}),
        ("a.avi", "mpeg4", {}),
    ],
)
def test_a_recording_that_was_cut_off_is_shown_and_the_loss_counted(
    make_clip: MakeClip, name: str, codec: str, options: dict[str, str]
) -> None:
    path = make_clip(name, codec=codec, size=(160, 120), frames=60, **options)
    source, shown = play(cut(path, 0.6))
    assert 10 < len(shown) < 60
    assert all(a < b for a, b in pairwise(shown))
    assert shown[:-5] == list(range(len(shown) - 5))  # the last ones may lean on what is lost
    if "empty_moov" not in str(options):  # a fragmented file does not know how long it will be
        assert source.stats.anomalies["truncated"] == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.mov", "a.webm"])
def test_a_whole_recording_is_not_called_truncated(make_clip: MakeClip, name: str) -> None:
    codec = "libvpx-vp9" if name == "a.webm" else "mpeg4"
    sound = None if name == "a.webm" else 1.5  # longer than the picture
    source, shown = play(make_clip(name, codec=codec, audio_delay=sound, frames=30))
    assert shown == list(range(30))
    assert "truncated" not in source.stats.anomalies


@pytest.mark.parametrize("threads", [1, 2])
def test_decoding_goes_on_behind_packets_that_are_broken(
    make_clip: MakeClip, tmp_path: Path, threads: int
) -> None:
    whole = make_clip("a.mkv", codec="mjpeg", pix_fmt="yuvj420p", frames=20)

    def spoil(number: int, packet: av.Packet) -> av.Packet:
        return _rewritten(packet, bytes(40)) if number in (5, 6, 13) else packet

    source, shown = play(remux(whole, tmp_path / "b.mkv", spoil), threads)
    assert shown == [n for n in range(20) if n not in (5, 6, 13)]
    assert source.stats.anomalies["corrupt_packet"] == 3
    assert "truncated" not in source.stats.anomalies


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libx265"])
def test_a_damaged_picture_is_dropped_and_the_next_keyframe_is_good_again(
    make_clip: MakeClip, tmp_path: Path, codec: str, threads: int
) -> None:
    whole = make_clip("a.mkv", codec=codec, frames=24, size=(128, 96))

    def spoil(number: int, packet: av.Packet) -> av.Packet:
        data = bytearray(bytes(packet))
        if number == 8:
            data[len(data) // 3 :] = np.random.default_rng(0).bytes(len(data) - len(data) // 3)
        return _rewritten(packet, bytes(data))

    source, shown = play(remux(whole, tmp_path / "b.mkv", spoil), threads)
    assert set(range(6)) | set(range(12, 24)) <= set(shown)
    lost = source.stats.frames_dropped["corrupt"] + source.stats.anomalies["corrupt_packet"]
    assert lost >= 1
    assert source.stats.frames_dropped["corrupt"] <= 6


@pytest.mark.parametrize(("name", "codec"), [("b.ts", "libx264"), ("b.mkv", "mpeg4")])
def test_nothing_is_shown_before_the_first_keyframe(
    make_clip: MakeClip, tmp_path: Path, name: str, codec: str
) -> None:
    whole = make_clip("a.mkv", codec=codec, frames=18, options={"bf": "0", "sc_threshold": "0"})
    late = remux(whole, tmp_path / name, lambda number, packet: packet if number > 2 else None)
    source, shown = play(late)
    assert shown[-12:] == list(range(6, 18))
    if codec == "libx264":
        assert len(shown) == 12
        assert source.stats.frames_dropped["corrupt"] + source.stats.anomalies["corrupt_packet"] > 0


def test_joined_transport_streams_play_on_and_count_the_jump(
    make_clip: MakeClip, tmp_path: Path
) -> None:
    first = make_clip("a.ts", timestamps=[n + 25_000 for n in range(12)])
    second = make_clip("b.ts")
    (tmp_path / "c.ts").write_bytes(first.read_bytes() + second.read_bytes())
    source, shown = play(tmp_path / "c.ts")
    assert shown == [*range(12), *range(12)]
    assert source.stats.anomalies["pts_jump"] == 1
    assert source.stats.source_seconds == pytest.approx(24 / 25, abs=0.05)


def test_a_transport_stream_whose_clock_wraps_plays_on(make_clip: MakeClip) -> None:
    wrap = int(Fraction(2**33, 90_000) * 25)
    source, shown = play(make_clip("a.ts", timestamps=[wrap - 6 + n for n in range(12)]))
    assert shown == list(range(12))
    assert source.stats.source_seconds == pytest.approx(12 / 25, abs=0.05)


@pytest.mark.parametrize(
    ("times", "kind", "count"),
    [
        ([0, 40, 80, 80, 160, 200], "pts_repeated", 1),
        ([0, 40, 80, 6 * 3_600_000, 6 * 3_600_000 + 40, 6 * 3_600_000 + 80], "pts_jump", 1),
    ],
)
def test_timestamps_that_make_no_sense_are_put_right_and_counted(
    make_clip: MakeClip, tmp_path: Path, times: list[int], kind: str, count: int
) -> None:
    whole = make_clip("a.mkv", codec="mjpeg", pix_fmt="yuvj420p", frames=6)

    def restamp(number: int, packet: av.Packet) -> av.Packet:
        packet.pts = packet.dts = times[number]
        packet.time_base = Fraction(1, 1000)
        return packet

    source = open_one(remux(whole, tmp_path / "b.mkv", restamp))
    frames = list(source.frames())
    check_promises(source, frames)
    assert [frame.pts for frame in frames] == [0, 40, 80, 120, 160, 200]
    assert dict(source.stats.anomalies) == {kind: count}


def test_a_stream_without_any_timestamps_gets_them_from_its_rate(make_clip: MakeClip) -> None:
    source = open_one(make_clip("a.h264", options={"bf": "0"}))
    frames = list(source.frames())
    check_promises(source, frames)
    times = [frame.pts_seconds for frame in frames]
    assert times == pytest.approx([n / 25 for n in range(12)], abs=0.001)


def test_an_absurd_frame_rate_is_not_believed(make_clip: MakeClip) -> None:
    path = make_clip(
        "a.mkv",
        fps=90_000,
        time_base=Fraction(1, 1000),
        timestamps=[40 * n for n in range(12)],
    )
    source, shown = play(path)
    assert source.rate is None or source.rate <= 1000
    assert shown == list(range(12))
    assert source.stats.source_seconds == pytest.approx(0.46, abs=0.05)


def test_a_size_that_changes_on_the_way_is_delivered(make_clip: MakeClip, tmp_path: Path) -> None:
    small, large = make_clip("a.ts"), make_clip("b.ts", size=(128, 96))
    (tmp_path / "c.ts").write_bytes(small.read_bytes() + large.read_bytes())
    source = open_one(tmp_path / "c.ts")
    frames = list(source.frames())
    check_promises(source, frames)
    assert [frame.size_hw for frame in frames] == [(48, 64)] * 12 + [(96, 128)] * 12


def test_damage_leaves_the_terminal_alone(
    make_clip: MakeClip, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make_clip("a.ts", codec="mpeg2video", frames=30)
    damaged = _with_flipped_bits(path.read_bytes(), seed=2, flips=60)
    path.write_bytes(damaged)
    broken = cut(make_clip("b.mp4"), 0.5)
    capfd.readouterr()
    source, _ = play(path)
    assert source.stats.anomalies or source.stats.frames_dropped
    with pytest.raises(NoVideo):
        open_one(broken)
    assert capfd.readouterr().err == ""


def damaged_clip_closed_while_its_decoder_complains() -> int:
    """How often it was opened, its first picture decoded by four threads, and closed."""

    def spoil(number: int, packet: av.Packet) -> av.Packet:
        data = bytearray(packet)
        data[len(data) // 4 :: 37] = b"U" * len(data[len(data) // 4 :: 37])
        return _rewritten(packet, bytes(data)) if number else packet

    with tempfile.TemporaryDirectory() as folder:
        whole = write_clip(Path(folder, "a.mp4"), size=(320, 192), keyframe_every=100)
        damaged = remux(whole, Path(folder, "b.mp4"), spoil)
        faulthandler.dump_traceback_later(40, exit=True)  # threads that hold each other up
        with Hearing(losses=True):  # as a camera does
            return len([open_one(damaged, 4).close() for _ in range(20)])


def test_a_decoder_may_complain_of_damage_while_it_is_closed() -> None:
    assert alone(damaged_clip_closed_while_its_decoder_complains) == 20


# Bits flipped at random --------------------------------------------------------------------------

FUZZED = [
    ("a.mp4", "libx264"),
    ("a.mkv", "libx264"),
    ("a.ts", "libx264"),
    ("a.avi", "mpeg4"),
    ("a.mp4", "mpeg4"),
    ("a.mkv", "libx265"),
    ("a.webm", "libvpx-vp9"),
    ("a.ts", "mpeg2video"),
    ("a.avi", "mjpeg"),
]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], bytes]]:
    """The bytes of one small clip of each kind."""
    folder = tmp_path_factory.mktemp("fuzz")
    yield {
        (name, codec): write_clip(
            folder / f"{codec}_{name}",
            codec=codec,
            frames=30,
            size=(96, 64),
            pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
        ).read_bytes()
        for name, codec in FUZZED
    }


def _fuzz(path: Path, data: bytes, seeds: range) -> int:
    """Play damaged copies of `data`; return how many could be shown."""
    shown = 0
    for seed in seeds:
        path.write_bytes(_with_flipped_bits(data, seed, flips=seed % 40 + 1))
        try:
            source = open_one(path, decoder_threads=1 + seed % 2)
        except SourceError:
            continue
        frames = list(source.frames())
        check_promises(source, frames)
        shown += 1
    return shown


@pytest.mark.parametrize(("name", "codec"), FUZZED)
def test_flipped_bits_never_crash_hang_or_give_an_empty_success(
    tmp_path: Path, clips: dict[tuple[str, str], bytes], name: str, codec: str
) -> None:
    assert _fuzz(tmp_path / name, clips[name, codec], range(20)) > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "codec"), FUZZED)
def test_flipped_bits_of_five_hundred_seeds(
    tmp_path: Path, clips: dict[tuple[str, str], bytes], name: str, codec: str
) -> None:
    assert _fuzz(tmp_path / name, clips[name, codec], range(500)) > 0


def _with_flipped_bits(data: bytes, seed: int, flips: int) -> bytes:
    """Flip bits anywhere (odd seeds) or behind the header; cut every fourth copy short."""
    random = np.random.default_rng(seed)
    damaged = bytearray(data)
    if seed % 4 == 3:
        del damaged[int(len(data) * random.uniform(0.1, 1.0)) :]
    first = 0 if seed % 2 else min(600, len(damaged) - 1)
    for position in random.integers(first, len(damaged), flips):
        damaged[position] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def _rewritten(packet: av.Packet, data: bytes) -> av.Packet:
    """A packet with other bytes at the same time."""
    copy = av.Packet(data)
    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
    copy.duration, copy.is_keyframe = packet.duration, packet.is_keyframe
    return copy
