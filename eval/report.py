"""The step ``report``: an evaluation as one self-contained HTML page, with tables, curves and a gallery.

    grounding step=evaluate data.root=flickr30k_entities data.split=val
    grounding step=report data.root=flickr30k_entities data.split=val run=runs/evaluate
    grounding step=report data=coco2017 data.split=train2017+val2017 run=runs/judge/coco

The gallery shows phrases of each reason in ``eval.failures``.
"""

import base64
import random
from collections.abc import Callable, Iterator, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from eval.categories import CategoryPhotos, ObjectPhotos
from eval.checks import check_counts
from eval.failures import REASONS, reason_of
from eval.flickr30k import Flickr30kEntities
from eval.photo_reading import UNUSABLE
from eval.predictions import CATEGORIES, ENTITIES
from eval.report_tables import metric_tables, type_names
from eval.runs import read_run
from grounding import Grounder
from grounding.cache import Cache
from grounding.draw import heated
from grounding.runtime.artefacts import atomic_path
from grounding.runtime.ledger import Ledger
from proposals.errors import InputError

PhraseReader = Flickr30kEntities | CategoryPhotos

MAX_SIDE = 320  # pixels of the longer side of a picture in the gallery


def report(
    grounder: Grounder,
    root: str,
    split: str,
    run: str,
    output: str,
    cache: str | None = None,
    examples: int = 12,
    photos: ObjectPhotos | None = None,
) -> Path:
    """Writes ``report.html`` about an evaluation of our own answers.

    Args:
        grounder: draws the maps; it must have the settings of the evaluation.
        root: the folder of the data set.
        split: the split that was evaluated.
        run: the folder of the evaluation.
        output: the folder for the page.
        cache: the cache of the evaluation; None to compute the maps again.
        examples: number of phrases of each reason in the gallery, 0 or more.
        photos: a reader of COCO or VOC, if the evaluation is of categories; None for Flickr30k Entities.

    Returns:
        The path of the page.

    Raises:
        InputError: ``run`` is not an evaluation of our own answers, or has other settings or data, or no photo of the
            gallery can be used.
    """
    check_counts(0, examples=examples)
    metrics, phrases = read_run(run)
    here = grounder.used_settings()
    if missing := here.keys() - metrics.keys():
        raise InputError(f"{run} is of an earlier version, without {', '.join(sorted(missing))}: evaluate it again")
    different = {k: v for k, v in here.items() if metrics.get(k) != v}
    if different:
        pairs = ", ".join(f"{k}={metrics.get(k)} there, {v} here" for k, v in different.items())
        raise InputError(f"{run} has other settings ({pairs}): run step=report with the settings of the evaluation")
    if metrics["data"]["split"] != split or metrics["proposals"] != type(grounder.proposer).__name__:
        raise InputError(
            f"{run} is of split {metrics['data']['split']} and {metrics['proposals']}: set data.split, proposals"
        )
    look = Cache(grounder, cache).look if cache else lambda path, _: grounder.look(path)
    if ("by_class" in metrics) != (photos is not None):
        there = "COCO or VOC: set data=coco2017 or voc2012"
        there = there if photos is None else "Entities: set data=flickr30k_entities"
        raise InputError(f"{run} is an evaluation on {there}")
    data = Flickr30kEntities(root, split) if photos is None else CategoryPhotos(photos)
    ledger = Ledger("pictures", data.folder, "set data.root to the data of the evaluation")
    gallery = "".join(_gallery(look, grounder, data, _choose(phrases, examples), ledger))
    if ledger.came:
        ledger.finish(output)
    title = (
        f"{metrics['method']}, gamma {metrics['gamma']:g}, {metrics['proposals']}: {split}, {metrics['images']} photos"
    )
    tables = metric_tables(metrics, phrases)
    with atomic_path(Path(output, "report.html")) as aside:
        aside.write_text(_page(title, tables, gallery, phrases), "utf-8")
    print(Path(output, "report.html"))
    return Path(output, "report.html")


def _gallery(
    look: Callable, grounder: Grounder, data: PhraseReader, phrases: Sequence[dict], ledger: Ledger
) -> Iterator[str]:
    """Pictures of phrases; those of photos that cannot be used are skipped."""
    for phrase in ledger.reading(tqdm(phrases, "pictures", unit="phrase", disable=None), lambda p: p["image"]):
        try:
            picture = _picture(look, grounder, data, phrase)
        except InputError as error:
            ledger.skip(phrase["image"], UNUSABLE, str(error))
        else:
            ledger.keep()
            yield picture


def _choose(phrases: Sequence[dict], examples: int) -> list[dict]:
    """Phrases of each reason, drawn at random, the same ones in each report on the same evaluation."""
    chosen: list[dict] = []
    for reason in REASONS:
        candidates = [phrase for phrase in phrases if reason_of(phrase) == reason]
        chosen += random.Random(0).sample(candidates, min(examples, len(candidates)))
    return chosen


