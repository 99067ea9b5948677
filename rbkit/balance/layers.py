"""Finding the layer to watch."""

from __future__ import annotations

import difflib

from torch import nn

from rbkit.errors import InputError


def find_layer(model: nn.Module, layer: str | None = None) -> nn.Module:
    """Return the layer called `layer`, or the model's last linear layer (an LM's head).

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
    >>> find_layer(net)
    Linear(in_features=3, out_features=4, bias=True)
    >>> find_layer(net, "0").out_features
    3
    """
    if layer is not None:
        try:
            return model.get_submodule(layer)
        except AttributeError as error:
            linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
            close = difflib.get_close_matches(layer, linear, 3, 0.3) or linear[-3:]
            raise InputError(
                "layer", f"the model has no module {layer!r}", f"try {' or '.join(close)}"
            ) from error
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is None:
        head = next((m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear)), None)
    if head is None:
        raise InputError("layer", "the model has no linear layer", "name a module to watch")
    assert isinstance(head, nn.Module)
    return head
