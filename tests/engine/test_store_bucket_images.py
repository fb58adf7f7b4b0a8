"""Images in buckets and on web servers are the images on a disk; no fault becomes a pixel."""

import pickle
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from object_store import (  # noqa: F401
    Answer,
    Server,
    bucket,
    s3_client,
    s3_server,
    serve_folder,
    web_server,
)

from engine.errors import InputError, OutputError
from engine.store import (
    ArraySpec,
    ImageMetadata,
    ImageReader,
    Level,
    Location,
    buckets,
    create_array,
    create_group,
    inspect_image,
    is_fatal,
    make_axes,
    open_array,
    open_target,
    remove_partial,
    resolve_path,
    use_fast_codecs,
    write_box,
    write_image_metadata,
    write_label_metadata,
    write_labels_group,
)
from engine.store.bucket_settings import Patience
from tiling.box import Box

AXES = make_axes("cyx", "micrometer")
LEVEL = Level("0", (2, 70, 90), (1.0, 0.5, 0.5), (0.0, 0.0, 0.0))
WHOLE = Box((0, 0), (70, 90))


@pytest.fixture(autouse=True)
def codecs() -> Iterator[None]:
    """The Rust codecs, where they can be used; the setting is put back."""
    with zarr.config.set({"codec_pipeline.path": zarr.config.get("codec_pipeline.path")}):
        use_fast_codecs(threads=1)
        yield


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """Where an image can be written."""
    if request.param == "disk":
        return Location.parse(tmp_path / "im.ome.zarr")
    return Location.parse(request.getfixturevalue("bucket")) / "im.ome.zarr"


@pytest.fixture
def pixels() -> np.ndarray:
    """Two channels; the first shard of the first and a chunk beside it are of fill value."""
    data = np.random.default_rng(0).integers(1, 999, (2, 70, 90)).astype("uint16")
    data[0, :32, :32] = 0
    data[0, :16, 32:48] = 0
    return data


def write_image(place: Location, data: np.ndarray) -> None:
    """Write a two-channel image with 16² chunks and 32² shards."""
    spec = ArraySpec(data.shape, data.dtype.name, (16, 16), (32, 32), AXES)
    create_array(place, "0", spec)
    target = open_target(place, "0")
    for channel, values in enumerate(data):
        write_box(target, (channel,), WHOLE, values)
    write_image_metadata(place, ImageMetadata("im", AXES, (LEVEL,), data.dtype.name))


def read_all(place: Location | str) -> np.ndarray:
    return ImageReader(place).read((), (0, 1), WHOLE)


def test_an_image_is_the_same_wherever_it_lies(
    tmp_path: Path, place: Location, pixels: np.ndarray
) -> None:
    other = Location.parse(tmp_path / "other.ome.zarr")
    for folder in (place, other):
        write_image(folder, pixels)
        write_image(folder / "labels" / "cells", pixels)
        write_labels_group(folder, ["cells"])
        write_label_metadata(folder / "labels" / "cells")
        create_group(folder / "maps")
    names = {name for name, _ in other.walk()}
    assert {name for name, _ in place.walk()} == names
    for name in names:
        if name.endswith("zarr.json"):
            assert (place / name).read_bytes() == (other / name).read_bytes(), name
    np.testing.assert_array_equal(read_all(place), pixels)
    info = inspect_image(place)
    assert info.path == place.url
    assert (info.extent, info.n_channels, info.shards) == ((70, 90), 2, (1, 32, 32))
    assert inspect_image(place / "labels" / "cells").is_label
    with pytest.raises(OutputError, match="differs in chunk_grid"):
        create_array(place, "0", ArraySpec((2, 70, 90), "uint16", (16, 16), (64, 64), AXES))
    with pytest.raises(OutputError, match="an array"):
        create_group(place / "0")


def test_any_box_from_many_threads(place: Location, pixels: np.ndarray) -> None:
    write_image(place, pixels)
    reader = ImageReader(place)
    boxes = [Box((y, x), (y + 19, x + 21)) for y in range(0, 50, 13) for x in range(0, 69, 11)]
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda box: reader.read((), (1, 0), box), boxes))
    for box, part in zip(boxes, parts, strict=True):
        np.testing.assert_array_equal(part, pixels[(slice(None, None, -1), *box.slices())])


def test_only_the_disk_has_fast_codecs(place: Location, pixels: np.ndarray) -> None:
    write_image(place, pixels)
    array = open_array(place / "0")
    name = type(array._async_array.codec_pipeline).__name__
    assert (name == "ZarrsCodecPipeline") == place.is_local


