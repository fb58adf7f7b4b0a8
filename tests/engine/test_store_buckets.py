"""A bucket does what a disk does: documents, exclusive creation, listing, removal."""

import errno
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from object_store import Answer, bucket, point_at, s3_client, s3_server, web_server  # noqa: F401

from engine.errors import InputError, OutputError
from engine.store import (
    Location,
    check_exclusive_create,
    check_store,
    delete_all,
    free_bytes,
    is_fatal,
    read_json,
    write_atomic,
    write_json,
)
from engine.store import buckets as buckets_module


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty place of each kind that can be written."""
    if request.param == "disk":
        return Location.parse(tmp_path / "out")
    return Location.parse(request.getfixturevalue("bucket")) / "deep" / "out"


def test_what_is_written_is_read_and_known(place: Location) -> None:
    name = place / "a b" / "ü%20+.json"
    assert (name.stat(), name.is_file(), place.exists()) == (None, False, False)
    with pytest.raises(FileNotFoundError):
        name.read_bytes()
    made = name.write_bytes(b"one")
    assert name.read_bytes() == b"one"
    assert name.stat() == made
    assert made.size == 3
    assert name.write_bytes(b"two!").tag != made.tag
    assert name.read_bytes() == b"two!"
    assert (name.is_file(), name.is_folder()) == (True, False)
    assert (place.is_file(), place.is_folder(), place.exists()) == (False, True, True)


def test_one_of_many_creates(place: Location) -> None:
    lease = place / "lease" / "000001.json"

    def create(k: int) -> bool:
        try:
            lease.create_bytes(b"me")
        except FileExistsError:
            return False
        return True

    for _ in range(3):
        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(create, range(16)))
        assert won.count(True) == 1
        lease.delete()
    lease.create_bytes(b"again")
    assert lease.read_bytes() == b"again"


def test_listing_and_removal(place: Location) -> None:
    for name in ("x/1", "x/2", "x/y/3", "xx/4", "5"):
        (place / name).write_bytes(name.encode())
    assert place.children() == (["x", "xx"], ["5"])
    assert (place / "x").children() == (["y"], ["1", "2"])
    assert (place / "none").children() == ([], [])
    assert {name for name, _ in (place / "x").walk()} == {"1", "2", "y/3"}
    assert dict((place / "x").walk())["y/3"] == (place / "x/y/3").stat()
    delete_all([place / "x/1", place / "x/none"])
    assert (place / "x").children() == (["y"], ["2"])
    (place / "x").remove()
    assert place.children() == (["xx"], ["5"])
    (place / "none").remove()
    (place / "5").delete()
    (place / "5").delete()
    assert {name for name, _ in place.walk()} == {"xx/4"}


def test_removal_of_more_than_a_page(bucket: str) -> None:  # noqa: F811
    place = Location.parse(bucket) / "many"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: (place / f"{k}").write_bytes(b""), range(1100)))
    assert sum(1 for _ in place.walk()) == 1100
    place.remove()
    assert not place.exists()


def test_documents(place: Location) -> None:
    write_json(place / "a.json", {"b": 1})
    assert read_json(place / "a.json") == {"b": 1}
    write_atomic(place / "a.json", b'{"b": ')
    with pytest.raises(InputError, match=r"a\.json.*damaged JSON"):
        read_json(place / "a.json")
    with pytest.raises(OutputError, match=r"none\.json"):
        read_json(place / "none.json", OutputError)
    check_exclusive_create(place)
    assert place.children() == ([], ["a.json"])


def test_names_in_a_bucket_are_taken_as_they_are(
    s3_server: str,  # noqa: F811
    bucket: str,  # noqa: F811
) -> None:
    (Location.parse(bucket) / "a b" / "ü%20+.json").write_bytes(b"1")
    found = s3_client(s3_server).list_objects_v2(Bucket=bucket.removeprefix("s3://"))
    assert [entry["Key"] for entry in found["Contents"]] == ["a b/ü%20+.json"]


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_requests_are_signed_for_the_region(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    signed: list[str] = []

    def answer(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        signed.append(headers["Authorization"])
        return 200, {"ETag": '"1"'}, b"1"

    with web_server(answer) as address:
        point_at(address, monkeypatch, tmp_path)
        monkeypatch.delenv("AWS_REGION")
        monkeypatch.setenv(name, "eu-north-1")
        assert Location.parse("s3://bucket-x/a").read_bytes() == b"1"
    assert "/eu-north-1/s3/" in signed[0]


def test_an_equal_document_is_not_sent_again(bucket: str) -> None:  # noqa: F811
    place = Location.parse(bucket) / "a.json"
    write_json(place, {"b": 1})
    before = s3_object(place)["LastModified"]
    time.sleep(1.1)
    write_json(place, {"b": 1})
    assert s3_object(place)["LastModified"] == before


def s3_object(place: Location) -> Mapping[str, object]:
    import os

    name, key = place.url.removeprefix("s3://").split("/", 1)
    found: Mapping[str, object] = s3_client(os.environ["AWS_ENDPOINT_URL"]).get_object(
        Bucket=name, Key=key
    )
    return found


def test_a_bucket_sets_no_limit(bucket: str, tmp_path: Path) -> None:  # noqa: F811
    assert free_bytes(bucket) is None
    assert (free_bytes(tmp_path) or 0) > 0


def test_a_lost_answer_to_a_creation_is_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The put took place, its answer did not arrive: the next try finds its own object."""
    kept: dict[str, tuple[bytes, str]] = {}

    def answer(method: str, path: str, headers: Mapping[str, str]) -> Answer | None:
        if method == "PUT":
            if path in kept:
                return 412, {}, b""
            kept[path] = (b"", headers["x-amz-meta-tilewright-maker"])
            return (412, {}, b"") if "mine" in path else None
        data, maker = kept[path]
        return 200, {"x-amz-meta-tilewright-maker": maker, "ETag": '"1"'}, data

    with web_server(answer) as address:
        point_at(address, monkeypatch, tmp_path)
        (Location.parse("s3://bucket-x") / "mine").create_bytes(b"1")
        with pytest.raises(FileExistsError):
            (Location.parse("s3://bucket-x") / "mine").create_bytes(b"1")


