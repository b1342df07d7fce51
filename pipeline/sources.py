"""Where files come from: the web, a folder, a Python package, or a folder of images that is packed into an archive."""

import importlib.util
import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from pipeline import archives, atomic
from pipeline.catalog import File

CHUNK = 2**18  # bytes read at a time
TIMEOUT = (10, 20)  # seconds to connect, and without a byte
SLOWEST = 1000  # bytes per second, over PATIENCE seconds; a source that is slower counts as down
PATIENCE = 60
RETRIES = 4
BACKOFF = 0.5  # seconds before the second retry, doubled each time, with as much again at random
PAUSE = 30  # seconds at most between two tries, also where the server asks for more
TRANSIENT = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,  # what was there has been removed: the next try is for all of it
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


class SourceError(Exception):
    """A source does not have the file, or not now; another may."""


class _StatusError(Exception):
    """The answer is no file."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__(f"{response.status_code} {response.reason}")
        self.response = response


def fetch(source: str, file: File, part: Path, home: Path) -> None:
    """Write a file of a source to `part`, whose content is then still to be checked.

    What `part` holds already is not asked for again, where the source can leave it out and the catalogue has a
    checksum that tells whether the whole is right. Relative paths are relative to `home`.

    Raises:
        SourceError: the source does not give it, after all retries.
        DataError: a folder of images is not what it should be, or there is no room to write.
    """
    if source.startswith(("http://", "https://")):
        _web(f"{source.rstrip('/')}/{file.name}", file, part)
    elif source.startswith("folder:"):
        with atomic.writing(part):
            archives.pack(home / source.removeprefix("folder:"), part)
    elif source.startswith("package:"):
        _local(_package_folder(source.removeprefix("package:")) / file.name, file, part)
    else:
        _local(home / source / file.name, file, part)


def _package_folder(source: str) -> Path:
    package, _, folder = source.partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise SourceError(f"the package {package} is not installed")
    return Path(spec.origin).parent / folder


def _local(path: Path, file: File, part: Path) -> None:
    try:
        with path.open("rb") as content:
            _write(iter(lambda: content.read(CHUNK), b""), file, part, 0, path.stat().st_size)
    except OSError as error:
        raise SourceError(error.strerror or str(error)) from None


def _web(url: str, file: File, part: Path) -> None:
    retries = urllib3.Retry(
        RETRIES, backoff_factor=BACKOFF, backoff_jitter=BACKOFF, backoff_max=PAUSE, retry_after_max=PAUSE
    )
    with requests.Session() as session:
        while True:
            try:
                return _request(session, url, file, part)
            except _StatusError as error:
                if error.response.status_code not in TRANSIENT:
                    raise SourceError(str(error)) from None
                problem, response = error, error.response.raw
            except (requests.RequestException, urllib3.exceptions.HTTPError, TimeoutError) as error:
                problem, response = error, None
            try:
                retries = retries.increment("GET", url, error=problem)
            except urllib3.exceptions.MaxRetryError:
                raise SourceError(f"{_reason(problem)}, {RETRIES + 1} times") from None
            retries.sleep(response)


def _request(session: requests.Session, url: str, file: File, part: Path) -> None:
    # Without a checksum nothing would tell whether the two halves are of one file.
    have = part.stat().st_size if file.sha256 and part.exists() else 0
    # The file as it is published: a server may otherwise compress it, or say that it did.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
        if not response.ok:
            raise _StatusError(response)
        if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0
        rest = response.headers.get("Content-Length", "")
        total = have + int(rest) if rest.isdigit() else None
        if file.size is not None and total not in (None, file.size):
            kind = response.headers.get("Content-Type", "unknown type")
            raise SourceError(f"sends {total:,} bytes ({kind}) instead of {file.size:,}")
        _write(_body(response.raw), file, part, have, total)


def _body(raw: urllib3.HTTPResponse) -> Iterator[bytes]:
    began, received = time.monotonic(), 0
    while chunk := raw.read1(CHUNK, decode_content=False):
        yield chunk
        received += len(chunk)
        seconds = time.monotonic() - began
        if seconds > PATIENCE and received < SLOWEST * seconds:
            raise TimeoutError(f"only {received:,} bytes in {seconds:.0f} s")


def _write(chunks: Iterable[bytes], file: File, part: Path, have: int, total: int | None) -> None:
    with (
        atomic.writing(part),
        part.open("ab" if have else "wb") as output,
        # None: no bar where nobody looks on
        tqdm(total=total, initial=have, desc=file.name, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for chunk in chunks:
            output.write(chunk)
            bar.update(len(chunk))
            if file.size is not None and output.tell() > file.size:
                raise SourceError(f"sends more than {file.size:,} bytes")


def _reason(error: BaseException) -> str:
    """What lies at the bottom of an error that requests and urllib3 have wrapped."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