def test_threads_write_different_objects(place: Location, pixels: np.ndarray) -> None:
    create_array(place, "0", ArraySpec(pixels.shape, "uint16", (16, 16), (32, 32), AXES))
    target = open_target(place, "0")

    def write(job: tuple[int, Box]) -> None:
        write_box(target, (job[0],), job[1], pixels[job[0]][job[1].slices()])

    jobs = [(c, box) for c in range(2) for box in WHOLE.split((32, 32))]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, jobs * 2))
    np.testing.assert_array_equal(open_array(place / "0")[...], pixels)
    assert remove_partial(place / "0") == 0


def test_nothing_is_left_on_this_machine(
    bucket: str,  # noqa: F811
    pixels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    place = Location.parse(bucket) / "a"
    write_image(place, pixels)

    def fail(self: object, name: str, data: bytes) -> None:
        raise TimeoutError(110, "no answer")

    monkeypatch.setattr(buckets.Bucket, "write", fail)
    with pytest.raises(OutputError, match="no answer") as caught:
        write_box(open_target(place, "0"), (0,), WHOLE, pixels[0])
    assert not is_fatal(caught.value)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_array_of_a_bucket_pickles_without_credentials(
    bucket: str,  # noqa: F811
    pixels: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    write_image(Location.parse(bucket) / "a", pixels)
    text = pickle.dumps(open_array(f"{bucket}/a/0"))
    assert b"very-secret" not in text
    np.testing.assert_array_equal(pickle.loads(text)[...], pixels)


def test_a_container_of_one_image_and_one_of_two(place: Location, pixels: np.ndarray) -> None:
    create_group(place)
    write_image(place / "0", pixels)
    assert resolve_path(place) == place / "0"
    write_image(place / "10", pixels)
    write_image(place / "2", pixels)
    with pytest.raises(InputError, match=r"container with 3: \S+/0, \S+/2, \S+/10"):
        resolve_path(place)
    with pytest.raises(InputError, match="a zarr array"):
        inspect_image(place / "0" / "0")
    (place / "table.csv").write_bytes(b"1")
    with pytest.raises(InputError, match=r"a file of type \.csv"):
        inspect_image(place / "table.csv")
    with pytest.raises(InputError, match="nothing there"):
        inspect_image(place / "none")
    (place / "folder" / "a.txt").write_bytes(b"1")
    with pytest.raises(InputError, match="no zarr group"):
        inspect_image(place / "folder")


def test_a_plate_names_its_fields(place: Location, pixels: np.ndarray) -> None:
    from engine.store import update_group

    update_group(place, {"plate": {"wells": [{"path": "A/1"}, {"path": "A/2"}]}}, {})
    update_group(place / "A/1", {"well": {"images": [{"path": "f1"}, {"path": "f2"}]}}, {})
    write_image(place / "A/2/f7", pixels)
    with pytest.raises(InputError, match=r"plate with 3: \S+A/1/f1, \S+A/1/f2, \S+A/2/f7"):
        inspect_image(place)


# --- web servers -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray) -> Path:
    """An image on the disk, to be served."""
    write_image(Location.parse(tmp_path / "served" / "a b.ome.zarr"), pixels)
    return tmp_path / "served"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are tried twice, and silence is noticed at once."""
    monkeypatch.setattr(buckets, "WORK", Patience(connect_s=1, silence_s=1, retries=1))


def test_an_image_on_a_web_server(folder: Path, pixels: np.ndarray) -> None:
    with web_server(serve_folder(folder)) as address:
        for name in ("a b.ome.zarr", "a%20b.ome.zarr"):
            np.testing.assert_array_equal(read_all(f"{address}/{name}"), pixels)
        with pytest.raises(InputError, match=r"neither zarr\.json nor"):
            inspect_image(f"{address}/none")
        with pytest.raises(OutputError, match="takes no data"):
            open_array(f"{address}/a b.ome.zarr/0", "r+")
        with pytest.raises(OutputError, match="takes no data"):
            create_group(f"{address}/new")


def test_a_container_on_a_web_server_cannot_be_listed(folder: Path) -> None:
    create_group(folder / "box")
    with (
        web_server(serve_folder(folder)) as address,
        pytest.raises(InputError, match=r"no listing.*box/0"),
    ):
        inspect_image(f"{address}/box")


def test_v2_images_on_a_web_server(tmp_path: Path, folder: Path) -> None:
    data = np.arange(40 * 50, dtype=">u2").reshape(40, 50)
    axes = [{"name": n, "type": "space"} for n in "yx"]
    place = folder / "v2"
    group = zarr.create_group(place, zarr_format=2)
    array = zarr.create_array(
        place / "0", shape=data.shape, dtype=data.dtype, zarr_format=2, chunks=(16, 16)
    )
    array[...] = data
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": datasets, "version": "0.4"}]
    with web_server(serve_folder(folder)) as address:
        reader = ImageReader(f"{address}/v2")
        box = Box((5, 6), (37, 50))
        np.testing.assert_array_equal(reader.read((), (0,), box)[0], data[box.slices()])
        (place / "0" / "1.1").write_bytes(b"")
        with pytest.raises(InputError):
            reader.read((), (0,), box)


def test_a_server_that_denies_what_is_not_there(folder: Path) -> None:
    """As public buckets do that forbid listing: the next document is asked for all the same."""
    place = folder / "v2"
    group = zarr.create_group(place, zarr_format=2)
    zarr.create_array(place / "0", shape=(8, 8), dtype="u1", zarr_format=2, chunks=(8, 8))[...] = 7
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    axes = [{"name": n, "type": "space"} for n in "yx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": datasets, "version": "0.4"}]
    plain = serve_folder(folder)

    def answer(method: str, path: str, headers: Mapping[str, str]) -> Answer | None:
        found = plain(method, path, headers)
        return DENIED if found is not None and found[0] == 404 else found

    with web_server(answer) as address:
        reader = ImageReader(f"{address}/v2")
        assert (reader.read((), (0,), Box((0, 0), (8, 8))) == 7).all()
        with pytest.raises(InputError, match="access denied"):
            inspect_image(f"{address}/none")


def faulty(folder: Path, part: str, fault: Answer | None) -> Server:
    """Serve a folder; objects whose path holds `part` meet the fault."""
    plain = serve_folder(folder)

    def answer(method: str, path: str, headers: Mapping[str, str]) -> Answer | None:
        return fault if part in path else plain(method, path, headers)

    return answer


DENIED = (403, {}, b"<Error><Code>AccessDenied</Code></Error>")
SHORT = (206, {"Content-Length": "300", "Content-Range": "bytes 0-299/900"}, b"cut")
NO_BUCKET = (404, {}, b"<Error><Code>NoSuchBucket</Code></Error>")


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (DENIED, "access denied"),
        (NO_BUCKET, "the bucket does not exist"),
        ((500, {}, b"oops"), "500"),
        ((503, {}, b"slow down"), "503"),
        (None, "error"),
        (
            (206, {"Content-Length": "300", "Content-Range": "bytes 0-299/900"}, b"cut"),
            r"body error|Requested",
        ),
        ((200, {"Content-Length": "0"}, b""), "0 bytes|cannot do this"),
        ((200, {}, b"no ranges here"), "checksum|cannot do this"),
    ],
    ids=["denied", "no bucket", "500", "503", "dropped", "cut short", "empty", "no ranges"],
)
@pytest.mark.usefixtures("hasty")
def test_no_fault_becomes_a_pixel(folder: Path, fault: Answer | None, found: str) -> None:
    with web_server(faulty(folder, "/0/c/0/1/1", fault)) as address:
        reader = ImageReader(f"{address}/a b.ome.zarr")
        for box in (WHOLE, Box((33, 33), (35, 35))):
            with pytest.raises(InputError, match=found) as caught:
                reader.read((), (0,), box)
            assert not is_fatal(caught.value)
        assert reader.read((), (0,), Box((0, 0), (70, 32))).any()


@pytest.mark.usefixtures("hasty")
def test_only_what_is_truly_not_there_is_fill_value(folder: Path, pixels: np.ndarray) -> None:
    place = folder / "a b.ome.zarr"
    (place / "0/c/0/1/1").unlink()
    with web_server(serve_folder(folder)) as address:
        found = read_all(f"{address}/a b.ome.zarr")
    expected = pixels.copy()
    expected[0, 32:64, 32:64] = 0
    np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("hasty")
def test_an_object_that_vanishes_after_its_index_was_read(folder: Path) -> None:
    plain, asked = serve_folder(folder), []

    def answer(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        if path.endswith("/c/0/1/1"):
            asked.append(headers.get("Range"))
            if len(asked) > 1:
                return 404, {}, b""
        return plain(method, path, headers)

    with web_server(answer) as address, pytest.raises(InputError):
        ImageReader(f"{address}/a b.ome.zarr").read((), (0,), Box((50, 50), (60, 60)))
    assert len(asked) > 1


def damage(data: bytes, how: str) -> bytes:
    middle = len(data) // 2
    return {
        "cut": data[:middle],
        "emptied": b"",
        "index": data[:-6] + bytes([data[-6] ^ 255]) + data[-5:],
        "header": bytes([data[0] ^ 255]) + data[1:],
    }[how]


@pytest.mark.parametrize("how", ["cut", "emptied", "index", "header"])
def test_damaged_objects_are_errors(place: Location, pixels: np.ndarray, how: str) -> None:
    write_image(place, pixels)
    victim = place / "0/c/1/1/1"
    victim.write_bytes(damage(victim.read_bytes(), how))
    reader = ImageReader(place)
    for box in (WHOLE, Box((32, 32), (64, 64)), Box((33, 33), (35, 35))):
        with pytest.raises(
            InputError, match=r"im\.ome\.zarr/0, plane.*(decode to pixels|bytes instead|range)"
        ):
            reader.read((), (1,), box)
    np.testing.assert_array_equal(reader.read((), (0,), WHOLE)[0], pixels[0])


# --- fingerprints ------------------------------------------------------------------------------


def test_sources_name_what_a_box_is_read_from(place: Location, pixels: np.ndarray) -> None:
    write_image(place, pixels)
    reader = ImageReader(place)
    found = reader.sources((), (1,), Box((31, 5), (33, 6)))
    assert [name for name, _ in found] == ["0/c/1/0/0", "0/c/1/1/0"]
    assert "absent" not in dict(found).values()
    assert dict(reader.sources((), (0,), Box((0, 0), (33, 33))))["0/c/0/0/0"] == "absent"
    assert len(reader.sources((), (1, 0), WHOLE)) == 2 * 9
    before = dict(reader.sources((), (0, 1), WHOLE))
    changed = pixels[1].copy()
    changed[0, 0] += 1
    write_box(open_target(place, "0"), (1,), Box((0, 0), (32, 32)), changed[:32, :32])
    after = dict(reader.sources((), (0, 1), WHOLE))
    assert [name for name in before if before[name] != after[name]] == ["0/c/1/0/0"]
    stat = (place / "0/c/1/0/0").stat()
    assert stat is not None
    assert after["0/c/1/0/0"] == (f"{stat.size}-{stat.tag}" if place.is_local else stat.tag)
    with pytest.raises(InputError, match=r"outside|inside"):
        reader.sources((), (0,), Box((0, 0), (71, 4)))


def test_sources_of_one_plane_of_many(place: Location) -> None:
    axes, shape = make_axes("tczyx"), (2, 3, 2, 40, 40)
    create_array(place, "0", ArraySpec(shape, "uint8", (16, 16), (32, 32), axes))
    level = Level("0", shape, (1.0,) * 5, (0.0,) * 5)
    write_image_metadata(place, ImageMetadata("im", axes, (level,), "uint8"))
    found = ImageReader(place).sources((1, 0), (2, 0), Box((5, 33), (6, 34)))
    assert found == (("0/c/1/0/0/0/1", "absent"), ("0/c/1/2/0/0/1", "absent"))


def test_a_probe_sees_the_corners_first(place: Location, pixels: np.ndarray) -> None:
    write_image(place, pixels)
    reader = ImageReader(place)
    corners = {f"0/c/{c}/{y}/{x}" for c in (0, 1) for y in (0, 2) for x in (0, 2)}
    assert {name for name, _ in reader.probe(8)} == corners
    found = reader.probe()
    assert len(found) == len({name for name, _ in found}) == 18
    assert dict(found) == dict(reader.sources((), (0, 1), WHOLE))


@pytest.mark.usefixtures("hasty")
def test_sources_on_a_web_server(folder: Path) -> None:
    with web_server(serve_folder(folder)) as address:
        reader = ImageReader(f"{address}/a b.ome.zarr")
        before = dict(reader.sources((), (0,), WHOLE))
        assert before["0/c/0/0/0"] == "absent"
        victim = folder / "a b.ome.zarr/0/c/0/1/1"
        victim.write_bytes(victim.read_bytes() + b"more")
        after = dict(reader.sources((), (0,), WHOLE))
        assert [name for name in before if before[name] != after[name]] == ["0/c/0/1/1"]
    with (
        web_server(faulty(folder, "/0/c/", DENIED)) as address,
        pytest.raises(InputError, match="access denied"),
    ):
        ImageReader(f"{address}/a b.ome.zarr").sources((), (0,), WHOLE)


def test_a_web_server_without_ranges_is_refused_for_shards(folder: Path) -> None:
    plain = serve_folder(folder)

    def answer(method: str, path: str, headers: Mapping[str, str]) -> Answer | None:
        rest: Any = {k: v for k, v in headers.items() if k != "Range"}
        return plain(method, path, rest)

    with web_server(answer) as address, pytest.raises(InputError):
        ImageReader(f"{address}/a b.ome.zarr").read((), (0,), Box((33, 33), (35, 35)))
