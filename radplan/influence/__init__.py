"""Forward models: maps from decision variables to images, with a pullback, and the `Dij` that most plans use."""

from radplan.influence.cases import CasesModel, over_cases
from radplan.influence.dij import Dij
from radplan.influence.model import ForwardModel, RowsModel
from radplan.influence.offset import OffsetModel
from radplan.influence.rows import Rows
from radplan.influence.scenarios import Scenarios
from radplan.influence.variables import Variables

__all__ = [
    "CasesModel",
    "Dij",
    "ForwardModel",
    "OffsetModel",
    "Rows",
    "RowsModel",
    "Scenarios",
    "Variables",
    "over_cases",
]
