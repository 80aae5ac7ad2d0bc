"""``python -m tests.live.kit.debug_line ARGUMENTS...``: run_stream.py, and all it can log."""

from __future__ import annotations

import logging

import av

import run_stream


def main() -> None:
    """Run the line; its log, and FFmpeg's, go to stderr."""
    everything = av.logging.adapt_level(av.logging.TRACE)  # which is below Python's DEBUG
    logging.basicConfig(level=everything, format="%(levelno)02d:%(name)s:%(message)s")
    logging.getLogger("libav").setLevel(everything)  # PyAV lets no more than warnings through
    av.logging.set_level(av.logging.TRACE)
    run_stream.command()


if __name__ == "__main__":
    main()
