"""The networks of the benchmark of private training that the library has no need of itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ResNet18GN", "SmallGPT", "TextLSTM"]


class ResNet18GN(nn.Module):
    """ResNet-18 for images of 3 x 32 x 32, with group normalization: four stages of two blocks, 64 to 512 channels."""

    def __init__(self, classes: int = 10, groups: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(groups, 64)
        blocks: list[nn.Module] = []
        before = 64
        for stage, width in enumerate((64, 128, 256, 512)):
            blocks += [_Residual(before, width, groups, 1 if stage == 0 else 2), _Residual(width, width, groups, 1)]
            before = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(before, classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.blocks(functional.relu(self.norm(self.conv(images))))  # (B, 512, 4, 4)
        logits: Tensor = self.head(self.pool(hidden).flatten(1))
        return logits


class _Residual(nn.Module):
    def __init__(self, before: int, after: int, groups: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            shrink = nn.Conv2d(before, after, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(shrink, nn.GroupNorm(groups, after))

    def forward(self, inputs: Tensor) -> Tensor:
        inner = functional.relu(self.norm1(self.conv1(inputs)))
        return functional.relu(self.norm2(self.conv2(inner)) + self.shortcut(inputs))


class SmallGPT(nn.Module):
    """A decoder of pre-normalized blocks; tokens (B, T) -> logits (B, T, vocabulary), the head tied if asked for."""

    def __init__(
        self,
        vocabulary: int = 1000,
        length: int = 128,
        width: int = 256,
        layers: int = 4,
        heads: int = 4,
        *,
        tied: bool = False,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(_Decoder(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            nn.init.normal_(self.tokens.weight, std=0.02)  # as a head; a table's usual 1 would make logits of 16
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        # With a batch axis, which per-example gradients need; contiguous, as ghost clipping of Opacus asks.
        places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens).contiguous()  # (B, T)
        hidden = self.tokens(tokens) + self.positions(places)
        logits: Tensor = self.head(self.norm(self.blocks(hidden)))
        return logits


class TextLSTM(nn.Module):
    """A table of words, one recurrent layer, and the class by its last output; tokens (B, T) -> logits (B, classes).

    Args:
        recurrent: nn.LSTM, or what stands for it elsewhere.
    """

    def __init__(
        self,
        recurrent: Callable[..., nn.Module] = nn.LSTM,
        vocabulary: int = 10_000,
        width: int = 128,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.recurrent = recurrent(width, width, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        outputs, _ = self.recurrent(self.tokens(tokens))  # (B, T, width)
        logits: Tensor = self.head(outputs[:, -1])
        return logits


class _Decoder(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        parts = self.qkv(self.norm1(hidden)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)  # (B, heads, T, .)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.out(mixed.transpose(1, 2).flatten(2))
        after: Tensor = hidden + self.down(functional.gelu(self.up(self.norm2(hidden))))
        return after