def _picture(look: Callable, grounder: Grounder, data: PhraseReader, phrase: dict) -> str:
    image = data.read(phrase["image"])
    form = CATEGORIES if isinstance(data, CategoryPhotos) else ENTITIES
    places = {entity.place(image.id): entity for entity in image.entities}
    entity = places.get(form.parse(*(phrase[name] for name in form.names)))
    if entity is None:
        where = f" in caption {phrase['sentence']}" if form is ENTITIES else ""
        raise InputError(f"{image.id} has no phrase {phrase['phrase']}{where}")
    scene = look(image.path, [entity.text])
    (answer,) = scene.ground([entity.text])
    scale = min(1, MAX_SIDE / max(image.size))
    small = Image.fromarray(scene.image).resize([max(1, round(n * scale)) for n in image.size[::-1]])
    heat = small if answer.map is None else heated(scene.image, answer.map, scale)
    return _card(phrase, (small, heat), answer.boxes[:1], entity.boxes, image.size)


def _card(
    phrase: dict,
    pictures: tuple[Image.Image, Image.Image],
    predicted: np.ndarray,
    truth: np.ndarray,
    size: tuple[int, int],
) -> str:
    reason, text = reason_of(phrase), escape(phrase["text"])
    rectangles = "".join(
        _rectangle(box, kind) for kind, boxes in (("truth", truth), ("predicted", predicted)) for box in boxes
    )
    rank = f"rank {phrase['rank']}" if phrase["rank"] else "no correct box"
    plain, heat = map(_embedded, pictures)
    return (
        f'<figure data-reason="{reason}" data-types="{escape(" ".join(phrase["types"]))}">'
        f'<div class="photo"><img src="{plain}" alt="{text}"><img class="heat" src="{heat}" alt="">'
        f'<svg viewBox="0 0 {size[1]} {size[0]}">{rectangles}</svg></div>'
        f"<figcaption><b>{text}</b><br>{reason}, {rank}; {escape(', '.join(phrase['types']))}, "
        f"photo {escape(phrase['image'])}</figcaption></figure>"
    )


def _rectangle(box: np.ndarray, kind: str) -> str:
    x1, y1, x2, y2 = box
    return f'<rect class="{kind}" x="{x1:.0f}" y="{y1:.0f}" width="{x2 - x1:.0f}" height="{y2 - y1:.0f}"/>'


def _embedded(picture: Image.Image) -> str:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1080px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}small{color:#777}
table{border-collapse:collapse;margin:.6em 0}td,th{padding:.15em .9em .15em 0;text-align:left;vertical-align:middle}
.bar{display:flex;width:340px;max-width:40vw;height:14px;background:#eee;border-radius:2px;overflow:hidden}
.bar.thin{width:120px;height:5px}.bar span{display:block;height:100%}
.key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 .8em;border-radius:2px}
svg{max-width:620px;width:100%}svg text{font:11px system-ui,sans-serif;fill:#555}
#gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(230px,1fr));gap:1.2em}
figure{margin:0}figure[hidden]{display:none}figcaption{font-size:13px;color:#555;overflow-wrap:anywhere}
.photo{position:relative}.photo img{display:block;width:100%}.photo .heat{position:absolute;inset:0;opacity:0}
.photo:hover .heat{opacity:1}.photo svg{position:absolute;inset:0;width:100%;height:100%;max-width:none}
rect{fill:none;stroke-width:4;vector-effect:non-scaling-stroke}
.truth{stroke:#fff;stroke-dasharray:6 4}.predicted{stroke:#ff9a1f}
select{font:inherit;margin-right:1em}
"""
# hides the phrases of other reasons and types than the selected ones
SCRIPT = """
const chosen=()=>[...document.querySelectorAll('select')].map(s=>s.value);
function show(){const [reason,type]=chosen();let n=0;
for(const f of document.querySelectorAll('figure')){
f.hidden=!((!reason||f.dataset.reason===reason)&&(!type||f.dataset.types.split(' ').includes(type)));n+=!f.hidden}
document.getElementById('count').textContent=n+' shown'}
document.querySelectorAll('select').forEach(s=>s.addEventListener('change',show));show();
"""


def _page(title: str, tables: str, gallery: str, phrases: Sequence[dict]) -> str:
    choices = [
        f'<select aria-label="{name}"><option value="">all {name}s</option>'
        + "".join(f"<option>{escape(value)}</option>" for value in values)
        + "</select>"
        for name, values in (("reason", REASONS), ("type", type_names(phrases)))
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1>{tables}<h2>Gallery</h2><p>Dashed: the annotated boxes. Orange: the best-ranked "
        f"predicted box. Move the mouse over a photo to see the map.</p>"
        f'<p>{"".join(choices)}<span id="count"></span></p>'
        f'<div id="gallery">{gallery}</div><script>{SCRIPT}</script></body></html>'
    )
