"""Embedders: TF-IDF with SVD, transformers, and pictures, with scikit-learn's conventions.

torch is imported when a model is first used, so that TF-IDF starts in no time.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted

from rbkit.errors import InputError, as_count, as_seed
from rbkit.files import fingerprint, read_json, sha256_of_file
from rbkit.regroup.embedding import Embedder, check_items
from rbkit.text import clean

AnyEmbedder = str | Mapping[str, Any] | Embedder | Callable[[list[str]], Any]

# All that sentence-transformers and transformers read, and nothing that needs unpickling.
_MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


class TfidfEmbedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Latent semantic analysis: fast, offline, fitted to the corpus at hand.

    On the built-in ``wiki`` corpus its clusters agree with the human topics nearly as well
    as MiniLM's; on very short texts much less. Never cached: it is cheaper than a look-up.

    Parameters
    ----------
    dim : int
        Length of the vectors; fewer where the corpus is too small for it.
    max_features : int
        The vocabulary is cut to this many most frequent terms.
    seed : int
        Of the randomised SVD.

    Examples
    --------
    >>> texts = ["a red fox", "the quick fox", "a stock market", "the bond market"]
    >>> vectors = TfidfEmbedder(dim=2).fit(texts).transform(texts)
    >>> vectors.shape, vectors.dtype.name, bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
    ((4, 2), 'float32', True)
    """

    cacheable = False

    def __init__(self, dim: int = 128, *, max_features: int = 50_000, seed: int = 0) -> None:
        self.dim = dim
        self.max_features = max_features
        self.seed = seed

    def fit(self, texts: Sequence[str], y: None = None) -> Self:
        """Learn vocabulary, document frequencies and directions from `texts`."""
        check_items(texts)
        as_count("max_features", self.max_features, least=1)
        seed, most = as_seed(self.seed), as_count("dim", self.dim, least=1)
        # In a corpus of thousands a word seen once says nothing about domains; in a tiny
        # one it may be all there is.
        self.vectorizer_ = TfidfVectorizer(
            stop_words="english",
            sublinear_tf=True,
            min_df=2 if len(texts) >= 1000 else 1,
            max_features=self.max_features,
            dtype=np.float32,
        )
        try:
            counts = self.vectorizer_.fit_transform(texts)
        except ValueError as error:  # "empty vocabulary": only stop words, digits or blanks
            what = f"no usable word in them ({error})"
            raise InputError("texts", what, "check the text column") from error
        dim = max(1, min(most, counts.shape[1] - 1, counts.shape[0] - 1))
        self.svd_ = TruncatedSVD(dim, random_state=seed) if counts.shape[1] > 1 else None
        if self.svd_ is not None:
            self.svd_.fit(counts)
        return self

    def transform(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors of shape (n, dim); zero for a text of unseen words only."""
        check_is_fitted(self)
        check_items(texts)
        vectors = self.vectorizer_.transform(texts)
        vectors = vectors.toarray() if self.svd_ is None else self.svd_.transform(vectors)
        unit: NDArray[np.float32] = normalize(vectors).astype(np.float32)
        return unit

    @property
    def identity(self) -> dict[str, Any]:
        """The vectors depend on this: parameters and, once fitted, vocabulary and directions."""
        learnt = None
        if hasattr(self, "vectorizer_"):
            parts = [self.vectorizer_.idf_.tobytes()]
            if self.svd_ is not None:
                parts.append(self.svd_.components_.tobytes())
            learnt = fingerprint(sorted(self.vectorizer_.vocabulary_), *parts)
        return {"embedder": "TfidfEmbedder", **self.get_params(), "learnt": learnt}


class TransformerEmbedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Vectors of a sentence-transformers model, or of an encoder with mean pooling.

    The paper uses ``nomic-ai/modernbert-embed-base``, which wants
    ``prefix="clustering: "``; the default is the MiniLM that rbkit gets from PyPI.

    Parameters
    ----------
    model : str
        ``"minilm"``, a folder, or a hub id.
    max_tokens : int
        Texts are cut to this many tokens.
    prefix : str
        Put before every text; some models are trained with one.
    batch_tokens : int or None
        Padded tokens per batch; None: 2,048 on CPU (above it the caches overflow), 65,536 on
        an accelerator.
    device : str or None
        None: CUDA, else MPS, else CPU.
    normalize : bool
        Scale vectors to unit length.
    precision : {"auto", "fp32", "bf16", "fp16"}
        Of the matrix products. "auto" takes bf16 where the hardware multiplies it natively
        (CUDA since Ampere; CPUs with AVX512-BF16 or AMX: 1.9 times as fast as fp32, cosine
        with fp32 above 0.9999), fp16 on older CUDA, and fp32 elsewhere.
    trust_remote_code : bool
        Run Python code that comes with the model. Off unless you trust its authors.

    Examples
    --------
    >>> embedder = TransformerEmbedder("nomic-ai/modernbert-embed-base", prefix="clustering: ")
    >>> embedder.get_params()["max_tokens"]
    128
    """

    def __init__(
        self,
        model: str = "minilm",
        *,
        max_tokens: int = 128,
        prefix: str = "",
        batch_tokens: int | None = None,
        device: str | None = None,
        normalize: bool = True,
        precision: str = "auto",
        trust_remote_code: bool = False,
    ) -> None:
        self.model = model
        self.max_tokens = max_tokens
        self.prefix = prefix
        self.batch_tokens = batch_tokens
        self.device = device
        self.normalize = normalize
        self.precision = precision
        self.trust_remote_code = trust_remote_code

    def fit(self, texts: Sequence[str] | None = None, y: None = None) -> Self:
        """Do nothing: the model is already trained. Here for scikit-learn's pipelines."""
        return self

    def transform(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (n, d), float32, in the order of `texts`."""
        import torch

        if not isinstance(texts, str | bytes):
            texts = list(texts)
        check_items(texts)
        usual = 2_048 if self._device().type == "cpu" else 65_536
        budget = as_count("batch_tokens", self.batch_tokens or usual, least=1)
        model = self._load()
        vectors: NDArray[np.float32] | None = None
        for rows in batches(self._token_counts(list(texts)), budget):
            with torch.inference_mode(), self._autocast():
                batch = model.encode(
                    [texts[row] for row in rows],
                    prompt=self.prefix,
                    batch_size=len(rows),
                    normalize_embeddings=False,
                    convert_to_tensor=True,
                    show_progress_bar=False,
                ).float()
            if self.normalize:
                batch = torch.nn.functional.normalize(batch, dim=1)
            if vectors is None:
                vectors = np.empty((len(texts), batch.shape[1]), dtype=np.float32)
            vectors[rows] = batch.cpu().numpy()
        if vectors is None:
            raise InputError("texts", "there are none", "give at least one text")
        return vectors

    @property
    def identity(self) -> dict[str, Any]:
        """The vectors depend on this: the model's content (not its name) and the parameters."""
        return {
            "embedder": "TransformerEmbedder",
            "model": _content_of(self._folder(), code=self.trust_remote_code),
            "max_tokens": self.max_tokens,
            "prefix": self.prefix,
            "normalize": self.normalize,
            "precision": self._precision(),
        }

    def _folder(self) -> Path:
        if not hasattr(self, "_resolved"):
            self._resolved = _model_folder(self.model, trust_remote_code=self.trust_remote_code)
        return self._resolved

    def _load(self) -> Any:
        if not hasattr(self, "_loaded"):
            max_tokens = as_count("max_tokens", self.max_tokens, least=1)
            if not self.trust_remote_code:
                refuse_code(self._folder())
            import torch
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging

            # A second bar, for the third of a second that loading takes, would be noise.
            bars_were_on = logging.is_progress_bar_enabled()
            logging.disable_progress_bar()
            try:
                self._loaded = SentenceTransformer(
                    str(self._folder()),
                    device=str(self._device()),
                    trust_remote_code=self.trust_remote_code,
                    local_files_only=True,
                    # Never unpickle weights; and keep fp32 whatever the file says, since
                    # autocast decides what is computed in less.
                    model_kwargs={"use_safetensors": True, "dtype": torch.float32},
                )
            except Exception as error:  # damaged files raise anything
                remedy = "give a folder or hub id of an encoder saved with save_pretrained"
                raise InputError(self.model, f"cannot be loaded ({error})", remedy) from error
            finally:
                if bars_were_on:
                    logging.enable_progress_bar()
            longest = self._loaded.max_seq_length
            self._loaded.max_seq_length = min(max_tokens, longest or max_tokens)
            self._loaded.eval()
        return self._loaded

    def _token_counts(self, texts: list[str]) -> NDArray[np.int64]:
        tokenizer = self._load().tokenizer
        limit = self._load().max_seq_length
        if not callable(tokenizer):  # static embeddings have a bare tokenizer
            return np.array([min(limit or len(text), 1 + len(text) // 4) for text in texts])
        encoded = tokenizer(
            [self.prefix + text for text in texts],
            truncation=True,
            max_length=limit,
            padding=False,
            return_attention_mask=False,
        )
        return np.array([len(ids) for ids in encoded["input_ids"]])

    def _device(self) -> Any:
        return _device_or_default(self.device)

    def _precision(self) -> str:
        import torch

        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            what = f"{self.precision!r} is not one of auto, fp32, bf16, fp16"
            raise InputError("precision", what, "choose one of them")
        if self.precision != "auto":
            return self.precision
        kind = self._device().type
        if kind == "cuda":
            return "bf16" if torch.cuda.get_device_capability(self._device())[0] >= 8 else "fp16"
        # Without bf16 matrix instructions bf16 is 6 times slower. torch has no public name for
        # these two checks yet; where they are absent, fp32 it is.
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = any(getattr(torch.cpu, check, lambda: False)() for check in checks)
        return "bf16" if kind == "cpu" and native else "fp32"

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        precision = self._precision()
        if precision == "fp32":
            return nullcontext()
        dtype = torch.bfloat16 if precision == "bf16" else torch.float16
        return torch.autocast(self._device().type, dtype=dtype)


def batches(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Yield row numbers, longest texts first, so that a padded batch holds `budget` tokens.

    A text longer than the budget makes its own batch.

    Examples
    --------
    >>> [rows.tolist() for rows in batches(np.array([2, 6, 3, 3]), budget=6)]
    [[1], [2, 3], [0]]
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


class PixelEmbedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Colours and coarse shapes: small pictures, the outlines in them, then PCA.

    Needs no model; groups pictures by appearance and not by meaning. For meaning use
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
        dim = as_count("dim", self.dim, least=1)
        self.pca_ = PCA(min(dim, *rows.shape), random_state=0).fit(rows)
        return self

    def transform(self, pictures: Sequence[Any]) -> NDArray[np.float32]:
        """Return unit vectors of shape (n, dim)."""
        check_is_fitted(self)
        vectors = normalize(self.pca_.transform(self._pixels(pictures)))
        return np.asarray(vectors, dtype=np.float32)

    def _pixels(self, pictures: Sequence[Any]) -> NDArray[np.float32]:
        check_items(pictures, "image")
        side = as_count("side", self.side, least=2)
        shrunk = [on_white(picture).resize((side, side)) for picture in pictures]
        small = np.stack([np.asarray(picture, dtype=np.float32) / 255 for picture in shrunk])
        edges = np.hypot(*np.gradient(small.mean(axis=-1), axis=(1, 2)))
        n = len(small)
        return np.concatenate([small.reshape(n, -1), 2 * edges.reshape(n, -1)], axis=1)


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

        check_items(pictures, "image")
        size = as_count("batch_size", self.batch_size, least=1)
        model, processor = self._load()
        vectors = []
        for start in range(0, len(pictures), size):
            batch = [on_white(picture) for picture in pictures[start : start + size]]
            inputs = processor(images=batch, return_tensors="pt").to(model.device)
            with torch.inference_mode():
                features = model.get_image_features(**inputs)
            # transformers 5 returns an output object, older ones the tensor.
            features = getattr(features, "pooler_output", features)
            vectors.append(torch.nn.functional.normalize(features.float(), dim=1).cpu().numpy())
        return np.concatenate(vectors)

    @property
    def identity(self) -> dict[str, Any]:
        """The vectors depend on this: the content of the model."""
        return {"embedder": "ClipEmbedder", "model": _content_of(_model_folder(self.model))}

    def _load(self) -> Any:
        if not hasattr(self, "_loaded"):
            from transformers import CLIPModel, CLIPProcessor

            folder = str(_model_folder(self.model))
            refuse_code(folder)
            try:
                model = CLIPModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True
                )
                processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
            except Exception as error:  # damaged files raise anything
                remedy = "give a folder or hub id of a CLIP model"
                raise InputError(self.model, f"cannot be loaded ({error})", remedy) from error
            device = _device_or_default(self.device)
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


_BY_CLASS: dict[str, Callable[..., Embedder]] = {
    "TfidfEmbedder": TfidfEmbedder,
    "TransformerEmbedder": TransformerEmbedder,
    "PixelEmbedder": PixelEmbedder,
    "ClipEmbedder": ClipEmbedder,
}


class FunctionEmbedder:
    """Vectors of a function of your own; never cached, since nothing tells two functions apart.

    Parameters
    ----------
    function : callable
        From a list of texts to (n, d) numbers. It is called on some texts at a time, so the vector
        of a text must not depend on the others.

    Examples
    --------
    >>> FunctionEmbedder(lambda texts: [[len(text), 1] for text in texts]).transform(["oak"])
    [[3, 1]]
    """

    def __init__(self, function: Callable[[list[str]], Any]) -> None:
        self.function = function

    def fit(self, texts: Sequence[str] | None = None, y: None = None) -> Self:
        """Do nothing: the function is what it is."""
        return self

    def transform(self, texts: Sequence[str]) -> Any:
        """Return what the function gives."""
        return self.function(list(texts))


def make_embedder(embedder: AnyEmbedder) -> Embedder:
    """Return the embedder that a name or a description stands for.

    Parameters
    ----------
    embedder : str, mapping, Embedder, SentenceTransformer or callable
        ``"tfidf"``, ``"minilm"``, ``"pixels"``, a folder or a hub id (also of a CLIP); or
        ``{"name": class, **parameters}``, as in saved domains, where a model may only be rbkit's
        own ``minilm``;
        or an embedder, which is returned; or a model or function that makes vectors of texts,
        as :class:`FunctionEmbedder` takes it (a model's are scaled to unit length).

    Raises
    ------
    InputError
        A description that does not stand for one of rbkit's embedders.
    """
    if isinstance(embedder, type):
        what = f"{embedder.__name__} is a class"
        raise InputError("embedder", what, f"make one of it: {embedder.__name__}()")
    encoder = getattr(sys.modules.get("sentence_transformers"), "SentenceTransformer", None)
    if encoder is not None and isinstance(embedder, encoder):
        encode = partial(embedder.encode, show_progress_bar=False, normalize_embeddings=True)
        return FunctionEmbedder(encode)
    if isinstance(embedder, str):
        if embedder in ("tfidf", "pixels"):
            return TfidfEmbedder() if embedder == "tfidf" else PixelEmbedder()
        return ClipEmbedder(embedder) if _is_clip(embedder) else TransformerEmbedder(embedder)
    if not isinstance(embedder, Mapping):
        if missing := [name for name in ("fit", "transform") if not hasattr(embedder, name)]:
            if callable(embedder):
                return FunctionEmbedder(embedder)
            remedy = "give a name, a function, or an object with scikit-learn's fit and transform"
            raise InputError("embedder", f"{str(embedder)[:40]!r} has no {missing[0]}", remedy)
        return cast(Embedder, embedder)
    params = {key: value for key, value in embedder.items() if key not in ("name", "embed")}
    name = str(embedder.get("name"))
    if name not in _BY_CLASS:
        what = f"{name!r} cannot be made from its name"
        raise InputError("embedder", what, "pass the embedder= or vectors= used originally")
    if params.get("trust_remote_code"):  # a saved file must not switch that on
        what = f"{name} of {params.get('model')!r} ran code that came with the model"
        raise InputError("embedder", what, "pass that embedder yourself if you trust it")
    try:
        made = _BY_CLASS[name](**params)
    except TypeError as error:
        raise InputError("embedder", f"{name}: {error}", "pass embedder= yourself") from error
    if (model := getattr(made, "model", "minilm")) != "minilm":
        # A stranger's file must not choose what is loaded, nor from where.
        what = f"made with {name} of the model {str(model)[:100]!r}, which is not loaded by itself"
        raise InputError("embedder", what, "pass embedder= (or vectors=) yourself if you trust it")
    return made


def _is_clip(model: str) -> bool:
    """Whether a model is a folder that holds a CLIP, or a hub id that is called so.

    >>> _is_clip("openai/clip-vit-base-patch32"), _is_clip("some/eclipse-embedder")
    (True, False)
    """
    config = Path(model).expanduser() / "config.json"
    if config.is_file():
        facts = read_json(config)
        return isinstance(facts, dict) and facts.get("model_type") == "clip"
    owner, _, name = model.lower().partition("/")
    # That owner's are models of sentence-transformers, which reads them itself.
    return "clip" in re.split(r"[^a-z]+", name) and owner != "sentence-transformers"


def params_of(estimator: Any) -> dict[str, Any]:
    """Return the parameters of an estimator; none if it has no ``get_params``."""
    return dict(estimator.get_params()) if hasattr(estimator, "get_params") else {}


def _device_or_default(device: str | None) -> Any:
    import torch

    if device is not None:
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _content_of(folder: Path, *, code: bool = False) -> str:
    """Fingerprint of weights, configuration and tokenizer (and code): 0.1 s per 100 MB."""
    patterns = (*_MODEL_FILES, "*.py") if code else _MODEL_FILES
    files = sorted({path for pattern in patterns for path in folder.rglob(pattern)})
    return fingerprint(
        f"{path.relative_to(folder).as_posix()} {sha256_of_file(path)}" for path in files
    )


def refuse_code(folder: str | Path) -> None:
    """Refuse a model whose files make a library import, or read, what is not in its folder.

    Whatever ``trust_remote_code`` says, sentence-transformers 5.0 to 5.4 imports the classes in a
    local ``modules.json``; transformers runs an attention kernel of the hub that a configuration
    names, loads the base model of an adapter, and opens shards of weights by any path.
    """
    folder = Path(folder)
    remedy = "use a model whose authors you trust, and that needs nothing else"
    for path in [*folder.rglob("modules.json"), *folder.rglob("*config*.json")]:
        facts = read_json(path)
        if not isinstance(facts, dict | list):
            raise InputError(str(path), "not the configuration of a model", "save the model again")
        if path.name == "config.json" and clean(facts) != facts:
            raise InputError(str(path), "holds control characters", remedy)
        for entry in facts if isinstance(facts, list) else [facts]:
            for name in _classes_in(entry):
                if "." in name and not name.startswith(_OWN_CLASSES):
                    ways = "pass an embedder with trust_remote_code if you trust its authors"
                    raise InputError(str(path), f"imports {name[:100]!r}", ways)
            for name in _elsewhere_in(entry):
                raise InputError(str(path), f"brings in {name[:100]!r} from elsewhere", remedy)
    for path in folder.rglob("*.index.json"):
        facts = read_json(path)
        shards = facts.get("weight_map") if isinstance(facts, dict) else None
        for name in set(map(str, shards.values())) if isinstance(shards, dict) else ():
            if name != Path(name).name:
                raise InputError(str(path), f"names the weights {name[:100]!r}", remedy)


_OWN_CLASSES = (
    "sentence_transformers.",
    "torch.nn.modules.activation.",
    "torch.nn.modules.linear.",
)
_CLASS_KEYS = ("type", "types", "activation_function", "tokenizer_class")  # that are imported


def _classes_in(entry: Any) -> Iterator[str]:
    if isinstance(entry, Mapping):
        for key in _CLASS_KEYS:
            value = entry.get(key)
            yield from map(str, value.values() if isinstance(value, Mapping) else [value or ""])


_KERNEL_KEYS = ("attn_implementation", "_attn_implementation", "experts_implementation")


def _elsewhere_in(entry: Any) -> Iterator[str]:
    """Yield what a configuration, or a part of it, takes from the hub or another folder."""
    if isinstance(entry, Mapping):
        if base := entry.get("base_model_name_or_path"):
            yield str(base)
        for key in _KERNEL_KEYS:
            value = entry.get(key)
            for name in value.values() if isinstance(value, Mapping) else [value]:
                if "/" in str(name):
                    yield str(name)
    for part in entry.values() if isinstance(entry, Mapping) else ():
        yield from _elsewhere_in(part)


def _model_folder(model: str, *, trust_remote_code: bool = False) -> Path:
    """Return the folder of a model given as ``"minilm"``, a path or a hub id."""
    if model == "minilm":
        from rbkit.data.assets import model_folder

        return Path(model_folder("minilm"))
    folder = Path(model).expanduser()
    if (folder / "config.json").is_file() or (folder / "modules.json").is_file():
        return folder
    if (
        folder.is_dir()
        or folder.is_absolute()
        or model.startswith((".", "~"))
        or os.sep * 2 in model
    ):
        what = "no model in this folder (neither modules.json nor config.json)"
        raise InputError(model, what, "give a folder written by save_pretrained, or a hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = [*_MODEL_FILES, *(["*.py"] if trust_remote_code else [])]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except (OSError, HfHubHTTPError, HFValidationError, ValueError) as error:
        what = f"neither a folder nor a model that the hub or its cache provides ({error})"
        remedy = 'check the name and the connection, or use "minilm" or "tfidf"'
        raise InputError(model, what, remedy) from error
