"""Forward models: maps from decision variables to images, with a pullback, and the `Dij` that most plans use."""

from radplan.influence.dij import Dij
from radplan.influence.model import ForwardModel
from radplan.influence.scenarios import Scenarios
from radplan.influence.variables import Variables

__all__ = ["Dij", "ForwardModel", "Scenarios", "Variables"]
