"""Private language models of characters, a transformer and an LSTM; a good minute on two cores.

Trains both on passages of 64 characters of Python's own help texts, which come with Python, and prints how many bits a
character of other passages takes, before and after. A record is a passage: what one of them says is protected, not what
all of them say.
"""

from __future__ import annotations

import math
import string
from functools import partial
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privet import accounting, dp

LENGTH, EPOCHS, BATCH, EPSILON, DELTA = 64, 10, 256, 8.0, 1e-5


class Transformer(nn.Module):
    """Two blocks of PyTorch's own layers; the table of characters is the last layer, too."""

    def __init__(self, characters: int, width: int = 64) -> None:
        super().__init__()
        self.characters = nn.Embedding(characters, width)
        self.positions = dp.Expand(0.02 * torch.randn(LENGTH, width))  # a bare parameter, given once for each passage
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, characters)
        nn.init.normal_(self.characters.weight, std=0.05)
        self.out.weight = self.characters.weight

    def forward(self, passages: Tensor) -> Tensor:  # (B, T) -> (B, T, characters)
        earlier = nn.Transformer.generate_square_subsequent_mask(passages.shape[1])
        hidden = self.characters(passages) + self.positions(passages)
        logits: Tensor = self.out(self.norm(self.blocks(hidden, mask=earlier, is_causal=True)))
        return logits


class Recurrent(nn.Module):
    """A table, an LSTM, a last layer."""

    def __init__(self, characters: int, width: int = 96) -> None:
        super().__init__()
        self.characters, self.lstm = nn.Embedding(characters, width), nn.LSTM(width, width, batch_first=True)
        self.out = nn.Linear(width, characters)

    def forward(self, passages: Tensor) -> Tensor:  # (B, T) -> (B, T, characters)
        logits: Tensor = self.out(self.lstm(self.characters(passages))[0])
        return logits


def losses(model: nn.Module, passages: Tensor) -> Tensor:
    """In nats a character, of each passage (B,): the mean is over its characters, never over passages."""
    logits, following = model(passages[:, :-1]), passages[:, 1:]
    each = F.cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="none")
    return each.view(following.shape).mean(dim=1)


def bits(model: nn.Module, passages: Tensor) -> float:
    """A character, on average."""
    model.eval()
    with torch.no_grad():
        nats = torch.cat([losses(model, part) for part in torch.split(passages, 512)]).mean()
    model.train()
    return float(nats) / math.log(2)


def main() -> None:
    text = "\n".join(topics.values())
    alphabet = string.printable  # fixed: which characters the passages have is private, too
    numbers = torch.tensor([max(alphabet.find(letter), 0) for letter in text])
    count = len(numbers) // (LENGTH + 1)
    passages = numbers[: count * (LENGTH + 1)].view(count, LENGTH + 1)
    passages = passages[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    private, held_out = passages[:-500], passages[-500:]
    plan = dp.Plan(
        dataset_size=len(private),
        expected_batch_size=BATCH,
        epochs=EPOCHS,
        delta=DELTA,
        noise=1.0,
        target_epsilon=EPSILON,
    )
    shares = torch.bincount(held_out.flatten()).float() / held_out.numel()
    alone = -float(shares.clamp_min(1e-9).log2() @ shares)
    print(f"{len(private):,} passages, {plan.total_steps} steps; {alone:.2f} bits by how frequent each character is")
    torch.manual_seed(0)
    models: tuple[nn.Module, ...] = (Transformer(len(alphabet)), Recurrent(len(alphabet)))
    for model in models:
        before = bits(model, held_out)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        # A ledger each, to compare. Who publishes both keeps them on one ledger, and epsilon adds up.
        ledger = accounting.Ledger.in_memory(plan.relation, plan.unit)
        with dp.make_private(model, plan, ledger=ledger) as training:
            for batch in training.batches(private):
                training.backward(partial(losses, model), batch)
                optimizer.step()
            spent = training.spent()
        print(
            f"{type(model).__name__}: {before:.2f} bits a character before, {bits(model, held_out):.2f} after; {spent}"
        )


if __name__ == "__main__":
    main()
