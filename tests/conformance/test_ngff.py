"""The official schemas and suites of OME-NGFF, and the libraries that read what we write."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from engine.errors import InputError
from engine.store import (
    MODE,
    ArraySpec,
    Channel,
    ImageMetadata,
    ImageReader,
    Level,
    create_array,
    inspect_image,
    make_axes,
    open_array,
    open_target,
    pyramid_levels,
    use_fast_codecs,
    write_box,
    write_image_metadata,
    write_label_metadata,
    write_labels_group,
)
from engine.store.metadata import ome_attributes, parse_multiscale
from tiling.box import Box

# Valid by the schema, refused here: axes other than t, c, z, y, x, and a scale that has not one
# number per axis, which the text of the specification forbids.
BEYOND_THE_SCHEMA = {
    "valid/mismatch_axes_units.json": "one number for each of 3 axes",
    "valid/untyped_axes.json": "'angle'",
    "valid/custom_type_axes.json": "'angle'",
}
# Invalid by the schema, read here: display metadata never refuse an image, and writers of 0.4 in
# the field give the paths of levels as numbers.
LENIENT = {"invalid/invalid_channels_color.json", "invalid/invalid_channels_window.json"}
LENIENT_04 = LENIENT | {"invalid/invalid_path.json"}


def validator(shared: Path, version: str, name: str) -> Draft202012Validator:
    """Make a validator for an official schema; references stay inside the folder."""
    folder = shared / "ngff" / version / "schemas"
    documents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.schema"))]
    resources = [(doc["$id"], Resource.from_contents(doc, DRAFT202012)) for doc in documents]
    registry: Registry[Any] = Registry().with_resources(resources)
    schema = json.loads((folder / f"{name}.schema").read_text())
    return Draft202012Validator(schema, registry=registry)


def cases(shared: Path, version: str, suite: str) -> list[dict[str, Any]]:
    """Cases of an official suite."""
    path = shared / "ngff" / version / "tests" / f"{suite}.json"
    tests: list[dict[str, Any]] = json.loads(path.read_text())["tests"]
    assert tests
    return tests


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("suite", ["image_suite", "strict_image_suite"])
def test_image_suites_are_read_or_refused(shared_data: Path, version: str, suite: str) -> None:
    zarr_format = 3 if version == "0.5" else 2
    lenient = LENIENT if version == "0.5" else LENIENT_04
    for case in cases(shared_data, version, suite):
        ome = ome_attributes(case["data"], zarr_format)
        name = case["formerly"]
        # The strict suites also hold images without a recommended key: `valid` speaks of these.
        readable = (case["valid"] or suite == "strict_image_suite") and name not in (
            BEYOND_THE_SCHEMA
        )
        if readable or name in lenient:
            found = parse_multiscale(ome, zarr_format, where=name)
            assert found.version == version
            assert len(found.datasets) == len(ome["multiscales"][0]["datasets"])
        else:
            message = BEYOND_THE_SCHEMA.get(name, "expected")
            with pytest.raises(InputError, match=message):
                parse_multiscale(ome, zarr_format, where=name)


@pytest.mark.parametrize(
    ("suite", "schema"),
    [
        ("image_suite", "image"),
        ("strict_image_suite", "strict_image"),
        ("label_suite", "label"),
        ("strict_label_suite", "strict_label"),
    ],
)
def test_our_validator_agrees_with_the_suites(shared_data: Path, suite: str, schema: str) -> None:
    """Else the tests below could not fail."""
    check = validator(shared_data, "0.5", schema)
    for case in cases(shared_data, "0.5", suite):
        assert check.is_valid(case["data"]) == case["valid"], case


def write_result(folder: Path, names: str, shape: tuple[int, ...]) -> None:
    """Write an image with a pyramid, a label image and a map, as a run would."""
    axes = make_axes(names, "micrometer")
    scale = tuple(0.25 if name in "yx" else 1.0 for name in names)
    first = Level("0", shape, scale, (0.0,) * len(shape))
    planes = [axis for axis in axes if axis.name != "c"]
    keep = [k for k, axis in enumerate(axes) if axis.name != "c"]
    sizes = dict(zip(names, shape, strict=True))
    channels = tuple(Channel(f"stain {k}") for k in range(sizes.get("c", 1)))
    flat = Level("0", *(tuple(v[k] for k in keep) for v in (shape, scale, first.translation)))
    for group, start, dtype, used in [
        (folder, first, "uint16", axes),
        (folder / "labels" / "nuclei", flat, "uint32", tuple(planes)),
        (folder / "maps" / "probability", flat, "float16", tuple(planes)),
    ]:
        levels = pyramid_levels(start, 32)
        for level in levels:
            create_array(group, level.path, ArraySpec(level.shape, dtype, (16, 16), (32, 32), used))
            target = open_target(group, level.path)
            pixels = np.arange(np.prod(level.shape)).reshape(level.shape).astype(dtype)
            for leading in np.ndindex(level.shape[:-2]):
                write_box(target, leading, Box.of_shape(level.shape[-2:]), pixels[leading])
        if group.parent.name == "labels":
            write_image_metadata(group, ImageMetadata("nuclei", used, levels, dtype, MODE))
            write_label_metadata(group, colors={1: (255, 0, 0, 255)})
        else:
            shown = channels if group == folder else (Channel("probability"),)
            image = ImageMetadata(group.name, used, levels, dtype, channels=shown)
            write_image_metadata(group, image)
    write_labels_group(folder, ["nuclei"])


RESULTS = [("yx", (70, 90)), ("cyx", (2, 70, 90)), ("tczyx", (2, 3, 2, 40, 30))]


@pytest.fixture(params=RESULTS, ids=[names for names, _ in RESULTS], scope="module")
def result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that we wrote; tests only read it."""
    folder = tmp_path_factory.mktemp("result") / "out.ome.zarr"
    with zarr.config.set({"codec_pipeline.path": zarr.config.get("codec_pipeline.path")}):
        use_fast_codecs()
        write_result(folder, *request.param)
    return folder


