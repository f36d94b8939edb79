r"""What a network is asked to minimise, and what it converges to: always log r(x) at the logit.

With f the logit, ŝ = 1/(1 + e⁻ᶠ), r̂ = eᶠ, y = 1 for events of the numerator and 0 for the
reference, and z what the simulator knows of an event (its latent variables):

- ``bce``: −y ln ŝ − (1 − y) ln(1 − ŝ), balanced between the classes (CARL; Cranmer et al.,
  arXiv:1506.02169).
- ``alice``: −s ln ŝ − (1 − s) ln(1 − ŝ), s(x,z) = 1/(1 + 1/r(x,z)): the same cross-entropy with
  the exact share in place of the class (Stoye et al., arXiv:1808.00973).
- ``rolr``: (1 − y)(r(x,z) − r̂)² + y(1/r(x,z) − 1/r̂)² (Brehmer et al., arXiv:1805.00020).

The last two need the joint ratio r(x,z) = p_numerator(x,z)/p_reference(x,z); their minimum is the
ratio of x alone, as the mean of r(x,z) over the reference at given x is r(x).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

#: Losses by name.
LOSSES = ("bce", "alice", "rolr")
_TINY = torch.finfo(torch.float32).tiny


def targets(loss: str, numerator: Tensor, joint_log_ratio: Tensor | None) -> Tensor:
    """[n] float32 that logits are compared with.

    Parameters
    ----------
    loss
        One of `LOSSES`.
    numerator
        [n] bool, whether an event is of the numerator.
    joint_log_ratio
        [n] ln r(x,z); not used by ``bce``.

    Returns
    -------
    Tensor
        The class for ``bce``, s(x,z) for ``alice``; for ``rolr`` r(x,z) of the reference's events
        and −1/r(x,z) of the numerator's: the sign tells the class.

    Raises
    ------
    ValueError
        The loss needs the joint ratio and there is none.
    """
    if loss == "bce":
        return numerator.float()
    if joint_log_ratio is None:
        raise ValueError(
            f"the loss {loss} needs the joint ratio of each event: give sample(…,"
            " joint_log_ratio=…), or take bce"
        )
    if loss == "alice":
        return joint_log_ratio.sigmoid().float()
    sign = torch.where(numerator, -1.0, 1.0)
    return sign * (sign * joint_log_ratio).exp().float().clamp_min(_TINY)  # 0 has no sign


def values(loss: str, logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each event, before weights; shapes as they come."""
    if loss == "rolr":
        return ((targets.sign() * logits).exp() - targets.abs()).square()
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def gradient_(loss: str, logits: Tensor, targets: Tensor) -> Tensor:
    """Replace logits by the gradient of `values` with respect to them."""
    if loss == "rolr":
        sign = targets.sign()
        ratio = (sign * logits).exp()
        return torch.mul((ratio * sign).sub_(targets), ratio.mul_(2), out=logits)
    return logits.sigmoid_().sub_(targets)
