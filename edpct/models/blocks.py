"""Building blocks of DP-CTNet: convolutions with batch norm, residual blocks, attention over tokens.

Written so that torch-pruning can follow every width: attention works on tokens (B, N, C) with one fused Linear for keys
and values, and no forward pass holds a channel count as a constant. Only operators that TensorRT has are used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, batch norm, ReLU: (B, Cin, H, W) to (B, Cout, H / stride, W / stride)."""

    def __init__(self, cin: int, cout: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(cout),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Basic residual block (He et al. 2016) at constant width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvBNReLU(width, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.conv2(self.conv1(x))))


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, height * width, C) to (B, C, height, width)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, height, width)


class HeadedAttention(nn.Module):
    """Multi-head attention whose head dim follows from its weights, so that every head may be narrowed alike.

    Attributes:
        heads: number of heads; pruning keeps it.
    """

    heads: int

    def headed(self) -> dict[nn.Linear, int]:
        """The Linears whose outputs are split into heads, with the number of heads."""
        raise NotImplementedError


class Attention(HeadedAttention):
    """Multi-head self-attention with keys and values pooled by ``reduction`` (as PVT v2, Wang et al. 2022).

    Softmax is explicit and the head dim comes from the weights: ``F.scaled_dot_product_attention`` hides the widths
    from the pruner's graph.
    """

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.reduction = reduction
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def headed(self) -> dict[nn.Linear, int]:
        return {self.q: self.heads, self.kv: self.heads}

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        batch, count, _ = tokens.shape
        source = tokens
        if self.reduction > 1:
            source = to_tokens(F.avg_pool2d(to_map(tokens, height, width), self.reduction))
        q = self.q(tokens).reshape(batch, count, self.heads, -1).transpose(1, 2)
        kv = self.kv(source).reshape(batch, source.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        k, v = kv.unbind(0)
        # The scale goes on q before the product: in FP16 the unscaled product overflows first.
        weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, count, -1))


class TransformerBlock(nn.Module):
    """Pre-norm transformer block (attention, then MLP) over tokens (B, N, C).

    Attributes:
        drop: chance, while training, that a sample skips attention or MLP (stochastic depth, Huang et al. 2016).
    """

    def __init__(self, width: int, heads: int, reduction: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, mlp_ratio * width)
        self.fc2 = nn.Linear(mlp_ratio * width, width)
        self.drop = 0.0

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        tokens = tokens + self._perhaps(self.attention(self.norm1(tokens), height, width))
        return tokens + self._perhaps(self.fc2(F.gelu(self.fc1(self.norm2(tokens)))))

    def _perhaps(self, change: Tensor) -> Tensor:
        if not self.training or not self.drop:
            return change
        # As torchvision.ops.stochastic_depth draws it; importing that takes longer than importing torch.
        return change * F.dropout(change.new_ones(len(change), 1, 1), self.drop)


class TransformerStage(nn.Module):
    """Overlapping patch embedding of stride 2, positions from a depthwise convolution, then transformer blocks.

    (B, Cin, H, W) to (B, width, H / 2, W / 2). The convolution gives positions at any image size (CPVT, Chu et al.).
    """

    def __init__(self, cin: int, width: int, heads: int, reduction: int, mlp_ratio: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(cin, width, 3, 2, 1)
        self.positions = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, reduction, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.positions(x)
        height, width = x.shape[-2:]
        tokens = to_tokens(x)
        for block in self.blocks:
            tokens = block(tokens, height, width)
        return to_map(self.norm(tokens), height, width)


class ChannelGate(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018): weighs the channels of (B, C, H, W) by their global mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(width // 4, 8)
        self.squeeze = nn.Conv2d(width, hidden, 1)
        self.excite = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(pooled))))


class ChannelScale(nn.Conv2d):
    """A learnt factor for each channel of (B, C, H, W) (LayerScale, Touvron et al. 2021).

    A depthwise 1x1 convolution, which pruning and quantisation know.

    Args:
        start: the factors at first.
    """

    def __init__(self, width: int, start: float) -> None:
        super().__init__(width, width, 1, groups=width, bias=False)
        nn.init.constant_(self.weight, start)


def upsample(x: Tensor, factor: int) -> Tensor:
    """Bilinear upsampling of (B, C, H, W) by a whole factor, half-pixel centres."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
