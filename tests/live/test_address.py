"""Addresses of cameras: what is opened, what is shown, and that no secret gets out."""

from __future__ import annotations

import base64
import logging
import traceback
from dataclasses import asdict
from urllib.parse import quote, unquote, urlsplit

import av
import hypothesis
import hypothesis.strategies as st
import pytest

from pipeline.errors import ConfigError, SourceError
from pipeline.network.address import (
    Address,
    expanded,
    parse_address,
    split_options,
)
from pipeline.settings import LiveSettings
from pipeline.sources import open_sources
from tests.live.kit.mjpeg import MjpegServer
from tests.live.kit.odd_servers import ClosingServer, SilentServer, StatusServer, refused_url

NASTY = "p@s:s/w%r#dé?&=+"  # everything that means something in a URL


def parsed(url: str, environment: dict[str, str] | None = None, **more: str) -> Address:
    return parse_address(split_options(url)[0], environment or {}, **more)


def login_of(address: Address) -> tuple[str, str]:
    """User and password as FFmpeg reads them out of what it is given."""
    parts = urlsplit(address.opened.reveal())
    return unquote(parts.username or ""), unquote(parts.password or "")


# What is opened ----------------------------------------------------------------------------------


@hypothesis.given(
    user=st.text(st.characters(codec="utf-8"), min_size=1),
    password=st.text(st.characters(codec="utf-8")),
)
def test_any_user_and_password_get_through_percent_encoded(user, password):
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    address = parsed(f"rtsp://{login}@10.0.0.5:554/front?channel=1")
    assert login_of(address) == (user, password)
    assert address.shown == "rtsp://10.0.0.5:554/front?channel=1"
    assert address.host == "10.0.0.5"


@pytest.mark.parametrize(
    "password",
    [
        NASTY.partition("?")[0],
        "p@ss",
        "p:w",
        "p/w",
        "p#w",
        "p%ss",
        "ünïcødé",
        "1/2",
        "12#4",
        "@",
        "a@b/c",
    ],
)
@pytest.mark.parametrize("place", ["10.0.0.5/front", "cam.local:554/a/b?channel=1", "localhost/"])
def test_passwords_are_mostly_understood_as_people_write_them(password, place):
    address = parsed(f"rtsp://admin:{password}@{place}")
    assert login_of(address) == ("admin", password)
    assert address.shown == f"rtsp://{place}"


@pytest.mark.parametrize(
    ("url", "host", "opened"),
    [
        ("rtsp://cam/front", "cam", "rtsp://cam/front"),
        ("RTSP://cam:8554/a?b=c", "cam", "rtsp://cam:8554/a?b=c"),
        ("rtsp://[::1]:8554/a", "::1", "rtsp://[::1]:8554/a"),
        ("rtsp://cam:554/at@home", "cam", "rtsp://cam:554/at@home"),
        ("http://cam:80/v?mail=me@example.com", "cam", "http://cam:80/v?mail=me@example.com"),
        ("udp://@239.0.0.1:1234", "239.0.0.1", "udp://@239.0.0.1:1234"),
        ("udp://@:5000", None, "udp://@:5000"),
        ("rtsp://user@cam/front", "cam", "rtsp://user@cam/front"),
        ("rtsp://cam/with space/ä", "cam", "rtsp://cam/with%20space/%C3%A4"),
        ("rtsp://cam/already%20coded", "cam", "rtsp://cam/already%20coded"),
    ],
)
def test_addresses_without_secrets_are_opened_as_they_are(url, host, opened):
    address = parsed(url)
    assert (address.host, address.opened.reveal()) == (host, opened)


def test_the_environment_may_hold_user_password_host_and_tokens():
    environment = {"CAM_USER": "admin", "CAM_PASS": NASTY, "CAM": "10.0.0.5", "TOKEN": "a&b"}
    address = parsed("rtsp://$CAM_USER:${CAM_PASS}@$CAM:554/x?token=$TOKEN", environment)
    assert login_of(address) == ("admin", NASTY)
    assert address.opened.reveal().endswith("@10.0.0.5:554/x?token=a%26b")
    assert address.shown == "rtsp://10.0.0.5:554/x?token=***"


def test_the_environment_may_hold_the_whole_address():
    assert expanded("$DOOR", {"DOOR": "rtsp://a:b@c/d"}) == "rtsp://a:b@c/d"
    (source,) = open_sources(["${DOOR}"], environment={"DOOR": f"rtsp://a:{NASTY}@c.d/e"})
    assert (source.name, source.url) == ("c.d-e", "rtsp://c.d/e")


