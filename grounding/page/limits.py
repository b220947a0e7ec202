"""What a client may ask of the server, and how long it may take; the values are those of conf/step/serve.yaml."""

from dataclasses import dataclass, fields

from proposals.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Every bound of the server; all are above 0.

    Attributes:
        upload_bytes, pixels, aspect: of a photo's file, of the photo, and of its longer side over the shorter.
        scans: of a progressive JPEG over the photo.
        json_bytes: of any other body.
        phrases, phrase_length, caption_length: how many, and their characters; words: different known ones together.
        slow_words: the same for methods that go down to the image, such as Grad.
        boxes: of a phrase, in an answer.
        workers, queue: requests that are worked on, and that wait; more are told to come back in retry_seconds.
        connections: open ones; held_bytes: of the bodies that have arrived, of all together.
        header_seconds, body_seconds, send_seconds: until a request's head and its body are there, and until a client
            takes more of an answer.
        photos, photos_bytes, photo_seconds: kept photos, their bytes, and how long one is kept after it was last asked.
        scenes: photos whose values in the network stay, for a new word to need no forward pass.
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
    retry_seconds: int
    connections: int
    held_bytes: int
    header_seconds: float
    body_seconds: float
    send_seconds: float
    photos: int
    photos_bytes: int
    photo_seconds: float
    scenes: int

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise InputError(f"step.limits.{field.name}={value} must be a number above 0")
