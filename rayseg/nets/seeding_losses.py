"""The two losses of DSRG: a segmenter on sparse seeds, held to the boundaries of a CRF.

Huang et al., *Weakly-Supervised Semantic Segmentation Network with Deep Seeded Region Growing*,
CVPR 2018; dissertation Eq. 2.3 and 2.4. H are the network's probabilities, Q what a CRF makes of
them, S_c the cells that are seeds of class c, u a cell.

The constants are those of the authors' code, METHODS 8. Its custom layers give what automatic
differentiation gives here: the layer of the CRF passes (1 - Q) times the gradient of log Q on to
log H, which is that over H for H itself.
"""

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional

from rayseg.records import BACKGROUND, IGNORE

LEAST = 1e-4
"""What is added to each probability before they are divided by their sum."""
RATIOS = (0.05, 20.0)
"""Q / H is cut off at these."""


def log_probabilities(logits: Float[Tensor, "n l h w"]) -> Float[Tensor, "n l h w"]:
    """Log H: of the softmax plus 1e-4, divided by its new sum; float32 or more."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return ((logits.softmax(1) + LEAST) / (1 + LEAST * logits.shape[1])).log()


def seed_loss(
    log_probabilities: Float[Tensor, "n l h w"], seeds: Integer[Tensor, "n h w"]
) -> Float[Tensor, " n"]:
    """-log H at the seeds, the mean over background's plus the mean over foreground's (Eq. 2.3).

    Args:
        log_probabilities: log H.
        seeds: 0 background, class index + 1, 255 no seed.

    Returns:
        One value an image; a part without seeds is 0.
    """
    seeds = seeds.long()
    losses = functional.nll_loss(log_probabilities, seeds, ignore_index=IGNORE, reduction="none")
    background = seeds == BACKGROUND
    foreground = ~background & (seeds != IGNORE)
    means = [
        (losses * part).sum((1, 2)) / part.sum((1, 2)).clamp(min=1)
        for part in (background, foreground)
    ]
    return means[0] + means[1]


def boundary_loss(
    log_probabilities: Float[Tensor, "n l h w"],
    refined: Float[Tensor, "n l h w"],
    seeds: Integer[Tensor, "n h w"] | None = None,
    through_crf: bool = True,
) -> Float[Tensor, " n"]:
    """The divergence of H from Q, sum_c Q log(Q / H) with the ratio cut off at .05 and 20.

    Args:
        log_probabilities: log H.
        refined: Q, no gradient is taken of it by itself.
        seeds: None takes the mean over all cells, as the authors' code. Seeds take Eq. 2.4 to the
            letter: the sum over the cells u of S_c of class c's own term, c being foreground.
        through_crf: Q follows H, by the gradient that the authors' code gives its CRF; else Q is
            held.

    Returns:
        One value an image.
    """
    if through_crf:
        refined = _Refined.apply(log_probabilities, refined)
    # what is cut off has no gradient but by Q in front
    ratios = (refined.clamp(min=torch.finfo(refined.dtype).tiny).log() - log_probabilities).exp()
    terms = refined * ratios.clamp(*RATIOS).log()  # (n, l, h, w)
    if seeds is None:
        return terms.sum(1).mean((1, 2))
    chosen = (seeds != BACKGROUND) & (seeds != IGNORE)
    own = terms.gather(1, (seeds.long() * chosen)[:, None])[:, 0]
    return (own * chosen).sum((1, 2))


class _Refined(torch.autograd.Function):
    """Q as a function of log H whose gradient is (1 - Q) of that of log Q."""

    @staticmethod
    def forward(ctx: Any, log_probabilities: Tensor, refined: Tensor) -> Tensor:
        ctx.save_for_backward(refined)
        return refined.to(log_probabilities.dtype, copy=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (refined,) = ctx.saved_tensors
        # gradient is that of Q; that of log Q is Q times as large
        return (1 - refined) * refined * gradient, None
