"""The page's own files; nothing is fetched from another host."""

from __future__ import annotations

from pathlib import Path

STATIC = Path(__file__).parent / "static"
