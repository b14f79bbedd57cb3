"""A beam search over the markings of texts: which mentions there are, and what each is called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from ..types import Ints
from .decoding import Decoding, Doubles, log_probabilities
from .markup import Markup
from .trie import Trie

LOGITS = 1 << 25
"""Of the vocabulary's, those that are held at once."""


class Mark(NamedTuple):
    """A mention in a hypothesis: where in the text it begins and ends, in tokens; the node of its name in `names`; and the
    log-probabilities of its name with the end, and of what was written of the mention before the name."""

    begin: int
    end: int
    names: Trie
    node: int
    score: float
    mention_score: float


class Part(NamedTuple):
    """A part of a text: its tokens; for each place at which a mention may begin, those at which it may end, with the names
    it may have; the most tokens that may be written; and those that a name and the markup take, at most."""

    ids: list[int]
    mentions: dict[int, dict[int, Trie]]
    room: int
    longest: int


class Marking(NamedTuple):
    """The best hypothesis that is complete."""

    score: float
    marks: list[Mark]


class _Named(NamedTuple):
    """A mention as a hypothesis keeps it: `Mark` with where, in what is written, it begins, its name does, and the rest."""

    begin: int
    end: int
    names: Trie
    node: int
    opened: int
    named: int
    over: int

    def mark(self, gains: Doubles) -> Mark:
        sure, score = (float(gains[slice(*own)].sum()) for own in ((self.opened, self.named), (self.named, self.over)))
        return Mark(self.begin, self.end, self.names, self.node, score, sure)


@dataclass(frozen=True, slots=True)
class _Beam:
    """What has been written of a part of a text.

    Args:
        part: Which.
        place: Tokens of it that are copied, or are to be.
        begin: Where the mention began that is open; none is where it is -1.
        names: Of the mention whose name is being written.
        node: Of its name, so far.
        opened: How much was written when the mention began.
        named: And when its name did.
        marks: The mentions before.
        due: What is to be written before there is a choice.
        over: Whether that is the end.
    """

    part: int
    place: int = 0
    begin: int = -1
    names: Trie | None = None
    node: int = 0
    opened: int = 0
    named: int = 0
    marks: tuple[_Named, ...] = ()
    due: tuple[int, ...] = ()
    over: bool = False


