"""Resolution by name and by instance, evaluations and their pullback, and the errors that say what to do."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest

from radplan import testing
from radplan.arrays import Array, as_device, to_numpy
from radplan.errors import InputError, UnknownNameError
from radplan.influence import Dij
from radplan.quantities import LETxDose, PhysicalDose, Quantity, QuantityResolver, RBExDose, Voxel

X = np.asarray([2.0, 1.0])
DOSE = np.asarray([[1.0, 0.0], [0.5, 0.5], [0.0, 2.0]])


@dataclass(frozen=True)
class Oxygenated(Quantity):
    """A user's quantity: an option, and a voxel parameter of their own."""

    oxygen: Voxel[Array] = None
    power: float = 1.0

    name = "oxygenated_dose"
    unit = "Gy"
    needs = ("physical_dose",)
    additive = True

    def forward(self, physical_dose):
        return self.oxygen**self.power * physical_dose

    def vjp(self, cotangent, physical_dose):
        return (self.oxygen**self.power * cotangent,)


@dataclass(frozen=True)
class Squared(Quantity):
    """A user's quantity that offers only its forward."""

    name = "squared_dose"
    unit = "Gy^2"
    needs = ("physical_dose",)
    additive = False

    def forward(self, physical_dose):
        return physical_dose**2


@dataclass(frozen=True)
class Hen(Quantity):
    name = "hen"
    unit = "1"
    needs = ("egg",)
    additive = True

    def forward(self, egg):
        return egg


@dataclass(frozen=True)
class Egg(Quantity):
    name = "egg"
    unit = "1"
    needs = ("hen",)
    additive = True

    def forward(self, hen):
        return hen


class Counting:
    """A model that counts the images it is asked for."""

    def __init__(self, model: Dij) -> None:
        self.model = model
        self.forwards: list[tuple[str, ...]] = []
        self.pullbacks: list[tuple[str, ...]] = []
        self.images, self.radiation, self.voxel_parameters = model.images, model.radiation, model.voxel_parameters

    def forward(self, x, images=None):
        self.forwards.append(tuple(images))
        return self.model.forward(x, images)

    def pullback(self, x, cotangents):
        self.pullbacks.append(tuple(cotangents))
        return self.model.pullback(x, cotangents)


def test_a_name_and_its_default_instance_are_one(photons):
    resolver = QuantityResolver(photons({"let_dose": 2.5 * DOSE}))
    evaluation = resolver.evaluate(X, ["let_x_dose", LETxDose(), LETxDose(c=0.1)])
    assert evaluation["let_x_dose"] is evaluation[LETxDose(c=0.04)]
    np.testing.assert_allclose(evaluation[LETxDose(c=0.1)], 2.5 * evaluation["let_x_dose"])


def test_an_instance_given_to_the_resolver_stands_for_its_name(photons):
    resolver = QuantityResolver(photons({"let_dose": 2.5 * DOSE}), quantities=[LETxDose(c=0.1)])
    evaluation = resolver.evaluate(X, ["let_x_dose", LETxDose()])
    np.testing.assert_allclose(evaluation["let_x_dose"], 2.5 * evaluation[LETxDose()])


def test_options_are_not_overruled_by_an_image(photons):
    resolver = QuantityResolver(photons({"let_dose": 2.5 * DOSE, "let_x_dose": 7.0 * DOSE}))
    np.testing.assert_allclose(resolver.get("let_x_dose")(X), 7.0 * np.asarray([[2.0, 1.5, 2.0]]))
    np.testing.assert_allclose(resolver.get(LETxDose(c=0.1))(X), [[0.5, 0.375, 0.5]])


def test_one_forward_and_one_pullback_whatever_is_asked(photons):
    model = Counting(photons())
    evaluation = QuantityResolver(model).evaluate(X, ["rbe_x_dose", "bed", "physical_dose", "effect"])
    assert model.forwards == [("physical_dose",)]
    ones = np.ones((1, 3))
    evaluation.pullback({"rbe_x_dose": ones, "bed": ones, "physical_dose": ones})
    assert model.forwards == [("physical_dose",)]
    assert model.pullbacks == [("physical_dose",)]


