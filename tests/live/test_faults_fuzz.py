"""Streams with bits flipped, pieces missing and nonsense in between: nothing hangs or crashes."""

from __future__ import annotations

import random
import socket

import pytest

from tests.live.kit.odd_servers import OddServer
from tests.live.kit.serving import read_request
from tests.live.kit.watching import Watcher
from tests.waiting import until

FORMATS = {
    "h264 in ts": ("clip.ts", "video/mp2t", {"container": "mpegts"}),
    "hevc in mkv": ("clip.mkv", "video/x-matroska", {"codec": "libx265"}),
}
SEEDS = 30


class MangledServer(OddServer):
    """Sends one recording, mangled otherwise at every request.

    Args:
        content: The whole recording.
        kind: Its MIME type.
        seed: Of the first request; later ones count on.
    """

    def __init__(self, content: bytes, kind: str, seed: int = 0) -> None:
        self._content, self._kind, self._seed = content, kind, seed
        self.requests = 0
        super().__init__()

    def handle(self, client: socket.socket) -> None:
        if not read_request(client):
            return
        chance = random.Random(self._seed + self.requests)
        self.requests += 1
        client.settimeout(5.0)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {self._kind}\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode() + mangled(self._content, chance))


def mangled(content: bytes, chance: random.Random) -> bytes:
    """Some bits flipped, some pieces cut out or doubled, perhaps cut short."""
    changed = bytearray(content)
    for _ in range(chance.choice([0, 1, 10, 100, 1000])):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    for _ in range(chance.choice([0, 0, 1, 5])):
        start = chance.randrange(len(changed))
        piece = changed[start : start + chance.randrange(1, 4000)]
        changed[start : start + len(piece)] = chance.choice([b"", bytes(piece) * 2])
    if chance.random() < 0.3:
        del changed[chance.randrange(1, len(changed)) :]
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", FORMATS)
def test_a_mangled_stream_gives_pictures_or_a_named_failure(make_clip, name):
    file, kind, options = FORMATS[name]
    clip = make_clip(file, frames=25, size=(160, 120), **options)
    with MangledServer(clip.read_bytes(), kind) as server:
        url = server.url("http") + "#open_seconds=3&stall_seconds=2&stable_seconds=0"
        with Watcher(url) as watcher:
            until(lambda: server.requests >= SEEDS, 200, f"{SEEDS} requests, {watcher.stats}")
            assert watcher.error is None
            assert watcher.end() < 10
        stats = watcher.stats
    assert sum(stats.failures.values()) >= SEEDS - 2, "a stream ended without a word"
    named = {"ended", "corrupt", "no_video", "unsupported_codec", "stalled", "timeout", "other"}
    assert set(stats.failures) <= named
    assert stats.frames_decoded > SEEDS, "nothing was ever seen"
    assert stats.connections >= SEEDS // 5
