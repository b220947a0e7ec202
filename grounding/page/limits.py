"""Limits: the bounds of the server, with the values of conf/step/serve.yaml."""

from dataclasses import dataclass, fields

from proposals.errors import InputError


@dataclass(frozen=True)
class Limits:
    """The bounds of the server. All are greater than 0.

    Attributes:
        upload_bytes: size of a photo's file.
        pixels: number of pixels of a photo.
        aspect: longer side of a photo divided by its shorter side.
        scans: number of scans of a progressive JPEG.
        json_bytes: size of a request body other than a photo.
        phrases: number of phrases in a request.
        phrase_length: number of characters of a phrase.
        caption_length: number of characters of a caption.
        words: number of different known words in a request.
        slow_words: the same for methods that propagate down to the image, such as Grad.
        boxes: number of boxes for each phrase in a response.
        workers: number of requests that are processed at the same time. Answers from known maps, and the words of
            boxes, have one more thread each.
        queue: number of requests that wait. Further requests are refused with status 503. Each connection may wait for
            an answer from known maps.
        client_requests: number of requests of a client within a minute, without the files of the page.
        retry_seconds: seconds after which a refused client may try again.
        connections: number of open connections.
        held_bytes: size of all request bodies in memory together.
        header_seconds: seconds until the headers of a request have arrived.
        body_seconds: seconds until the body of a request has arrived.
        send_seconds: seconds that a client may take to read the next part of a response.
        photos: number of photos in memory.
        photos_bytes: size of all photos in memory together, in bytes.
        client_photos: number of photos of a client in memory.
        client_bytes: size of all photos of a client in memory together, in bytes.
        photo_seconds: seconds for which a photo stays in memory after the last request for it.
        scenes: number of photos whose network activations stay in memory. For these photos, a new word needs no forward
            pass.
        decode_seconds: seconds until a photo is decoded.
        decode_bytes: memory of the process that decodes photos, in bytes.

    Raises:
        InputError: a bound is not a number greater than 0.
    """

    upload_bytes: int
    pixels: int
    aspect: float
    scans: int
    json_bytes: int
    phrases: int
    phrase_length: int
    caption_length: int
    words: int
    slow_words: int
    boxes: int
    workers: int
    queue: int
    client_requests: int
    retry_seconds: int
    connections: int
    held_bytes: int
    header_seconds: float
    body_seconds: float
    send_seconds: float
    photos: int
    photos_bytes: int
    client_photos: int
    client_bytes: int
    photo_seconds: float
    scenes: int
    decode_seconds: float
    decode_bytes: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise InputError(f"step.limits.{field.name}={value} must be a number greater than 0")