class MarkupSearch:
    """A beam search over the markings of several parts of texts, token by token for all."""

    def __init__(self, run: Decoding, markup: Markup, works: Sequence[Part], beams: int, length_penalty: float) -> None:
        self.run, self.works, self.beams, self.length_penalty = run, works, beams, length_penalty
        self.opening, self.between, self.closing = map(tuple, (markup.opening, markup.between, markup.closing))
        self.end = markup.namer.end
        self.complete: list[Marking | None] = [None] * len(works)
        self.following = [
            [
                min((begin for begin in work.mentions if begin > at), default=len(work.ids))
                for at in range(len(work.ids))
            ]
            for work in works
        ]  # the next place at which a mention may begin

    @torch.inference_mode()
    def best(self, prompts: Sequence[Ints]) -> list[Marking | None]:
        """The best marking of each part; none where all have a probability of zero."""
        logits, beams = self.run.begin(prompts), [_Beam(part) for part in range(len(prompts))]
        totals, gains = np.zeros(len(beams)), np.zeros((len(beams), 0))
        while True:
            at = gains.shape[1]
            nexts, origins = list[_Beam](), list[int]()
            for row, beam in enumerate(beams):
                if beam.due or beam.names is None:
                    own = [beam] if beam.due else self._choices(beam, at)
                    nexts += own
                    origins += [row] * len(own)
            children = _children(beams)
            rows = np.concatenate((np.array(origins, np.int64), children.rows))
            ended = np.where(children.tokens == self.end, self.closing[0], children.tokens)
            tokens = np.concatenate((np.array([beam.due[0] for beam in nexts], np.int64), ended))
            gained = log_probabilities(logits, rows, tokens)
            sums = totals[rows] + gained
            chosen, room = dict[int, _Beam](), [self.beams] * len(prompts)
            for place in self._leading(sums, rows, len(nexts)):
                if place < len(nexts):
                    beam = nexts[place]
                else:
                    kid = place - len(nexts)
                    beam = self._named(beams[rows[place]], int(children.tokens[kid]), int(children.nodes[kid]), at)
                if not self._may_win(beam.part, sums[place]):
                    continue
                if beam.over:
                    score = float(sums[place]) / (at + 1) ** self.length_penalty
                    known = self.complete[beam.part]
                    if known is None or score > known.score:
                        self.complete[beam.part] = Marking(
                            score, [mark.mark(gains[rows[place]]) for mark in beam.marks]
                        )
                elif room[beam.part]:
                    room[beam.part] -= 1
                    chosen[place] = beam
            going = [place for place, beam in chosen.items() if self._may_win(beam.part, sums[place])]
            if not going:
                return self.complete
            beams = [chosen[place] for place in going]
            steps = max(1, min(*(len(beam.due) for beam in beams), LOGITS // (len(beams) * logits.shape[-1])))
            read = np.array([beam.due[:steps] for beam in beams], np.int64)
            whole = self.run.go(rows[going], read)
            places = np.arange(len(beams) * (steps - 1))
            further = log_probabilities(whole[:, :-1].flatten(0, 1), places, read[:, 1:].ravel())
            gains = np.column_stack((gains[rows[going]], gained[going], further.reshape(len(beams), -1)))
            totals, logits = gains.sum(1), whole[:, -1]
            beams = [replace(beam, due=beam.due[steps:]) for beam in beams]

    def _choices(self, beam: _Beam, at: int) -> list[_Beam]:
        """What may follow outside of names, each as far as there is no other choice."""
        part, place, following = self.works[beam.part], beam.place, self.following[beam.part]
        if beam.begin >= 0:
            ends = part.mentions[beam.begin]
            later = min((end for end in ends if end > place), default=None)
            own = [] if later is None else [replace(beam, place=later, due=tuple(part.ids[place:later]))]
            if place in ends:
                named = at + len(self.between)
                own.append(replace(beam, names=ends[place], node=0, named=named, due=self.between))
            return own
        if place == len(part.ids):
            return [replace(beam, due=(self.end,), over=True)]
        own = [replace(beam, place=following[place], due=tuple(part.ids[place : following[place]]))]
        if place in part.mentions and at + part.longest + len(part.ids) - place < part.room:
            first = min(part.mentions[place])
            due = (*self.opening, *part.ids[place:first])
            own.append(replace(beam, place=first, begin=place, opened=at, due=due))
        return own

    def _named(self, beam: _Beam, token: int, node: int, at: int) -> _Beam:
        """A name goes on, or is over, and what follows is copied as far as there is no other choice."""
        assert beam.names is not None
        if token != self.end:
            return replace(beam, node=node, due=(token,))
        part, place, following = self.works[beam.part], beam.place, self.following[beam.part]
        mark = _Named(beam.begin, place, beam.names, node, beam.opened, beam.named, at + len(self.closing))
        free = place in part.mentions or place == len(part.ids)
        later = place if free else following[place]
        due = (*self.closing, *part.ids[place:later])
        return replace(beam, place=later, begin=-1, names=None, marks=(*beam.marks, mark), due=due)

    def _leading(self, sums: Doubles, rows: Ints, first: int) -> list[int]:
        """Places of scores, best first; of the children of a row, which are from `first` on, only those that can be kept."""
        keep = np.ones(len(sums), np.bool_)
        for row in np.unique(rows[first:]).tolist():
            begin, end = (first + np.searchsorted(rows[first:], row, side) for side in ("left", "right"))
            if end - begin > self.beams:
                least = np.partition(sums[begin:end], -self.beams)[-self.beams]
                keep[begin:end] = sums[begin:end] >= least
        places = np.flatnonzero(keep)
        found: list[int] = places[np.argsort(-sums[places], kind="stable")].tolist()
        return found

    def _may_win(self, part: int, total: float) -> bool:
        """Whether a hypothesis is possible, and could be the best if all that follows were certain."""
        known = self.complete[part]
        return total > -math.inf and (
            known is None or total / self.works[part].room ** self.length_penalty > known.score
        )


class _Children(NamedTuple):
    """What may follow rows whose names are being written: rows, rising, with tokens and nodes."""

    rows: Ints
    tokens: Ints
    nodes: Ints


def _children(beams: Sequence[_Beam]) -> _Children:
    """Of those rows whose names go on, which may be names of different tries."""
    own: dict[int, list[int]] = {}
    for row, beam in enumerate(beams):
        if beam.names is not None and not beam.due:
            own.setdefault(id(beam.names), []).append(row)
    none = np.zeros(0, np.int64)
    rows, tokens, nodes = [none], [none], [none]
    for some in own.values():
        names = beams[some[0]].names
        assert names is not None
        found = names.children([beams[row].node for row in some])
        rows.append(np.repeat(some, np.diff(found.offsets)))
        tokens.append(found.tokens)
        nodes.append(found.nodes)
    whole = np.concatenate(rows)
    order = np.argsort(whole, kind="stable")
    return _Children(whole[order], np.concatenate(tokens)[order], np.concatenate(nodes)[order])
