"""Which outputs each source has."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Protocol

from pipeline.bookkeeping.report import Finished, Reporting
from pipeline.bookkeeping.tally import DEPARTED_KEPT, Tally
from pipeline.errors import ConfigError
from pipeline.frame import PixelClasses
from pipeline.model_file.reading import ModelFile
from pipeline.settings import Settings
from pipeline.sinks import Sink, open_sinks, target_of
from pipeline.sinks.protocol import Claiming, SinkTarget, TakesGpuPictures
from pipeline.sinks.push import SCHEMES as PUSH_SCHEMES
from pipeline.sinks.territory import Territory
from pipeline.sources import Source


class Page(Protocol):
    """What shows every source's results, in one place."""

    def sink(self, target: SinkTarget) -> Sink: ...


class SinksOfSources(Protocol):
    """Where each source's results go.

    Attributes:
        want_pictures: Whether drawing on the pictures makes sense.
    """

    @property
    def want_pictures(self) -> bool: ...

    def of(self, source: Source) -> Sequence[Sink]:
        """The sinks of one source; at least one."""
        ...

    def may_stay_on_gpu(self, source: str) -> bool:
        """Whether all that want pictures of a source take those that lie on a GPU."""
        ...

    def forget(self, name: str, tally: Tally) -> None:
        """The source has left, and its sinks are closed; the books know what they lost."""
        ...


@dataclass(frozen=True)
class _Claim:
    """A place on the disk, the output that it belongs to, and the source of that.

    The report's, which is of all sources, is no output.
    """

    source: str | None
    out: str
    place: Territory

    def against(self, other: _Claim) -> str:
        """Why both cannot be."""
        if other.source is None:
            return f"out: {self.out!r} could write over the report {other.out!r}; change one"
        if self.source == other.source:
            return f"out: {other.out!r} and {self.out!r} could write the same file; change one"
        what = repr(self.out)
        if self.out != other.out:
            what = f"one file, by {other.out!r} and {self.out!r}"
        return (
            f"out: the sources {other.source!r} and {self.source!r} would both write {what}; "
            "give one of them another name"
        )


class Outputs:
    """Opens the sinks of each source.

    Args:
        settings: What is asked for.
        model: Its class names.
        sources: Those that are known from the start; if there are several, or more may come
            (cameras, and a page to add others on), each has outputs of its own.
        page: Shows all of them; None without one.
        pixels: The classes of pixels, where a model knows them.

    Attributes:
        sinks: Of the sources that are there, by their names.
    """

    def __init__(
        self,
        settings: Settings,
        model: ModelFile,
        sources: Sequence[Source],
        page: Page | None,
        pixels: PixelClasses | None = None,
    ) -> None:
        self.sinks: dict[str, list[Sink]] = {}
        self._of_departed: deque[list[Finished]] = deque(maxlen=DEPARTED_KEPT)
        self._taken = [
            _Claim(None, report, Territory.of(Path(report)))
            for report in filter(None, [settings.report])
        ]
        self._settings, self._model, self._page = settings, model, page
        self._pixels = pixels
        self._several = len(sources) > 1 or (
            page is not None and any(source.live for source in sources)
        )
        self._inputs = [source.input_path for source in sources if source.input_path]
        for source in sources:
            self.of(source)

    @property
    def opened(self) -> list[Reporting]:
        """All sinks; first, of the last sources that have left, what they reported."""
        there = (sink for group in self.sinks.values() for sink in group)
        return [*(sink for group in self._of_departed for sink in group), *there]

    @property
    def want_pictures(self) -> bool:
        """Whether drawing on the pictures makes sense."""
        return any(sink.wants_picture for group in self.sinks.values() for sink in group)

    def of(self, source: Source) -> list[Sink]:
        """The sinks of one source, opened at the first call; none writes over an input.

        A camera may come back: its sinks themselves keep what it left, but for folders of
        pictures, whose numbers begin anew.

        Raises:
            ConfigError: They cannot be, or would write over what another source, or an earlier
                one of that name, has in their files.
        """
        if source.name not in self.sinks:
            sinks = open_sinks(
                self._outs(source),
                source,
                self._model.object_names,
                self._settings.video,
                self._inputs,
                self._settings.recording,
                self._pixels,
            )
            self._claim(sinks, source)
            if self._page:
                sinks.append(self._page.sink(target_of(source, self._model.object_names)))
            self.sinks[source.name] = sinks
        return self.sinks[source.name]

    def may_stay_on_gpu(self, source: str) -> bool:
        """Whether all that want pictures of a source take those that lie on a GPU."""
        wanting = [sink for sink in self.sinks.get(source, ()) if sink.wants_picture]
        return all(isinstance(s, TakesGpuPictures) and s.takes_gpu_pictures for s in wanting)

    def forget(self, name: str, tally: Tally) -> None:
        """The source has left, and its sinks are closed; the books know what they lost."""
        self._of_departed.append([Finished.of(sink, tally) for sink in self.sinks.pop(name)])

    def _claim(self, sinks: Sequence[Sink], source: Source) -> None:
        """Have files belong to a source for good: what it wrote stays when it has left."""
        name = source.name
        others = [claim for claim in self._taken if claim.source != name]
        for left in self._taken:
            if left.source == name and (left.out.endswith("/") or not source.live):
                raise ConfigError(
                    f"out: {left.out!r} is of the {name!r} that was removed, and would be written "
                    "over; choose another name"
                )
        wanted = [_Claim(name, sink.name, place) for sink in sinks for place in territory_of(sink)]
        for claim in wanted:
            for other in others:
                if claim.place.meets(other.place):
                    raise ConfigError(claim.against(other))
        for claim, other in combinations(wanted, 2):
            if claim.out != other.out and claim.place.meets(other.place):
                raise ConfigError(claim.against(other))
        self._taken = others + wanted

    def _outs(self, source: Source) -> list[str]:
        wanted = [out for out in self._settings.out if not is_page(out)]
        if not self._settings.out:
            picture = "out/{source}/" if source.is_images else "out/{source}.mp4"
            return [picture, "out/{source}.jsonl"]
        if not self._several:
            return wanted
        return [out if "{source}" in out else one_for_each(out) for out in wanted]


def is_page(out: str) -> bool:
    """Tell whether an output is the page, which all sources share."""
    return out.startswith("http://")


def is_file(out: str) -> bool:
    """Tell whether an output is a file or a folder, which no two sources can share."""
    return "://" not in out and not out.startswith("null:")


def territory_of(sink: Sink) -> Sequence[Territory]:
    """What of the disk a sink wants for itself."""
    if isinstance(sink, Claiming):
        return sink.territory
    return [Territory.of(Path(sink.name))] if is_file(sink.name) else []


def one_for_each(out: str) -> str:
    """``all.mp4`` -> ``all-{source}.mp4``, ``folder/`` -> ``folder/{source}/``; brokers stay."""
    if out.partition("://")[0] in PUSH_SCHEMES:
        address, mark, query = out.rpartition("?") if "?" in out else (out, "", "")
        return f"{address}{'' if address.endswith('/') else '-'}{{source}}{mark}{query}"
    if out == "null:":
        return "null:{source}"
    if "://" in out:
        return out
    if out.endswith("/"):
        return f"{out}{{source}}/"
    path = Path(out)
    return str(path.with_name(f"{path.stem}-{{source}}{path.suffix}"))