def test_pullback_is_the_sum_of_the_chain_derivatives(photons, xp_device):
    model = photons({"let_dose": 2.5 * DOSE}, device=xp_device.name)
    resolver = QuantityResolver(model)
    x = xp_device.asarray(X, "float64")
    cotangents = {
        name: xp_device.asarray(np.random.default_rng(seed).normal(size=(1, 3)), "float64")
        for seed, name in enumerate(["rbe_x_dose", "let", "effect", "physical_dose"])
    }
    together = resolver.evaluate(x, cotangents).pullback(cotangents)
    apart = sum(to_numpy(resolver.get(name).compute_chain_derivative(c, x)) for name, c in cotangents.items())
    np.testing.assert_allclose(to_numpy(together), apart, rtol=1e-12)


def test_pullback_does_not_spoil_the_evaluation(photons):
    evaluation = QuantityResolver(photons()).evaluate(X, ["rbe_x_dose"])
    before = evaluation["effect"].copy()
    first = evaluation.pullback({"rbe_x_dose": np.ones((1, 3))})
    second = evaluation.pullback({"rbe_x_dose": 2.0 * np.ones((1, 3))})
    np.testing.assert_array_equal(evaluation["effect"], before)
    np.testing.assert_allclose(second, 2.0 * first)


def test_a_restricted_model_gives_the_same_voxels(photons):
    model = photons(alpha_x=[0.1, 0.2, 0.3])
    whole = QuantityResolver(model).get("rbe_x_dose")(X)
    np.testing.assert_allclose(QuantityResolver(model.restrict(np.asarray([0, 2]))).get("bed")(X)[0, 1], 0.8 / 0.3)
    part = QuantityResolver(model.restrict(np.asarray([0, 2]))).get("rbe_x_dose")(X)
    np.testing.assert_allclose(part, whole[:, [0, 2]])


def test_bound_quantities_say_what_they_are(photons):
    bound = QuantityResolver(photons()).get("rbe_x_dose")
    assert (bound.name, bound.unit, bound.additive, bound.direct) == ("rbe_x_dose", "Gy(RBE)", True, False)
    assert bound.images == ("physical_dose",)


def test_a_users_voxel_parameter_and_option(photons):
    model = photons().with_voxel_parameters(oxygen=np.asarray([1.0, 2.0, 3.0]))
    testing.check_quantity(Oxygenated)
    np.testing.assert_allclose(QuantityResolver(model).get(Oxygenated())(X), [[2.0, 3.0, 6.0]])
    np.testing.assert_allclose(QuantityResolver(model).get(Oxygenated(power=2.0))(X), [[2.0, 6.0, 18.0]])


def test_a_forward_alone_is_differentiated_by_torch(photons):
    testing.check_quantity(Squared)
    place = as_device("torch:cpu")
    bound = QuantityResolver(photons(device="torch:cpu")).get(Squared())
    gradient = bound.compute_chain_derivative(place.asarray(np.ones((1, 3)), "float64"), place.asarray(X, "float64"))
    np.testing.assert_allclose(to_numpy(gradient), DOSE.T @ (2.0 * (DOSE @ X)))


def test_a_forward_alone_on_numpy_says_what_to_do(photons):
    bound = QuantityResolver(photons()).get(Squared())
    np.testing.assert_allclose(bound(X), [[4.0, 2.25, 4.0]])
    with pytest.raises(InputError, match=r"write vjp.*or calculate with device=\"torch\""):
        bound.compute_chain_derivative(np.ones((1, 3)), X)


def test_a_missing_image_says_which_and_what_to_do(photons):
    with pytest.raises(InputError, match=r"'let' cannot be calculated: 'let_dose' \('let' needs 'let_dose'\)") as info:
        QuantityResolver(photons()).get("let")
    assert "its images are physical_dose" in str(info.value)
    assert "Dij.from_matrices" in str(info.value)


