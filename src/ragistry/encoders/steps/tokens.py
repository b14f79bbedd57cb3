"""A vector for each token that counts, in place of one for the whole text."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...errors import InvalidInput
from ...types import Floats, Role
from . import Features, Step


class EachToken(Step):
    """Token embeddings as a text's vectors, maybe projected to fewer dimensions.

    Gives `vector`, float32 [b, t, d], and `kept`, bool [b, t]: which of them count. Those are the tokens that the encoder
    says count, by `kept`, else all real ones; what stands at other places is to be read by no one. The projection is not
    trained: what comes before it learns to fit it.

    Args:
        projection: float32 [d, hidden], without bias; none leaves the embeddings as they are.

    Raises:
        InvalidInput: If the projection is no matrix of finite numbers.

    Example:
        >>> import torch
        >>> features = {"embedding": torch.tensor([[[3.0, 4.0], [9.0, 9.0]]]), "attention_mask": torch.tensor([[1, 0]])}
        >>> EachToken(np.array([[2, 0]]))(features, "query")["vector"][0, 0]
        tensor([6.])

    Source: ColBERT, arXiv:2004.12832 (SIGIR 2020), section 3.2, where the projection is trained with the model.
    """

    needs = frozenset({"embedding", "attention_mask"})
    gives = frozenset({"vector", "kept"})
    projection: Tensor | None

    def __init__(self, projection: Floats | None = None) -> None:
        super().__init__()
        matrix = None if projection is None else torch.from_numpy(np.array(projection, np.float32))
        if matrix is not None and (matrix.ndim != 2 or not matrix.isfinite().all()):
            raise InvalidInput(
                f"the projection is of shape {tuple(matrix.shape)}; finite numbers [dimensions, hidden] are needed"
            )
        self.register_buffer("projection", matrix)

    def forward(self, features: Features, role: Role) -> Features:
        """Add `vector` and `kept`."""
        vector = features["embedding"]
        if self.projection is not None:
            vector = vector @ self.projection.T
        kept = features["kept"] if "kept" in features else features["attention_mask"] > 0
        return features | {"vector": vector, "kept": kept}

    def extra_repr(self) -> str:
        """The shape of the projection; its numbers are weights."""
        return "" if self.projection is None else f"{tuple(self.projection.shape)}"


def random_projection(dimension: int, hidden: int, seed: int = 0) -> Floats:
    """Orthonormal rows at random, float32 [dimension, hidden], by which angles stay about what they were.

    Raises:
        InvalidInput: If there are more dimensions than before, or none.

    Example:
        >>> rows = random_projection(2, 3)
        >>> bool(np.allclose(rows @ rows.T, np.eye(2), atol=1e-5))
        True

    Source: Johnson and Lindenstrauss, Contemporary Mathematics 26 (1984).
    """
    if not 1 <= dimension <= hidden:
        raise InvalidInput(
            f"dimension={dimension} was given; the model has {hidden}, to which 1 to {hidden} can be cut"
        )
    drawn = np.random.default_rng(seed).standard_normal((hidden, dimension))
    rows, triangle = np.linalg.qr(drawn)
    # Rounded, so that every linear-algebra library gives the same bits, and so the same fingerprint.
    return (rows * np.sign(np.diag(triangle))).T.round(6).astype(np.float32)
