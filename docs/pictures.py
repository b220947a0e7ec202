"""Makes the pictures of README and docs from the results of the commands in ``make pictures``."""

from pathlib import Path

from PIL import Image

WIDTH = 1000  # of the pictures with many panels, in pixels
PICTURES = {
    "runs/ground/02-a-smiling-woman.png": "a-smiling-woman.jpg",
    "runs/ground/03-an-orange-suit.png": "an-orange-suit.jpg",
    "runs/mwp/layers.png": "layers-mwp.jpg",
    "runs/c-mwp/layers.png": "layers-c-mwp.jpg",
    "runs/methods/methods.png": "methods.jpg",
    "runs/words/methods.png": "words.jpg",
}


def main() -> None:
    """Reads the pictures in ``runs`` and writes them to ``docs/images``, smaller."""
    root = Path(__file__).parents[1]
    for source, name in PICTURES.items():
        picture = Image.open(root / source).convert("RGB")
        if picture.width > WIDTH:
            picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
        picture.save(root / "docs" / "images" / name, quality=80, optimize=True)


if __name__ == "__main__":
    main()
