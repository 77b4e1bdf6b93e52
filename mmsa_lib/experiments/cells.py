"""What a run is validated and tested on: the complete splits, and incomplete ones under frozen masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from mmsa_lib.data.batch import Utterances
from mmsa_lib.data.missing import MaskSet
from mmsa_lib.evaluation.hazards import prediction_spread
from mmsa_lib.evaluation.protocols import COMPLETE, STOCHASTIC, masks
from mmsa_lib.experiments.config import NO_MISSING, RunConfig
from mmsa_lib.experiments.files import CELL_COLUMNS, Cell
from mmsa_lib.experiments.fingerprint import digest
from mmsa_lib.files import level_name
from mmsa_lib.methods import METHODS

Splits = dict[str, Utterances]
Cells = dict[Cell, tuple[Utterances, Tensor]]
"""Per cell the complete split, for its labels, and the predictions under the cell's masks."""


@dataclass(frozen=True)
class FrozenCells:
    """The masks of a run.

    Attributes:
        data: the complete splits.
        masks: protocol and split to the masks; none for ``complete``.
        incomplete_validation: the best epoch is chosen on the validation split under the masks of the recipe.
    """

    data: Splits
    masks: dict[tuple[str, str], MaskSet]
    incomplete_validation: bool = False

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all masks; empty without any."""
        parts = {"/".join(key): drawn.fingerprint for key, drawn in self.masks.items()}
        return digest(parts) if parts else ""

    @property
    def validation(self) -> Utterances:
        """What decides about the best epoch: the validation split, incomplete where training is."""
        if not self.incomplete_validation:
            return self.data["valid"]
        drawn = self.masks[STOCHASTIC, "valid"]
        return drawn.apply(self.data["valid"], next(iter(drawn.levels)))

    def predict(self, predict: Callable[[Utterances], Tensor]) -> Cells:
        """Predictions for each cell; one incomplete split is held at a time."""
        cells: Cells = {
            (COMPLETE, level_name(0), split): (self.data[split], predict(self.data[split]))
            for split in ("valid", "test")
        }
        for (name, split), drawn in self.masks.items():
            for level in drawn.levels:
                cells[name, level, split] = (self.data[split], predict(drawn.apply(self.data[split], level)))
        return cells


def freeze(config: RunConfig, data: Splits) -> FrozenCells:
    """The masks that ``config`` asks for, read from their files or drawn.

    A run that has to do with missing data also records the validation split under the recipe's masks, whatever it was
    trained on: there methods, and values of methods, can be compared without a look at the test split.

    Raises:
        ConfigError: a protocol doesn't suit the data. DataError: a mask file is damaged or can't be written.
    """
    asked = [(name, "test") for name in config.protocols if name != COMPLETE]
    augmented = config.missing != NO_MISSING
    if asked or augmented or METHODS[config.method].own_missing:
        asked.insert(0, (STOCHASTIC, "valid"))
    drawn = {(name, split): masks(data[split], name) for name, split in asked}
    return FrozenCells(data, drawn, incomplete_validation=augmented)


def spread_rows(cells: Mapping[Cell, tuple[Utterances, Tensor]]) -> pd.DataFrame:
    """How far the predictions of each cell differ from each other: protocol, level, split, sd, entropy, one_class.

    A model that has given up predicts nearly the same for every sample; its metrics are then those of a constant
    (evaluation.md, section 4, hazard 6).
    """
    rows = [
        {**dict(zip(CELL_COLUMNS, cell, strict=True)), **prediction_spread(prediction, data.task)}
        for cell, (data, prediction) in cells.items()
    ]
    return pd.DataFrame(rows)