def test_what_we_write_is_valid_by_the_official_schemas(shared_data: Path, result: Path) -> None:
    for group, schemas in [
        ("", ("strict_image", "image", "ome_zarr")),
        ("labels/nuclei", ("strict_image", "strict_label", "ome_zarr")),
        ("maps/probability", ("strict_image", "ome_zarr")),
        ("labels", ("ome_zarr",)),
    ]:
        attributes = json.loads((result / group / "zarr.json").read_text())["attributes"]
        for schema in schemas:
            if group == "labels":
                assert attributes["ome"] == {"labels": ["nuclei"], "version": "0.5"}
            else:
                validator(shared_data, "0.5", schema).validate(attributes)


def test_what_we_write_is_valid_for_ome_zarr_models(result: Path) -> None:
    from ome_zarr_models.v05 import Image, ImageLabel, Labels

    image = Image.from_zarr(zarr.open_group(result, mode="r"))
    info = inspect_image(result)
    assert image.ome_attributes.multiscales[0].ndim == len(info.axes)
    label = ImageLabel.from_zarr(zarr.open_group(result / "labels/nuclei", mode="r"))
    assert label.ome_attributes.image_label.source.image == "../../"
    Labels.from_zarr(zarr.open_group(result / "labels", mode="r"))
    Image.from_zarr(zarr.open_group(result / "maps/probability", mode="r"))


@pytest.mark.filterwarnings("ignore:Call to deprecated class Scaler")
def test_ome_zarr_reads_what_we_write(result: Path) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    location = parse_url(str(result))
    assert location is not None
    nodes = list(Reader(location)())
    image = nodes[0]
    expected = open_array(result / "0")[...]
    np.testing.assert_array_equal(np.asarray(image.data[0]), expected)
    assert len(image.data) == len(inspect_image(result).levels)
    label = next(node for node in nodes if node.metadata.get("name") == "nuclei")
    np.testing.assert_array_equal(np.asarray(label.data[0]), open_array(result / "labels/nuclei/0"))


def test_the_foreign_image_of_the_image_data_resource(shared_data: Path) -> None:
    folder = shared_data / "omezarr" / "6001240_labels_v0.5.zarr"
    reader = ImageReader(folder)
    info = reader.info
    assert (info.version, info.dtype, info.extent) == ("0.5", "uint16", (68, 67))
    assert (info.plane_axes, info.plane_shape) == (("z",), (236,))
    assert info.channel_names == ("LaminB1", "Dapi")
    assert info.pixel_size_um == pytest.approx((1.4416, 1.4416), abs=1e-4)
    found = reader.read((118,), (1, 0), Box((10, 5), (60, 67)))
    expected = zarr.open_array(folder / "2", mode="r")[:, 118, 10:60, 5:67][::-1]
    np.testing.assert_array_equal(found, expected)
    assert found.max() > found.min()
    labels = ImageReader(folder / "labels" / "0")
    assert labels.info.is_label
    assert labels.info.dtype == "int8"
    assert [level.shape[-1] for level in labels.info.levels] == [271, 135, 67, 33]
    whole = labels.read((118,), (0,), Box.of_shape(labels.extent))
    expected = zarr.open_array(folder / "labels/0/0", mode="r")[:, 118]
    np.testing.assert_array_equal(whole, expected)
    assert len(np.unique(whole)) > 2


def test_the_foreign_plate(shared_data: Path) -> None:
    plate = shared_data / "omezarr" / "plate_ones_mip.zarr"
    with pytest.raises(InputError, match=r"plate with 1: .*plate_ones_mip\.zarr/B/03/0"):
        inspect_image(plate)
    reader = ImageReader(plate / "B" / "03" / "0", level=2)
    assert reader.info.version == "0.4"
    assert (reader.info.n_channels, reader.extent) == (2, (270, 320))
    assert (reader.read((0,), (0, 1), Box((200, 0), (270, 320))) == 1).all()
    labels = inspect_image(plate / "B" / "03" / "0" / "labels" / "organoids")
    assert labels.is_label
    assert labels.plane_shape == (1,)
