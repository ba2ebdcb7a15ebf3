"""Images of other programs come and go without a shift, a flip or a changed value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import radplan as rp
from radplan.errors import FileError, InputError
from radplan.io.images import SUFFIXES, read_image, read_segmentation, save_images, write_image
from radplan.plan.of_dose import plan_of_dose

sitk = pytest.importorskip("SimpleITK")
GRID = rp.Grid((3, 4, 5), (1.27, 2.0, 3.5), (-10.25, 4.0, 7.125))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["int16", "float32", "uint8"])
def test_a_round_trip_keeps_values_and_geometry(suffix: str, dtype: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 200, GRID.shape).astype(dtype)
    read, grid = read_image(write_image(tmp_path / f"image{suffix}", values, GRID))
    assert np.array_equal(read, values)
    assert read.dtype == values.dtype
    assert grid.shape == GRID.shape
    assert np.allclose(grid.spacing, GRID.spacing, atol=1e-6)
    assert np.allclose(grid.origin, GRID.origin, atol=1e-4)


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LAI", "PIR", "SRP", "RPI", "ASL", "IPL"])
def test_whatever_its_axes_are_called_a_voxel_stays_where_it_is(axes: str, tmp_path: Path) -> None:
    values = np.zeros(GRID.shape, dtype=np.float32)
    values[2, 1, 3] = 7.0
    turned = sitk.DICOMOrient(sitk.ReadImage(str(write_image(tmp_path / "a.nrrd", values, GRID))), axes)
    sitk.WriteImage(turned, str(tmp_path / "b.nrrd"))
    read, grid = read_image(tmp_path / "b.nrrd")
    assert np.array_equal(read, values)
    assert np.allclose(grid.origin, GRID.origin)


def test_oblique_axes_and_damage_are_refused(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.zeros((3, 3, 3), np.float32))
    c, s = np.cos(0.1), np.sin(0.1)
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "tilted.nrrd"))
    with pytest.raises(FileError, match="obliquely"):
        read_image(tmp_path / "tilted.nrrd")
    (tmp_path / "bad.nii").write_bytes(b"not an image at all")
    with pytest.raises(FileError, match=r"bad\.nii"):
        read_image(tmp_path / "bad.nii")
    with pytest.raises(InputError, match="shape"):
        write_image(tmp_path / "c.nrrd", np.zeros((2, 2, 2)), GRID)


def test_segments_of_3d_slicer_are_read_by_name(tmp_path: Path) -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[0], labels[1] = 1, 2
    image = sitk.GetImageFromArray(labels)
    for key, value in {
        "Segment0_ID": "s1", "Segment0_Name": "Parotid L", "Segment0_LabelValue": "2", "Segment0_Layer": "0",
        "Segment1_ID": "s2", "Segment1_Name": "PTV", "Segment1_LabelValue": "1", "Segment1_Layer": "0",
    }.items():  # fmt: skip
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(tmp_path / "a.seg.nrrd"))
    masks, _ = read_segmentation(tmp_path / "a.seg.nrrd")
    assert list(masks) == ["Parotid L", "PTV"]
    assert masks["Parotid L"][1].all()
    assert not masks["Parotid L"][0].any()


def test_a_plan_goes_out_as_images_and_comes_back_as_a_patient(tmp_path: Path) -> None:
    box = rp.load_patient("box")
    plan = plan_of_dose(np.full(box.ct.grid.shape, 2.0), box.ct.grid, box)
    save_images(plan, tmp_path / "box")
    back = rp.load_patient(tmp_path / "box")
    assert set(back.structures) == {"OuterTarget", "BODY"}
    assert np.array_equal(back.structures["OuterTarget"].mask(), box.structures["OuterTarget"].mask())
    assert np.array_equal(back.ct.hu, box.ct.hu.astype(np.int16))
    dose, grid = read_image(tmp_path / "box" / "dose.nii.gz")
    assert float(dose.max()) == 2.0
    assert np.allclose(grid.origin, box.ct.grid.origin, atol=1e-4)


def test_clinical_nrrd_files_are_read(shared) -> None:
    folder = shared("cases/eclipse-prostate")
    files = sorted(folder.rglob("*.nrrd"))
    assert files
    for file in files:
        if file.name.endswith(".seg.nrrd"):
            masks, grid = read_segmentation(file)
            for mask in masks.values():
                centre = grid.points(np.flatnonzero(mask)).mean(axis=0)
                assert np.abs(centre[0]) < 40.0  # the bladder lies in the middle, in front
                assert -80.0 < centre[1] < 40.0
        else:
            values, grid = read_image(file)
            assert values.shape == grid.shape
