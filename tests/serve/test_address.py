"""Where the page listens, and who needs a token."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from pipeline.errors import ConfigError, SinkError
from pipeline.serve import page
from pipeline.serve.address import listen, read_address
from tests.serve.line import FakeControl

SECRET = "correct-horse-battery"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9", ""])
def test_the_loopback_interface_needs_no_token(host):
    address = read_address(f"http://{host}:8080")
    assert address.is_loopback
    assert address.token is None
    assert address.url_with_token == address.url


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.7"])
def test_any_other_interface_gets_a_random_token(host):
    first, second = (read_address(f"http://{host}:8080") for _ in range(2))
    assert first.token_is_new
    assert len(first.token or "") >= 20
    assert first.token != second.token
    assert first.url_with_token == f"{first.url}?token={first.token}"
    assert first.token not in first.url


def test_the_token_of_the_url_outranks_that_of_the_environment():
    both = read_address(f"http://0.0.0.0:8080?token={SECRET}", "from-the-environment")
    assert (both.token, both.token_is_new) == (SECRET, False)
    only = read_address("http://127.0.0.1:8080", "from-the-environment")
    assert (only.token, only.token_is_new) == ("from-the-environment", False)


def test_a_token_with_odd_signs_survives_the_url():
    address = read_address("http://0.0.0.0:8080?token=a%26b%3Dc%20".rstrip("%20") + "%2Fdddd")
    assert address.token == "a&b=c/dddd"
    assert address.url_with_token.endswith("?token=a%26b%3Dc%2Fdddd")


@pytest.mark.parametrize(
    "url",
    [
        f"https://0.0.0.0:8443?token={SECRET}",
        f"http://user:{SECRET}@0.0.0.0:8080",
        f"http://0.0.0.0:8080/page?token={SECRET}",
        f"http://0.0.0.0:99999?token={SECRET}",
        f"http://0.0.0.0:8080?token={SECRET}&quality=80",
        f"http://[::1?token={SECRET}",
        "http://0.0.0.0:8080?token=short",
        f"http://0.0.0.0:8080?token={SECRET}%20with%20spaces",
    ],
)
def test_a_wrong_url_is_refused_without_repeating_its_secret(url):
    with pytest.raises(ConfigError) as caught:
        read_address(url)
    assert SECRET not in str(caught.value)
    assert "short" not in str(caught.value)


def test_a_port_that_is_taken_is_known_at_once_and_says_what_to_do():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(SinkError, match=r"the port is taken; choose another, such as \d+"),
            page(f"http://127.0.0.1:{port}", FakeControl()),
        ):
            pass


def test_an_address_of_another_machine_is_refused_with_a_remedy():
    with pytest.raises(SinkError, match=r"no such address; 0\.0\.0\.0 stands for all"):
        listen(read_address("http://192.0.2.1:8080"))
    with pytest.raises(SinkError, match="no such host"):
        read_address("http://no-such-host.invalid:8080")


def test_without_its_packages_the_page_says_what_to_install_and_the_rest_works():
    program = (
        "import sys\n"
        "for name in ('fastapi', 'uvicorn', 'starlette', 'prometheus_client', 'pydantic'):\n"
        "    sys.modules[name] = None\n"
        "import pipeline.serve, pipeline.errors\n"
        "try:\n"
        "    pipeline.serve.page('http://127.0.0.1:0', None).__enter__()\n"
        "except pipeline.errors.SinkError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install -e '.[serve]'" in done.stdout, done.stderr
