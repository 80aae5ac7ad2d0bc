"""Addresses without what may be secret in them, for showing: too much goes rather than too little.

What a camera's address shows is read more closely: see `pipeline.network.address`.
"""

from __future__ import annotations

import re

_NAMED = r"\$(?:\w+|\{\w+\})"
_LOGIN = re.compile(rf"(?<=://)(?!{_NAMED}(?::{_NAMED})?@[^@]*$)(?=\S).*@", re.DOTALL)
# Such as rtsp:/user:password@host, which is no URL, or the same without its begin.
_LOGIN_OF_NO_URL = re.compile(
    r"(?<![^\s/'\"=,(\[])(?<!://)[^/\s]*:(?!//|\s|\w+://)(?:(?!\*\*\*@).)*@", re.DOTALL
)
# Of a query, of a path, or of a map as Python shows it.
_VALUE = re.compile(
    r"((?:user\w*|usr|login|pass\w*|pwd|token|key|auth|secret)(?:=|': ))(?!\*\*\*)[^&#]*",
    re.IGNORECASE,
)
_END = r"/?(?:\?|$)"  # of a path
_STREAM_KEY = re.compile(
    rf"(rtmps?://[^/?]+/(?:[^?]*/)?)(?!(?:\$\w+|\$?\{{\w+\}}){_END})[^/?]+(?={_END})",
    re.IGNORECASE | re.DOTALL,
)


def without_secrets(text: str) -> str:
    """`text`, which is an address or holds some, without logins and what is named like a secret.

    Mistyped addresses are meant, too. What only says where a login comes from (``$NAME``) stays.
    """
    return _VALUE.sub(r"\1***", _LOGIN_OF_NO_URL.sub("***@", _LOGIN.sub("***@", text)))


def without_stream_key(url: str) -> str:
    """An address that video is sent to, without the last part of its path if that is a key.

    Of ``rtmp://`` it is: who knows it can go on the air in its owner's name. What only says where
    the key comes from (``$NAME``, ``{source}``) stays.
    """
    return _STREAM_KEY.sub(r"\1***", url)
