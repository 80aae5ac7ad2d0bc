"""A page that shows the running line in a browser, and an API beside it.

``--out http://127.0.0.1:8080``. It needs packages that recorded runs do not:
``pip install -e '.[serve]'``. They are imported when a page is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import SinkError
from pipeline.serve.address import Address, listen, read_address
from pipeline.serve.board import Board
from pipeline.serve.control import Control, LineNotRunning, NameTaken, UnknownSource
from pipeline.serve.sink import PageSink
from pipeline.sinks.protocol import SinkTarget

__all__ = [
    "Board",
    "Control",
    "LineNotRunning",
    "NameTaken",
    "Page",
    "PageSink",
    "UnknownSource",
    "page",
]

_PATIENCE_SECONDS = 10.0


class Page:
    """A page that is being served.

    Attributes:
        board: What it shows.
        url: Where it is, without the token.
        url_with_token: Where to point a browser for the first time; for the terminal only.
        token_is_new: The token was made up now, so the user has to be told.
    """

    def __init__(self, board: Board, address: Address) -> None:
        self.board = board
        self.url = address.url
        self.url_with_token = address.url_with_token
        self.token_is_new = address.token_is_new

    def sink(self, target: SinkTarget) -> PageSink:
        """The sink that shows one source's results here."""
        return PageSink(self.board, target, f"{self.url}streams/{target.name}.mjpg")


@contextmanager
def page(
    url: str,
    control: Control,
    *,
    environment_token: str | None = None,
    patience: float = _PATIENCE_SECONDS,
) -> Iterator[Page]:
    """Serve a page inside the block, from its first line on.

    Args:
        url: ``http://HOST:PORT``, with ``?token=`` if wanted; see `pipeline.serve.address`.
        control: What the page may ask of the line; it is asked from the page's threads.
        environment_token: The token where the URL holds none.
        patience: Seconds after which a client that does nothing is given up.

    Raises:
        ConfigError: The URL is wrong.
        SinkError: The port is taken, or a package is missing.
    """
    try:
        from pipeline.serve.app import build_app
        from pipeline.serve.server import RunningServer
    except ModuleNotFoundError as error:
        raise SinkError(
            f"the page needs {error.name}; install it with: pip install -e '.[serve]'"
        ) from error
    address = read_address(url, environment_token)
    listener = listen(address)
    address = address.at_port(listener.getsockname()[1])
    board = Board()
    app = build_app(board, control, token=address.token, port=address.port)
    server = RunningServer(app, listener, patience)
    try:
        yield Page(board, address)
    finally:
        board.close()
        server.stop()
