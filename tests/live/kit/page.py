"""The page of a line in another process, as a program asks it."""

from __future__ import annotations

import http.client
import json
from typing import Any

from tests.live.kit.ports import free_port


class PageOfLine:
    """Give `url` to a line as an output, then ask."""

    def __init__(self) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def ask(self, path: str) -> tuple[int, str]:
        """Status and body of a GET; status 0 while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def state(self) -> dict[str, Any]:
        """What the page shows."""
        status, text = self.ask("/api/state")
        assert status == 200, text
        return dict(json.loads(text))

    def is_ready(self) -> bool:
        """Whether results come out."""
        return self.ask("/ready")[0] == 200
