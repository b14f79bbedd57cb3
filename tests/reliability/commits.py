"""A writer whose every commit can be told from what a reader sees, and the question whether a reader saw exactly one."""

from __future__ import annotations

from collections.abc import Iterable

from ragistry import Collection, Document
from ragistry.types import Hit

MOST = 12


def members(commit: int) -> set[str]:
    """The ids that a commit writes, and that are all there is after it."""
    return {str(number) for number in range(3 + commit * 7 % (MOST - 2))}


def write(docs: Collection, commit: int) -> None:
    """Take out what this commit does not hold, then write all the rest anew: two changes, each whole."""
    docs.remove(members(commit - 1) - members(commit))
    metadata = {"commit": commit, "even": commit % 2 == 0}
    docs.add([Document(id, f"shared number {commit}", metadata=metadata) for id in sorted(members(commit))])


def seen(found: Iterable[Hit | Document]) -> int:
    """The commit that something found belongs to; an error if it is a mixture, or a part of one."""
    found = list(found)
    (commit,) = {one.metadata["commit"] for one in found}
    ids = [one.id for one in found]
    assert len(set(ids)) == len(ids)
    # Either just written, or about to be replaced: what the next commit does not hold may be gone.
    assert set(ids) in (members(commit), members(commit) & members(commit + 1)), (commit, ids)
    assert {one.text for one in found} == {f"shared number {commit}"}
    return int(commit)


def look(docs: Collection, turn: int, since: int) -> int:
    """Look in one of several ways; the commit that was seen, which must not be older than one seen before."""
    k = MOST + 5
    match turn % 6:
        case 0:
            commit = seen(docs.search("shared", k))
        case 1:
            first, second, nothing = docs.search_many(["shared", "number shared", "unheard"], k)
            commit = seen(first)
            assert seen(second) == commit and not nothing, "one call sees one state"
        case 2:
            even = docs.search("shared", k, where={"even": True})
            commit = seen(even) if even else since  # an odd one is the latest
            assert not even or commit % 2 == 0
        case 3:
            first, second = docs.search_many(["shared", "shared number"], k, where={"commit": {"gte": since}})
            commit = seen(first)
            assert seen(second) == commit
        case 4:
            commit = seen(docs.documents())
        case _:
            (commit,) = {int(one.metadata["commit"]) for one in docs.get(["2", "0", "1"])}
    assert commit >= since, "time does not run backwards"
    return commit
