"""Low-rank and full residuals over a frozen embedding: the part of an encoder that learns from a few hundred pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import InvalidInput
from ...types import Floats, Role
from ..projected import Arrays, Form, Projection
from . import Features, Step, lengthened

Side: TypeAlias = Literal["query", "both", "shared"]
_SCALE = 10.0
"""Length of the dictionary's first keys: with unit vectors, logits of a spread at which several keys answer."""


class Residual(Step):
    """v + r(v) for queries, or for queries and documents, turned back to the length of v.

    | form | r(v) | parameters a side |
    |---|---|---|
    | `softmax` | softmax(K v)' V, a look-up in a small dictionary; K, V [rank, d] | 2 rank d |
    | `linear`, with a rank | B A v; A [rank, d], B [d, rank] | 2 rank d |
    | `linear`, without | W v; W [d, d] | d d |

    It starts at the identity exactly: V, B and W are zero, K and A are not, since a dictionary or a product of which both
    parts are zero never learns more than one constant shift. Keeping the length means that it turns vectors and changes no
    norm, so that an encoder of unit vectors stays one and one whose norms carry meaning keeps them.

    Args:
        dimension: Of the vectors, d.
        form: See the table.
        rank: Rows of the dictionary, or the rank of the product; none is a full map, for `linear` only.
        side: `query` leaves documents as they are; `both` has one residual for queries and one for documents; `shared`
            one for both.
        seed: Of the first keys.

    Raises:
        InvalidInput: If the form or side is not known, or the rank does not suit.

    Example:
        >>> import torch
        >>> step = Residual(4, "softmax", rank=2, side="query")
        >>> vectors = torch.eye(4)
        >>> bool((step({"vector": vectors}, "query")["vector"] == vectors).all())
        True

    Source: softmax dictionary: ADDER, arXiv:2310.05380 (2023), as its reviews describe it (no text states the
    initialisation). Deviations: the length is kept, where the paper compares by cosine, which ranks alike; `linear` is the
    form of LoRA (arXiv:2106.09685) and of embedding adapters. With one map shared and `Recovery` and `Prediction` it is that
    of Search-Adaptor, arXiv:2310.08750, section 3.
    """

    needs = frozenset({"vector"})
    gives = frozenset({"vector"})

    def __init__(
        self, dimension: int, form: Form = "linear", rank: int | None = None, side: Side = "both", seed: int = 0
    ) -> None:
        super().__init__()
        if form not in get_args(Form) or side not in get_args(Side):
            raise InvalidInput(
                f"a residual of form {form!r} on the side {side!r} is not known; forms are {', '.join(get_args(Form))}, "
                f"sides {', '.join(get_args(Side))}"
            )
        if (rank is None and form == "softmax") or (rank is not None and rank < 1):
            raise InvalidInput(f"rank={rank} does not suit the form {form!r}; a positive number is needed")
        self.form, self.rank, self.side, self.dimension = form, rank, side, dimension
        draw = torch.Generator().manual_seed(seed)
        roles: list[Role] = ["query", "document"] if side == "both" else ["query"]
        self.maps = nn.ModuleDict({role: _parameters(dimension, form, rank, draw) for role in roles})

    def start(self, role: Role, vectors: Floats) -> None:
        """Begin a dictionary's keys at some of the vectors that it will see, which it learns from faster."""
        if self.form == "softmax" and role in self.maps and len(vectors):
            count = min(self.rank or 1, len(vectors))  # beyond that, keys stay random: equal ones would learn alike
            rows = np.linspace(0, len(vectors) - 1, count).astype(int)
            with torch.no_grad():
                self.maps[role].get_parameter("keys")[:count].copy_(torch.from_numpy(vectors[rows]) * _SCALE)

    def forward(self, features: Features, role: Role) -> Features:
        """Replace `vector`, where this role has a residual."""
        name = "query" if self.side == "shared" else role
        if name not in self.maps:
            return features
        vector, part = features["vector"], dict(self.maps[name].named_parameters())
        if self.form == "softmax":
            turned = vector + torch.softmax(vector @ part["keys"].T, dim=-1) @ part["values"]
        elif self.rank is not None:
            turned = vector + vector @ part["down"] @ part["up"]
        else:
            turned = vector + vector @ part["weight"]
        return features | {"vector": lengthened(turned, vector)}

    def projection(self) -> Projection:
        """The same map in numpy."""
        roles: tuple[Role, ...] = get_args(Role)
        arrays: dict[Role, Arrays] = {
            role: {
                name: value.detach().numpy().astype(np.float32) for name, value in self.maps[role].named_parameters()
            }
            for role in roles
            if role in self.maps
        }
        if self.side == "shared":
            arrays["document"] = arrays["query"]
        return Projection(self.form, arrays)

    def extra_repr(self) -> str:
        """Every setting."""
        return f"{self.dimension}, {self.form!r}, rank={self.rank}, side={self.side!r}"


def residual_of(projection: Projection) -> Residual:
    """A residual with the weights of a projection, to go on training it; a shared one comes back as two."""
    form, rank, dimension = projection.form, projection.rank, projection.dimension
    step = Residual(dimension, form, rank, "both" if "document" in projection.arrays else "query")
    for role, arrays in projection.arrays.items():
        for name, value in arrays.items():
            with torch.no_grad():
                step.maps[role].get_parameter(name).copy_(torch.from_numpy(np.array(value)))
    return step


def _parameters(dimension: int, form: Form, rank: int | None, draw: torch.Generator) -> nn.Module:
    def random(*shape: int) -> Tensor:
        drawn: Tensor = torch.randn(*shape, generator=draw) / dimension**0.5
        return drawn

    parts: Mapping[str, Tensor]
    if form == "softmax":
        parts = {"keys": random(rank or 1, dimension) * _SCALE, "values": torch.zeros(rank or 1, dimension)}
    elif rank is not None:
        parts = {"down": random(dimension, rank), "up": torch.zeros(rank, dimension)}
    else:
        parts = {"weight": torch.zeros(dimension, dimension)}
    held = nn.Module()  # no ParameterDict, which has methods `keys` and `values`
    for name, value in parts.items():
        held.register_parameter(name, nn.Parameter(value))
    return held
