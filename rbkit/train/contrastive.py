"""Models of images and captions, such as CLIP (arXiv 2103.00020): their loss by pair, their rows.

In a contrastive loss the examples of a batch meet: each is scored among all the others. So a loss
depends on the size of its batch and on what is in it. For evaluation, batches are therefore all of
one size and drawn at random: see :func:`rbkit.train.losses.shuffled_batches`. In training, the
others are those of a micro-batch in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoImageProcessor, CLIPImageProcessorPil, PreTrainedTokenizerBase

from rbkit.data.files import quiet
from rbkit.data.images import IMAGE
from rbkit.errors import InputError
from rbkit.regroup.embedders import on_white
from rbkit.train.losses import unwrapped
from rbkit.train.models import PadCollator


def contrastive_losses(model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    r"""Return the contrastive loss of each pair of image and caption, in nats, and ones, (B,) each.

    Of CLIP, with :math:`s_{ij}` the scaled similarity of image i and caption j,

    .. math:: \ell_i = -\tfrac12 \Bigl(\log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}
              + \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}}\Bigr),

    whose mean over the batch is the loss of transformers' models; of SigLIP (arXiv 2303.15343),
    :math:`-\sum_j \log \sigma(\pm s_{ji})`. Give it to :class:`~rbkit.train.MixtureTrainer` as
    ``loss_of``; :func:`rbkit.train` uses it for such models.

    Parameters
    ----------
    model : PreTrainedModel
        With ``logits_per_image`` in its output.
    batch : dict
        Its input: ``input_ids``, ``pixel_values``, ...

    Raises
    ------
    InputError
        For a model that compares no images with captions.

    Notes
    -----
    What flows back to the rows of an example, out of its own loss and out of the losses of those
    that it is a negative for, counts as the gradient of its domain: the split by rows, which is the
    paper's, and the default. It misses that the share of a domain also changes the negatives of
    all the others. Against the true first-order effect of the shares on the eval loss, over the
    domains and in four states of a small CLIP, the correlation of :math:`Gq` was -0.60, 0.99,
    0.81 and 0.58 by rows, and 0.97, 0.99, 0.84 and 0.81 with gradients of batches of a single
    domain. ``fidelity_rounds`` compares the two in a run: see :mod:`rbkit.train.fidelity`.

    Examples
    --------
    >>> from types import SimpleNamespace as Output
    >>> model = lambda input_ids: Output(logits_per_image=torch.eye(2) * 9)
    >>> contrastive_losses(model, {"input_ids": torch.ones(2, 3), "return_loss": True})
    (tensor([0.0001, 0.0001]), tensor([1, 1]))
    """
    inputs = {name: value for name, value in batch.items() if name not in ("return_loss", "labels")}
    logits = getattr(model(**inputs), "logits_per_image", None)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[0] != logits.shape[1]:
        what = f"{type(unwrapped(model)).__name__} gives no similarity of each image and caption"
        raise InputError("contrastive_losses", what, "give a model such as CLIP, and pairs")
    logits = logits.float()
    pairs = torch.arange(len(logits), device=logits.device)
    ones = torch.ones_like(pairs)
    if "siglip" in str(getattr(getattr(unwrapped(model), "config", None), "model_type", "")):
        signs = 2 * torch.eye(len(logits), device=logits.device) - 1
        return -F.logsigmoid(signs * logits.T).sum(1), ones
    losses = [F.cross_entropy(scores, pairs, reduction="none") for scores in (logits, logits.T)]
    return (losses[0] + losses[1]) / 2, ones


def image_processor(config: Any, source: str | None, given: Any = None) -> Any:
    """Return what makes pixels of images: that of a processor, a folder, or CLIP's for the size."""
    if given is not None:
        return given
    if source is not None:
        return AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    size = int(config.vision_config.image_size)
    return CLIPImageProcessorPil(  # the same pixels with and without torchvision
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )


def caption_rows(rows: Dataset, tokenizer: PreTrainedTokenizerBase, context: int) -> Dataset:
    """Return rows ``input_ids`` and ``image`` of captions (``text``) and images.

    A caption has the special tokens of its tokenizer, and always one that ends it: there such
    models read it. Of a long one the rest is left out.

    Examples
    --------
    >>> from PIL import Image
    >>> from rbkit.train import train_tokenizer
    >>> tokenizer = train_tokenizer(["an ant and an aunt"] * 9, vocab_size=262, progress=False)
    >>> rows = Dataset.from_dict({"text": ["an ant"], "image": [Image.new("RGB", (2, 2))]})
    >>> made = caption_rows(rows, tokenizer, context=3)[0]
    >>> tokenizer.decode(made["input_ids"]), made["image"].size
    ('an an<|endoftext|>', (2, 2))
    """
    ids = _caption_ids(rows["text"], tokenizer, context)
    captions = Dataset.from_dict({"input_ids": ids})
    with quiet(False):  # a bar for copying what was selected
        return concatenate_datasets([captions, rows.select_columns([IMAGE])], axis=1)


def _caption_ids(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, context: int
) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=context)["input_ids"]
    end = tokenizer.eos_token_id
    if end is None:
        return ids
    return [row if row and row[-1] == end else [*row[: context - 1], end] for row in ids]


class PairCollator:
    """Make batches of images and captions: pixels, padded tokens, and that a loss is wanted.

    Parameters
    ----------
    pad_id : int
    processor : image processor of transformers
        Transparent parts of images are white.
    """

    def __init__(self, pad_id: int, processor: Any) -> None:
        self._pad, self.processor = PadCollator(pad_id), processor

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return ``input_ids``, ``attention_mask``, ``pixel_values`` and ``return_loss``."""
        captions = self.captions([row["input_ids"] for row in rows])
        return {**captions, **self.pixels([row[IMAGE] for row in rows]), "return_loss": True}

    def captions(self, ids: Sequence[list[int]]) -> dict[str, Any]:
        """Return ``input_ids`` and ``attention_mask`` of captions as tokens."""
        batch = self._pad([{"input_ids": row} for row in ids])
        del batch["labels"]
        return batch

    def pixels(self, images: Sequence[Any]) -> dict[str, Any]:
        """Return ``pixel_values``."""
        shown = self.processor(images=[on_white(image) for image in images], return_tensors="pt")
        return {"pixel_values": shown["pixel_values"]}


def pair_processor(
    tokenizer: PreTrainedTokenizerBase, collator: PairCollator, context: int
) -> Callable[..., dict[str, Any]]:
    """Return what makes inputs of ``images=`` or ``text=``, as ``CLIPProcessor``, for a run."""

    def processor(images: Sequence[Any] = (), text: Sequence[str] = (), **_: Any) -> dict[str, Any]:
        if images:
            return collator.pixels(images)
        return collator.captions(_caption_ids(text, tokenizer, context))

    return processor
