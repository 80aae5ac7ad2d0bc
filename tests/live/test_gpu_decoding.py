"""A camera's decoder on a GPU: what comes, and what becomes of it when the GPU fails."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from pipeline.bookkeeping.metrics import DecodedBy
from pipeline.gpu.pictures import in_memory
from pipeline.settings import DecoderName
from pipeline.sources.live.decoder import DecodeEffort, Decoder, Effort
from pipeline.sources.live.hearing import Hearing
from pipeline.sources.live.repair import Repair
from pipeline.sources.live.thrift import Thrift
from tests.clips import as_frame, numbered_picture, read_number
from tests.pipeline.stand_in_chip import Chips

FRAMES, GOP = 100, 10


class Ledger:
    """What is counted and told."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.decoders: list[DecodedBy] = []

    def drop(self, cause: str) -> None:
        self.counts[cause] += 1

    count = drop

    def spared(self) -> None:
        pass

    def decoded_by(self, decoder: DecodedBy) -> None:
        self.decoders.append(decoder)


@pytest.fixture(scope="module", params=[{"tune": "zerolatency"}, {"bf": "2"}], ids=["camera", "B"])
def stream(request: pytest.FixtureRequest) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        video = container.add_stream("libx264", rate=25)
        (video.width, video.height), video.pix_fmt = (64, 48), "yuv420p"
        video.thread_count = 1
        keys = f"keyint={GOP}:min-keyint={GOP}:scenecut=0:open-gop=0"
        video.options = {"preset": "veryfast", "x264-params": keys} | request.param
        for number in range(FRAMES):
            container.mux(video.encode(as_frame(numbered_picture(number, (64, 48)), "yuv420p")))
        container.mux(video.encode(None))
    return file.getvalue()


def decoded(
    stream: bytes, chips: Chips | None, effort: dict[int, DecodeEffort] | None = None
) -> tuple[list[tuple[int, int | None, str]], Ledger]:
    """Number, timestamp and format of the good pictures."""
    ledger, good, level = Ledger(), [], Effort()
    repair = Repair("skip", ledger)
    with av.open(io.BytesIO(stream)) as container:
        video = container.streams.video[0]
        decoder = Decoder(video, 1, level, Hearing(losses=False), Thrift(None), chips, "yard")
        for number, packet in enumerate(container.demux(video)):
            level.level = (effort or {}).get(number, level.level)
            good += decoder.decode(packet, repair, ledger)
    return [(read_number(in_memory(p)), p.pts, p.format.name) for p in good], ledger


def has_pictures_that_no_other_is_built_on(stream: bytes) -> bool:
    with av.open(io.BytesIO(stream)) as container:
        return any(picture.pict_type == PictureType.B for picture in container.decode(video=0))


def shown(pictures: list[tuple[int, int | None, str]]) -> list[tuple[int, int | None]]:
    return [(number, pts) for number, pts, _ in pictures]


def test_pictures_of_the_chip_are_those_of_software(stream: bytes) -> None:
    ours, ledger = decoded(stream, Chips())
    theirs, _ = decoded(stream, None)
    assert shown(ours) == shown(theirs) and len(ours) == FRAMES
    assert {form for *_, form in ours} == {"nv12"}
    assert ledger.decoders == [("h264", "gpu", "as asked for")] and not ledger.counts


@pytest.mark.parametrize(("decoder", "leaves"), [("cuda", False), ("auto", True)])
def test_pictures_that_stay_on_the_chip_are_those_of_software(
    stream: bytes, decoder: DecoderName, leaves: bool
) -> None:
    chips = Chips(decoder=decoder, slow=leaves)
    chips.keep_pictures(lambda: None)
    ours, ledger = decoded(stream, chips)
    assert shown(ours) == shown(decoded(stream, None)[0]) and not ledger.counts
    assert {form for *_, form in ours} == ({"cuda", "yuv420p"} if leaves else {"cuda"})
    assert ledger.decoders[0].why.endswith("; pictures stay there for the engine")
    assert ledger.decoders[-1].where == ("cpu" if leaves else "gpu")


def test_a_chip_that_fails_costs_the_pictures_up_to_the_next_keyframe(
    stream: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    ours, ledger = decoded(stream, Chips(options={"fails_at": 34}))
    numbers = [number for number, *_ in ours]
    assert numbers == sorted(set(numbers))
    assert set(range(40, FRAMES)) <= set(numbers)
    assert set(range(30)) <= set(numbers) and not {*range(35, 40)} & set(numbers)
    assert ledger.counts["gpu_decoder_failed"] == 1
    assert [d.where for d in ledger.decoders] == ["gpu", "cpu"]
    assert caplog.text.count("yard: its decoder failed (Generic error)") == 1


def test_a_stream_that_the_chip_does_not_take_loses_nothing(stream: bytes) -> None:
    ours, ledger = decoded(stream, Chips(options={"refuses_at": 0}))
    assert shown(ours) == shown(decoded(stream, None)[0])
    assert [d.where for d in ledger.decoders] == ["cpu"] and not ledger.counts


def test_a_chip_slower_than_a_core_is_left_at_a_keyframe_without_a_loss(stream: bytes) -> None:
    chips = Chips(decoder="auto", slow=True)
    ours, ledger = decoded(stream, chips)
    assert shown(ours) == shown(decoded(stream, None)[0])
    assert {form for *_, form in ours} == {"nv12", "yuv420p"} and not ledger.counts
    assert " ms on a core" in ledger.decoders[-1].why
    decoded(stream, chips)
    assert len(chips.opened) == 1, "a camera that comes back is not measured again"


def test_where_no_chip_can_be_had_software_decodes_from_the_start(stream: bytes) -> None:
    ours, ledger = decoded(stream, Chips(sessions=0))
    assert len(ours) == FRAMES and {form for *_, form in ours} == {"yuv420p"}
    assert ledger.counts == {"gpu_decoder_failed": 1}


def test_damage_is_repaired_as_in_software_and_the_chip_stays(stream: bytes) -> None:
    packets = [stream[i : i + 188] for i in range(0, len(stream), 188)]
    broken = b"".join(packets[: len(packets) // 2] + packets[len(packets) // 2 + 3 :])
    (ours, ledger), (theirs, software) = decoded(broken, Chips()), decoded(broken, None)
    assert shown(ours) == shown(theirs) and len(ours) < FRAMES
    assert ledger.counts == software.counts
    assert {form for *_, form in ours} == {"nv12"}


def test_a_chip_that_is_told_to_leave_pictures_out_is_not_taken_for_mute(stream: bytes) -> None:
    less = {0: DecodeEffort.REFERENCES}
    ours, ledger = decoded(stream, Chips(options={"mute_at": 1}), less)
    assert len(ours) <= 1 and not ledger.counts, "silence is what was asked for"
    _, ledger = decoded(stream, Chips(options={"mute_at": 1}))
    assert ledger.counts["gpu_decoder_failed"] == 1


def test_less_effort_leaves_pictures_out_on_the_chip_too(stream: bytes) -> None:
    effort: dict[int, Any] = {0: DecodeEffort.NO_LOOP_FILTER, 50: DecodeEffort.REFERENCES}
    (ours, _), (theirs, _) = decoded(stream, Chips(), effort), decoded(stream, None, effort)
    assert {form for *_, form in ours} == {"nv12"}, "the chip has no other filter to change to"
    assert shown(ours) == shown(theirs)
    late = [number for number, *_ in ours if number >= 60]
    assert (len(late) < FRAMES - 60) == has_pictures_that_no_other_is_built_on(stream)
    assert np.diff([number for number, *_ in ours]).min() > 0
