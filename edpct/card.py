"""What an artefact says about itself, as JSON inside it or beside it.

A checkpoint carries its card as a string beside its tensors, an ONNX file in ``metadata_props``, a plan in its sidecar:
always under the key :data:`CARD_KEY`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edpct import __version__
from edpct.errors import EngineError
from edpct.task import Task

CARD_KEY = "edpct"
Precision = Literal["fp32", "fp16", "int8"]


class DataSource(BaseModel):
    """Where the data lay that a network was trained on.

    Attributes:
        directory: absolute path.
        layout: name of a row of :data:`edpct.data.layouts.LAYOUTS`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: str
    layout: str


class Card(BaseModel):
    """The card of one artefact.

    Attributes:
        network: display name ("DP-CTNet small").
        precision: what the weights and activations are stored in; INT8 keeps what is not quantised in FP32.
        task: classes and preprocessing, input size included.
        parameters: learnable numbers.
        macs: multiply-accumulates of one forward pass at the task's input size, batch 1.
        data: training data, if it was recorded.
        edpct: version of this package that wrote the artefact.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str
    precision: Precision = "fp32"
    task: Task
    parameters: int = Field(ge=0)
    macs: int = Field(ge=0)
    data: DataSource | None = None
    edpct: str = __version__

    @classmethod
    def from_json(cls, text: str, where: str) -> Card:
        """Read a card.

        Args:
            text: the JSON.
            where: the file it was found in, for the message.

        Raises:
            EngineError: the text is no card, or one of another version of the format.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise EngineError(
                f"{where} carries a description that this edpct ({__version__}) cannot read.",
                "Export it again with this version.",
            ) from error
