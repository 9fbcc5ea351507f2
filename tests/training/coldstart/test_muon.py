import pytest
import torch

from ponder.training.coldstart.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(3, 8, 24), (2, 24, 8), (1, 8, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_an_update_is_that_of_torch() -> None:
    """To what bfloat16 leaves of it."""
    torch.manual_seed(0)
    start = [torch.randn(16, 48), torch.randn(48, 16), torch.randn(16, 48)]
    ours, theirs = ([torch.nn.Parameter(m.clone()) for m in start] for _ in range(2))
    optimizers = (
        (Muon(ours, lr=0.1), ours),
        (torch.optim.Muon(theirs, lr=0.1, momentum=0.95, weight_decay=0.0), theirs),
    )
    for _ in range(3):
        grads = [torch.randn_like(matrix) for matrix in start]
        for optimizer, matrices in optimizers:
            for matrix, grad in zip(matrices, grads, strict=True):
                matrix.grad = grad.clone()
            optimizer.step()
    for one, two, before in zip(ours, theirs, start, strict=True):
        moved = (two - before).norm()
        assert (one - two).norm() < 0.1 * moved
