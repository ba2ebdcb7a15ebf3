"""Reading matRad's photon machines."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from radplan.errors import FileError
from radplan.io.matrad.machine import read_machine


def content(**changes):
    """A tiny machine in matRad's layout, version 1 unless changed."""
    kernels = [
        {"SSD": ssd, "kernel1": np.asarray([0.8, 0.1, 0.05]) * ssd, "kernel2": np.asarray([-0.1, 0.0, 0.0])}
        for ssd in (800.0, 900.0)
    ]
    data = {
        "betas": np.asarray([0.3, 0.016]),
        "energy": 6.0,
        "m": 0.005,
        "primaryFluence": np.asarray([[0.0, 1.0], [100.0, 1.06]]),
        "kernel": np.asarray(kernels, dtype=object),
        "kernelPos": np.asarray([0.0, 0.5, 1.0]),
        "penumbraFWHMatIso": 5.0,
    }
    machine = {"meta": {"radiationMode": "photons", "SAD": 1000.0, "machine": "Tiny"}, "data": data}
    return {**machine, **changes}


@pytest.fixture
def write(tmp_path):
    def to_file(machine):
        path = tmp_path / "photons_Tiny.mat"
        savemat(path, {"machine": machine})
        return path

    return to_file


def test_version_1_and_2_give_the_same_machine(write):
    first = read_machine(write(content()))
    machine = content(version=2.0)
    for kernel in machine["data"]["kernel"]:
        kernel["kernel1"], kernel["kernel2"] = kernel["kernel1"] * 4, kernel["kernel2"] * 4
    second = read_machine(write(machine))
    np.testing.assert_allclose(first.kernel.values, second.kernel.values)
    assert (first.name, first.distance, first.reference) == ("matrad_photons_Tiny", "ray", None)
    assert (first.sad, first.source_fwhm, first.energy) == (1000.0, 5.0, 6.0)
    assert first.bixel_shift == (-0.25, -0.25)
    # the pixel integral on the axis of the nearest surface distance, as the file has it
    assert first.kernel.basis(870.0).raster(0.5, 1.0)[0, 2, 2] == pytest.approx(0.8 * 900)


def test_off_axis_fluence_is_an_option(write):
    path = write(content())
    radius = np.asarray([50.0])
    assert read_machine(path).fluence_profile(radius) == pytest.approx(1.0)
    assert read_machine(path, primary_fluence=True).fluence_profile(radius) == pytest.approx(1.03)
    assert read_machine(path).provenance["primary_fluence"] == [[0.0, 1.0], [100.0, 1.06]]


def test_a_single_surface_distance(write):
    machine = content()
    machine["data"]["kernel"] = machine["data"]["kernel"][:1]
    assert read_machine(write(machine)).kernel.values.shape == (1, 2, 3)


def test_bad_files_say_what_is_wrong(write, tmp_path):
    with pytest.raises(FileError, match="kernel version 3"):
        read_machine(write(content(version=3.0)))
    with pytest.raises(FileError, match="machine for neutrons"):
        read_machine(write(content(meta={"radiationMode": "neutrons", "SAD": 10000.0, "machine": "Tiny"})))
    incomplete = content()
    del incomplete["data"]["betas"]
    with pytest.raises(FileError, match="'betas'"):
        read_machine(write(incomplete))
    path = write(content())
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(FileError, match="cut short or damaged"):
        read_machine(path)
    (tmp_path / "text.mat").write_text("not a machine " * 20)
    with pytest.raises(FileError, match="is not a MATLAB v5 to v7"):
        read_machine(tmp_path / "text.mat")
    savemat(tmp_path / "other.mat", {"patient": 1})
    with pytest.raises(FileError, match="has no struct 'machine'"):
        read_machine(tmp_path / "other.mat")


