"""A result is a valid OME-Zarr 0.5 image: by the models, by the official schemas, by a reader."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from journeys import Runner, save_image
from jsonschema import Draft202012Validator
from ome_zarr_models.v05 import Image, ImageLabel
from referencing import Registry
from referencing.jsonschema import DRAFT202012


@pytest.fixture(scope="module", params=["false", "true"])
def result(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    nuclei: np.ndarray,
    run_recipe: Runner,
) -> Path:
    folder = tmp_path_factory.mktemp("result")
    image = save_image(folder / "image.zarr", nuclei)
    out = folder / "out.ome.zarr"
    assert run_recipe(image, out, f"storage.with_image={request.param}").complete
    return out


def test_models_accept_it(result: Path) -> None:
    root = zarr.open_group(result, mode="r")
    for group in ("", "maps/probability"):
        image = Image.from_zarr(root[group] if group else root)
        assert len(image.attributes.ome.multiscales[0].datasets) >= 2
    label = ImageLabel.from_zarr(root["labels/nuclei"])
    assert label.attributes.ome.image_label is not None
    assert root["labels"].attrs["ome"]["labels"] == ["nuclei"]


def test_official_schemas_accept_it(result: Path, shared_data: Path) -> None:
    folder = shared_data / "ngff" / "0.5" / "schemas"
    schemas = {path.name: json.loads(path.read_text()) for path in folder.glob("*.schema")}
    resources = [(s["$id"], DRAFT202012.create_resource(s)) for s in schemas.values()]
    registry = Registry().with_resources(resources)
    for group, name in (
        ("", "image.schema"),
        ("maps/probability", "image.schema"),
        ("labels/nuclei", "image.schema"),
        ("labels/nuclei", "label.schema"),
    ):
        document = json.loads((result / group / "zarr.json").read_text())["attributes"]
        Draft202012Validator(schemas[name], registry=registry).validate(document)


def test_label_levels_hold_only_labels_of_the_finest(result: Path) -> None:
    root = zarr.open_group(result / "labels" / "nuclei", mode="r")
    finest = set(np.unique(np.asarray(root["0"])))
    for name in ("1", "2"):
        assert set(np.unique(np.asarray(root[name]))) <= finest


def test_the_root_shows_pixels(result: Path) -> None:
    root = zarr.open_group(result, mode="r")
    datasets = root.attrs["ome"]["multiscales"][0]["datasets"]
    for dataset in datasets:
        assert np.asarray(root[dataset["path"]]).max() > 0
