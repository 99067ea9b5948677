r"""A layer's own weight gradient, computed domain by domain: no product is made twice.

Training needs ``Delta^T H`` anyway. While a batch is watched the layer multiplies through a
function of our own, whose backward pass makes that product one group of rows at a time,

.. math:: W.grad = \sum_g \Delta_g^T H_g,

and adds each part to the sums of its domain: exact, and without a single extra product. The
price is additions, V d for each group of each batch, and memory, V d numbers for each domain
and half.

Parts are as precise as the gradients of training themselves: bfloat16 under such an autocast.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from rbkit.balance.watched import Watch, WatchedLayer, check_input, without_autocast
from rbkit.errors import InputError


class GroupedLayer(WatchedLayer):
    """A watched ``nn.Linear`` whose weight gradient is computed in parts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check()

    def _check(self) -> None:
        # A layer that computes its product its own way (quantised, low-rank) must keep doing so.
        if type(self.layer).forward is not nn.Linear.forward or "forward" in vars(self.layer):
            raise InputError(
                "layers",
                f"{type(self.layer).__name__} does not multiply as nn.Linear does, "
                "or another tracker is in its place",
                "use estimator='sketch' or 'exact'",
            )

    @contextmanager
    def watching(self, watch: Watch) -> Iterator[None]:
        """Watch the passes made inside: the layer multiplies through :class:`_Product`."""
        self._check()  # also that no other tracker has it now

        def forward(x: Tensor) -> Tensor:
            hidden = check_input((x,), watch.groups)
            kind = hidden.device.type
            weight, bias = self.layer.weight, self.layer.bias
            autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
            if autocast and hidden.dtype != torch.float64:
                dtype = torch.get_autocast_dtype(kind)
                hidden, weight = hidden.to(dtype), weight.to(dtype)
                bias = None if bias is None else bias.to(dtype)
            product: Tensor = _Product.apply(hidden, weight, bias, self, watch)  # type: ignore[no-untyped-call]
            return product

        self.layer.forward = forward
        try:
            yield
        finally:
            del self.layer.forward

    def hook(self) -> Any:
        """Do nothing: the layer is watched only inside :meth:`watching`."""
        return None

    def add_gradient(self, x: Tensor, delta: Tensor, watch: Watch, needed: bool) -> Tensor | None:
        """Add the parts of a batch; return their sum, the gradient of the weight, if `needed`."""
        rows, bounds = watch.groups.rows(len(delta) // max(1, watch.groups.size))
        whole = None
        if needed:
            dtype = torch.promote_types(delta.dtype, torch.float32)
            whole = delta.new_zeros((delta.shape[-1], x.shape[-1]), dtype=dtype)
            rest = torch.ones(len(delta), dtype=torch.bool, device="cpu")
            rest[rows] = False  # left out of all domains, but not of the gradient
            if rest.any():
                at = rest.nonzero()[:, 0].to(delta.device)
                whole += delta[at].mT @ x[at]
        with watch.own_work(delta.device):
            self.prepare(delta, x.shape[-1])
        for place, (first, last) in enumerate(pairwise(bounds)):
            at = torch.from_numpy(rows[first:last]).to(delta.device)
            if whole is not None:
                part = delta[at].mT @ x[at]
                whole += part
                self.additions += part.numel()
            with watch.own_work(delta.device):
                if whole is None:  # a frozen weight: this product is the tracker's
                    part = delta[at].mT @ x[at]
                    self.products += 2 * len(at) * part.numel()
                self.add_parts(watch.groups.keys[place : place + 1], part[None, None], watch.scale)
        return whole


class _Product(torch.autograd.Function):
    """``F.linear``, with the gradient of the weight in parts."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: GroupedLayer, watch: Watch
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.layer, ctx.watch = layer, watch
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_input, by_weight, by_bias = ctx.needs_input_grad[:3]
        with without_autocast(delta.device):
            of_input = delta @ weight if by_input else None
            delta = delta.reshape(-1, delta.shape[-1])
            x = x.reshape(-1, x.shape[-1])
            of_weight = ctx.layer.add_gradient(x, delta, ctx.watch, by_weight)
            if of_weight is not None:
                of_weight = of_weight.to(weight.dtype)
            of_bias = delta.sum(0) if by_bias else None
        return of_input, of_weight, of_bias, None, None
