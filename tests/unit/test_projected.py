"""The projected encoder: served by numpy alone, saved with what it belongs to, and shared on the hub."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry import Document
from ragistry.encoders import projected
from ragistry.encoders.functions import Function
from ragistry.encoders.projected import FILE, Arrays, Form, Projected, Projection, packed, unpacked
from ragistry.errors import Corrupt, FingerprintMismatch, InvalidInput, StorageError
from ragistry.protocols import Encoder
from ragistry.types import Role

D = 4
BASE = Function(lambda texts: [[len(text), text.count("a"), 1, -2] for text in texts], "lengths")
TEXTS = ["a cat", "", "banana", "a sonnet has fourteen lines"]


def drawn(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


PARTS: dict[str, tuple[Form, Arrays]] = {
    "softmax": ("softmax", {"keys": drawn(2, D), "values": drawn(2, D, seed=1)}),
    "low rank": ("linear", {"down": drawn(D, 3), "up": drawn(3, D, seed=1)}),
    "full": ("linear", {"weight": drawn(D, D)}),
}
ROLES: list[Role] = ["query", "document"]


def projection(part: str, *roles: Role) -> Projection:
    form, arrays = PARTS[part]
    return Projection(form, dict.fromkeys(roles or ("query",), arrays))


@pytest.fixture(params=PARTS)
def encoder(request: pytest.FixtureRequest) -> Projected:
    return Projected(BASE, projection(request.param, "query", "document"))


def test_it_is_an_encoder_that_turns_what_its_projection_turns(encoder: Projected) -> None:
    assert isinstance(encoder, Encoder)
    assert encoder.kind == "dense"
    for role in ROLES:
        found = encoder.encode([Document("1", "cat"), *TEXTS], role)
        assert found.dtype == np.float32
        assert found.shape == (5, D)
        np.testing.assert_array_equal(found[1:], encoder.projection(BASE.encode(TEXTS, role), role))
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
        assert not np.allclose(found[1:], BASE.encode(TEXTS, role), atol=0.1)
        assert encoder.encode([], role).shape == (0, D)


def test_what_is_not_projected_is_left_as_it_is() -> None:
    one = Projected(BASE, projection("full", "query"))
    np.testing.assert_array_equal(one.encode(TEXTS, "document"), BASE.encode(TEXTS, "document"))
    other = Projected(BASE, projection("full", "document"))
    np.testing.assert_array_equal(other.encode(TEXTS, "query"), BASE.encode(TEXTS, "query"))


@pytest.mark.parametrize(("part", "dimension", "rank"), [("softmax", D, 2), ("low rank", D, 3), ("full", D, None)])
def test_dimension_and_rank(part: str, dimension: int, rank: int | None) -> None:
    assert (projection(part).dimension, projection(part).rank) == (dimension, rank)


def test_each_form_by_hand() -> None:
    vector = np.array([[3.0, 4.0]], np.float32)
    low = Projection(
        "linear", {"query": {"down": np.array([[1], [0]], np.float32), "up": np.array([[0, 1]], np.float32)}}
    )
    np.testing.assert_allclose(low(vector, "query"), np.array([[3.0, 7.0]]) * 5 / 58**0.5, rtol=1e-6)
    full = Projection("linear", {"query": {"weight": np.array([[0, 1], [-1, 0]], np.float32)}})
    np.testing.assert_allclose(full(vector, "query"), np.array([[-1.0, 7.0]]) * 5 / 50**0.5, rtol=1e-6)
    keys, values = np.array([[0, 0], [np.log(3) / 3, 0]], np.float32), np.array([[4, 0], [0, 4]], np.float32)
    soft = Projection("softmax", {"query": {"keys": keys, "values": values}})
    np.testing.assert_allclose(soft(vector, "query"), np.array([[4.0, 7.0]]) * 5 / 65**0.5, rtol=1e-6)


def test_a_zero_vector_stays_and_large_logits_do_not_overflow() -> None:
    for part in PARTS:
        np.testing.assert_array_equal(projection(part)(np.zeros((2, D), np.float32), "query"), np.zeros((2, D)))
    form, arrays = PARTS["softmax"]
    sharp = Projection(form, {"query": arrays | {"keys": arrays["keys"] * 1e6}})
    assert np.isfinite(sharp(drawn(5, D), "query")).all()


def test_vectors_of_another_dimension_are_refused(encoder: Projected) -> None:
    for shape in ((2, D + 1), (D,)):
        with pytest.raises(InvalidInput, match=f"of {D} dimensions"):
            encoder.projection(drawn(*shape), "query")


BAD: list[tuple[Any, Any]] = [
    ("linear", {}),
    ("cubic", {"query": {"weight": drawn(D, D)}}),
    ("linear", {"passage": {"weight": drawn(D, D)}}),
    ("linear", {"query": {}}),
    ("softmax", {"query": {"weight": drawn(D, D)}}),
    ("linear", {"query": {"keys": drawn(2, D), "values": drawn(2, D)}}),
    ("linear", {"query": {"weight": drawn(D, D), "up": drawn(2, D), "down": drawn(D, 2)}}),
    ("linear", {"query": {"weight": drawn(D, D + 1)}}),
    ("linear", {"query": {"weight": drawn(D)}}),
    ("linear", {"query": {"down": drawn(D, 2), "up": drawn(3, D)}}),
    ("linear", {"query": {"down": drawn(D, 2), "up": drawn(2, D + 1)}}),
    ("softmax", {"query": {"keys": drawn(2, D), "values": drawn(3, D)}}),
    ("softmax", {"query": {"keys": drawn(2, D + 1), "values": drawn(2, D)}}),
    ("linear", {"query": {"weight": drawn(D, D)}, "document": {"weight": drawn(D + 1, D + 1)}}),
    ("softmax", {"query": {"keys": drawn(0, D), "values": drawn(0, D)}}),
    ("linear", {"query": {"weight": drawn(0, 0)}}),
    ("linear", {"query": {"weight": np.full((D, D), np.nan, np.float32)}}),
    ("linear", {"query": {"weight": np.full((D, D), np.inf, np.float32)}}),
]


@pytest.mark.parametrize(("form", "arrays"), BAD)
def test_arrays_that_do_not_fit_are_refused(form: Form, arrays: dict[Role, Arrays]) -> None:
    with pytest.raises(InvalidInput, match="adapter"):
        Projection(form, arrays)


def test_only_dense_encoders_can_be_projected() -> None:
    class Terms:
        kind = "sparse"

    with pytest.raises(InvalidInput, match="'sparse'"):
        Projected(Terms(), projection("full"))  # type: ignore[arg-type]


def test_the_fingerprint_changes_only_if_documents_do() -> None:
    mark = BASE.fingerprint()
    marks = [Projected(BASE, projection(part, "query", "document")).fingerprint() for part in PARTS]
    assert [Projected(BASE, projection(part, "query")).fingerprint() for part in PARTS] == [mark] * 3
    assert len({mark, *marks}) == 4
    only = Projected(BASE, projection("full", "document")).fingerprint()
    assert only not in (mark, *marks)
    other = Function(lambda texts: [[0.0] * D for _ in texts], "another")
    assert Projected(other, projection("full", "document")).fingerprint() != only
    assert Projected(BASE, projection("full", "document")).fingerprint() == only


def test_every_array_counts_in_a_projections_fingerprint() -> None:
    marks = set()
    for part, (form, arrays) in PARTS.items():
        marks |= {
            projection(part, *roles).fingerprint() for roles in (("query",), ("document",), ("query", "document"))
        }
        for name, value in arrays.items():
            marks.add(Projection(form, {"query": arrays | {name: value + np.float32(1e-3)}}).fingerprint())
    assert len(marks) == 3 * 3 + 2 + 2 + 1


def test_a_saved_adapter_comes_back(encoder: Projected, tmp_path: Path) -> None:
    for path in (tmp_path / "mine.safetensors", tmp_path / FILE):
        encoder.save(path)
    for path in (tmp_path / "mine.safetensors", tmp_path):
        again = Projected.load(path, BASE)
        assert again.fingerprint() == encoder.fingerprint()
        assert (again.projection.form, again.projection.rank) == (encoder.projection.form, encoder.projection.rank)
        for role in ROLES:
            np.testing.assert_array_equal(again.encode(TEXTS, role), encoder.encode(TEXTS, role))


def test_arrays_in_any_layout_are_saved(tmp_path: Path) -> None:
    weight = drawn(D, 2 * D)[:, ::2].T
    Projected(BASE, Projection("linear", {"query": {"weight": weight}})).save(tmp_path / "a")
    np.testing.assert_array_equal(Projected.load(tmp_path / "a", BASE).projection.arrays["query"]["weight"], weight)


def test_over_another_encoder_it_is_refused(encoder: Projected, tmp_path: Path) -> None:
    encoder.save(tmp_path / FILE)
    others = [
        Function(lambda texts: [[0.0] * D for _ in texts], "another"),
        Function(BASE.source, BASE.name, normalise=False),
        encoder,
    ]
    for other in others:
        with pytest.raises(FingerprintMismatch, match="another encoder"):
            Projected.load(tmp_path, other)


def test_what_is_not_there_or_cannot_be_written_is_explained(encoder: Projected, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(StorageError, match="adapter" if path == tmp_path else "nowhere"):
            Projected.load(path, BASE)
    with pytest.raises(StorageError, match="nowhere"):
        encoder.save(tmp_path / "nowhere" / "adapter.safetensors")


SOUND = packed(projection("low rank", "query", "document"), BASE.fingerprint())


@settings(deadline=None, max_examples=200)
@given(place=st.integers(0, len(SOUND) - 1), byte=st.integers(0, 255))
def test_no_changed_byte_gives_another_map(place: int, byte: int) -> None:
    damaged = bytearray(SOUND)
    damaged[place] = byte
    try:
        found, _ = unpacked(bytes(damaged), "adapter")
    except Corrupt:
        return
    assert found.fingerprint() == projection("low rank", "query", "document").fingerprint()


@settings(deadline=None, max_examples=30)
@given(length=st.integers(0, len(SOUND) - 1))
def test_a_file_cut_short_is_noticed(length: int) -> None:
    with pytest.raises(Corrupt):
        unpacked(SOUND[:length], "adapter")


def changed(**about: str | None) -> bytes:
    from safetensors.numpy import load, save

    whole = {**projected._metadata(SOUND), **about}
    return save(load(SOUND), {name: value for name, value in whole.items() if value is not None})


def foreign() -> bytes:
    from safetensors.numpy import save

    return save({"query.weight": drawn(D, D)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "is no adapter"),
        (lambda: b"not safetensors at all, but some text", "is no adapter"),
        (lambda: (2).to_bytes(8, "little") + b"[]" + b"more", "is no adapter"),
        (lambda: (9).to_bytes(8, "little") + b'{"\xff\xfe": 1}' + b"more", "is damaged"),
        (foreign, "is no adapter"),
        (lambda: changed(format="ragistry adapter 2"), "'ragistry adapter 2'"),
        (lambda: changed(form="softmax"), "is damaged"),
        (lambda: changed(form=None), "is damaged"),
        (lambda: changed(checksum=None), "fails its checksum"),
        (lambda: SOUND + b"more", "is damaged"),
    ],
)
def test_files_that_are_no_sound_adapters_are_refused(
    tmp_path: Path, content: Callable[[], bytes], message: str
) -> None:
    (tmp_path / FILE).write_bytes(content())
    with pytest.raises(Corrupt, match=message):
        Projected.load(tmp_path, BASE)


def test_from_the_hub_or_a_local_folder(encoder: Projected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def download(repository: str, file: str, *, revision: str | None) -> str:
        asked.append((repository, file, revision))
        if repository == "team/none":
            raise RuntimeError("404: no such repository\nwith a long explanation")
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    encoder.save(tmp_path / FILE)
    want = encoder.encode(TEXTS, "query")
    np.testing.assert_array_equal(Projected.from_hub(str(tmp_path), BASE).encode(TEXTS, "query"), want)
    assert asked == []
    there = Projected.from_hub("team/adapter", BASE, revision="v2")
    np.testing.assert_array_equal(there.encode(TEXTS, "query"), want)
    assert asked == [("team/adapter", FILE, "v2")]
    with pytest.raises(StorageError, match=r"'team/none' from the hub: 404: no such repository; check"):
        Projected.from_hub("team/none", BASE)


class Hub:
    """Stands for the hub's interface, and notes what it is asked for."""

    calls: list[tuple[str, dict[str, Any]]]
    files: dict[str, bytes]

    def __init__(self, token: str | None = None) -> None:
        type(self).calls, type(self).files = [("open", {"token": token})], {}

    def create_repo(self, repository: str, **settings: object) -> None:
        self.calls.append(("create", {"repository": repository, **settings}))

    def upload_folder(self, *, repo_id: str, folder_path: str) -> str:
        type(self).files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        self.calls.append(("upload", {"repository": repo_id}))
        return f"https://hub/{repo_id}"


