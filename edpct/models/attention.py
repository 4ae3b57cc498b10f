"""Attention of other packages' networks, rewritten so that a pruner can follow every width.

Their own forward passes take the head dim from the input's width, which pruning changes, or hide the widths in a fused
operator. The replacements keep the parameters under their names, and compute the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edpct.models.blocks import HeadedAttention


class ReducedAttention(HeadedAttention):
    """Attention of the Mix Transformer (SegFormer, Xie et al. 2021): keys and values from a strided convolution.

    Args:
        original: ``segmentation_models_pytorch.encoders.mix_transformer.Attention``; its layers are taken over. Its
            scale stays the constant it was built with, also when the heads become narrower: it is no tensor, and so
            comes back from the unpruned network's configuration.
    """

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.heads, self.scale, self.sr_ratio = original.num_heads, original.scale, original.sr_ratio
        self.q, self.kv = original.q, original.kv
        self.attn_drop, self.proj, self.proj_drop = original.attn_drop, original.proj, original.proj_drop
        self.sr, self.norm = original.sr, original.norm
        self.train(original.training)

    def headed(self) -> dict[nn.Linear, int]:
        return {self.q: self.heads, self.kv: self.heads}

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Tokens (B, height * width, C) to tokens of the same shape."""
        batch, count, _ = tokens.shape
        source = tokens
        if self.sr_ratio > 1:
            pooled = self.sr(tokens.transpose(1, 2).reshape(batch, -1, height, width))
            source = self.norm(pooled.flatten(2).transpose(1, 2))
        q = self.q(tokens).reshape(batch, count, self.heads, -1).transpose(1, 2)
        kv = self.kv(source).reshape(batch, source.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        k, v = kv.unbind(0)
        weights = self.attn_drop(((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1))
        return self.proj_drop(self.proj((weights @ v).transpose(1, 2).reshape(batch, count, -1)))


class FusedAttention(HeadedAttention):
    """Attention of timm's vision transformers, where one Linear gives queries, keys and values.

    Args:
        original: ``timm.layers.Attention`` without norms or gate inside; its layers are taken over, and its scale as in
            :class:`ReducedAttention`.
    """

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.heads, self.scale = original.num_heads, original.scale
        self.qkv, self.attn_drop = original.qkv, original.attn_drop
        self.proj, self.proj_drop = original.proj, original.proj_drop
        self.train(original.training)

    def headed(self) -> dict[nn.Linear, int]:
        return {self.qkv: self.heads}

    def forward(self, tokens: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Tokens (B, N, C) to tokens of the same shape; ``attn_mask``, broadcast to (N, N), adds or, if bool, keeps."""
        batch, count, _ = tokens.shape
        q, k, v = self.qkv(tokens).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        if is_causal:
            attn_mask = torch.ones(count, count, dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, float("-inf"))
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights = self.attn_drop(scores.softmax(dim=-1))
        return self.proj_drop(self.proj((weights @ v).transpose(1, 2).reshape(batch, count, -1)))


def _plain_or_same(original: Any) -> nn.Module:
    """timm's attention rewritten, unless it has norms per head or a gate, which work on widths of their own."""
    inside = [getattr(original, name, None) for name in ("q_norm", "k_norm", "norm", "gate")]
    if all(part is None or isinstance(part, nn.Identity) for part in inside):
        return FusedAttention(original)
    return original


# By qualified name, so that nothing is imported that the network itself does not use.
REPLACEMENTS: dict[str, Callable[[Any], nn.Module]] = {
    "segmentation_models_pytorch.encoders.mix_transformer.Attention": ReducedAttention,
    "timm.layers.attention.Attention": _plain_or_same,
    "timm.models.vision_transformer.Attention": _plain_or_same,  # its place before timm 1.0.20
}


def make_prunable(network: nn.Module) -> nn.Module:
    """``network`` with the blocks of :data:`REPLACEMENTS` exchanged, in place; parameters keep names and values.

    Subclasses are left alone: their forward pass may be another.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if replace := REPLACEMENTS.get(_qualified_name(child)):
                setattr(parent, name, replace(child))
    replace = REPLACEMENTS.get(_qualified_name(network))
    return replace(network) if replace else network


def _qualified_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