def test_a_dollar_that_is_no_reference_stays():
    assert login_of(parsed("rtsp://u:pa$$word@cam/x")) == ("u", "pa$$word")
    assert login_of(parsed("rtsp://u:%24HOME@cam/x", {"HOME": "no"})) == ("u", "$HOME")


def test_a_variable_that_is_not_set_is_named():
    with pytest.raises(ConfigError, match="no CAM_PASS"):
        parsed("rtsp://u:$CAM_PASS@cam/x")


def test_a_file_may_hold_user_and_password_as_they_are(tmp_path):
    (tmp_path / "door").write_text(f"admin:{NASTY}\n# a comment\n", encoding="utf-8")
    address = parsed("rtsp://cam/x", credentials=str(tmp_path / "door"))
    assert login_of(address) == ("admin", NASTY)
    other = (tmp_path / "door").rename(tmp_path / "\N{DOOR}")
    (source,) = open_sources([f"rtsp://cam/x#credentials={other}"])
    assert source.url == "rtsp://cam/x"


def test_a_credentials_file_that_is_of_no_use_is_an_error(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match="must begin with a line user:password"):
        parsed("rtsp://cam/x", credentials=str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="cannot read the credentials file"):
        parsed("rtsp://cam/x", credentials=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="a user in the address, and a credentials file"):
        parsed("rtsp://u:p@cam/x", credentials=str(tmp_path / "empty"))


@pytest.mark.parametrize("url", ["rtsp://", "rtsp://:x@/y", "rtsp://cam:99999/x", "rtsp://c m:x/"])
def test_an_address_without_a_host_is_an_error_that_shows_nothing(url):
    with pytest.raises(ConfigError, match="cannot find the host") as caught:
        parsed(url)
    assert str(caught.value).startswith("cannot find the host in a rtsp:// address; write the")


# Our own options ---------------------------------------------------------------------------------


def test_our_own_options_stand_behind_the_hash_and_are_not_sent():
    bare, options = split_options(
        f"rtsp://u:{NASTY[:10]}@cam.x/f?ch=1#transport=udp&name=a%20b&loop"
    )
    assert options == {"transport": "udp", "name": "a b", "loop": "true"}
    assert parse_address(bare, {}).opened.reveal().endswith("@cam.x/f?ch=1")


def test_options_of_one_source_are_laid_over_the_settings():
    (source,) = open_sources(
        ["rtsp://cam/x#name=door&stride=3&open_seconds=2"], live=LiveSettings(stride=2, max_fps=5)
    )
    assert source.name == "door"
    assert source._live == LiveSettings(stride=3, max_fps=5, open_seconds=2)


def test_unknown_options_name_the_nearest_and_show_nothing():
    with pytest.raises(ConfigError, match="did you mean 'transport'") as caught:
        open_sources(["rtsp://u:hunter2@cam/x#transprot=hunter2"])
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="transport: expected one of tcp, udp"):
        open_sources(["rtsp://cam/x#transport=carrier_pigeon"])


@pytest.mark.parametrize(
    "what", ["rtsp://cam/x", "camera:0", "replay:synthetic://street?seconds=1"]
)
def test_options_are_read_alike_whatever_stands_before_them(what):
    with pytest.raises(ConfigError, match="given twice") as caught:
        open_sources([f"{what}#stride=1&hunter2=1&hunter2=2"])
    assert "hunter2" not in str(caught.value)
    (source,) = open_sources([f"{what}#"])
    assert source._live == LiveSettings()
    (source,) = open_sources([f"{what}#stride=3&&loop"])
    assert source._live == LiveSettings(stride=3, loop=True)


def test_options_too_long_for_the_name_of_a_file_are_options():
    with pytest.raises(ConfigError, match="name behind the # of a replay: source cannot be one"):
        open_sources([f"replay:synthetic://street?seconds=1#name={'x' * 300}"])


@pytest.mark.parametrize(
    ("name", "is_good"),
    [
        ("Front door 2.b_c-d", True),
        ("é", True),
        ("7" * 63, True),
        ("7" * 64, False),
        ("", False),
        (" door", False),
        ("-door", False),
        ("door\n", False),
        ("[/x]", False),
        ("a/b", False),
        ("a\x1b[2J", False),
        ("hunter2:", False),
    ],
)
def test_a_name_in_an_address_is_one_that_the_api_would_take(name, is_good):
    requests = pytest.importorskip(
        "pipeline.serve.requests", exc_type=ImportError, reason="the extra 'serve' is not installed"
    )
    url = f"rtsp://cam/x#name={quote(name, safe='')}"
    if is_good:
        (source,) = open_sources([url])
        assert source.name == name
        assert requests.AddSource(url="rtsp://cam/x", name=name).name == name
        return
    for way in (url, f"replay:synthetic://street?seconds=1#name={quote(name, safe='')}"):
        with pytest.raises(ConfigError, match=r"name behind the # of a .* cannot be one") as caught:
            open_sources([way])
        assert not name or repr(name)[1:-1] not in str(caught.value)
    with pytest.raises(ValueError, match="pattern"):
        requests.AddSource(url="rtsp://cam/x", name=name)


