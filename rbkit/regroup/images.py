"""Vectors of pictures: by CLIP, or from nothing but the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted

from rbkit.errors import InputError
from rbkit.regroup.model_files import content_of, resolve_model


class PixelEmbedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Colours and coarse shapes: small pictures, the outlines in them, then PCA.

    Needs no model, tells drawings by look and not by meaning. For meaning use
    :class:`ClipEmbedder`. Never cached: it is cheaper than a look-up.

    Parameters
    ----------
    dim : int
        Length of the vectors; fewer where there are fewer pictures.
    side : int
        Pictures are shrunk to this many pixels in a square.

    Examples
    --------
    >>> from PIL import Image
    >>> pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "darkred", "blue")]
    >>> vectors = PixelEmbedder(dim=2, side=4).fit(pictures).transform(pictures)
    >>> bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
    True
    """

    reads = "image"
    cacheable = False

    def __init__(self, dim: int = 64, *, side: int = 16) -> None:
        self.dim = dim
        self.side = side

    def fit(self, pictures: Sequence[Any], y: None = None) -> Self:
        """Learn the main directions of `pictures`, a sequence of :class:`PIL.Image.Image`."""
        rows = self._pixels(pictures)
        dim = max(1, min(self.dim, *rows.shape))
        self.pca_ = PCA(dim, random_state=0).fit(rows)
        return self

    def transform(self, pictures: Sequence[Any]) -> NDArray[np.float32]:
        """Return unit vectors of shape (n, dim)."""
        check_is_fitted(self)
        unit: NDArray[np.float32] = normalize(self.pca_.transform(self._pixels(pictures))).astype(
            np.float32
        )
        return unit

    def _pixels(self, pictures: Sequence[Any]) -> NDArray[np.float32]:
        if not len(pictures):
            raise InputError("pictures", "there are none", "give at least one")
        small = np.stack([
            np.asarray(on_white(picture).resize((self.side, self.side)), dtype=np.float32) / 255
            for picture in pictures
        ])  # fmt: skip
        grey = small.mean(axis=-1)
        edges = np.hypot(*np.gradient(grey, axis=(1, 2)))
        return np.concatenate(
            [small.reshape(len(small), -1), 2 * edges.reshape(len(small), -1)], axis=1
        )


class ClipEmbedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Image features of a CLIP model (Radford et al. 2021), from a folder or the hub.

    Parameters
    ----------
    model : str
        A folder that ``save_pretrained`` wrote, or a hub id.
    batch_size : int
    device : str or None
        None: CUDA, else MPS, else CPU.

    Examples
    --------
    >>> ClipEmbedder("openai/clip-vit-base-patch32").get_params()["batch_size"]
    32
    """

    reads = "image"

    def __init__(
        self,
        model: str = "openai/clip-vit-base-patch32",
        *,
        batch_size: int = 32,
        device: str | None = None,
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.device = device

    def fit(self, pictures: Sequence[Any] | None = None, y: None = None) -> Self:
        """Do nothing: the model is already trained."""
        return self

    def transform(self, pictures: Sequence[Any]) -> NDArray[np.float32]:
        """Return unit vectors of shape (n, d), in the order of `pictures`."""
        import torch

        model, processor = self._load()
        found = []
        for start in range(0, len(pictures), self.batch_size):
            batch = [on_white(picture) for picture in pictures[start : start + self.batch_size]]
            inputs = processor(images=batch, return_tensors="pt").to(model.device)
            with torch.inference_mode():
                features = model.get_image_features(**inputs)
            # transformers 5 returns an output object, older ones the tensor.
            features = getattr(features, "pooler_output", features)
            found.append(torch.nn.functional.normalize(features.float(), dim=1).cpu().numpy())
        if not found:
            raise InputError("pictures", "there are none", "give at least one")
        return np.concatenate(found)

    @property
    def identity(self) -> dict[str, Any]:
        """What the vectors depend on: the content of the model."""
        return {"embedder": "ClipEmbedder", "model": content_of(resolve_model(self.model))}

    def _load(self) -> Any:
        if not hasattr(self, "_loaded"):
            import torch
            from transformers import CLIPModel, CLIPProcessor

            folder = str(resolve_model(self.model))
            device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
            try:
                model = CLIPModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True
                )
                processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
            except (OSError, ValueError, KeyError) as error:
                remedy = "give a folder or hub id of a CLIP model"
                raise InputError(self.model, f"cannot be loaded ({error})", remedy) from error
            self._loaded = (model.to(device).eval(), processor.image_processor)
        return self._loaded


def on_white(picture: Any) -> Any:
    """Return a picture in RGB, transparent parts white: icons are often drawn on nothing."""
    from PIL import Image

    if picture.mode == "RGB":
        return picture
    paper = Image.new("RGBA", picture.size, "white")
    paper.alpha_composite(picture.convert("RGBA"))
    return paper.convert("RGB")
