"""Addresses without what may be secret in them, for showing: too much goes rather than too little.

What a camera's address shows is read more closely: see `pipeline.sources.live.address`.
"""

from __future__ import annotations

import re

# Of an address, or of a map as Python shows it.
_SECRETS = re.compile(r"((?:token|pass\w*|pwd|secret|key)(?:=|': ))[^&#]*", re.IGNORECASE)
_END = r"/?(?:\?|$)"  # of a path
_STREAM_KEY = re.compile(
    rf"(rtmps?://[^/?]+/(?:[^?]*/)?)(?!(?:\$\w+|\$?\{{\w+\}}){_END})[^/?]+(?={_END})",
    re.IGNORECASE | re.DOTALL,
)


def without_secrets(url: str) -> str:
    """`url` without its login, and without those values that are named like secrets."""
    login_hidden = re.sub(r"(?<=://).*@", "***@", url, flags=re.DOTALL)
    return _SECRETS.sub(r"\1***", login_hidden)


def without_stream_key(url: str) -> str:
    """An address that video is sent to, without the last part of its path if that is a key.

    Of ``rtmp://`` it is: who knows it can go on the air in its owner's name. What only says where
    the key comes from (``$NAME``, ``{source}``) stays.
    """
    return _STREAM_KEY.sub(r"\1***", url)
