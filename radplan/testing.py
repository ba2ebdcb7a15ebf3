"""Checks of what plug-ins promise, for the author of a quantity, objective, operator, forward model or engine.

Each check raises AssertionError and says what was found and what was promised. The suite of radplan runs the same
checks over its own registries.

>>> check_quantity("effect", devices=["numpy"])
>>> check_objective("squared_overdosing", devices=["numpy"])
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from radplan import arrays
from radplan.arrays import Array, Device, namespace, native_device, scalar, to_numpy
from radplan.beams import Beams, place_beams
from radplan.engines import ENGINES, Engine, dose_influence
from radplan.engines.base import Machine
from radplan.errors import InputError
from radplan.influence import ForwardModel
from radplan.machines import ParticleMachine, PhotonMachine, library_machine
from radplan.operators import LinearOperator
from radplan.optim.objectives import OBJECTIVES, Objective
from radplan.patient import Patient
from radplan.patient.phantoms import phantom
from radplan.quantities.base import QUANTITIES, Quantity, voxel_fields

DEVICES = ("numpy", "torch:cpu", "array_api_strict", "array_api_strict:device1", "jax", "torch:cuda", "cupy")
"""Where radplan is tested, as far as it is installed; NumPy arrays are handed over read-only."""

EXAMPLE_SHAPE = (2, 4)
"""Scenarios and voxels that quantities are checked on."""

GRADIENT_TOLERANCE = {"float64": 1e-6, "float32": 2e-4}
ADJOINT_TOLERANCE = {"float64": 1e-12, "float32": 1e-6}
STEP = 1e-5


def available_devices() -> tuple[str, ...]:
    """Return those of `DEVICES` that this machine has.

    >>> "numpy" in available_devices()
    True
    """
    found = []
    for name in DEVICES:
        try:
            arrays.as_device(name)
        except InputError:
            continue
        found.append(name)
    return tuple(found)


def check_quantity(quantity: str | type[Quantity] | Quantity, devices: Iterable[str] | None = None) -> None:
    """Check a quantity: its pullback against finite differences (1e-6 in float64), and its manners with arrays.

    It keeps dtype, device and shape, leaves its inputs alone, works elementwise, and is finite at zero dose. A quantity
    without a `vjp` of its own is differentiated where the device can do so.

    Parameters
    ----------
    quantity : str, class or Quantity
        A registered name or a class, whose `examples` are checked, or one instance.
    devices : iterable of str, optional
        Device strings; all that this machine has when left out. The first one gives the finite differences.

    Raises
    ------
    AssertionError
        When a promise is broken.
    """
    examples = _examples(quantity, QUANTITIES, Quantity)
    names = _devices(devices)
    for example in examples:
        inputs = [_uniform(0.3, 3.0, EXAMPLE_SHAPE, seed) for seed, _ in enumerate(example.needs)]
        cotangent = _uniform(-1.0, 1.0, EXAMPLE_SHAPE, 99)
        slopes = _elementwise_slopes(example, arrays.as_device(names[0]), inputs)
        for place in _places(names):
            _check_quantity_on(example, place, inputs, cotangent, [cotangent * slope for slope in slopes])


def check_objective(objective: str | type[Objective] | Objective, devices: Iterable[str] | None = None) -> None:
    """Check an objective: its gradient against finite differences (1e-6 in float64), and its manners with arrays.

    Its value has no dimensions; the gradient keeps dtype, device and shape; inputs are left alone; both are finite at
    zero values and where a weight is zero; `value_and_gradient` agrees with `value` and `gradient`.

    Parameters
    ----------
    objective : str, class or Objective
        A registered name or a class, whose `examples` are checked, or one instance.
    devices : iterable of str, optional
        Device strings; all that this machine has when left out. The first one gives the finite differences.

    Raises
    ------
    AssertionError
        When a promise is broken.
    """
    names = _devices(devices)
    count = 7
    values = _uniform(0.1, 2.9, (count,), 3)
    weights = _uniform(0.0, 1.0, (count,), 4)
    weights[2] = 0.0
    weights /= weights.sum()
    for example in _examples(objective, OBJECTIVES, Objective):
        first = arrays.as_device(names[0])
        host = _on_host(lambda v, own=example, at=first: own.value(v, at.asarray(weights, "float64")), first)
        expected = np.asarray([_central(host, values, step) for step in np.eye(count)])
        for place in _places(names):
            _check_objective_on(example, place, values, weights, expected)


def check_operator(operator: LinearOperator, norms: float | None = None) -> None:
    """Check a linear operator: its adjoint by the dot test, ``<Ax, y> = <x, A'y>``, and its manners with arrays.

    The difference is at most 1e-12 (float64) or 1e-6 (float32) of ``|Ax| |y|``. Column norms are those of unit vectors
    (estimates: within `norms`, relatively), several vectors and a choice of rows give what they should, inputs stay.

    Raises
    ------
    AssertionError
        When a promise is broken.
    """
    rows, columns = operator.shape
    place = _Place(operator.device, operator.dtype)
    tolerance = ADJOINT_TOLERANCE[operator.dtype]
    label = f"{type(operator).__name__} {operator.shape} {place.label}"
    x, y = _uniform(0.1, 1.0, (columns,), 5), _uniform(-1.0, 1.0, (rows,), 6)
    forward = place.called(operator.apply, [x], f"{label}.apply", (rows,))
    back = place.called(operator.adjoint, [y], f"{label}.adjoint", (columns,))
    _adjoint_agrees(forward @ y, x @ back, float(np.linalg.norm(forward) * np.linalg.norm(y)), tolerance, label)
    pair = place.called(operator.apply, [np.stack([x, 2.0 * x], axis=1)], f"{label}.apply of two", (rows, 2))
    _close(pair, np.stack([forward, 2.0 * forward], axis=1), 10.0 * tolerance, f"{label}.apply of two vectors at once")
    lengths = to_numpy(operator.column_norms())
    for column in sorted({0, columns // 2, columns - 1}):
        unit = np.zeros(columns)
        unit[column] = 1.0
        length = np.linalg.norm(place.called(operator.apply, [unit], f"{label}.apply", (rows,)))
        _close(lengths[column], length, norms or 100.0 * tolerance, f"{label}.column_norms()[{column}]")
    chosen = np.arange(0, rows, 2)
    part = place.called(operator.restrict(chosen).apply, [x], f"{label}.restrict.apply", (chosen.size,))
    _close(part, forward[chosen], 10.0 * tolerance, f"{label}.restrict")


def check_model(model: ForwardModel, x: Array | None = None) -> None:
    """Check a forward model: its pullback against its forward, its shapes, its restriction to fewer voxels.

    A linear model passes the dot test (1e-12 in float64, 1e-6 in float32), another one finite differences (1e-6 in
    float64).

    Parameters
    ----------
    model : ForwardModel
        The model.
    x : array of shape (count,), optional
        Where to check, on the host; a random point near the start when left out.

    Raises
    ------
    AssertionError
        When a promise is broken.
    """
    count, label = model.variables.count, type(model).__name__
    start = np.broadcast_to(to_numpy(model.variables.start), (count,))
    point = start * _uniform(0.5, 1.5, (count,), 7) if x is None else np.asarray(to_numpy(x), dtype="float64")
    at = model.device.asarray(point, _wide(model.device))
    found = set(model.forward(at))
    assert found == set(model.images), f"{label}.forward gives {found} and states the images {model.images}"
    for name in model.images:
        _check_model_image(model, name, point, (len(model.scenarios.names), len(model.voxels)))
    nothing = to_numpy(model.pullback(at, {}))
    assert nothing.shape == (count,), f"{label}.pullback must return shape ({count},), got {nothing.shape}"
    assert not nothing.any(), f"{label}.pullback: an image without a cotangent counts as zero"
    part = model.restrict(np.asarray(model.voxels)[::2])
    for name in model.images:
        whole, rows = (to_numpy(one.forward(at, [name])[name]) for one in (model, part))
        _close(rows, whole[:, ::2], 1e-5, f"{label}.restrict: image {name!r}")


def check_engine(
    engine: str | type[Engine] | Engine,
    patient: Patient | None = None,
    beams: Beams | None = None,
    machine: Machine | None = None,
    devices: Iterable[str] | None = None,
) -> None:
    """Check an engine: what it states, the forward model it makes, and that every device gives the same dose.

    Parameters
    ----------
    engine : str, class or Engine
        A registered name or a class, whose `examples` are checked, or one instance.
    patient, beams, machine : optional
        The case. Left out, they are a water box, two beams, and a built-in machine of photons or protons.
    devices : iterable of str, optional
        Device strings; all that this machine has when left out.

    Raises
    ------
    AssertionError
        When a promise is broken.
    """
    water = phantom("box") if patient is None else patient
    examples = _examples(engine, ENGINES, Engine)
    built_in = "generic_photon_6mv" if "photons" in examples[0].radiation else "generic_proton"
    source = library_machine(built_in) if machine is None else machine
    if beams is not None:
        fields = beams
    elif isinstance(source, PhotonMachine | ParticleMachine):
        fields = place_beams(water, source, gantry=(0.0, 90.0), bixel_width=20.0)
    else:
        raise InputError(f"give the beams to check an engine with machine {source.name!r}, a {type(source).__name__}")
    for example in examples:
        label, doses = f"engine {example!r}", []
        for name in _devices(devices):
            model = dose_influence(water, fields, source, grid=15.0, engine=example, device=name, dtype="float32")
            assert set(model.images) == set(example.images_for(source)), (
                f"{label} gives the images {model.images} and states {example.images_for(source)}"
            )
            assert (model.radiation, model.variables.count) == (source.radiation, fields.count), (
                f"{label} must make a model of {source.radiation} with {fields.count} weights, got {model.radiation} "
                f"with {model.variables.count}"
            )
            for parameter in ("alpha_x", "beta_x", *(("rbe",) if source.radiation == "photons" else ())):
                assert parameter in model.voxel_parameters, f"{label} must give the voxel parameter {parameter!r}"
            check_model(model)
            ones = model.device.asarray(np.ones(fields.count), _wide(model.device))
            doses.append(to_numpy(model.forward(ones, ["physical_dose"])["physical_dose"]))
            assert doses[-1].min() >= 0.0, f"{label} gives negative dose, down to {doses[-1].min():g} Gy"
            assert doses[-1].max() > 0.0, f"{label} gives no dose at all"
            _close(doses[-1], doses[0], 1e-4, f"{label} on {name} beside {_devices(devices)[0]}")


def check_gradient(
    value_and_gradient: Callable[[Array], tuple[Array, Array]],
    x: Array,
    *,
    directions: int = 3,
    step: float = STEP,
    tolerance: float = 1e-6,
) -> None:
    """Check the gradient of any scalar function against finite differences along random directions.

    Parameters
    ----------
    value_and_gradient : callable
        Function of ``x (n,)`` that returns the value and the gradient ``(n,)``, such as ``problem.value_and_gradient``.
    x : array of shape (n,)
        Where to check, float64.
    directions : int
        Number of random directions.
    step : float
        Length of the difference in units of the root mean square of `x`.
    tolerance : float
        Largest error, relative to the length of the gradient.

    Raises
    ------
    AssertionError
        When they differ by more.

    >>> check_gradient(lambda x: ((x**3).sum(), 3 * x**2), np.asarray([1.0, 2.0]))
    """
    gradient = to_numpy(value_and_gradient(x)[1]).astype("float64")
    host = to_numpy(x).astype("float64")

    def value(at: Any) -> Any:
        return to_numpy(value_and_gradient(arrays.like(at, x))[0])

    length = step * max(1e-3, float(np.sqrt(np.mean(host**2))))
    for seed in range(directions):
        direction = np.random.default_rng(seed).standard_normal(host.shape)
        expected = float(_central(value, host, direction, length))
        found = float(gradient @ direction)
        size = float(np.linalg.norm(gradient) * np.linalg.norm(direction))
        assert abs(found - expected) <= tolerance * max(size, abs(expected)), (
            f"along a random direction the gradient gives {found:.9g} and finite differences {expected:.9g}; they may "
            f"differ by {tolerance:g} of {size:.3g}"
        )


@dataclass(frozen=True)
class _Place:
    """A target and a dtype that something is checked on."""

    device: Device
    dtype: str

    @property
    def label(self) -> str:
        return f"on {self.device.name} in {self.dtype}"

    def put(self, values: Any) -> Array:
        """Return a fresh array here; a NumPy one cannot be written to."""
        made = self.device.asarray(np.array(values, dtype=self.dtype), self.dtype)
        if self.device.backend == "numpy":
            made.flags.writeable = False
        return made

    def called(self, function: Callable[..., Array], inputs: Sequence[Any], label: str, shape: tuple[int, ...]) -> Any:
        """Call a function with host values put here, check its manners, and return its result on the host."""
        here = [self.put(values) for values in inputs]
        before = [to_numpy(values).copy() for values in here]
        try:
            result = function(*here)
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            raise AssertionError(f"{label} writes into its inputs; make a new array instead ({error})") from error
        for one, old in zip(here, before, strict=True):
            assert np.array_equal(to_numpy(one), old), f"{label} changed its inputs; make a new array instead"
        self.belongs(result, shape, label)
        return to_numpy(result)

    def belongs(self, result: Array, shape: tuple[int, ...], label: str) -> None:
        """Assert that an array has this backend, device and dtype, the shape, and finite values."""
        assert arrays.backend_name(result) == self.device.backend, (
            f"{label} returned an array of {arrays.backend_name(result)} for inputs of {self.device.backend}: take the "
            "namespace from the inputs"
        )
        assert native_device(result) == native_device(self.put(0.0)), (
            f"{label} moved the data to {native_device(result)}"
        )
        assert tuple(result.shape) == shape, f"{label} must return shape {shape}, got {tuple(result.shape)}"
        assert result.dtype == self.device.dtype(self.dtype), f"{label} must keep {self.dtype}, got {result.dtype}"
        assert arrays.all_finite(result), f"{label} is not finite: {to_numpy(result)}"


def _places(devices: Sequence[str]) -> list[_Place]:
    targets = [arrays.as_device(name) for name in devices]
    return [_Place(one, dtype) for one in targets for dtype in ("float64", "float32") if _has(one, dtype)]


def _has(place: Device, dtype: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = place.asarray([0.0], dtype)
    return bool(made.dtype == place.dtype(dtype))


def _wide(place: Device) -> str:
    return "float64" if _has(place, "float64") else "float32"


def _devices(devices: Iterable[str] | None) -> tuple[str, ...]:
    names = available_devices() if devices is None else tuple(devices)
    if not names:
        raise InputError("give at least one device string, such as 'numpy'")
    return names


def _examples(given: Any, registry: Any, base: type) -> list[Any]:
    if isinstance(given, base):
        return [given]
    cls = registry.get(given) if isinstance(given, str) else given
    assert isinstance(cls, type), f"expected a name, a class or an instance of {base.__name__}, got {given!r}"
    assert issubclass(cls, base), f"{cls.__name__} must derive from {base.__name__}"
    examples = cls.examples()  # type: ignore[attr-defined]
    assert isinstance(examples, list), f"{cls.__name__}.examples() must return a list, got {examples!r}"
    assert examples, f"{cls.__name__}.examples() must return at least one instance"
    assert all(type(example) is cls for example in examples), f"{cls.__name__}.examples() must return its own instances"
    return examples


def _filled(quantity: Quantity, place: _Place) -> Quantity:
    """Return the quantity with its voxel parameters put beside the images."""
    parameters = {}
    for seed, name in enumerate(voxel_fields(type(quantity))):
        given = vars(quantity)[name]
        values = (
            _uniform(0.05, 0.5, (1, EXAMPLE_SHAPE[1]), 50 + seed) if given is None else np.asarray(given, "float64")
        )
        spread = np.broadcast_to(values, (1, EXAMPLE_SHAPE[1])) if values.ndim == 0 else np.atleast_2d(values)
        parameters[name] = place.put(spread)
    return replace(quantity, **parameters)  # type: ignore[type-var]


def _elementwise_slopes(quantity: Quantity, place: Device, inputs: Sequence[Any]) -> list[Any]:
    """Return the derivative by each input from finite differences, having checked that it is elementwise."""
    filled = _filled(quantity, _Place(place, _wide(place)))
    forward = _on_host(filled.forward, place)
    first = [np.where(np.arange(EXAMPLE_SHAPE[1]) == 0, 1.5 * values, values) for values in inputs]
    rest = forward(*first)[:, 1:], forward(*inputs)[:, 1:]
    assert np.array_equal(*rest), f"quantity {quantity.name!r} must be elementwise: voxel 0 changed the other voxels"
    slopes = []
    for number, values in enumerate(inputs):

        def moved(one: Any, at: int = number) -> Any:
            return forward(*inputs[:at], one, *inputs[at + 1 :])

        slopes.append(_central(moved, values, np.ones_like(values)))
    return slopes


def _check_quantity_on(
    quantity: Quantity, place: _Place, inputs: Sequence[Any], cotangent: Any, expected: Sequence[Any]
) -> None:
    label = f"quantity {quantity.name!r} ({quantity!r}) {place.label}"
    filled = _filled(quantity, place)
    zeros = [np.zeros(EXAMPLE_SHAPE) for _ in inputs]
    for at, values in (("", inputs), (" at zero dose", zeros)):
        place.called(filled.forward, values, f"forward{at} of {label}", EXAMPLE_SHAPE)
    if type(quantity).vjp is Quantity.vjp and place.device.backend not in ("torch", "jax"):
        return
    for at, values in (("", inputs), (" at zero dose", zeros)):
        parts = filled.vjp(place.put(cotangent), *(place.put(one) for one in values))
        assert isinstance(parts, tuple), f"vjp of {label} must return a tuple, got {type(parts).__name__}"
        assert len(parts) == len(quantity.needs), (
            f"vjp of {label} must return one cotangent for each of {quantity.needs}, got {len(parts)}"
        )
        for number, need in enumerate(quantity.needs):

            def part(given: Array, *rest: Array, number: int = number) -> Array:
                return filled.vjp(given, *rest)[number]

            what = f"vjp{at} for {need!r} of {label}"
            found = place.called(part, [cotangent, *values], what, EXAMPLE_SHAPE)
            if not at:
                _close(found, expected[number], GRADIENT_TOLERANCE[place.dtype], f"{what} against finite differences")


def _check_objective_on(objective: Objective, place: _Place, values: Any, weights: Any, expected: Any) -> None:
    label = f"objective {objective.name!r} ({objective!r}) {place.label}"
    for at, given in (("", values), (" at zero values", np.zeros_like(values))):
        here, shares = place.put(given), place.put(weights)
        value = objective.value(here, shares)
        assert tuple(value.shape) == (), f"value of {label} must have no dimensions, got shape {tuple(value.shape)}"
        assert np.isfinite(scalar(value)), f"value{at} of {label} is not finite: {scalar(value)}"
        found = place.called(objective.gradient, [given, weights], f"gradient{at} of {label}", values.shape)
        both = objective.value_and_gradient(here, shares)
        tolerance = GRADIENT_TOLERANCE[place.dtype]
        _close(scalar(both[0]), scalar(value), tolerance, f"value_and_gradient{at} of {label}: value")
        _close(to_numpy(both[1]), found, tolerance, f"value_and_gradient{at} of {label}: gradient")
        if not at:
            _close(found, expected, tolerance, f"gradient of {label} against finite differences")


def _check_model_image(model: ForwardModel, name: str, point: Any, shape: tuple[int, ...]) -> None:
    label = f"{type(model).__name__} image {name!r}"
    wide = _wide(model.device)

    def forward(at: Any) -> Array:
        return model.forward(model.device.asarray(at, wide), [name])[name]

    image = forward(point)
    assert tuple(image.shape) == shape, f"{label} must have shape {shape} (scenarios, voxels), got {tuple(image.shape)}"
    assert arrays.all_finite(image), f"{label} is not finite"
    assert arrays.all_finite(forward(np.zeros_like(point))), f"{label} is not finite at x = 0"
    cotangent = _uniform(-1.0, 1.0, shape, 8)
    put = namespace(image).astype(model.device.asarray(cotangent, wide), image.dtype)
    gradient = to_numpy(model.pullback(model.device.asarray(point, wide), {name: put})).astype("float64")
    assert gradient.shape == point.shape, f"{label}: pullback must have shape {point.shape}, got {gradient.shape}"
    direction = _uniform(-1.0, 1.0, point.shape, 9)
    dtype = arrays.dtype_name(image)
    if model.linear:
        change = to_numpy(forward(direction)).astype("float64")
        scale = float(np.linalg.norm(change) * np.linalg.norm(cotangent))
        _adjoint_agrees(np.sum(change * cotangent), gradient @ direction, scale, ADJOINT_TOLERANCE[dtype], label)
        return
    slope = np.sum(_central(lambda at: to_numpy(forward(at)).astype("float64"), point, direction) * cotangent)
    tolerance = GRADIENT_TOLERANCE["float64"] if dtype == "float64" else 1e-2
    _close(gradient @ direction, slope, tolerance, f"{label}: pullback against finite differences")


def _adjoint_agrees(forward: float, back: float, scale: float, tolerance: float, label: str) -> None:
    assert abs(forward - back) <= tolerance * scale, (
        f"{label}: <Ax, y> = {forward:.15g} but <x, A'y> = {back:.15g}; relative to |Ax||y| they differ by "
        f"{abs(forward - back) / scale:.2g}, allowed {tolerance:g}: the pullback is not the transpose of the forward"
    )


def _close(found: Any, expected: Any, tolerance: float, label: str) -> None:
    """Assert that values agree to `tolerance` of the largest expected one."""
    error = float(np.max(np.abs(np.asarray(found, "float64") - expected), initial=0.0))
    largest = float(np.max(np.abs(expected), initial=0.0))
    assert error <= tolerance * max(largest, 1e-9), (
        f"{label}: largest error {error:.3g}, allowed {tolerance:g} of {largest:.3g}; found {found}, expected "
        f"{expected}"
    )


def _central(function: Callable[[Any], Any], at: Any, direction: Any, step: float = STEP) -> Any:
    """Return the derivative along a direction by central differences of two steps, extrapolated (Richardson)."""
    wide = (function(at + step * direction) - function(at - step * direction)) / (2.0 * step)
    narrow = (function(at + 0.5 * step * direction) - function(at - 0.5 * step * direction)) / step
    return (4.0 * narrow - wide) / 3.0


def _on_host(function: Callable[..., Array], place: Device) -> Callable[..., Any]:
    dtype = _wide(place)
    return lambda *inputs: to_numpy(function(*(place.asarray(one, dtype) for one in inputs)))


def _uniform(low: float, high: float, shape: tuple[int, ...], seed: int) -> Any:
    return np.random.default_rng(seed).uniform(low, high, shape)
