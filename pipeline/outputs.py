"""Which outputs each source has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.model_file import ModelFile
from pipeline.settings import Settings
from pipeline.sinks import Sink, open_sinks
from pipeline.sources import Source


def open_all_sinks(
    settings: Settings, sources: Sequence[Source], model: ModelFile
) -> dict[str, list[Sink]]:
    """The sinks of every source, by the source's name; none may write over an input."""
    inputs = [source.media_path for source in sources if source.media_path]
    return {
        source.name: open_sinks(
            outs(settings.out, source, len(sources)),
            source,
            model.class_names,
            settings.video,
            inputs,
        )
        for source in sources
    }


def outs(wanted: Sequence[str], source: Source, source_count: int) -> list[str]:
    """Where one source's results go; with several sources each gets outputs of its own."""
    if not wanted:
        picture = "out/{source}/" if source.is_images else "out/{source}.mp4"
        return [picture, "out/{source}.jsonl"]
    if source_count == 1:
        return list(wanted)
    return [out if "{source}" in out else one_for_each(out) for out in wanted]


def one_for_each(out: str) -> str:
    """``all.mp4`` -> ``all-{source}.mp4``, ``folder/`` -> ``folder/{source}/``."""
    if out.endswith("/"):
        return f"{out}{{source}}/"
    if out.startswith("null:"):
        return out
    path = Path(out)
    return str(path.with_name(f"{path.stem}-{{source}}{path.suffix}"))