def test_matrads_own_machine(shared):
    machine = read_machine(shared("cases/matrad_machines/photons_Generic.mat"))
    assert machine.kernel.values.shape == (501, 3, 360)
    assert machine.kernel.radius[-1] == 179.5
    np.testing.assert_allclose(machine.kernel.buildup, [0.3252, 0.016, 0.0051])


def test_influence_columns_of_matrad(shared):
    """Columns of matRad's own Dij for the box phantom, built from the machine as read; the shift is what fits.

    The stored depths are nearest-resampled where matRad interpolates, hence 1 % at the sharpest gradients.
    """
    machine = read_machine(shared("cases/matrad_machines/photons_Generic.mat"))
    options = {"squeeze_me": True, "struct_as_record": False}
    case = loadmat(shared("oracle/photons_BOX_1beam.mat"), **options)["out"]
    dij = loadmat(shared("oracle/photons_BOX_1beam_dij.mat"), **options)
    depth = loadmat(shared("oracle/photons_BOX_1beam_raddepth.mat"), **options)["out"].radDepth
    basis = machine.kernel.basis(float(case.stf.SSDcomputed[40]))
    maps, axis = bixel_maps(basis, machine)
    for column in (0, 10):
        entries = dij["physicalDose"].tocsc()[:, [column]].tocoo()
        y, x, z = np.unravel_index(entries.row, depth.shape, order="F")
        grid = case.doseGrid
        points = np.stack([grid.x[x], grid.y[y], grid.z[z]], axis=1) - case.stf.isoCenter
        ray = case.stf.rayPos_bev[int(dij["physicalDose_cols0"][column])]
        lateral, distance = around_ray(points, ray, machine.sad)
        weights = basis.weights(depth[y, x, z].astype(float), distance)
        errors = {}
        for shift in (-0.25, 0.0, 0.25):
            dose = (machine.sad / distance) ** 2 * np.sum(weights * sample(maps, axis, lateral - shift), axis=0)
            errors[shift] = np.abs(dose - entries.data) / entries.data.max()
        assert errors[-0.25].mean() < 5e-5
        assert errors[-0.25].max() < 0.01
        assert min(errors[0.0].mean(), errors[0.25].mean()) > 2e-4
        assert machine.bixel_shift == (-0.25, -0.25)


def bixel_maps(basis, machine):
    """The radial functions under a blurred 10 mm bixel centred at 0, at points 0.25, 0.75, ... off its centre."""
    from scipy.signal import fftconvolve
    from scipy.special import erf

    # an even number of full pixels: their centres lie at half-pixel positions
    centre = (np.arange(-70, 70) + 0.5) * 0.5
    bound = np.stack([centre - 0.25, centre, centre + 0.25]) / machine.source_sigma / np.sqrt(2)
    half = 5.0 / machine.source_sigma / np.sqrt(2)
    side = np.asarray([1, 4, 1]) @ (erf(bound + half) - erf(bound - half)) / 12
    kernel = basis.raster(0.5, 180.0)
    maps = np.stack([fftconvolve(side[:, None] * side, k) for k in kernel])
    return maps, (np.arange(maps.shape[1]) - (maps.shape[1] - 1) / 2) * 0.5


def around_ray(points, ray, sad):
    """Lateral offsets scaled to the isocentre plane of a frame turned onto the ray, and the straight distance."""
    source, forward = np.asarray([0.0, -sad, 0.0]), np.asarray([0.0, 1.0, 0.0])
    along = (ray - source) / np.linalg.norm(ray - source)
    axis = np.cross(along, forward)
    skew = np.asarray([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turned = (points - source) @ (np.eye(3) + skew + skew @ skew / (1 + along @ forward)).T
    return turned[:, [0, 2]] * sad / turned[:, [1]], np.linalg.norm(points - source, axis=1)


def sample(maps, axis, lateral):
    from scipy.ndimage import map_coordinates

    index = (lateral - axis[0]) / 0.5
    return np.stack([map_coordinates(m, index[:, ::-1].T, order=1) for m in maps])
