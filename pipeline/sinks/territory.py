"""Which files belong to an output, and whether two outputs could ever want the same one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

DIGITS = "0123456789"
ANY = "^/"  # stands for every character that a name can hold


@dataclass(frozen=True)
class Piece:
    """A part of a name: one of several words, each a row of characters to choose from.

    Attributes:
        words: Each holds the characters that may stand in each place; ``()`` is no character.
        more: After a word that is not empty, any number of these may follow.
    """

    words: tuple[Sequence[str], ...]
    more: str = ""

    @property
    def expression(self) -> str:
        """The same as a regular expression."""
        more = f"{_class(self.more)}*" if self.more else ""
        words = ("".join(map(_class, word)) + (more if word else "") for word in self.words)
        return f"(?:{'|'.join(words)})"


NUMBER = Piece(((DIGITS,),), more=DIGITS)
ANYTHING = Piece(((ANY,),), more=ANY)


def literal(text: str) -> Piece:
    """Exactly this text."""
    return Piece((text,))


def optional(*words: Sequence[str], more: str = "") -> Piece:
    """One of these, or nothing."""
    return Piece(((), *words), more)


class Names:
    """All names that one file or folder can have."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._pieces = tuple(pieces)
        self._expression = re.compile("".join(piece.expression for piece in self._pieces))

    def match(self, name: str) -> bool:
        """Tell whether `name` is one of them."""
        return self._expression.fullmatch(name) is not None

    def meet(self, other: Names) -> bool:
        """Tell whether both have a name in common: by walking through both graphs at once."""
        (ours, our_ends), (theirs, their_ends) = self._graph, other._graph
        seen = {(0, 0)}
        ways = [(0, 0)]
        while ways:
            here, there = ways.pop()
            if here in our_ends and there in their_ends:
                return True
            for letters, to in ours[here]:
                for others, onwards in theirs[there]:
                    if (to, onwards) not in seen and _in_common(letters, others):
                        seen.add((to, onwards))
                        ways.append((to, onwards))
        return False

    @cached_property
    def _graph(self) -> tuple[list[list[tuple[str, int]]], set[int]]:
        """For each state the characters that lead on, and where to; and the last states."""
        edges: list[list[tuple[str, int]]] = [[]]
        ends = {0}
        for piece in self._pieces:
            begins, ends = ends, set()
            for word in piece.words:
                last = begins
                for letters in word:
                    edges.append([])
                    for state in last:
                        edges[state].append((letters, len(edges) - 1))
                    last = {len(edges) - 1}
                if word and piece.more:
                    edges[-1].append((piece.more, len(edges) - 1))
                ends |= last
        return edges, ends


@dataclass(frozen=True)
class Territory:
    """Paths that belong to one output.

    Attributes:
        parts: From the root on, each a name or all that it can be.
        shared: Whether other outputs that say so, too, may write there.
    """

    parts: tuple[str | Names, ...]
    shared: bool = False

    @classmethod
    def of(cls, folder: Path, *below: str | Names, shared: bool = False) -> Territory:
        """One folder or file, or what is below it."""
        return cls((*folder.resolve().parts, *below), shared)

    def meets(self, other: Territory) -> bool:
        """Tell whether a path belongs to both, though one of them wants it alone."""
        if len(self.parts) != len(other.parts) or (self.shared and other.shared):
            return False
        return all(map(_meet, self.parts, other.parts))


def _meet(one: str | Names, other: str | Names) -> bool:
    if isinstance(one, str):
        return one == other if isinstance(other, str) else other.match(one)
    return one.match(other) if isinstance(other, str) else one.meet(other)


def _in_common(some: str, others: str) -> bool:
    return ANY in (some, others) or not set(some).isdisjoint(others)


def _class(letters: str) -> str:
    return f"[{letters}]" if letters == ANY else f"[{re.escape(letters)}]"
