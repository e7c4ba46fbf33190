"""Training passes that are written by hand because PyTorch's own are slow on a CPU.

The functions give the values and gradients of the operation that they replace, and none adds a
parameter. They are used in training only, so exported graphs do not contain them.
`mbv2det study training_speed` measures what they gain.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


class ReLU6Function(torch.autograd.Function):
    """ReLU6 that keeps its output for the backward pass, instead of its input.

    PyTorch's ReLU6 keeps the input. In place it therefore copies the input first; otherwise the
    output of the batch norm before it stays in memory for this alone.
    """

    @staticmethod
    def forward(ctx: Any, input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Returns the input, limited to 0..6."""
        output = F.hardtanh(input, 0.0, 6.0)
        ctx.save_for_backward(output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Returns the gradient of the input: zero where the output is 0 or 6."""
        (output,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grad_output, output, 0.0, 6.0)


class Float32BackwardFunction(torch.autograd.Function):
    """A convolution under autocast whose backward pass runs in float32."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Float[Tensor, "B C H W"],
        weight: Float[Tensor, "D c k l"],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
    ) -> Float[Tensor, "B D h w"]:
        """Convolves the input in the type of the autocast."""
        ctx.save_for_backward(input, weight)
        ctx.settings = stride, padding, dilation, groups
        return F.conv2d(input, weight, None, stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Float[Tensor, "B D h w"]) -> tuple[Tensor | None, ...]:
        """Returns the gradients of input and weight."""
        input, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad[:2]
        gradients = _float32_gradients(grad_output, input, weight, ctx.settings, needed)
        return *gradients, None, None, None, None


class FlippedKernelFunction(torch.autograd.Function):
    """A depthwise convolution that keeps the size, with two backward passes instead of a joint one.

    The gradient of its input is the convolution of the output's gradient with the kernel turned by
    180 degrees: the fast forward pass of oneDNN takes the place of its slow backward pass. The
    stride is 1, and the padding leaves the size as it is.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Float[Tensor, "B C H W"],
        weight: Float[Tensor, "C 1 k l"],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        float32_weights: bool,
    ) -> Float[Tensor, "B C H W"]:
        """Convolves the input in the type of the autocast.

        Args:
            ctx: Context of autograd.
            input: Input of the convolution.
            weight: Its kernels, of odd height and width.
            padding: Rows and columns that are added on either side.
            dilation: Dilation of the kernel.
            float32_weights: Whether the gradient of the weights is computed in float32.
        """
        ctx.save_for_backward(input, weight)
        ctx.settings = (1, 1), padding, dilation, len(weight)
        ctx.float32_weights = float32_weights
        return F.conv2d(input, weight, None, *ctx.settings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Float[Tensor, "B C H W"]) -> tuple[Tensor | None, ...]:
        """Returns the gradients of input and weight."""
        input, weight = ctx.saved_tensors
        settings, kernel = ctx.settings, weight.to(grad_output.dtype)
        grad_input = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_input = F.conv2d(grad_output, kernel.flip(2, 3), None, *settings).to(input.dtype)
        if ctx.needs_input_grad[1] and ctx.float32_weights:
            _, grad_weight = _float32_gradients(grad_output, input, weight, settings, (False, True))
        elif ctx.needs_input_grad[1]:
            input = input.to(grad_output.dtype)
            _, grad_weight = _gradients(grad_output, input, kernel, settings, (False, True))
            assert grad_weight is not None
            grad_weight = grad_weight.to(weight.dtype)
        return grad_input, grad_weight, None, None, None


_Settings = tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]
"""Stride, padding, dilation and groups of a convolution, as PyTorch's functions take them."""


def _float32_gradients(
    grad_output: Float[Tensor, "B D h w"],
    input: Float[Tensor, "B C H W"],
    weight: Float[Tensor, "D c k l"],
    settings: _Settings,
    needed: tuple[bool, bool],
) -> tuple[Float[Tensor, "B C H W"] | None, Float[Tensor, "D c k l"] | None]:
    """Returns the gradients of input and weight that are needed, in float32, image by image.

    One image at a time stays in the processor's cache, where the float32 copy of a whole batch does
    not.
    """
    grad_input = torch.empty_like(input) if needed[0] else None
    grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needed[1] else None
    kernel = weight.float()
    for index in range(len(input)):
        image = slice(index, index + 1)
        of_image, of_kernel = _gradients(
            grad_output[image].float(), input[image].float(), kernel, settings, needed
        )  # fmt: skip
        if grad_input is not None and of_image is not None:
            grad_input[image] = of_image
        if grad_weight is not None and of_kernel is not None:
            grad_weight += of_kernel
    return grad_input, None if grad_weight is None else grad_weight.to(weight.dtype)


def _gradients(
    grad_output: Float[Tensor, "B D h w"],
    input: Float[Tensor, "B C H W"],
    weight: Float[Tensor, "D c k l"],
    settings: _Settings,
    needed: tuple[bool, bool],
) -> tuple[Float[Tensor, "B C H W"] | None, Float[Tensor, "D c k l"] | None]:
    """Returns the gradients of input and weight by PyTorch, those that are needed."""
    stride, padding, dilation, groups = settings
    of_input, of_weight, _ = torch.ops.aten.convolution_backward(
        grad_output, input, weight, None, stride, padding, dilation, False, (0, 0), groups,
        (*needed, False),
    )  # fmt: skip
    return of_input, of_weight
