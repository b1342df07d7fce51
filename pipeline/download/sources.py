"""Sources of files: the web, a folder, a Python package, or a folder of images that is packed into an archive."""

import importlib.util
import re
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import requests
import urllib3
from tqdm import tqdm

from pipeline.core import atomic
from pipeline.core.catalog import File
from pipeline.formats import archives

CHUNK = 2**18  # bytes read at a time
TIMEOUT = (10, 20)  # seconds to connect, and between two reads
MIN_RATE = 1000  # bytes per second, checked after RATE_SECONDS; a slower source counts as down
RATE_SECONDS = 60
ANSWER_SECONDS = 30  # maximum until the headers of a response are complete
TOTAL_SECONDS = 6 * 3600  # maximum for a file from one source, retries included
MAX_BYTES = 2**33  # of a file without a size in the catalog
RETRIES = 4
BACKOFF = 0.5  # seconds before the second retry, doubled each time, with as much again at random
MAX_PAUSE = 30  # seconds between two attempts, also where the server requests more
RANGE_NOT_SATISFIABLE = 416
TRANSIENT = {408, RANGE_NOT_SATISFIABLE, 429, 500, 502, 503, 504}  # HTTP statuses that are worth another attempt


class SourceError(Exception):
    """A source that cannot provide the file, or not now; another one may."""


def fetch(source: str, file: File, part: Path, home: Path) -> None:
    """Write a file from a source to `part`; the caller verifies the content.

    An existing part is resumed if the source supports ranges and the catalog has a checksum to verify the result.
    Relative paths are relative to `home`.

    Raises:
        SourceError: the source does not provide the file, after all retries.
        DataError: a folder of images is invalid, or the disk is full.
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
        if path.exists() and not path.is_file():
            raise SourceError(f"{path}: not a regular file")
        with path.open("rb") as content:
            _write(iter(lambda: content.read(CHUNK), b""), file, part, 0, path.stat().st_size)
    except OSError as error:
        raise SourceError(error.strerror or str(error)) from None


def _web(url: str, file: File, part: Path) -> None:
    retries = urllib3.Retry(
        RETRIES, backoff_factor=BACKOFF, backoff_jitter=BACKOFF, backoff_max=MAX_PAUSE, retry_after_max=MAX_PAUSE
    )
    deadline = time.monotonic() + TOTAL_SECONDS
    with requests.Session() as session:
        while True:
            try:
                return _request(session, url, file, part, deadline)
            except (requests.RequestException, urllib3.exceptions.HTTPError, TimeoutError) as error:
                problem, response = error, error.response if isinstance(error, requests.HTTPError) else None
            if response is not None and response.status_code not in TRANSIENT:
                raise SourceError(str(problem))
            if time.monotonic() > deadline:
                raise SourceError(f"not complete after {TOTAL_SECONDS:,} s: {_reason(problem)}")
            try:
                retries = retries.increment("GET", url, error=problem)
            except urllib3.exceptions.MaxRetryError:
                raise SourceError(f"{_reason(problem)}, {RETRIES + 1} times") from None
            retries.sleep(None if response is None else response.raw)


@contextmanager
def _alarm(seconds: float, problem: str) -> Iterator[None]:
    """Raise TimeoutError in the block after so many seconds, whatever it waits for. For the main thread only.

    The time-outs of requests are those of single reads, so that a byte now and then would prolong them for ever.
    """

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(problem)

    before = signal.signal(signal.SIGALRM, ring)
    # Again each second: Python drops an exception that is raised within the clean-up of an object. 0 would mean never.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _request(session: requests.Session, url: str, file: File, part: Path, deadline: float) -> None:
    # Without a checksum nothing would show that the two halves belong to different files.
    have = part.stat().st_size if file.sha256 and part.exists() else 0
    # The file as published: a server may otherwise compress it, or claim to.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with _alarm(min(ANSWER_SECONDS, deadline - time.monotonic()), "no complete response headers in time"):
        response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    with response, _alarm(deadline - time.monotonic(), "the time is up"):
        if response.status_code == RANGE_NOT_SATISFIABLE:
            part.unlink()  # the next attempt requests the whole file
        if not response.ok:
            raise requests.HTTPError(f"{response.status_code} {response.reason}", response=response)
        if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0
        rest = response.headers.get("Content-Length")
        if rest is not None and not re.fullmatch("[0-9]{1,18}", rest):
            raise SourceError(f"sends an invalid Content-Length: {rest[:40]}")
        total = None if rest is None else have + int(rest)
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
        if seconds > RATE_SECONDS and received < MIN_RATE * seconds:
            raise TimeoutError(f"only {received:,} bytes in {seconds:.0f} s")


def _write(chunks: Iterable[bytes], file: File, part: Path, have: int, total: int | None) -> None:
    limit = file.size or MAX_BYTES
    hint = "" if file.size else "; larger files need their size in data/catalog.yaml"
    if total is not None and total > limit:
        raise SourceError(f"sends {total:,} bytes; allowed: {limit:,}{hint}")
    with (
        atomic.writing(part),
        part.open("ab" if have else "wb") as output,
        # disable=None: no progress bar where the output is not a terminal
        tqdm(total=total, initial=have, desc=file.name, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for chunk in chunks:
            output.write(chunk)
            bar.update(len(chunk))
            if output.tell() > limit:
                part.unlink()
                raise SourceError(f"sends more than {limit:,} bytes{hint}")


def _reason(error: BaseException) -> str:
    """The message of the innermost error that requests and urllib3 have wrapped."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
