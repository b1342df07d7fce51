"""POST /predict: the classes of one picture, sent as a file or in a form."""

import json
from collections.abc import Callable
from email.message import Message
from email.parser import BytesHeaderParser
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.core.errors import DataError
from pipeline.deploy import pictures
from pipeline.deploy.admission import Lanes, content_type, require_own_origin
from pipeline.deploy.classifier import Classifier
from pipeline.deploy.pictures import Upload

PLACES = 32  # requests with small bodies that wait for their answers
FORM = "multipart/form-data"
KINDS = ("image/png", "image/jpeg", "image/webp", "image/gif")
FIELD = "image"
MAX_FIELDS = 20  # of a form
MAX_PART_HEADERS = 2**12  # bytes
HELP = f"send a picture as the field {FIELD!r} of a form, or as the body with its content type"


def predict_route(classifier: Classifier) -> Route:
    """Return the route; pictures are classified in two threads, for small and for large files."""
    lanes, entry = Lanes(PLACES), classifier.loaded.entry

    def answer(content: bytes, with_saliency: bool) -> dict[str, Any]:
        try:
            picture = pictures.read(Upload(content), entry.image, entry.ink)
        except DataError as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from None
        found = classifier.classify(picture)
        shares = zip(entry.classes, found.probabilities.tolist(), strict=True)
        result: dict[str, Any] = {
            "class": entry.classes[found.best],
            "probability": float(found.probabilities[found.best]),
            "probabilities": dict(shares),
            "warnings": found.warnings,
            "network": vars(classifier.loaded.identity),
        }
        if with_saliency:
            evidence = classifier.saliency(picture, found.best)
            result["image"] = picture.image.round(3).tolist()
            result["saliency"] = None if evidence is None else (evidence / (evidence.max() or 1)).round(3).tolist()
        return result

    async def predict(request: Request) -> Response:
        require_own_origin(request)
        content, with_saliency = _content(request), _with_saliency(request)

        def compute(body: bytes) -> bytes:
            return json.dumps(answer(content(body), with_saliency), ensure_ascii=False).encode()

        return Response(await lanes.answer(request, compute), media_type="application/json")

    return Route("/predict", predict, methods=["POST"])


def _with_saliency(request: Request) -> bool:
    given = request.query_params.get("saliency", "0")
    if given not in ("0", "1"):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "saliency: allowed: 0, 1")
    return given == "1"


def _content(request: Request) -> Callable[[bytes], bytes]:
    """Return the function that takes the picture out of a body of the request's content type.

    Raises:
        HTTPException: there are no pictures in such bodies: 415; a form has no boundary: 400.
    """
    given = request.headers.get("content-type", "missing")
    kind = given.partition(";")[0].strip().lower()
    if kind in KINDS:
        return lambda body: body
    if kind != FORM:
        message = f"the header content-type is {content_type(request)}; allowed: {FORM}, {', '.join(KINDS)}; {HELP}"
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)
    boundary = _headers(b"content-type: " + given.encode("latin-1")).get_boundary("")
    if not (boundary and boundary.isascii() and len(boundary) <= 70):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the form has no valid boundary in its header content-type")
    return lambda body: _field(body, boundary.encode())


def _field(body: bytes, boundary: bytes) -> bytes:
    """Return the content of the picture's field in a form: RFC 7578."""
    damaged = HTTPException(HTTPStatus.BAD_REQUEST, f"the form is damaged, or has over {MAX_FIELDS} fields; {HELP}")
    *parts, end = (b"\r\n" + body).split(b"\r\n--" + boundary, MAX_FIELDS + 1)
    if not (parts and end.startswith(b"--")):
        raise damaged
    found = []
    for part in parts[1:]:
        head, separator, content = part.partition(b"\r\n\r\n")
        if not separator or len(head) > MAX_PART_HEADERS:
            raise damaged
        if _headers(head.strip()).get_param("name", header="content-disposition") == FIELD:
            found.append(content)
    if len(found) != 1:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"the form has {len(found)} fields {FIELD!r}; needed: one; {HELP}")
    return found[0]


def _headers(content: bytes) -> Message:
    return BytesHeaderParser().parsebytes(content)
