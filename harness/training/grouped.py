"""Products of sorted rows with the experts of two tensors, the frozen one and the bank, without asking the device.

How many rows go to the bank is known on the device only. Slicing there would make the host wait in every layer, so
that number is read on a CPU alone: rows of banked experts come first, there are at most `capacity` of them, and
everything between the true number and the capacity is masked. The grouped product of torch leaves rows behind its
last group alone, on whichever device, so the bank's product costs what its own rows cost. The frozen product does run
over the bank's rows too, as the first rows of its expert 0, and their results are overwritten: the share of tokens
that are routed to the bank is computed twice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable


class Order(NamedTuple):
    """Tokens sorted by expert, banked experts before frozen ones; S = N k rows."""

    order: torch.Tensor  # [S], which (token, choice) each row holds
    back: torch.Tensor  # [S], the row of each (token, choice)
    group: torch.Tensor  # [S], sorted: B banked experts, then E frozen ones
    ends: torch.Tensor  # [B + E], int32, where each group ends
    banked: torch.Tensor  # [C, 1], whether one of the first C rows is the bank's


def sort_rows(top_k_index: torch.Tensor, group: torch.Tensor, n_banked: int) -> Order:
    """Sort the (token, choice) pairs of [N, k] chosen experts by their group.

    Args:
        top_k_index: chosen experts, [N, k].
        group: of each expert, [E]; below `n_banked` for those of the bank, from there on for the others.
        n_banked: B, experts of the bank.
    """
    n_tokens, k = top_k_index.shape
    sorted_group, order = torch.sort(group[top_k_index.reshape(-1)], stable=True)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    groups = torch.arange(n_banked + len(group), device=group.device)
    ends = torch.searchsorted(sorted_group, groups, right=True, out_int32=True)
    # A token chooses an expert once, so that B experts get at most N min(k, B) rows. Asserted on the device: a router
    # that repeats itself must not lose rows in silence.
    capacity = n_tokens * min(k, n_banked)
    torch._assert_async(ends[n_banked - 1] <= capacity, "a token was routed to the same expert twice")
    if _is_read_for_free(ends):
        # Spares copies of rows that are not the bank's.
        capacity = max(1, int(ends[n_banked - 1]))
    banked = (sorted_group[:capacity] < n_banked).unsqueeze(-1)
    return Order(order, back, sorted_group, ends, banked)


def _is_read_for_free(values: torch.Tensor) -> bool:
    return values.device.type == "cpu"


def linear(
    rows: torch.Tensor, frozen: torch.Tensor, banked: torch.Tensor, order: Order, *, transposed: bool
) -> torch.Tensor:
    """Multiply each row with its expert's matrix, [S, in] to [S, out].

    Args:
        rows: [S, in], in the order of `order`.
        frozen: [E, out, in] ([E, in, out] if transposed); never gets a gradient.
        banked: the same for the experts of the bank, [B, ...], in the same dtype.
        order: how the rows are sorted.
        transposed: how a matrix is stored.
    """
    rows = rows.to(frozen.dtype)
    if len(banked) == len(frozen):
        return _product(rows, banked, order.ends[: len(banked)], transposed)
    return _applied(_Linear, rows, frozen, banked, order.ends, order.banked, transposed)


def _product(rows: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor, transposed: bool) -> torch.Tensor:
    from transformers.integrations.moe import _grouped_linear

    out: torch.Tensor = _grouped_linear(rows, weight, ends, is_transposed=transposed)
    return out


def _outer(left: torch.Tensor, right: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Return left^T right of each group of rows, [S, M] and [S, N] to [groups, M, N]."""
    from transformers.integrations.moe import _can_use_grouped_mm

    if _can_use_grouped_mm(left, right, ends):
        # Public from torch 2.10 on.
        grouped_mm = getattr(torch.nn.functional, "grouped_mm", None) or torch._grouped_mm
        product: torch.Tensor = grouped_mm(left.t(), right, offs=ends)
        return product
    out = left.new_zeros(len(ends), left.shape[1], right.shape[1])
    start = 0
    for place, end in enumerate(ends.tolist()):
        torch.mm(left[start:end].t(), right[start:end], out=out[place])
        start = end
    return out


class _Linear(torch.autograd.Function):
    """`linear` with a gradient for the rows and the bank, and no work for the frozen tensor's."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,
        frozen: torch.Tensor,
        bank: torch.Tensor,
        ends: torch.Tensor,
        banked: torch.Tensor,
        transposed: bool,
    ) -> torch.Tensor:
        first = rows[: len(banked)]
        out = _product(rows, frozen, ends[len(bank) :], transposed)
        own = _product(first, bank, ends[: len(bank)], transposed)
        torch.where(banked, own, out[: len(banked)], out=out[: len(banked)])
        # A copy, so that what is kept for the bank's gradient is not all rows.
        ctx.save_for_backward(first.clone() if len(first) < len(rows) else first, frozen, bank, ends, banked)
        ctx.transposed = transposed
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        first, frozen, bank, ends, banked = ctx.saved_tensors
        grad = grad.contiguous()
        own_grad = grad[: len(banked)]
        grad_rows = grad_bank = None
        if ctx.needs_input_grad[0]:
            grad_rows = _product(grad, frozen, ends[len(bank) :], not ctx.transposed)
            own = _product(own_grad, bank, ends[: len(bank)], not ctx.transposed)
            torch.where(banked, own, grad_rows[: len(banked)], out=grad_rows[: len(banked)])
        if ctx.needs_input_grad[2]:
            left, right = (first, own_grad) if ctx.transposed else (own_grad, first)
            grad_bank = _outer(left, right, ends[: len(bank)])
        return grad_rows, None, grad_bank, None, None, None


class _Take(torch.autograd.Function):
    """Rows by index, each of which is taken k times; `back` has their places, [N k]."""

    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, index: torch.Tensor, back: torch.Tensor, k: int
    ) -> torch.Tensor:
        ctx.save_for_backward(back)
        ctx.k = k
        return values[index]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (back,) = ctx.saved_tensors
        taken = grad[back]
        return taken.unflatten(0, (-1, ctx.k)).sum(dim=1) if ctx.k > 1 else taken, None, None, None


# Functions of their own: the gradient of plain indexing sorts the indices, or adds in an order that changes from run
# to run, since it cannot know that each row is taken a given number of times.
def spread(hidden: torch.Tensor, order: Order, k: int) -> torch.Tensor:
    """Give each row its token's hidden state, [N, H] to [S, H]."""
    return _applied(_Take, hidden, order.order // k, order.back, k)


def into_order(values: torch.Tensor, order: Order) -> torch.Tensor:
    """Sort one value or row for each (token, choice), [S, ...]."""
    return _applied(_Take, values, order.order, order.back, 1)


def out_of_order(rows: torch.Tensor, order: Order) -> torch.Tensor:
    """Put sorted rows back to their tokens, [S, ...]."""
    return _applied(_Take, rows, order.back, order.order, 1)


def _applied(function: Any, *arguments: Any) -> torch.Tensor:
    out: torch.Tensor = function.apply(*arguments)
    return out