# What is shown -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://u:p@h.x/a?user=me&password=secret", "rtsp://h.x/a?user=***&password=***"),
        ("http://h.x/a?channel=1&subtype=0&sig=abc", "http://h.x/a?channel=1&subtype=0&sig=***"),
        ("rtsp://h.x/user=me_password=secret_channel=1", "rtsp://h.x/user=***"),
        ("rtsp://h.x/live/token=secret/front", "rtsp://h.x/live/token=***/front"),
        ("rtsp://u:p@ss/secret@host/x", "rtsp://ss/***@host/x"),
        ("http://h.x/a?secret", "http://h.x/a?***"),
    ],
)
def test_values_that_may_be_secret_are_not_shown(url, shown):
    assert parsed(url).shown == shown


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("rtsp://u:p@10.0.0.5:554/live/front.sdp?x=1", "10.0.0.5-front"),
        ("rtsp://cam/", "cam"),
        ("https://cam.local/Türe 1/video.m3u8", "cam.local-video"),
        ("rtsp://[fe80::1]/a", "fe80-1-a"),
        ("udp://@:5000", "udp"),
    ],
)
def test_a_source_is_named_after_host_and_path(url, name):
    assert parsed(url).name == name


@hypothesis.given(st.text(st.characters(min_codepoint=33, codec="utf-8"), min_size=5))
def test_an_address_holds_no_secret_that_could_be_printed(password):
    hypothesis.assume(password not in "Address(shown='rtsp://10.0.0.5/front', scheme=host=name=)")
    address = parsed(f"rtsp://user:{quote(password, safe='')}@10.0.0.5/front")
    texts = [str(address), repr(address), str(asdict(address)), f"{address.opened}"]
    assert not [text for text in texts if password in text or quote(password, safe="") in text]


def failing_sources(login: str, servers: list) -> list[str]:
    """An address for everything that can go wrong."""
    silent, closing = servers[:2]
    urls = [s.url(scheme, login) for s in servers for scheme in ("rtsp", "http", "rtmp")]
    urls += [silent.url("https", login), closing.url("rtsps", login)]
    urls += [refused_url().replace("://", f"://{login}@") + f"?password={login}"]
    return [*urls, f"rtsp://{login}@no-such-host.invalid/x", f"srt://{login}@127.0.0.1:9/x"]


def test_no_secret_gets_out_whatever_goes_wrong(caplog, capfd):
    """With FFmpeg's log and Python's log as loud as they can be."""
    password = "Hunter@2:/%#ß"
    coded = quote(password, safe="")
    heard, before = [], av.logging.get_level()
    servers = [SilentServer(), ClosingServer()]
    servers += [StatusServer(s) for s in ("401 Unauthorized", "404 Not Found", "500 Oh")]
    good = MjpegServer(user="us€r", password=password)
    login = f"{quote('us€r', safe='')}:{coded}"
    live = LiveSettings(open_seconds=0.5, max_attempts=1)
    caplog.set_level(1)
    logging.getLogger("libav").setLevel(1)
    av.logging.set_level(av.logging.TRACE)
    try:
        for url in failing_sources(login, servers):
            (source,) = open_sources([url], live=live)
            with pytest.raises(SourceError) as caught:
                list(source.frames())
            source.close()
            heard += traceback.format_exception(caught.value)
            assert caught.value.__context__ is None, "an inner error would hold the address"
            heard += [repr(source.stats), repr(vars(source)), repr(vars(source.stats))]
        (source,) = open_sources([good.url.replace("://", f"://{login}@")], max_frames=3)
        assert len(list(source.frames())) == 3, "the password does get through"
        source.close()
        heard += [repr(source.stats), repr(vars(source)), source.name, source.url]
    finally:
        av.logging.set_level(before)
        for server in [*servers, good]:
            server.close()
    out, err = capfd.readouterr()
    said = "\n".join([*heard, out, err, caplog.text])
    basic = base64.b64encode(f"us€r:{password}".encode()).decode()
    for secret in (password, coded, basic, "Hunter"):
        assert secret not in said
    assert "no usable answer" in said
