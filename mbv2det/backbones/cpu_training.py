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
    """A convolution under autocast whose backward pass runs in float32, image by image.

    One image at a time stays in the processor's cache, where the float32 copy of a whole batch does
    not.
    """

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
        stride, padding, dilation, groups = ctx.settings
        needed = [*ctx.needs_input_grad[:2], False]
        grad_input = torch.empty_like(input) if needed[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needed[1] else None
        for index in range(len(input)):
            image = slice(index, index + 1)
            of_input, of_weight, _ = torch.ops.aten.convolution_backward(
                grad_output[image].float(), input[image].float(), weight.float(), None,
                stride, padding, dilation, False, (0, 0), groups, needed,
            )  # fmt: skip
            if grad_input is not None:
                grad_input[image] = of_input
            if grad_weight is not None:
                grad_weight += of_weight
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype)
        return grad_input, grad_weight, None, None, None, None


class FlippedKernelFunction(torch.autograd.Function):
    """A depthwise convolution that keeps the size, with two backward passes instead of a joint one.

    The gradient of its input is the convolution of the output's gradient with the kernel turned by
    180 degrees: the fast forward pass of oneDNN takes the place of its backward pass, which in
    bfloat16 takes twice as long. Stride and dilation are 1, and an odd kernel is padded by half of
    its size.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Float[Tensor, "B C H W"],
        weight: Float[Tensor, "C 1 k k"],
        padding: tuple[int, int],
    ) -> Float[Tensor, "B C H W"]:
        """Convolves the input in the type of the autocast."""
        ctx.save_for_backward(input, weight)
        ctx.padding = padding
        return F.conv2d(input, weight, None, 1, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Float[Tensor, "B C H W"]) -> tuple[Tensor | None, ...]:
        """Returns the gradients of input and weight."""
        input, weight = ctx.saved_tensors
        kernel, groups = weight.to(grad_output.dtype), len(weight)
        grad_input = grad_weight = None
        if ctx.needs_input_grad[0]:
            turned = kernel.flip(2, 3)
            grad_input = F.conv2d(grad_output, turned, None, 1, ctx.padding, 1, groups)
            grad_input = grad_input.to(input.dtype)
        if ctx.needs_input_grad[1]:
            _, grad_weight, _ = torch.ops.aten.convolution_backward(
                grad_output, input.to(grad_output.dtype), kernel, None, (1, 1), ctx.padding, (1, 1),
                False, (0, 0), groups, [False, True, False],
            )  # fmt: skip
            grad_weight = grad_weight.to(weight.dtype)
        return grad_input, grad_weight, None
