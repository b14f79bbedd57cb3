"""Images as vectors: a vision transformer followed by steps, with a codebook that gives patches ids as texts have."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from ..models import find_model
from ..registry import require
from ..types import Floats, Ints, Kind, Role
from .backbones import load_model
from .stack import check_flow
from .steps import Features, Step
from .steps.pooling import Normalise, Pooling
from .steps.token_bridge import TokenBridge

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Pixels: TypeAlias = npt.NDArray[np.floating[Any]]
"""Images of one size, [n, h, w] or [n, h, w, channels], scaled as the model is to see them."""
BATCH, CHUNK = 64, 1024
"""Images encoded, and patches compared with the codebook, at a time, which bounds memory."""


class Images(nn.Module):
    """An encoder of images that gives steps what a text model gives them, token ids included.

    An image is cut into patches, each a token; a token for the image as a whole (CLS) stays first. The id of a patch is the
    nearest entry of a codebook, k-means over patches, so that it tells what is seen, not where: two images share an id
    where they look alike, and `TokenBridge` weighs ids as it weighs words. CLS has an id of its own, `cls`.

    Images may be larger or smaller than those the model was made for: its position embeddings are interpolated, nothing is
    resized or padded. What is left on the right and below of whole patches is not seen. So a snippet cut at the borders of
    patches has exactly those ids that its image has there, which scaled or padded pixels would not give.

    It is a module from features and role to features, so `training.Trainer` fits it whole; its `state_dict` holds the model,
    the codebook and the steps.

    Args:
        model: A ViT or BEiT: its configuration (weights are then random), the model itself, or a folder or name of one.
        steps: Applied in order; the last must leave a `vector`. The mean of all tokens, of length 1, by default.
        codes: Entries of the codebook.
        seed: Of random weights and of the codebook.

    Raises:
        InvalidInput: If the model is not one for images in patches, or the steps do not fit it or each other.
        ModelNotFound: If the model is nowhere to be found.
        Corrupt: If its files are damaged.

    Example:
        >>> from transformers import ViTConfig
        >>> small = ViTConfig(image_size=8, patch_size=2, num_channels=1, hidden_size=8, intermediate_size=8,
        ...                   num_hidden_layers=1, num_attention_heads=2)
        >>> images = np.random.default_rng(0).random((20, 8, 8))
        >>> encoder = Images(small, codes=16).fit_codebook(images)
        >>> encoder.encode(images, "document").shape
        (20, 8)
        >>> whole, snippet = encoder.codes(images), encoder.codes(images[:, :4, :4])
        >>> bool((snippet == whole[:, [0, 1, 4, 5]]).all())
        True

    Source: LexSemBridge, arXiv:2508.17858 (2025), its vision side. Deviation: ids are of content; there, they are positions,
    so that every image has the same ids and one gate.
    """

    kind: Kind = "dense"
    codebook: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        model: PreTrainedModel | PretrainedConfig | str | os.PathLike[str],
        steps: Sequence[Step] | None = None,
        *,
        codes: int = 1024,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if codes < 1:
            raise InvalidInput(f"codes={codes}; a positive number is needed")
        self.model = _built(model, seed)
        config: Any = getattr(self.model, "config", None)
        if not {"image_size", "patch_size", "num_channels"} <= set(dir(config)):
            given = type(model).__name__
            raise InvalidInput(f"the model was given as {given}; one for images in patches is needed, as ViT or BEiT")
        sizes = config.image_size, config.patch_size
        self.image, self.patch = ((*np.broadcast_to(size, 2).tolist(),) for size in sizes)
        self.cls, self.vocabulary, self.seed = codes, codes + 1, seed
        self.channels, self.dimension = int(config.num_channels), int(config.hidden_size)
        steps = (Pooling("mean"), Normalise()) if steps is None else steps
        check_flow(steps)
        if wrong := [s.vocabulary for s in steps if isinstance(s, TokenBridge) and s.vocabulary != self.vocabulary]:
            raise InvalidInput(f"a TokenBridge of {wrong[0]} ids was given; codes={codes} need {self.vocabulary}")
        self.steps = nn.ModuleList(steps)
        size = self.patch[0] * self.patch[1] * self.channels
        self.register_buffer("codebook", torch.zeros(codes, size, dtype=torch.float64))
        self.register_buffer("centre", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("spread", torch.zeros((), dtype=torch.float64))

    def fit_codebook(self, images: Pixels) -> Images:
        """Choose the entries of the codebook: k-means, seeded, over distinct patches, centred and scaled.

        Each counts once, so that a background does not take the entries. The encoder itself is returned.

        Args:
            images: Such as will be encoded, whole ones, as `encode` takes them. A thousand patches an entry are plenty.

        Raises:
            InvalidInput: If the images cannot be used, or have fewer distinct patches than the codebook has entries.
        """
        found = np.unique(self._patches(self._checked(images)).reshape(-1, self.codebook.shape[1]), axis=0)
        if len(found) < self.cls:
            raise InvalidInput(f"{len(found)} distinct patches were given; codes={self.cls} need as many: give more")
        centre = found.mean(axis=0, dtype=np.float64)
        spread = float((found - centre).std()) or 1.0  # one patch alone has none
        points = ((found - centre) / spread).astype(np.float32)
        kmeans = require("faiss", "dense").Kmeans
        clusters = kmeans(points.shape[1], self.cls, niter=25, seed=self.seed, min_points_per_centroid=1)
        clusters.train(points)
        self.codebook.copy_(torch.from_numpy(clusters.centroids))
        self.centre.copy_(torch.from_numpy(centre))
        self.spread.fill_(spread)
        return self

    def codes(self, images: Pixels) -> Ints:
        """The entry nearest to each patch, row by row from the top left: int64 [n, patches]; tokens for `Statistics.of`.

        It raises what `inputs` raises.
        """
        return self._codes(self._checked(images))

    def inputs(self, images: Pixels) -> Features:
        """What `forward` takes, which no weight changes.

        Returns:
            `pixel_values` float32 [n, channels, h, w]; `input_ids` int64 [n, 1 + patches], `cls` and the codes; and
            `attention_mask` int64 of the same shape, all 1, since images of one array are of one size.

        Raises:
            InvalidInput: If the images cannot be used, or there is no codebook.
        """
        pixels = self._checked(images)
        ids = torch.from_numpy(np.pad(self._codes(pixels), ((0, 0), (1, 0)), constant_values=self.cls))
        seen = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        return {"pixel_values": seen, "input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def features(self, images: Pixels) -> Features:
        """What steps take: that of `inputs` and `embedding`, float32 [n, 1 + patches, d]. It raises what `inputs` raises."""
        return self._embedded(self.inputs(images))

    def encode(self, images: Pixels, role: Role) -> Floats:
        """One vector per image, in order.

        Args:
            images: [n, h, w] or [n, h, w, channels], floats scaled as the model is to see them; h and w at least a patch.
            role: Whether they are searched with or searched for; steps may differ by it.

        Returns:
            float32 [n, d], of length 1 where the steps hold `Normalise`, as those by default do.

        Raises:
            InvalidInput: If the images cannot be used, the role is not known, or there is no codebook.
        """
        if role not in get_args(Role):
            raise InvalidInput(f"the role {role!r} is not known; use {' or '.join(get_args(Role))}")
        pixels, training = self._checked(images), self.training
        self.eval()
        with torch.no_grad():  # BEiT keeps tensors of a call, which in inference mode could not be trained with later
            parts = [
                self(self.inputs(pixels[first : first + BATCH]), role)["vector"].numpy()
                for first in range(0, len(pixels), BATCH)
            ]
        self.train(training)
        return np.concatenate([np.empty((0, self.dimension), np.float32), *parts])

    def forward(self, features: Features, role: Role) -> Features:
        """The features of `inputs` with all that the model and the steps add, `vector` float32 [n, d] among it."""
        features = self._embedded(features)
        for step in self.steps:
            features = step(features, role)
        return features

    def _embedded(self, features: Features) -> Features:
        pixels, ids = features["pixel_values"], features["input_ids"]
        other = tuple(pixels.shape[2:]) != self.image
        if other and self.image[0] // self.patch[0] != self.image[1] // self.patch[1]:
            given = f"images of {tuple(pixels.shape[2:])} pixels were given"
            raise InvalidInput(f"{given}; a model that is not square takes only {self.image}: resize them")
        embedding: Tensor = self.model(pixel_values=pixels, interpolate_pos_encoding=other).last_hidden_state.float()
        if embedding.shape[:2] != ids.shape:
            given = f"the model gives {embedding.shape[1]} tokens for {ids.shape[1] - 1} patches"
            raise InvalidInput(f"{given}; one with a single token before them is needed, as ViT or BEiT")
        return features | {"embedding": embedding}

    def _codes(self, pixels: Floats) -> Ints:
        if not self.spread > 0:
            raise InvalidInput("the encoder has no codebook yet; call `fit_codebook` with some images")
        patches, book = self._patches(pixels), self.codebook.numpy()
        points = patches.reshape(-1, book.shape[1])
        found = np.empty(len(points), np.int64)
        for first in range(0, len(points), CHUNK):
            some = (points[first : first + CHUNK] - self.centre.numpy()) / float(self.spread)
            # Rounded to float32: the order of additions, and with it the batch, then does not decide between equals.
            near = (book**2).sum(axis=1) - 2 * some @ book.T
            found[first : first + CHUNK] = near.astype(np.float32).argmin(axis=1)
        return found.reshape(patches.shape[:2])

    def _patches(self, pixels: Floats) -> Floats:
        """[n, patches, pixels of a patch], in the order of the model's tokens."""
        (height, width), (n, h, w, channels) = self.patch, pixels.shape
        rows, columns = h // height, w // width
        grid = pixels[:, : rows * height, : columns * width].reshape(n, rows, height, columns, width, channels)
        return grid.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows * columns, height * width * channels)

    def _checked(self, images: Pixels) -> Floats:
        """float32 [n, h, w, channels]."""
        if not isinstance(images, np.ndarray) or images.ndim not in (3, 4) or images.dtype.kind != "f":
            given = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
            raise InvalidInput(f"images were given as {given}; floats [n, h, w] or [n, h, w, channels] are needed")
        pixels = np.asarray(images if images.ndim == 4 else images[..., None], np.float32)
        _, h, w, channels = pixels.shape
        if channels != self.channels or h < self.patch[0] or w < self.patch[1]:
            given = f"images of {h} x {w} pixels and {channels} channels were given"
            raise InvalidInput(f"{given}; {self.channels} channels and at least a patch of {self.patch} are needed")
        if not np.isfinite(pixels).all():
            raise InvalidInput("an image has NaN or infinity (as float32); repair or leave out such images")
        return pixels


def _built(model: Any, seed: int) -> Any:
    if isinstance(model, str | os.PathLike):
        return load_model(Path(find_model(os.fspath(model))), torch.float32)
    from transformers import AutoModel, PretrainedConfig

    if not isinstance(model, PretrainedConfig):
        return model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModel.from_config(model)