def test_a_missing_voxel_parameter_says_which_and_what_to_do(photons):
    model = Dij.from_matrices({"physical_dose": DOSE}, photons().grid, radiation="protons")
    with pytest.raises(InputError, match=r"'alpha_dose' needs the voxel parameters rbe, alpha_x .* none: give model"):
        QuantityResolver(model).get("rbe_x_dose")
    biology = model.with_voxel_parameters(alpha_x=0.1, beta_x=0.05)
    with pytest.raises(InputError, match=r"without an rbe.*protons have no biology"):
        QuantityResolver(biology).get("effect")


def test_a_voxel_parameter_that_is_not_finite_is_refused(photons):
    with pytest.raises(InputError, match="'alpha_x' that 'alpha_dose' needs is NaN"):
        QuantityResolver(photons(alpha_x=[0.1, np.nan, 0.1])).get("bed")


def test_a_misspelt_name_is_corrected(photons):
    with pytest.raises(UnknownNameError, match="did you mean 'rbe_x_dose'"):
        QuantityResolver(photons()).get("rbe_dose")
    with pytest.raises(UnknownNameError, match="did you mean 'oxygenated_dose'"):
        QuantityResolver(photons(), [Oxygenated()]).get("oxigenated_dose")


def test_an_image_without_a_quantity_is_not_guessed(photons):
    with pytest.raises(InputError, match="no quantity of that name says its unit"):
        QuantityResolver(photons({"neutron_dose": DOSE})).get("neutron_dose")


def test_a_circle_is_named(photons):
    with pytest.raises(InputError, match="in a circle: hen -> egg -> hen"):
        QuantityResolver(photons(), [Hen(), Egg()]).get("hen")
    cut = QuantityResolver(photons({"egg": DOSE}), [Hen(), Egg()])
    np.testing.assert_allclose(cut.get("hen")(X), [[2.0, 1.5, 2.0]])


def test_an_unknown_need_is_named(photons):
    with pytest.raises(InputError, match=r"'hen' cannot be calculated: 'egg' .* neither a quantity nor an image"):
        QuantityResolver(photons()).get(Hen())


def test_two_instances_of_one_name_are_refused(photons):
    with pytest.raises(InputError, match=r"two quantities .* named 'let_x_dose'"):
        QuantityResolver(photons(), [LETxDose(c=0.1), LETxDose(c=0.2)])


def test_the_name_of_a_registered_quantity_is_taken(photons):
    @dataclass(frozen=True)
    class Impostor(Quantity):
        name = "bed"
        unit = "Gy"
        needs = ("physical_dose",)
        additive = True

        def forward(self, physical_dose):
            return physical_dose

    with pytest.raises(InputError, match="'bed' of Impostor is taken by the registered BED"):
        QuantityResolver(photons()).get(Impostor())


def test_voxel_parameters_come_from_the_model_alone(photons):
    with pytest.raises(InputError, match=r"'alpha_x' of the quantity 'rbe_x_dose' comes from the model"):
        QuantityResolver(photons()).get(RBExDose(alpha_x=0.1, beta_x=0.05))


@pytest.mark.parametrize("given", [PhysicalDose, 3, None])
def test_what_is_no_quantity_is_refused(given, photons):
    with pytest.raises(InputError, match="by its name or as an instance"):
        QuantityResolver(photons()).get(given)


def test_a_bare_name_is_no_list(photons):
    with pytest.raises(InputError, match="takes a list of quantities"):
        QuantityResolver(photons()).evaluate(X, "effect")


def test_evaluations_are_immutable_and_know_their_keys(photons):
    evaluation = QuantityResolver(photons()).evaluate(X, ["bed"])
    assert set(evaluation) == {"physical_dose", "alpha_dose", "sqrt_beta_dose", "effect", "bed"}
    assert "bed" in evaluation
    assert "let" not in evaluation
    with pytest.raises(FrozenInstanceError):
        evaluation.x = X
    with pytest.raises(UnknownNameError, match="no evaluated quantity named 'eqd2'"):
        evaluation["eqd2"]
    with pytest.raises(InputError, match=r"cotangent of 'bed' has shape \(3,\), expected \(1, 3\)"):
        evaluation.pullback({"bed": np.ones(3)})
