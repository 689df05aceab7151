"""Matrix products in 8-bit floating point: twice the speed of bfloat16 on GPUs that have it.

Each tensor is scaled by a power of two, so that its largest number just fits. What goes forward is
e4m3 (three bits of mantissa), gradients are e5m2 (a wider range); sums are kept in float32.

Shape letters used in this file: N rows of data, I numbers that go in, O numbers that come out.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from imprint.errors import ConfigError

STEP = 16
"""Sides of a matrix have to be multiples of this."""
CAPABILITY = (8, 9)
"""The first GPUs that have it: Ada; then Hopper and Blackwell."""


def refuse(device: torch.device) -> None:
    """Do nothing if ``device`` multiplies float8.

    Raises:
        ConfigError: It does not.
    """
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= CAPABILITY:
            return
        name = torch.cuda.get_device_name(device)
    else:
        name = f"a {device.type}"
    raise ConfigError(
        f"precision: float8 needs a GPU such as L40S, H100 or newer, this is {name}. "
        "Set precision to auto."
    )


def linear(x: Tensor, weight_OI: Tensor, *, eight: bool) -> Tensor:
    """Return ``x @ weight_OI.T``; both have one number type."""
    if eight:
        return _Linear.apply(x, weight_OI)  # type: ignore[no-any-return, no-untyped-call]
    return functional.linear(x, weight_OI)


def product(x: Tensor, weight_OI: Tensor, *, eight: bool) -> Tensor:
    """Return ``x @ weight_OI.T``, not to be differentiated; the last axis of ``x`` is I."""
    x_NI = x.flatten(0, -2)
    if not eight or len(x_NI) % STEP:
        return functional.linear(x, weight_OI)
    small_NI, scale_x = _small(x_NI, torch.float8_e4m3fn)
    small_OI, scale_w = _small(weight_OI, torch.float8_e4m3fn)
    out_NO: Tensor = torch._scaled_mm(
        small_NI,
        small_OI.T,
        scale_a=scale_x,
        scale_b=scale_w,
        out_dtype=x.dtype,
        use_fast_accum=True,
    )
    return out_NO.view(*x.shape[:-1], len(weight_OI))


def product_grads(
    grad: Tensor, x: Tensor, weight_OI: Tensor, *, eight: bool
) -> tuple[Tensor, Tensor]:
    """Return derivatives of ``product`` by ``x`` and by the weight, from that by its result."""
    grad_NO, x_NI = grad.flatten(0, -2), x.flatten(0, -2)
    if not eight or len(x_NI) % STEP:
        return grad @ weight_OI, grad_NO.T @ x_NI
    small_NO, scale_g = _small(grad_NO, torch.float8_e5m2)
    small_NI, scale_x = _small(x_NI, torch.float8_e4m3fn)
    small_OI, scale_w = _small(weight_OI, torch.float8_e4m3fn)
    # the second matrix has to lie column by column
    grad_NI = torch._scaled_mm(
        small_NO,
        small_OI.T.contiguous().T,
        scale_a=scale_g,
        scale_b=scale_w,
        out_dtype=x.dtype,
    )
    grad_OI = torch._scaled_mm(
        small_NO.T.contiguous(),
        small_NI.T.contiguous().T,
        scale_a=scale_g,
        scale_b=scale_x,
        out_dtype=x.dtype,
    )
    return grad_NI.view(x.shape), grad_OI


def _small(x: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return ``x`` as ``kind``, and what its numbers have to be multiplied by."""
    most = torch.finfo(kind).max
    scale = x.abs().amax().float().clamp(min=1e-12) / most
    scale = torch.exp2(torch.ceil(torch.log2(scale)))  # a power of two: to scale rounds nothing
    return (x.float() / scale).clamp(-most, most).to(kind), scale


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, eight=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return product_grads(grads[0], x, weight, eight=True)
