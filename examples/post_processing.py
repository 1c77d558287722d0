"""What each output defense lets out of one and the same network.

Trains a linear network on scikit-learn's handwritten digits (1,797 images of 8 x 8) and prints, for one test image that
it did not see, in this order: the origin network's output (ten logits), the probabilities rounded to 2 decimals, the
label, and the 3 highest probabilities with their classes. Runs in a few seconds on a CPU.

The defenses minimise output; they carry no formal guarantee.
"""

from __future__ import annotations

import torch
from torch import nn

from privet import data, models, outputs, training


def train(inputs: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    network = models.LinearNet(64, 10, seed=0)
    training.fit(network, (inputs, labels), epochs=20, batch_size=64, learning_rate=0.01, seed=0, progress=False)
    return network.eval()


def main() -> None:
    digits = data.digits()
    network = train(digits.inputs[:1500], digits.labels[:1500])
    image = digits.inputs[1500:1501]  # (1, 1, 8, 8)

    rounding = outputs.Rounding(network, decimals=2)
    with torch.no_grad():
        print("origin output:", rounding.origin_network()(image))
    print("rounded to 2 decimals:", rounding(image))
    print("label:", outputs.Labeling(network)(image))
    top = outputs.TopK(network, k=3)(image)
    print("top 3, values:", top.values)
    print("top 3, indices:", top.indices)


if __name__ == "__main__":
    main()
