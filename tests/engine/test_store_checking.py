"""A record knows what stands: absent on purpose, missing, damaged, or the same in other bytes."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from object_store import bucket, s3_server  # noqa: F401

from engine.errors import InputError, OutputError
from engine.store import (
    ABSENT,
    ArraySpec,
    Checker,
    Location,
    StoredObject,
    Target,
    checksum,
    create_array,
    disk,
    is_damage,
    is_fatal,
    make_axes,
    open_array,
    open_target,
    use_fast_codecs,
    write,
    write_atomic,
    write_box,
    write_file,
)
from tiling.box import Box

NAME = "labels/cells/0"
WHOLE = Box((0, 0), (70, 90))


@pytest.fixture(autouse=True)
def codecs() -> Iterator[None]:
    """The Rust codecs, where they can be used; the setting is put back."""
    with zarr.config.set({"codec_pipeline.path": zarr.config.get("codec_pipeline.path")}):
        use_fast_codecs(threads=1)
        yield


@pytest.fixture(params=["disk", "bucket"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """Where a result can be written."""
    if request.param == "disk":
        return Location.parse(tmp_path / "out.zarr")
    return Location.parse(request.getfixturevalue("bucket")) / "out.zarr"


def make(out: Location, dtype: str = "uint16") -> Target:
    """Make an array of 16² chunks and 32² shards."""
    create_array(out, NAME, ArraySpec((2, 70, 90), dtype, (16, 16), (32, 32), make_axes("cyx")))
    return open_target(out, NAME)


def noise(dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(3).integers(1, 99, (70, 90)).astype(dtype)


def verdicts(out: Location, objects: tuple[StoredObject, ...]) -> set[tuple[str, str | None]]:
    """What both depths say of objects, without those that are well."""
    checker = Checker(out)
    found = set()
    for depth in ("listing", "bytes"):
        with ThreadPoolExecutor(4) as pool:
            said = pool.map(lambda stored, d=depth: checker.check(stored, d), objects)  # type: ignore[misc]
            found |= {(depth, verdict) for verdict in said if verdict is not None}
    return found


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint64", "float16", "float32"])
def test_what_is_written_is_found_well(out: Location, dtype: str) -> None:
    target = make(out, dtype)
    pixels = noise(dtype)
    pixels[:32, :32] = 0
    pixels[:16, 32:48] = 0
    objects = write_box(target, (1,), WHOLE, pixels)
    assert [o.name for o in objects] == [f"{NAME}/c/1/{y}/{x}" for y in range(3) for x in range(3)]
    assert objects[0] == StoredObject(f"{NAME}/c/1/0/0", "", 0, "")
    assert objects[1].checksums == ABSENT + "".join(
        checksum(pixels[y : y + 16, x : x + 16]) for y, x in [(0, 48), (16, 32), (16, 48)]
    )
    # The corner shard holds 6 by 26 pixels of the array, in one row of two chunks.
    assert objects[8].checksums == checksum(pixels[64:, 64:80]) + checksum(pixels[64:, 80:])
    for stored in objects[1:]:
        stat = (out / stored.name).stat()
        assert stat is not None
        assert (stored.size, stored.tag) == (stat.size, stat.tag)
    assert verdicts(out, objects) == set()
    assert [StoredObject.from_json(o.to_json()) for o in objects] == list(objects)


def test_chunks_of_fill_value_are_not_stored(out: Location) -> None:
    pixels = np.zeros((70, 90), "uint16")
    pixels[16:32, :16] = 5
    first = write_box(make(out), (0,), WHOLE, pixels)[0]
    assert first.checksums == 2 * ABSENT + checksum(pixels[16:32, :16]) + ABSENT
    # At the end of a shard: place and length of each chunk, all ones for none, then 4 bytes.
    index = np.frombuffer((out / first.name).read_bytes()[-68:-4], "<u8").reshape(4, 2)
    assert [bool((entry == 2**64 - 1).all()) for entry in index] == [True, True, False, True]


def test_new_entries_of_folders_survive_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = make(Location.parse(tmp_path))
    synced: list[Path] = []
    for module in (disk, write):
        monkeypatch.setattr(module, "sync_folder", synced.append)
    write_box(target, (1,), Box((0, 0), (64, 64)), noise()[:64, :64])
    array = tmp_path / NAME
    made = {array, array / "c", array / "c/1", array / "c/1/0", array / "c/1/1"}
    assert set(synced) == made


def test_minus_zero_is_zero(out: Location) -> None:
    target = make(out, "float32")
    pixels = np.zeros((70, 90), "float32")
    pixels[:32, :32] = -0.0
    pixels[32:48] = -0.0
    pixels[50, 5] = 1
    objects = write_box(target, (0,), WHOLE, pixels)
    assert [bool(o.checksums) for o in objects] == [False] * 3 + [True] + [False] * 5
    assert verdicts(out, objects) == set()
    np.testing.assert_array_equal(open_array(out / NAME)[0], pixels)


def test_writing_again_gives_the_same_checksums(out: Location) -> None:
    target = make(out)
    first = write_box(target, (0,), WHOLE, noise())
    again = [
        stored
        for box in WHOLE.split((64, 32))
        for stored in write_box(target, (0,), box, noise()[box.slices()])
    ]
    assert {(o.name, o.checksums) for o in first} == {(o.name, o.checksums) for o in again}
    checker = Checker(out)
    assert {checker.check(stored, "bytes") for stored in first} == {None}


def test_objects_that_are_gone(out: Location) -> None:
    objects = write_box(make(out), (0,), WHOLE, noise())
    (out / objects[4].name).delete()
    assert verdicts(out, objects[4:5]) == {("listing", "missing"), ("bytes", "missing")}
    assert verdicts(out, objects[:4] + objects[5:]) == set()


def test_objects_that_should_not_be_there(out: Location) -> None:
    target = make(out)
    full = write_box(target, (0,), Box((0, 0), (32, 32)), noise()[:32, :32])
    data = (out / full[0].name).read_bytes()
    absent = write_box(target, (0,), Box((0, 0), (32, 32)), np.zeros((32, 32), "uint16"))
    assert verdicts(out, absent) == set()
    (out / full[0].name).write_bytes(data)
    assert verdicts(out, absent) == {("listing", "damaged"), ("bytes", "damaged")}


@pytest.mark.parametrize("how", ["cut", "emptied", "flipped", "other"])
def test_objects_that_are_damaged(out: Location, how: str) -> None:
    target = make(out)
    objects = write_box(target, (0,), WHOLE, noise())
    victim = out / objects[4].name
    data = bytearray(victim.read_bytes())
    if how == "cut":
        del data[len(data) // 2 :]
    elif how == "emptied":
        del data[:]
    elif how == "flipped":
        data[20] ^= 255
    else:
        data = bytearray((out / objects[0].name).read_bytes())
    victim.write_bytes(bytes(data))
    assert verdicts(out, objects[4:5]) == {("listing", "damaged"), ("bytes", "damaged")}


def test_other_bytes_of_the_same_pixels_are_well_by_bytes(out: Location) -> None:
    objects = write_box(make(out), (0,), WHOLE, noise())
    other = out / "other"
    create_array(
        other, NAME, ArraySpec((2, 70, 90), "uint16", (16, 16), (32, 32), make_axes("cyx"))
    )
    write_box(open_target(other, NAME), (0,), WHOLE, noise())
    (out / objects[4].name).write_bytes((other / objects[4].name).read_bytes())
    assert {Checker(out).check(stored, "bytes") for stored in objects} == {None}


def test_plain_files(out: Location) -> None:
    stored = write_file(out, ".tilewright/c/objects.npz", b"123456789")
    assert (stored.checksums, stored.size) == ("e3069283", 9)
    empty = write_file(out, "empty", b"")
    assert verdicts(out, (stored, empty)) == set()
    (out / stored.name).write_bytes(b"12345678")
    (out / empty.name).delete()
    assert verdicts(out, (stored,)) == {("listing", "damaged"), ("bytes", "damaged")}
    assert verdicts(out, (empty,)) == {("listing", "missing"), ("bytes", "missing")}


def test_an_array_that_lost_its_document_is_an_error(out: Location) -> None:
    objects = write_box(make(out), (0,), WHOLE, noise())
    (out / NAME / "zarr.json").delete()
    with pytest.raises(OutputError, match="no array there"):
        Checker(out).check(objects[0], "bytes")


def test_checking_changes_nothing_on_the_disk(tmp_path: Path) -> None:
    out = Location.parse(tmp_path)
    objects = write_box(make(out), (0,), WHOLE, noise())
    before = dict(out.walk())
    assert verdicts(out, objects) == set()
    assert dict(out.walk()) == before


# --- what a run must stop for --------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("pipeline", ["rust", "python"])
def test_a_disk_that_is_really_full(small_disk: Path, pipeline: str) -> None:
    if pipeline == "python":
        zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"})
    out = Location.parse(small_disk)
    axes = make_axes("yx")
    create_array(out, "0", ArraySpec((1024, 1024), "uint16", (128, 128), (1024, 1024), axes))
    pixels = np.random.default_rng(0).integers(0, 65535, (1024, 1024)).astype("uint16")
    for attempt in (
        lambda: write_box(open_target(out, "0"), (), Box((0, 0), (1024, 1024)), pixels),
        lambda: write_atomic(out / "large", bytes(2**21)),
    ):
        with pytest.raises(OutputError, match="No space left") as caught:
            attempt()
        assert is_fatal(caught.value)
        assert "Free space" in caught.value.remedy
    assert sorted(p.name for p in small_disk.iterdir()) == ["0", "zarr.json"]
    assert shutil.disk_usage(small_disk).free > 2**19


def chained(err: Exception, cause: Exception) -> Exception:
    err.__cause__ = cause
    return err


FACTS = {"where": "a", "expected": "b", "found": "c", "remedy": "d"}


@pytest.mark.parametrize(
    ("err", "fatal"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (OSError(errno.EROFS, "read-only"), True),
        (OSError(errno.ENODEV, "no bucket"), True),
        (PermissionError(errno.EACCES, "denied"), True),
        (PermissionError(errno.EPERM, "denied"), True),
        (RuntimeError("No space left on device (os error 28)"), True),
        (RuntimeError("Input/output error (os error 5)"), False),
        (RuntimeError("blosc decompression error"), False),
        (OSError(errno.EIO, "503"), False),
        (TimeoutError(errno.ETIMEDOUT, "silence"), False),
        (ConnectionError(errno.ECONNREFUSED, "refused"), False),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (ValueError("28"), False),
        (chained(OutputError(**FACTS), OSError(errno.ENOSPC, "full")), True),
        (chained(OutputError(**FACTS), OSError(errno.EIO, "503")), False),
        (chained(InputError(**FACTS), PermissionError(errno.EACCES, "denied")), False),
        (
            chained(
                OutputError(**FACTS),
                chained(InputError(**FACTS), PermissionError(errno.EACCES, "denied")),
            ),
            False,
        ),
        (chained(ValueError(), chained(OutputError(**FACTS), OSError(errno.EROFS, ""))), True),
    ],
)
def test_what_every_region_would_meet_is_fatal(err: Exception, fatal: bool) -> None:
    assert is_fatal(err) == fatal


@pytest.mark.parametrize(
    ("err", "damage"),
    [
        (InputError(**FACTS), True),
        (chained(InputError(**FACTS), RuntimeError("bad block")), True),
        (chained(InputError(**FACTS), OSError(errno.EIO, "Input/output error")), False),
        (chained(InputError(**FACTS), RuntimeError("no answer (os error 110)")), False),
        (ValueError("a defect"), False),
        (OutputError(**FACTS), False),
    ],
)
def test_damage_of_an_input_is_told_from_what_may_pass(err: Exception, damage: bool) -> None:
    assert is_damage(err) == damage
