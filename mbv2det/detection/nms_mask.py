"""Non-maximum suppression with a result of fixed size: the operator `mbv2det::nms_mask`.

The usual operator returns as many indices as it keeps, which neither a batch of images nor a file
with results of a fixed size can hold. This one marks what is kept. In PyTorch it calls
torchvision's; a format with an operator of its own translates it.
"""

import torch
from torch import Tensor
from torchvision.ops import batched_nms

NMS_MASK = "mbv2det::nms_mask"


@torch.library.custom_op(NMS_MASK, mutates_args=())
def nms_mask(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Returns which boxes of each class are kept, (B, K, N) of bool.

    Args:
        boxes: (B, N, 4) xyxy boxes of each image.
        scores: (B, K, N) score of each box for each class; boxes of score 0 are never kept.
        iou: Intersection over union with a better box of the class above which a box is dropped.
    """
    image, label, box = (scores > 0).nonzero(as_tuple=True)
    group = image * scores.shape[1] + label
    kept = batched_nms(boxes[image, box], scores[image, label, box], group, iou)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask[image[kept], label[kept], box[kept]] = True
    return mask


@nms_mask.register_fake
def _(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)
