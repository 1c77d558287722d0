"""The small digits that scikit-learn carries."""

from __future__ import annotations

import torch

from privet.data.examples import Examples

__all__ = ["digits"]


def digits() -> Examples:
    """The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn.

    The 17 grey levels 0 ... 16 become x / 16.

    Returns:
        Images (1797, 1, 8, 8) in [0, 1], ten classes.

    Example:
        >>> digits()
        Examples(1797 of shape (1, 8, 8), 10 classes, from the digits of scikit-learn)

    References:
        Alpaydin and Kaynak (1998), Optical recognition of handwritten digits, UCI machine learning repository.
    """
    from sklearn.datasets import load_digits  # here, because it takes longer to import than all of this room

    bundle = load_digits()
    inputs = torch.as_tensor(bundle.images, dtype=torch.float32).div(16).unsqueeze(1)  # (N, 1, 8, 8)
    labels = torch.as_tensor(bundle.target, dtype=torch.int64)
    return Examples(inputs, labels, tuple("0123456789"), "the digits of scikit-learn")
