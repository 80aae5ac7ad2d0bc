"""Responses without an end: pictures and the state of things, as fast as the viewer takes them.

Each loop first waits until the viewer has taken everything that was sent before, and only then
picks what is newest. So a slow viewer gets fewer pictures, and never old ones; what waits for
him is at most one picture, and `pipeline.serve.server` lets go of who takes nothing at all.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool

from pipeline.serve.board import Board, Shot
from pipeline.serve.jpeg import no_signal

PACE_SECONDS = 1 / 30  # between two pictures of a source; more can hardly be seen
SILENCE_SECONDS = 5.0  # after which a sign of life is sent
STATE_SECONDS = 1.0  # between two states of things

BOUNDARY = "picture"
Framing = Callable[[Shot, bytes], bytes]


class Waker:
    """An event that a thread can set and a coroutine can wait for."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def __call__(self) -> None:
        """Wake who waits; from any thread."""
        if not self._event.is_set() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    def clear(self) -> None:
        """What comes from now on counts."""
        self._event.clear()

    async def wait(self, seconds: float) -> bool:
        """Wait to be woken; False when that took too long."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return False
        return True


async def pictures(
    board: Board, framed: Framing, quiet: Callable[[], bytes], only: str | None = None
) -> AsyncIterator[bytes]:
    """The newest picture of every source, or of one, over and over.

    Args:
        board: Where they are pinned.
        framed: Packs a JPEG for the wire.
        quiet: What to send when there has been nothing to send for a while.
        only: Ends the stream when this source goes.
    """
    waker, sent = Waker(), dict[str, int]()
    with board.watched(waker):
        while not board.closed:
            waker.clear()
            names = board.names() if only is None else [only]
            sent = {name: serial for name, serial in sent.items() if name in names}
            any_sent = False
            for name in names:
                yield b""  # comes back when everything before has been taken
                feed = board.feed(name)
                if feed is None and only is not None:
                    return
                shot = feed.shot if feed else None
                if shot is not None and shot.serial > sent.get(name, 0):
                    sent[name], any_sent = shot.serial, True
                    yield framed(shot, await _encoded(shot))
            if any_sent:
                await asyncio.sleep(PACE_SECONDS)  # a faster viewer would only cost more
            elif not await waker.wait(SILENCE_SECONDS):
                yield await run_in_threadpool(quiet)


async def _encoded(shot: Shot) -> bytes:
    jpeg = shot.jpeg
    return await run_in_threadpool(shot.encode) if jpeg is None else jpeg


def multipart(shot: Shot, jpeg: bytes) -> bytes:
    """One part of ``multipart/x-mixed-replace``, which every browser and camera viewer knows."""
    return _part(jpeg)


def no_signal_part(board: Board, name: str) -> bytes:
    """What stands in for a picture that does not come, so that nobody takes an old one for new."""
    feed = board.feed(name)
    shot = feed.shot if feed else None
    sentence = f"no picture for {shot.age:.0f} s" if shot else "no picture yet"
    jpeg = no_signal(shot.result if shot else None, sentence)
    return _part(jpeg)


def _part(jpeg: bytes) -> bytes:
    # It ends with the boundary of the next one: until that comes, browsers show the one before.
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return head.encode() + jpeg + f"\r\n--{BOUNDARY}\r\n".encode()


def packed(shot: Shot, jpeg: bytes) -> bytes:
    """A line of JSON and the JPEG: pictures of all sources on one connection.

    A browser opens no more than six connections to a server, so a stream for each would show
    five cameras and then nothing.
    """
    frame = shot.result.frame
    head = {
        "source": frame.source,
        "bytes": len(jpeg),
        "frame": frame.index,
        "age_seconds": round(shot.age, 3),
    }
    return json.dumps(head).encode() + b"\n" + jpeg


async def states(board: Board, state: Callable[[], str]) -> AsyncIterator[bytes]:
    """The state of things once a second, as server-sent events."""
    waker = Waker()
    yield b"retry: 1000\n\n"
    with board.watched(waker, shots=False):
        while not board.closed:
            waker.clear()
            text = await run_in_threadpool(state)
            yield f"event: state\ndata: {text}\n\n".encode()
            await waker.wait(STATE_SECONDS)
            yield b""  # comes back when everything before has been taken
