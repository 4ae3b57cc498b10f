"""Sections about training: the loop, the teacher's, pruning's recovery, distillation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from edpct.recipe.section import Section

Precision = Literal["auto", "fp32", "bf16"]
Schedule = Literal["cosine", "poly"]


class OptimiseSettings(Section):
    """The training loop that teacher and student share.

    Attributes:
        steps: optimiser steps.
        batch: crops an optimiser step, over all micro-batches and all processes.
        accumulate: micro-batches that each process cuts its part of the batch into, for a GPU that is too small for
            it; statistics of batch normalisation and the Dice loss then see a micro-batch.
        crop: side of a square training crop in pixels, a multiple of 32.
        lr: peak learning rate of AdamW; linear warm-up over ``warmup`` of the steps, then ``schedule``.
        schedule: ``cosine`` or ``poly`` (power 0.9), both to zero.
        ema: decay, 0..1, of an exponential moving average of the weights, which is then what is validated and
            delivered; 0: off. 0.999 suits a few thousand steps.
        dice: weight of the soft Dice loss beside cross-entropy.
        scale: range of the random zoom a crop is taken at.
        area_power: images are drawn with chances in proportion to their area to this power, 0..1; 1: every pixel is
            seen as often, 0: every image, so that a few large ones do not crowd out the others.
        jitter: brightness and contrast of a crop change by up to this share, 0..1.
        saturation: so does its saturation.
        hue: its hue turns by up to this share of the circle, 0..0.5.
        grayscale: share of the crops, 0..1, that lose their colour. Ground that was not seen in training has other
            colours: what is known by texture and shape is known there, too.
        balance: share of the crops, 0..1, that show a class drawn with equal chances; the others lie anywhere.
        hold_statistics: share of the steps, 0..1, at whose end batch normalisation uses its running statistics, and
            leaves them as they are: the network then learns with what it will be used with.
        precision: ``bf16`` autocast, ``fp32``, or ``auto``: bf16 where the device computes it natively.
        validate_every: steps between two validations; 0: only at the end.
        overlap: share, 0..1, of a validation window that the next one covers too; where several do, their class
            probabilities are averaged. Engines are measured without, as they fly.
        patience: validations without a better mIoU after which training stops, the best weights then being what is
            delivered, chosen on val; 0: off.
        save_every: steps between two resume points.
        log_every: steps between two rows of ``log.csv``.
        tensorboard: whether the log is written for TensorBoard, too.
    """

    steps: int = Field(2000, ge=1)
    batch: int = Field(8, ge=1)
    accumulate: int = Field(1, ge=1)
    crop: int = Field(256, ge=64, multiple_of=32)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    schedule: Schedule = "cosine"
    ema: float = Field(0.0, ge=0, lt=1)
    dice: float = Field(0.5, ge=0)
    scale: tuple[float, float] = (0.5, 1.5)
    area_power: float = Field(1.0, ge=0, le=1)
    jitter: float = Field(0.25, ge=0, le=1)
    saturation: float = Field(0.5, ge=0, le=1)
    hue: float = Field(0.1, ge=0, le=0.5)
    grayscale: float = Field(0.3, ge=0, le=1)
    balance: float = Field(0.0, ge=0, le=1)
    hold_statistics: float = Field(0.3, ge=0, le=1)
    precision: Precision = "auto"
    validate_every: int = Field(500, ge=0)
    overlap: float = Field(0.0, ge=0, lt=1)
    patience: int = Field(0, ge=0)
    save_every: int = Field(50, ge=1)
    log_every: int = Field(20, ge=1)
    tensorboard: bool = False

    @field_validator("scale")
    @classmethod
    def _scale_rises(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1]:
            raise ValueError("give two zooms above 0, the smaller first")
        return scale

    @model_validator(mode="after")
    def _fits_together(self) -> OptimiseSettings:
        if self.accumulate > self.batch:
            raise ValueError(f"accumulate {self.accumulate} is more than the {self.batch} crops of a batch")
        if self.patience and not self.validate_every:
            raise ValueError("patience counts validations; give validate_every, too")
        return self


class TeachSettings(OptimiseSettings):
    """Teacher training.

    Attributes:
        boundary: weight of the boundary loss (Bokhovkin and Burnaev 2019) beside cross-entropy and Dice.
        auxiliary: weight of the heads that ask each path to classify by itself; they exist only while training.
        drop_paths: share of the crops, 0..0.6, for which DP-CTNet fuses nothing and goes on with its CNN path alone;
            half as many go on with the transformer path alone.
        drop_blocks: chance, 0..0.9, that a crop skips an attention or an MLP (stochastic depth).
    """

    boundary: float = Field(0.0, ge=0)
    auxiliary: float = Field(0.4, ge=0)
    drop_paths: float = Field(0.4, ge=0, le=0.6)
    drop_blocks: float = Field(0.2, ge=0, le=0.9)


class RecoverySettings(OptimiseSettings):
    """Training on labels after each pruning but the last, where it goes in several; ``steps`` are for each."""

    steps: int = Field(200, ge=1)
    validate_every: int = Field(0, ge=0)


class SparseSettings(OptimiseSettings):
    """Training before the pruning that pushes the weights of channels which will go toward zero.

    Attributes:
        kind: ``group-lasso`` (DepGraph, Fang et al. 2023), ``growing-reg`` (Wang et al. 2021), or ``none``.
        strength: regularisation coefficient.
    """

    kind: Literal["none", "group-lasso", "growing-reg"] = "none"
    strength: float = Field(1e-4, gt=0)
    steps: int = Field(500, ge=1)
    validate_every: int = Field(0, ge=0)


class AKDSettings(Section):
    """Weights of angle knowledge distillation's three readings; see :mod:`edpct.distillation.akd`.

    Attributes:
        pixel: weight of the angle between both networks' vectors at each position.
        relation: weight of the angles inside triplets of regions.
        prototype: weight of the angle of each position to the mean of its class.
        tokens: regions an image is pooled to for the relation mode's triplets (its cost grows with the cube).
    """

    pixel: float = Field(1.0, ge=0)
    relation: float = Field(1.0, ge=0)
    prototype: float = Field(1.0, ge=0)
    tokens: int = Field(64, ge=3, le=256)


class DistilSettings(OptimiseSettings):
    """Distillation: the loop of :class:`OptimiseSettings`, AKD, and the losses beside it, freely combined.

    A weight of 0 switches a loss off, and then it costs nothing. See :mod:`edpct.distillation.terms`.

    Attributes:
        taps: names of the inner maps that AKD and the other losses on features look at, "cnn", "transformer" and
            "fused" with DP-CTNet, "encoder" and "decoder" with a network of another package; none: all that teacher and
            student both have. Each loss has its weight shared equally among them.
        kl: weight of the Kullback-Leibler divergence of the logits (Hinton et al. 2015).
        temperature: softens both distributions of that divergence.
        cwd: weight of channel-wise distillation, on logits (Shu et al., ICCV 2021); 3 in its authors' experiments.
        dist: weight of DIST, on logits (Huang et al., NeurIPS 2022); 1 in its authors' experiments.
        attention_transfer: weight of attention transfer, on features (Zagoruyko and Komodakis, ICLR 2017); 1000 /
            (height x width of the map) in its authors' experiments.
        rkd_distance: weight of RKD-D, on features (Park et al., CVPR 2019); of as many regions as ``akd.tokens`` says.
        ifvd: weight of intra-class feature variation distillation, on features (Wang et al., ECCV 2020); 200 in its
            authors' code.
    """

    akd: AKDSettings = AKDSettings()
    taps: tuple[str, ...] = ()
    kl: float = Field(1.0, ge=0)
    temperature: float = Field(2.0, gt=0)
    cwd: float = Field(0.0, ge=0)
    dist: float = Field(0.0, ge=0)
    attention_transfer: float = Field(0.0, ge=0)
    rkd_distance: float = Field(0.0, ge=0)
    ifvd: float = Field(0.0, ge=0)


class QatSettings(OptimiseSettings):
    """Quantisation-aware training of the distilled student, by the losses of :class:`DistilSettings`.

    Attributes:
        enabled: whether it is done at all.
        lr: peak learning rate, a tenth of distillation's: the weights are nearly where they should be.
        precision: ``fp32`` unless said otherwise; bf16 has no more digits than INT8 itself.
    """

    enabled: bool = False
    steps: int = Field(300, ge=1)
    lr: float = Field(1e-4, gt=0)
    precision: Precision = "fp32"
    validate_every: int = Field(0, ge=0)
