"""download: whatever the network, the disk or a kill does, data/raw has complete, verified files or its old content."""

import gc
import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.catalog import Entry, File
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.download import sources
from pipeline.download.download import download
from tests import data_server as server
from tests.conftest import Project, yaml

CONTENT = np.random.default_rng(1).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PINNED = File(name="own.npz", sha256=SHA256, size=len(CONTENT))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses, and no settings from the environment."""
    monkeypatch.setattr(sources, "BACKOFF", 0)
    monkeypatch.setattr(sources, "TIMEOUT", (1, 0.3))
    for name in ("DATASET_MIRROR", "DVC_ROOT", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


def entry(*where: str, file: File = PINNED, **settings) -> Entry:
    fields = {
        "description": "",
        "image": (28, 28, 1),
        "classes": ("a", "b"),
        "format": "npz",
        "files": {"arrays": file},
    }
    return Entry.model_validate(fields | {"sources": where} | settings)


def target(paths: Paths, name: str = "own.npz") -> Path:
    return paths.raw("own") / name


def refused(paths: Paths, *where: str, file: File = PINNED) -> str:
    """The message of a download that fails without leaving a file under the final name."""
    with pytest.raises(DataError) as caught:
        download("own", entry(*where, file=file), paths)
    assert not target(paths).exists()
    return str(caught.value)


def dead_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_file_is_fetched_recorded_and_then_kept_without_network(paths: Paths, capsys: pytest.CaptureFixture[str]):
    with server.serving(CONTENT, server.good) as site:
        download("own", entry(site.url), paths)
        first = capsys.readouterr().out
        download("own", entry(site.url), paths)
    assert target(paths).read_bytes() == CONTENT
    assert "300,000 bytes from" in first
    assert "already downloaded" in capsys.readouterr().out
    assert site.ranges == [""]
    record = json.loads(paths.manifest("own").read_text())["own.npz"]
    assert record == {"source": site.url, "bytes": 300_000, "sha256": SHA256, "time": record["time"]}
    assert record["time"].endswith("+00:00")
    assert list(paths.raw("own").iterdir()) == [target(paths)]  # the record would change the folder that DVC tracks


def test_files_are_downloaded_once_though_dvc_removes_the_folder(paths: Paths):
    with server.serving(CONTENT, server.good) as site:
        download("own", entry(site.url), paths)
    shutil.rmtree(paths.raw("own"))
    download("own", entry(site.url), paths)
    assert target(paths).read_bytes() == CONTENT
    target(paths).write_bytes(b"damaged")
    shutil.rmtree(paths.raw("own"))
    kept = paths.resumable / "download" / "own" / "own.npz"
    kept.unlink()
    kept.write_bytes(b"damaged")
    assert "could not be downloaded" in refused(paths, site.url)


def test_sources_are_tried_in_order(paths: Paths):
    with server.serving(CONTENT, server.status(404)) as first, server.serving(CONTENT, server.good) as second:
        download("own", entry(dead_url(), first.url, second.url), paths)
    assert json.loads(paths.manifest("own").read_text())["own.npz"]["source"] == second.url


def test_the_mirror_is_tried_first_relative_to_the_users_project(
    paths: Paths, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    home = tmp_path_factory.mktemp("home")
    (home / "mirror" / "own").mkdir(parents=True)
    (home / "mirror" / "own" / "own.npz").write_bytes(CONTENT)
    monkeypatch.setenv("DVC_ROOT", str(home))
    download("own", entry("nowhere"), paths, mirror="mirror")
    assert target(paths).read_bytes() == CONTENT


def test_the_error_lists_every_source_with_its_reason_and_what_to_do(paths: Paths):
    dead = dead_url()
    message = refused(paths, dead, "http://no-such-host.invalid", "folder_that_is_not", "package:no_such_package/data")
    assert f"{dead}: Connection refused, 5 times" in message
    assert "http://no-such-host.invalid: " in message
    assert "folder_that_is_not: No such file or directory" in message
    assert "package:no_such_package/data: the package no_such_package is not installed" in message
    assert "DATASET_MIRROR" in message
    assert "data.dataset=mnist_5k" in message


@pytest.mark.parametrize(
    ("response", "reason", "requests"),
    [
        (server.status(403), "403 Forbidden", 1),
        (server.status(404), "404 Not Found", 1),
        (server.status(503), "503 Service Unavailable, 5 times", 5),
        (server.silent, "timed out, 5 times", 5),
        (server.page, "sends 69 bytes (text/html) instead of 300,000", 1),
        (server.flipped, "the file has the SHA-256 ", 1),
        (server.endless, "sends more than 300,000 bytes", 1),
    ],
)
def test_a_failed_source_is_listed_with_its_reason(paths: Paths, response, reason: str, requests: int):
    with server.serving(CONTENT, response) as site:
        assert f"{site.url}: {reason}" in refused(paths, site.url)
    assert len(site.ranges) == requests


def test_a_file_of_another_size_is_refused_without_a_checksum(paths: Paths, tmp_path: Path):
    (tmp_path / "own.npz").write_bytes(CONTENT[:-1])
    assert "299,999 bytes instead of 300,000" in refused(paths, ".", file=File(name="own.npz", size=300_000))


def test_an_html_page_is_recognised_without_a_known_size(paths: Paths):
    with server.serving(CONTENT, server.page) as site:
        assert "an HTML page instead of the file" in refused(paths, site.url, file=File(name="own.npz", sha256=SHA256))


def test_a_source_below_the_minimum_rate_counts_as_down(paths: Paths, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "RATE_SECONDS", 0.2)
    monkeypatch.setattr(sources, "RETRIES", 1)
    began = time.monotonic()
    with server.serving(CONTENT, server.dripping) as site:
        assert "bytes in 0 s, 2 times" in refused(paths, site.url)
    assert time.monotonic() - began < 5


UNPINNED = File(name="own.npz")


@pytest.mark.parametrize(
    ("response", "reason"),
    [(server.endless, "sends more than 100,000 bytes; larger"), (server.good, "sends 300,000 bytes; allowed: 100,000")],
)
def test_a_file_without_a_size_is_bounded(paths: Paths, monkeypatch: pytest.MonkeyPatch, response, reason: str):
    monkeypatch.setattr(sources, "MAX_BYTES", 100_000)
    with server.serving(CONTENT, response) as site:
        assert f"{site.url}: {reason}" in refused(paths, site.url, file=UNPINNED)
    assert not list(paths.unfinished_download("own").iterdir())


def test_dripped_headers_end(paths: Paths, monkeypatch: pytest.MonkeyPatch):
    """A byte now and then never exceeds the time-out of a read."""
    monkeypatch.setattr(sources, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(sources, "RETRIES", 1)
    before = signal.getsignal(signal.SIGALRM)
    began = time.monotonic()
    with server.serving(CONTENT, server.dripping_headers) as site:
        assert "no complete response headers in time, 2 times" in refused(paths, site.url)
    assert time.monotonic() - began < 5
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of an alarm within a finalizer
@pytest.mark.parametrize("response", [server.dripping, server.endless, server.status(503), server.half])
def test_every_download_has_a_deadline(paths: Paths, monkeypatch: pytest.MonkeyPatch, response):
    monkeypatch.setattr(sources, "TOTAL_SECONDS", 1)
    monkeypatch.setattr(sources, "RETRIES", 10_000_000)
    with server.serving(CONTENT, response) as site:
        assert f"{site.url}: not complete after 1 s: " in refused(paths, site.url, file=UNPINNED)
    gc.collect()  # a connection whose finalizer was interrupted, here rather than in a later test


@pytest.mark.parametrize("length", ["-5", "-300000", "1e3", "²", "300000, 300000", "9" * 5000])
def test_an_invalid_length_is_refused(paths: Paths, length: str):
    with server.serving(CONTENT, server.of_length(length.encode().decode("latin-1"))) as site:
        assert "sends an invalid Content-Length" in refused(paths, site.url, file=UNPINNED)


def test_passwords_are_neither_printed_nor_stored(paths: Paths, capsys: pytest.CaptureFixture[str]):
    with server.serving(CONTENT, server.good) as site:
        address = site.url.removeprefix("http://")
        (paths.root / "empty").mkdir()
        download("own", entry("empty"), paths, mirror=f"http://me:secret@{address}")
    printed = capsys.readouterr()
    stored = paths.manifest("own").read_text()
    assert f"http://***@{address}/own" in stored
    with server.serving(CONTENT, server.status(403)) as site:
        target(paths).unlink()
        shutil.rmtree(paths.resumable)
        message = refused(paths, f"http://me:secret@{site.url.removeprefix('http://')}", f"{dead_url()}/?token=secret")
    assert "***" in message
    assert "secret" not in printed.out + printed.err + stored + message


def test_a_pipe_in_place_of_a_file_is_refused(paths: Paths):
    """Opening it would wait for ever."""
    os.mkfifo(paths.root / "own.npz")
    assert "own.npz: not a regular file" in refused(paths, ".")


def test_a_busy_source_is_retried(paths: Paths):
    with server.serving(CONTENT, server.status(503), server.status(429, Retry_After="0"), server.good) as site:
        download("own", entry(site.url), paths)
    assert len(site.ranges) == 3


def test_pauses_grow_with_jitter_up_to_a_bound(paths: Paths, monkeypatch: pytest.MonkeyPatch):
    pauses: list[float] = []
    monkeypatch.setattr(sources, "BACKOFF", 4)
    monkeypatch.setattr(sources, "MAX_PAUSE", 10)
    monkeypatch.setattr(time, "sleep", pauses.append)
    with server.serving(CONTENT, server.status(503)) as site:
        refused(paths, site.url)
    assert 8 < pauses[0] <= 10  # 8 without jitter
    assert all(pause <= 10 for pause in pauses)
    pauses.clear()
    with server.serving(CONTENT, server.status(503, Retry_After="3600")) as site:
        refused(paths, site.url)
    assert pauses == [10] * 4


def test_a_dropped_connection_is_resumed(paths: Paths):
    with server.serving(CONTENT, server.half, server.half, server.good) as site:
        download("own", entry(site.url), paths)
    assert target(paths).read_bytes() == CONTENT
    assert site.ranges == ["", "bytes=150000-", "bytes=225000-"]


def test_a_connection_that_always_drops_fails(paths: Paths):
    with server.serving(CONTENT, server.half) as site:
        assert "5 times" in refused(paths, site.url)


def test_a_source_without_ranges_restarts(paths: Paths):
    with server.serving(CONTENT, server.half, server.without_ranges) as site:
        download("own", entry(site.url), paths)
    assert target(paths).read_bytes() == CONTENT


def test_without_a_checksum_nothing_is_resumed(paths: Paths, capsys: pytest.CaptureFixture[str]):
    with server.serving(CONTENT, server.half, server.good) as site:
        download("own", entry(site.url, file=File(name="own.npz")), paths)
    assert site.ranges == ["", ""]
    assert f"to pin it, add sha256: {SHA256}" in capsys.readouterr().out


def test_a_wrong_unfinished_file_is_replaced(paths: Paths):
    unfinished = paths.unfinished_download("own")
    unfinished.mkdir(parents=True)
    for planted in (b"x" * 1000, b"x" * 400_000):
        (unfinished / f"{SHA256[:12]}-own.npz").write_bytes(planted)
        with server.serving(CONTENT, server.good) as site:
            download("own", entry(site.url), paths)
        assert target(paths).read_bytes() == CONTENT
        target(paths).unlink()


def test_the_bytes_are_not_decoded(paths: Paths):
    with server.serving(CONTENT, server.labelled_gzip) as site:
        download("own", entry(site.url), paths)
    assert target(paths).read_bytes() == CONTENT


def test_a_wrong_file_in_place_is_replaced(paths: Paths):
    target(paths).parent.mkdir(parents=True)
    target(paths).write_bytes(b"planted")
    with server.serving(CONTENT, server.good) as site:
        download("own", entry(site.url), paths)
    assert target(paths).read_bytes() == CONTENT


@pytest.fixture
def own(project: Project) -> Iterator[tuple[Project, server.Server]]:
    """A project with a dataset from a slow server, whose download can be killed."""
    with server.serving(CONTENT, server.slow, server.good) as site:
        catalog = yaml.load(project.paths.catalog)
        catalog["own"] = entry(site.url).model_dump(mode="json")
        yaml.dump(catalog, project.paths.catalog)
        project.change(data={"dataset": "own"})
        yield project, site


def test_a_killed_download_leaves_no_file_and_is_resumed(own: tuple[Project, server.Server]):
    project, site = own
    command = [sys.executable, "-m", "pipeline.download"]
    process = subprocess.Popen(command, cwd=project.root, env=project.environment())
    unfinished = project.paths.unfinished_download("own") / f"{SHA256[:12]}-own.npz"
    server.wait_for(lambda: unfinished.is_file() and unfinished.stat().st_size == 75_000)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target(project.paths).exists()
    project.stage("download")
    assert target(project.paths).read_bytes() == CONTENT
    assert site.ranges == ["", "bytes=75000-"]
    assert not unfinished.exists()


SMALL_DISK = f"""
import resource, sys
from pathlib import Path
from pipeline.core.catalog import Entry
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.download.download import download
entry = Entry.model_validate_json(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))
try:
    download("own", entry, Paths(Path(sys.argv[2])))
