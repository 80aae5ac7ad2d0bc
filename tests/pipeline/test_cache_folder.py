"""What engines have compiled is kept: found by content, never half written, bounded."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from pipeline.engines import cache_folder as module
from pipeline.engines.cache_folder import CacheFolder, cache_folder, key_of


def names(folder: CacheFolder) -> set[str]:
    return {path.name for path in folder.path.iterdir()}


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    CacheFolder(tmp_path / "new").write("key", b"content")
    folder = CacheFolder(tmp_path / "new")
    assert folder.read("key") == b"content"
    assert folder.read("other") is None
    assert folder.trouble is None
    assert names(folder) == {"key.compiled"}
    assert folder.path.stat().st_mode & 0o777 == 0o700


def test_a_key_changes_with_every_byte_of_the_model_and_every_fact() -> None:
    facts = {"version": "1", "options": {"threads": 2}}
    keys = [
        key_of("openvino", b"model", facts),
        key_of("openvino", b"Model", facts),
        key_of("openvino", b"model", facts | {"version": "2"}),
        key_of("openvino", b"model", facts | {"options": {"threads": 1}}),
        key_of("openvino", b"model", facts | {"more": None}),
        key_of("tensorrt", b"model", facts),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == key_of("openvino", b"model", dict(reversed(facts.items())))


@pytest.mark.parametrize(
    "damaged",
    [
        lambda whole: b"",
        lambda whole: whole[:10],
        lambda whole: whole[:-1],
        lambda whole: whole + b"\0",
        lambda whole: whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:],
        lambda whole: b"B" + whole[1:],
    ],
)
def test_a_damaged_entry_is_none(tmp_path: Path, damaged) -> None:
    folder = CacheFolder(tmp_path)
    folder.write("key", b"content")
    path = tmp_path / "key.compiled"
    path.write_bytes(damaged(path.read_bytes()))
    assert folder.read("key") is None
    folder.write("key", b"content")
    assert folder.read("key") == b"content"


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path, most_bytes=400)
    (tmp_path / "notes.txt").write_bytes(bytes(1000))
    for age, key in [(300, "a"), (200, "b"), (100, "c")]:
        folder.write(key, bytes(100))
        os.utime(tmp_path / f"{key}.compiled", (time.time() - age,) * 2)
    assert folder.read("a") == bytes(100)  # and is used by that
    folder.write("d", bytes(100))
    assert names(folder) == {"notes.txt", "a.compiled", "c.compiled", "d.compiled"}
    folder.write("e", bytes(401))
    assert folder.read("e") is None
    assert "more than" in str(folder.trouble)
    assert len(names(folder)) == 4, "nothing went for what has no room at all"


def test_what_a_dead_process_has_left_goes_and_what_a_living_one_writes_stays(
    tmp_path: Path,
) -> None:
    (tmp_path / "left.part").write_bytes(b"half")
    os.utime(tmp_path / "left.part", (time.time() - 2 * 3600,) * 2)
    (tmp_path / "living.part").write_bytes(b"half")
    folder = CacheFolder(tmp_path)
    folder.write("key", b"content")
    assert names(folder) == {"living.part", "key.compiled"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_folder_is_trouble_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module.os, "replace", refuse)
    folder = CacheFolder(tmp_path)
    folder.write("key", b"content")
    assert folder.trouble == f"{tmp_path} cannot be used ({os.strerror(number)})"
    assert names(folder) == set(), "nothing is left of it"


def test_a_file_in_the_folders_place_is_trouble_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    folder = CacheFolder(tmp_path / "taken")
    assert folder.read("key") is None
    folder.write("key", b"content")
    assert "taken cannot be used" in str(folder.trouble)


def test_a_folder_that_can_only_be_read_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CacheFolder(tmp_path).write("key", b"content")

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(module.os, "utime", refuse)
    folder = CacheFolder(tmp_path)
    assert folder.read("key") == b"content"
    assert folder.trouble is None


def test_others_see_an_entry_whole_or_as_it_was_and_may_write_it_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = CacheFolder(tmp_path), []
    folder.write("key", b"old")
    replace = os.replace

    def replace_late(unfinished: str, path: Path) -> None:
        monkeypatch.setattr(module.os, "replace", replace)
        seen.append(folder.read("key"))
        CacheFolder(tmp_path).write("key", b"of another process")
        seen.append(folder.read("key"))
        replace(unfinished, path)

    monkeypatch.setattr(module.os, "replace", replace_late)
    folder.write("key", b"new")
    assert seen == [b"old", b"of another process"]
    assert folder.read("key") == b"new"
    assert folder.trouble is None
    assert names(folder) == {"key.compiled"}


def test_the_folder_is_where_the_user_keeps_such_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    def path(asked: str | None, environment: dict[str, str]) -> Path | None:
        folder = cache_folder(asked, environment)
        return folder and folder.path

    assert path("auto", {"XDG_CACHE_HOME": "/var/cache"}) == Path("/var/cache/boxstream")
    at_home = tmp_path / ".cache" / "boxstream"
    assert path("auto", {}) == path("auto", {"XDG_CACHE_HOME": "relative"}) == at_home
    assert path("~/mine", {"XDG_CACHE_HOME": "/var/cache"}) == tmp_path / "mine"
    assert path(None, {"XDG_CACHE_HOME": "/var/cache"}) is None
