"""The table at the end of a run: what the report says, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

SHARES_SHOWN = 6
NAMES_SHOWN = 6


def print_summary(report: Mapping[str, Any], console: Console) -> None:
    """The table at the end of a run, one row for each source."""
    beside = report["engine"].get("beside")
    for engine in [report["engine"], *([beside] if beside else [])]:
        height, width = engine["input_size_hw"]
        console.print(
            f"[bold]{escape(engine['model'])}[/] at {width}x{height} on {engine['name']} "
            f"({engine['precision']}, batch {engine['batch']}): {escape(engine['reason'])}",
            highlight=False,
            soft_wrap=True,
            emoji=False,
        )
    table = Table(box=None, pad_edge=False)
    for heading in ("source", "state"):
        table.add_column(heading)
    for heading in ("frames", "dropped", "fps", "x real time", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for name, source in report["sources"].items():
        latency = source["latency_ms"]
        table.add_row(
            Text(name),  # not markup, as a text alone would be
            source["state"],
            str(source["frames_inferred"]),
            _dropped(source["frames_dropped"]),
            _cell(source["fps"], 1),
            _cell(source["realtime_factor"], 2),
            *(_cell(latency[p], 0) for p in ("p50", "p95", "p99")),
        )
    console.print(table)
    for name, source in report["sources"].items():
        if shares := source.get("class_shares"):
            console.print(_shares_line(name, shares), highlight=False, soft_wrap=True, emoji=False)
    for line in [*_damage_lines(report["sources"]), *_decoder_lines(report["sources"])]:
        console.print(line, highlight=False, soft_wrap=True, emoji=False)
    _print_glass_to_sink(report["sources"], console)
    _print_pace(report, console)
    if report["latency_budget"]:
        console.print(_budget_line(report["latency_budget"]), highlight=False, soft_wrap=True)
    _print_truth(report["truth"], console)
    for name, sink in report["sinks"].items():
        console.print(_sink_line(name, sink), highlight=False, soft_wrap=True, emoji=False)


def _shares_line(name: str, shares: Mapping[str, float]) -> str:
    """The classes that take most of the picture, and how many there are besides."""
    shown = [f"{escape(label)} {share:.1%}" for label, share in list(shares.items())[:SHARES_SHOWN]]
    more = len(shares) - len(shown)
    return f"{escape(name)} shows {', '.join(shown)}" + (f" and {more} more" if more else "")


def _damage_lines(sources: Mapping[str, Any]) -> list[str]:
    """What could not be shown of a source, for each of which that is to be told."""
    told: list[str] = []
    for name, source in sources.items():
        damage = ["the file is cut short"] if source["anomalies"].get("truncated") else []
        if packets := source["anomalies"].get("corrupt_packet"):
            damage.append(f"{packets} packet{'s' * (packets > 1)} could not be decoded")
        if frames := source["anomalies"].get("inexact"):
            damage.append(
                f"{frames} frame{'s' * (frames > 1)} too full for the model file's bounds"
            )
        if damage:
            told.append(f"{escape(name)}: {'; '.join(damage)}")
    return told


def _decoder_lines(sources: Mapping[str, Any]) -> list[str]:
    """What decoded which sources, those together of which the same is to be told."""
    told: dict[str, list[str]] = {}
    for name, source in sources.items():
        if decoder := source.get("decoder"):
            where = "on the GPU" if decoder["where"] == "gpu" else "in software"
            told.setdefault(f"{decoder['codec']} {where}: {decoder['why']}", []).append(name)
    return [f"{escape(_listed(names))}: decoded {escape(how)}" for how, names in told.items()]


def _listed(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _print_glass_to_sink(sources: Mapping[str, Any], console: Console) -> None:
    for name, source in sources.items():
        measured = source.get("glass_to_sink_ms", {})
        if measured.get("p50") is not None:
            values = ", ".join(f"{p} {measured[p]:.0f} ms" for p in ("p50", "p95", "p99"))
            console.print(Text(f"glass to sink of {name}: {values}"))


def _print_pace(report: Mapping[str, Any], console: Console) -> None:
    slowest, wall = report["totals"]["paced_by"], report["wall_seconds"]
    if slowest and wall:
        share = report["stages"][slowest]["busy_seconds"] / wall
        console.print(
            f"{report['totals']['frames']} frames in {wall:.1f} s; the slowest station was "
            f"[bold]{escape(slowest)}[/], busy {share:.0%} of the time",
            highlight=False,
            emoji=False,
        )


def _budget_line(budget: Mapping[str, Any]) -> str:
    kept, given_up = budget["kept"], budget["seconds_given_up"]
    share = "too few frames to judge" if kept is None else f"kept {kept:.0%} of the time"
    costs = "; ".join(f"{what} for {seconds:.0f} s" for what, seconds in given_up.items())
    cost = f"given up: {costs}" if costs else "nothing given up"
    return f"latency budget of {budget['budget_ms']:g} ms: {share}; {cost}"


def _print_truth(truth: Mapping[str, Any] | None, console: Console) -> None:
    if truth is None:
        return
    classes = ", ".join(
        f"{escape(name)} {ap:.2f}" for name, ap in truth["per_class"].items() if ap is not None
    )
    overall = "-" if truth["ap50"] is None else f"{truth['ap50']:.3f}"
    console.print(f"AP50 against the known truth: [bold]{overall}[/] ({classes})", highlight=False)


def _sink_line(name: str, sink: Mapping[str, Any]) -> str:
    if sink.get("error"):
        return f"[red]failed[/] {escape(name)}: {escape(sink['error'])}"
    details = [f"{sink.get('frames', 0)} frames"]
    if sink.get("dropped"):
        details.append(f"dropped {_dropped(sink['dropped'])}")
    if sink.get("bytes") is not None:
        details.append(f"{sink['bytes'] / 1e6:.1f} MB")
    if sink.get("encoder"):
        words = filter(None, (sink["encoder"], sink.get("preset")))
        details.append(" ".join([*words, *_because(sink)]))
    return f"wrote {escape(name)} ({', '.join(details)})"


def _because(sink: Mapping[str, Any]) -> list[str]:
    """Why another encoder had to do, where one has refused."""
    refused = sink.get("encoder_refused")
    return [f"because {escape(refused)}"] if refused else []


def _dropped(causes: Mapping[str, int]) -> str:
    if not causes:
        return "0"
    return f"{sum(causes.values())} ({', '.join(f'{n} {c}' for c, n in causes.items())})"


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