def test_a_store_that_overwrites_on_creation_is_refused(
    bucket: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = buckets_module.Bucket.write
    monkeypatch.setattr(buckets_module.Bucket, "create", lambda *args: real(*args) and None)
    with pytest.raises(OutputError, match="If-None-Match"):
        check_exclusive_create(bucket)
    assert Location.parse(bucket).children() == ([], [])


def test_a_store_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for status, code, fatal in [
        (403, "AccessDenied", True),
        (501, "NotImplemented", False),
        (403, "QuotaExceeded", True),
        (507, "XMinioStorageFull", True),
    ]:
        body = f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()
        with web_server(lambda *_, s=status, b=body: (s, {}, b)) as address:
            point_at(address, monkeypatch, tmp_path)
            with pytest.raises(OutputError) as caught:
                check_exclusive_create("s3://bucket-x/out")
            assert is_fatal(caught.value) == fatal, code
    with web_server(lambda *_: (200, {}, b"")) as address, pytest.raises(OutputError) as caught:
        check_exclusive_create(f"{address}/out")
    assert "takes no data" in caught.value.found


@pytest.mark.parametrize("error", [InputError, OutputError])
def test_a_bucket_that_answers_is_taken(
    bucket: str,  # noqa: F811
    tmp_path: Path,
    error: type[InputError | OutputError],
) -> None:
    check_store(bucket, error)
    check_store(f"{bucket}/not/yet", error)
    check_store(tmp_path / "none", error)


def test_a_bucket_that_does_not_exist(bucket: str) -> None:  # noqa: F811
    missing = Location.parse(bucket + "-not")
    with pytest.raises(InputError, match="the bucket does not exist"):
        check_store(missing, InputError)
    with pytest.raises(OSError, match="the bucket does not exist") as caught:
        (missing / "a").write_bytes(b"1")
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(OutputError, match="the bucket does not exist") as refused:
        write_atomic(missing / "a", b"1")
    assert is_fatal(refused.value)


def test_endpoints_that_do_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        for address, found in [
            ("http://127.0.0.1:1", "no connection"),
            ("http://no-such-host.invalid", "no connection"),
            (f"http://127.0.0.1:{silent.getsockname()[1]}", "did not answer in time"),
        ]:
            point_at(address, monkeypatch, tmp_path)
            start = time.monotonic()
            places = ["s3://bucket-x/a", f"{address}/a"]
            for place in places[: 1 if "time" in found else 2]:
                with pytest.raises(InputError, match=found) as caught:
                    check_store(place, InputError)
                assert not is_fatal(caught.value)
            assert time.monotonic() - start < 15


def test_credentials_that_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server(
        lambda *_: (403, {}, b"<Error><Code>InvalidAccessKeyId</Code></Error>")
    ) as address:
        point_at(address, monkeypatch, tmp_path)
        for error in (InputError, OutputError):
            with pytest.raises(error, match=r"access key is not known|access denied"):
                check_store("s3://bucket-x/a", error)
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        with pytest.raises(InputError, match="nobody"):
            check_store("s3://bucket-x/a", InputError)
        monkeypatch.delenv("AWS_PROFILE")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(InputError, match=r"[Pp]artial|no credentials"):
            check_store("s3://bucket-x/a", InputError)


def test_no_credentials_at_all_is_said_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at("http://127.0.0.1:1", monkeypatch, tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    start = time.monotonic()
    with pytest.raises(InputError, match="no credentials: set AWS_PROFILE"):
        check_store("s3://bucket-x/a", InputError)
    assert time.monotonic() - start < 15


def test_a_public_bucket_is_read_unsigned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that forbids listing answers 403 for what is not there, and gives the rest."""
    asked: list[str | None] = []

    def answer(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        asked.append(headers.get("Authorization"))
        if path.endswith("/image/.zattrs"):
            return 200, {"ETag": '"1"'}, b"{}"
        return 403, {}, b"<Error><Code>AccessDenied</Code></Error>"

    with web_server(answer) as address:
        point_at(address, monkeypatch, tmp_path)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        check_store("s3://bucket-x/image", InputError)
        with pytest.raises(InputError, match="access denied"):
            check_store("s3://bucket-x/image/none", InputError)
        with pytest.raises(OutputError, match="access denied"):
            check_store("s3://bucket-x/image", OutputError)
    assert set(asked) == {None}


def test_settings_of_a_profile(
    s3_server: str,  # noqa: F811
    bucket: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (Location.parse(bucket) / "a").write_bytes(b"1")
    config, keys = tmp_path / "config", tmp_path / "keys"
    config.write_text(f"[profile lab]\nregion = us-east-1\nendpoint_url = {s3_server}\n")
    keys.write_text("[lab]\naws_access_key_id = k\naws_secret_access_key = s\n")
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert (Location.parse(bucket) / "a").read_bytes() == b"1"


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///a", "gs://a/b", "https://host/a?token=1", "s3://b/a//c", "s3://b/../c"]
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(OutputError):
        Location.parse(url, OutputError)


def test_a_web_server_gives_no_listing_and_takes_nothing() -> None:
    with web_server(lambda *_: (200, {}, b"abc")) as address:
        place = Location.parse(f"{address}/a%20b")
        assert not place.can_list
        assert place.read_bytes() == b"abc"
        for refused in (place.children, place.is_folder, lambda: list(place.walk())):
            with pytest.raises(OSError, match="no listing"):
                refused()  # type: ignore[operator]
        for refused in (
            place.delete,
            lambda: place.write_bytes(b""),
            lambda: place.create_bytes(b""),
        ):
            with pytest.raises(OSError, match="takes no data"):
                refused()
