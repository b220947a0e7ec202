"""The step ``examples``: photos, and the maps of the words of a caption, as one picture (Fig. 7).

grounding step=examples data.root=flickr30k_entities data.split=val
"""

import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from eval.checks import check_counts
from eval.flickr30k import Flickr30kEntities
from eval.photo_reading import UNUSABLE, photo_ledger
from grounding import Grounder, Phrase
from grounding.draw import heated
from grounding.runtime.artefacts import atomic_path
from proposals.errors import InputError

CELL = 220  # pixels of a picture's longer side
MARGIN, LINE = 6, 22


def examples(
    grounder: Grounder, root: str, split: str, output: str, rows: int = 6, columns: int = 5, seed: int = 0
) -> Path:
    """Draws ``examples.png``. Each row shows a photo, the maps of words of its first caption, and the caption below.

    Photos that cannot be used are left out and listed in ``skipped.jsonl``.

    Args:
        grounder: computes the maps.
        root: the folder of Flickr30k Entities.
        split: the name of the split.
        output: the folder for the picture.
        rows: number of photos, drawn at random.
        columns: maximum number of words of each photo.
        seed: the seed of the random numbers.

    Returns:
        The path of the picture.

    Raises:
        InputError: the folder is not Flickr30k Entities, no photo can be used, or rows or columns is below 1.
    """
    check_counts(rows=rows, columns=columns)
    data = Flickr30kEntities(root, split)
    chosen = random.Random(seed).sample(data.ids, min(rows, len(data)))
    ledger, drawn = photo_ledger(data), []
    for name in ledger.reading(tqdm(chosen, "photos", unit="photo", disable=None)):
        try:
            drawn.append(_row(grounder, data, name, columns))
        except InputError as error:
            ledger.skip(name, UNUSABLE, str(error))
        else:
            ledger.keep()
    ledger.finish(output)
    with atomic_path(Path(output, "examples.png")) as aside:
        _sheet(drawn, columns).save(aside, "PNG")
    print(Path(output, "examples.png"))
    return Path(output, "examples.png")


def _row(grounder: Grounder, data: Flickr30kEntities, name: str, columns: int) -> tuple[str, list[Image.Image]]:
    """The caption, the photo, and the photo under the map of each known word, without repetitions."""
    image = data.read(name)
    caption = next(iter(data.captions(name)), "")
    tags = list(dict.fromkeys(Phrase.parse(caption, grounder.tagger.vocabulary).tags)) if caption else []
    scene = grounder.look(image.path)
    scale = CELL / max(scene.image.shape[:2])
    plain = Image.fromarray(scene.image).resize([max(1, round(n * scale)) for n in scene.image.shape[1::-1]])
    maps = zip(tags[:columns], scene.attend(tags[:columns]), strict=True)
    return caption, [plain, *(_named(heated(scene.image, attention, scale), tag) for tag, attention in maps)]


def _named(picture: Image.Image, tag: str) -> Image.Image:
    font = ImageFont.load_default(15)
    ImageDraw.Draw(picture).text((5, 3), tag, "white", font, stroke_width=1, stroke_fill="black")
    return picture


def _sheet(rows: Sequence[tuple[str, list[Image.Image]]], columns: int) -> Image.Image:
    heights = [max(picture.height for picture in pictures) + LINE + MARGIN for _, pictures in rows]
    sheet = Image.new("RGB", ((columns + 1) * (CELL + MARGIN) + MARGIN, sum(heights) + MARGIN), "white")
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(14), MARGIN
    for (caption, pictures), height in zip(rows, heights, strict=True):
        for i, picture in enumerate(pictures):
            sheet.paste(picture, (MARGIN + i * (CELL + MARGIN), top))
        draw.text((MARGIN, top + height - LINE - MARGIN + 2), caption, "black", font)
        top += height
    return sheet
