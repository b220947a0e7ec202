"""HEIC photos, which Pillow reads if the package pillow-heif is installed."""

from importlib import import_module
from importlib.util import find_spec

HEIC_SUFFIXES = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
HEIC_CURE = "install pillow-heif (the extra heic), or convert it to JPEG"
BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def is_heic(head: bytes) -> bool:
    """Whether a file is a HEIC photo.

    Args:
        head: the first 12 bytes of the file, or more.

    Returns:
        True if its brand is one of HEIC. AVIF, which Pillow reads, has other brands.
    """
    return head[4:8] == b"ftyp" and head[8:12] in BRANDS


def reads_heic() -> bool:
    """Whether pillow-heif is installed."""
    return find_spec("pillow_heif") is not None


def register_heic() -> bool:
    """Lets Pillow read HEIC.

    Returns:
        Whether pillow-heif is installed.
    """
    if not reads_heic():
        return False
    import_module("pillow_heif").register_heif_opener()
    return True