except DataError as error:
    print(error)
"""


def test_a_full_disk_is_reported_and_leaves_no_file(paths: Paths):
    """A limit on the size of files stands in for a small disk: the kernel refuses the write in the same way."""
    with server.serving(CONTENT, server.good) as site:
        argument = entry(site.url, site.url).model_dump_json()
        command = [sys.executable, "-c", SMALL_DISK, argument, str(paths.root)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot be written: File too large; fix this and rerun the stage" in done.stdout
    assert not target(paths).exists()
    assert len(site.ranges) == 1  # another source would not help


IMAGES = File(name="images.zip")


def packed(paths: Paths, folder: Path) -> Path:
    source = entry(f"folder:{folder}", format="folder", files={"images": IMAGES})
    download("own", source, paths)
    return target(paths, "images.zip")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        (tmp_path / "photos" / name).write_bytes(name.encode())
    (tmp_path / "photos" / ".hidden").write_bytes(b"")
    return tmp_path / "photos"


def test_packing_a_folder_is_reproducible(paths: Paths, folder: Path):
    first = packed(paths, folder).read_bytes()
    for path in folder.rglob("*.png"):
        os.utime(path, (0, 0))
    assert packed(paths, folder).read_bytes() == first
    assert zipfile.ZipFile(target(paths, "images.zip")).namelist() == ["a/1.png", "b/2.png"]


def test_a_link_in_a_folder_of_images_is_refused(paths: Paths, folder: Path):
    for link, to in {"a/3.png": "/etc/passwd", "c": "a"}.items():
        (folder / link).symlink_to(to)
        with pytest.raises(DataError, match=f"{link}: a link"):
            packed(paths, folder)
        (folder / link).unlink()
    assert not target(paths, "images.zip").exists()


def test_a_pipe_in_a_folder_of_images_is_refused(paths: Paths, folder: Path):
    os.mkfifo(folder / "a" / "3.png")
    with pytest.raises(DataError, match=r"a/3\.png: a pipe, socket or device"):
        packed(paths, folder)
    (folder / "a" / "3.png").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "b" / "s"))
        with pytest.raises(DataError, match="b/s: a pipe, socket or device"):
            packed(paths, folder)


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"a\nb.png", b"\x1b[31m.png"])
def test_a_name_that_cannot_be_printed_is_refused(paths: Paths, folder: Path, name: bytes):
    (folder / "a" / os.fsdecode(name)).write_bytes(b"")
    with pytest.raises(DataError, match="has control characters or is not UTF-8") as caught:
        packed(paths, folder)
    assert str(caught.value).encode().isascii()


@pytest.fixture
def unprivileged(tmp_path: Path) -> Iterator[None]:
    """Drop root, which may read everything, for the test."""
    if os.geteuid():
        yield
        return
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, -1)
    parents = {parent: parent.stat().st_mode for parent in tmp_path.parents if parent.stat().st_mode & 0o55 != 0o55}
    for parent, mode in parents.items():
        parent.chmod(mode | 0o55)
    os.seteuid(65534)
    yield
    os.seteuid(0)
    for parent, mode in parents.items():
        parent.chmod(mode)


@pytest.mark.parametrize("locked", ["a", "b/2.png"])
def test_a_folder_or_file_without_read_permission_is_named(paths: Paths, folder: Path, unprivileged: None, locked: str):
    packed(paths, folder)
    before = target(paths, "images.zip").read_bytes()
    (folder / locked).chmod(0)
    with pytest.raises(DataError, match=rf"{locked}: .*[Pp]ermission"):
        packed(paths, folder)
    assert target(paths, "images.zip").read_bytes() == before
    (folder / locked).chmod(0o700)


def test_a_folder_that_is_missing_or_empty_is_named(paths: Paths, tmp_path: Path):
    with pytest.raises(DataError, match="photos: not a folder"):
        packed(paths, tmp_path / "photos")
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="photos: contains no files"):
        packed(paths, tmp_path / "photos")