def test_to_the_hub(encoder: Projected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert encoder.push_to_hub("team/adapter", token="secret") == "https://hub/team/adapter"
    assert Hub.calls == [
        ("open", {"token": "secret"}),
        ("create", {"repository": "team/adapter", "private": True, "exist_ok": True}),
        ("upload", {"repository": "team/adapter"}),
    ]
    assert set(Hub.files) == {FILE, "README.md"}
    card = Hub.files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: ragistry\n")
    assert BASE.fingerprint() in card
    assert "secret" not in card
    (tmp_path / FILE).write_bytes(Hub.files[FILE])
    np.testing.assert_array_equal(
        Projected.from_hub(str(tmp_path), BASE).encode(TEXTS, "document"), encoder.encode(TEXTS, "document")
    )
    encoder.push_to_hub("team/adapter", private=False)
    assert Hub.calls[1][1]["private"] is False


@pytest.mark.parametrize("where", ["create_repo", "upload_folder", "__init__"])
def test_a_hub_that_refuses_is_explained(encoder: Projected, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def refuse(*values: object, **settings: object) -> None:
        raise RuntimeError("401: not allowed\nwith a long explanation")

    monkeypatch.setattr("huggingface_hub.HfApi", type("Refusing", (Hub,), {where: refuse}))
    with pytest.raises(StorageError, match=r"cannot upload the adapter to 'team/adapter': 401: not allowed$"):
        encoder.push_to_hub("team/adapter")


def test_serving_takes_no_torch() -> None:
    program = (
        "import sys, numpy as np\n"
        "from ragistry.encoders.projected import Projection\n"
        "turn = Projection('linear', {'query': {'weight': np.eye(2, dtype=np.float32)}})\n"
        "turn(np.ones((1, 2), np.float32), 'query')\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
