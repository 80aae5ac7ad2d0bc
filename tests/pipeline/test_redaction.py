"""What is shown of addresses, well written or not, and of sentences that hold some."""

from __future__ import annotations

import pytest

from pipeline.errors import PipelineError
from pipeline.redaction import without_secrets
from pipeline.sources import open_sources
from pipeline.title import shown_word

NASTY = "p@ss:w/ord#%ü? &="


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"rtsp://ad@min:{NASTY}@cam:554/x#name=a", "rtsp://***@cam:554/x#name=a"),
        ("replay:http://u:p@cam/x?channel=1", "replay:http://***@cam/x?channel=1"),
        ("http://cam/pass=abc/1", "http://cam/pass=***"),
        ("http://cam/x?channel=1&user=abc&pwd=abc#name=a", "http://cam/x?channel=1&user=***&pwd=***#name=a"),
        ("rtsp:/viewer:s3cret@cam", "***@cam"),
        ("rtsp:/cam.example/live?token=s3cret", "rtsp:/cam.example/live?token=***"),
        ("rtsp:viewer:s3 cret@cam", "***@cam"),
        ("//viewer:s3cret@cam/1", "//***@cam/1"),
        ("rtsp:// viewer:s3cret@cam/1", "rtsp:// ***@cam/1"),
        ("nothing at 'rtsp:/u:p@cam'; name https://", "nothing at ***@cam'; name https://"),
        ("rtsp://$USER:${PASS}@cam/x", "rtsp://$USER:${PASS}@cam/x"),
        ("rtsp://$USER:pa$word@cam/x", "rtsp://***@cam/x"),
        ("rtsp://cam/x?token=***: connected", "rtsp://cam/x?token=***: connected"),
        ("libx.so: version 2@3 is missing", "libx.so: version 2@3 is missing"),
        ("rtsp:// needs a host; in a URL: %40 for @", "rtsp:// needs a host; in a URL: %40 for @"),
        *[(plain, plain) for plain in ("drive.mp4", "rtsp://cam/x#transport=udp", "a/clip?.mp4")],
        ("synthetic://street?seed=1&size=64x36", "synthetic://street?seed=1&size=64x36"),
    ],
)  # fmt: skip  # a table
def test_what_is_shown_holds_no_secret(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert without_secrets(shown) == shown


@pytest.mark.parametrize(
    "url",
    [
        "rtsp:/cam.example/live?token=s3cret",
        "rtsp:/viewer:s3cret@cam/live",
        "rtsp:viewer:s3cret@cam/live*.mp4",
        "rtps://viewer:s3cret@cam/live",
        "/nowhere/rtsp:/cam?pwd=s3cret/live.mp4",
    ],
)
def test_an_address_that_was_mistyped_gives_nothing_away(url: str) -> None:
    with pytest.raises(PipelineError) as caught:
        open_sources([url])
    assert "s3cret" not in repr(caught.value)


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("http://cam/x?sid=abc#name=a", "http://cam/x?***"),
        ("rtsp:/cam/x?sid=abc", "rtsp:/cam/x?***"),
        ("--out=rtsp://u:p\nq r@server/{source}", "--out=rtsp://***@server/{source}"),
        ('sources=["rtsp://u:p@a/1", "rtsp://v:q@b/2"]', 'sources=["rtsp://***@b/2"]'),
        ("rtsp://$USER:${PASS}@cam/x@y", "rtsp://***@y"),
        ("rtmp://host/app/abcd-efgh", "rtmp://host/app/***"),
        *[(plain, plain) for plain in ("a/clip?.mp4", "rtsp://$USER:${PASS}@cam/x")],
        ("synthetic://street?seed=1", "synthetic://street?seed=1"),
    ],
)
def test_a_list_of_processes_shows_no_query_either(word: str, shown: str) -> None:
    assert shown_word(word) == shown
