"""Features of a teacher as a lesson: what a student's fused features should be alike to.

The networks differ in kind and width, so features cannot be compared one by one. Two ways round
that: `projection` learns a linear map from the student's features to the teacher's, which exists
in training only; `relation` compares which rows of a batch are alike (linear CKA: Kornblith et al.
2019, Similarity of Neural Network Representations Revisited), and needs no map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.training.recipe import Hint


class HintLoss(nn.Module):
    """Distance of a batch's features to the teacher's, 0 to 1 (`projection`: to 2).

    Args:
        kind: `projection` or `relation`.
        width: features of the student.
        target: (copies, n, width of the teacher) its features of the whole bank.
    """

    mean: Tensor

    def __init__(self, kind: Hint, width: int, target: Tensor) -> None:
        super().__init__()
        # What all rows have in common says nothing; float16 would overflow in the sum.
        self.register_buffer("mean", target.float().mean((0, 1)))
        self.map = nn.Linear(width, target.shape[2]) if kind == "projection" else None

    def forward(self, student: Tensor, target: Tensor) -> Tensor:
        """student: (batch, width) or a map (batch, width, ...); target: (batch, its width)."""
        ours, theirs = student.flatten(2).mean(2) if student.ndim > 2 else student, target.float()
        theirs = theirs - self.mean
        if self.map is not None:
            return 1 - F.cosine_similarity(self.map(ours), theirs).mean()
        return 1 - alignment(ours, theirs)


def alignment(a: Tensor, b: Tensor) -> Tensor:
    """Linear CKA of (n, p) and (n, q): 1 for features that differ by rotation and scale only."""
    a, b = a - a.mean(0), b - b.mean(0)
    both: Tensor = torch.linalg.matrix_norm(b.T @ a).square()
    size: Tensor = torch.linalg.matrix_norm(a.T @ a) * torch.linalg.matrix_norm(b.T @ b)
    return both / (size + 1e-8)
