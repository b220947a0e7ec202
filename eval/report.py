"""The step ``report``: an evaluation as one page of HTML that needs nothing else.

    grounding step=evaluate data.root=flickr30k_entities data.split=val
    grounding step=report data.root=flickr30k_entities data.split=val run=runs/evaluate

Every phrase that is not right at rank 1 has one reason, the first that holds:

    out of vocabulary   no word of it has a tag
    no proposal         no proposal overlaps the union box by 0.5
    wrong place         the map's maximum lies in none of its boxes
    wrong extent        it does, but none of the first ten boxes is right
    ranked low          one of them is
"""

import base64
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from eval.counts import check_counts
from eval.flickr30k import Flickr30kEntities
from eval.localization import DEPTHS, SMALL
from grounding import Grounder
from grounding.cache import Cache
from grounding.draw import heated
from grounding.runtime.artefacts import atomic_path
from grounding.text.phrases import Phrase
from proposals.errors import InputError

REASONS = ("right", "ranked low", "wrong extent", "wrong place", "no proposal", "out of vocabulary")
COLOURS = ("#2e8b57", "#8fbc5a", "#d9b036", "#d9713c", "#8a6fb0", "#808080")
LONGEST = 320  # pixels of a picture in the gallery
CURVE = 50  # ranks of the recall curve


def reason_of(phrase: dict) -> str:
    """What became of a phrase, given its line of ``phrases.jsonl``; see the module."""
    if phrase["rank"] == 1:
        return "right"
    if not phrase["covered"]:
        return "out of vocabulary"
    if not phrase["reachable"]:
        return "no proposal"
    if not phrase["pointed"]:
        return "wrong place"
    return "ranked low" if phrase["rank"] and phrase["rank"] <= DEPTHS[-1] else "wrong extent"


def report(
    grounder: Grounder, root: str, split: str, run: str, output: str, cache: str | None = None, examples: int = 12
) -> Path:
    """Writes ``report.html`` on an evaluation of our own answers.

    Args:
        grounder: of the evaluation, for the pictures; root, split: of the data set; run: the evaluation's folder.
        output: the folder that is written to; cache: of the evaluation; examples: of each reason, 0 or more.

    Returns:
        The page's path.

    Raises:
        InputError: the folder holds no evaluation of our own answers, or one with other settings or data.
    """
    check_counts(0, examples=examples)
    metrics, phrases = read_run(run)
    wrong = {k: v for k, v in vars(grounder.settings).items() if metrics.get(k) != v}
    if wrong:
        said = ", ".join(f"{k}={metrics.get(k)} there, {v} here" for k, v in wrong.items())
        raise InputError(f"{run} has other settings ({said}): give this command those of the evaluation")
    if metrics["data"]["split"] != split or metrics["proposals"] != type(grounder.proposer).__name__:
        raise InputError(
            f"{run} is of {metrics['data']['split']} and {metrics['proposals']}: give data.split, proposals"
        )
    look = Cache(grounder, cache).look if cache else lambda path, _: grounder.look(path)
    gallery = "".join(_gallery(look, grounder, Flickr30kEntities(root, split), phrases, examples))
    title = (
        f"{metrics['method']}, gamma {metrics['gamma']:g}, {metrics['proposals']}: {split}, {metrics['images']} photos"
    )
    tables = _summary(metrics) + _reasons(phrases) + _curve(phrases) + _bars(metrics)
    with atomic_path(Path(output, "report.html")) as aside:
        aside.write_text(_page(title, tables, gallery, phrases), "utf-8")
    print(Path(output, "report.html"))
    return Path(output, "report.html")


def read_run(run: str) -> tuple[dict, list[dict]]:
    """The metrics and the lines of ``phrases.jsonl`` of an evaluation of our own answers, unread photos left out.

    Raises:
        InputError: the folder holds none, or has a gamma for each half of the photos.
    """
    try:
        metrics = json.loads(Path(run, "metrics.json").read_bytes())
        phrases = [json.loads(line) for line in Path(run, "phrases.jsonl").read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(
            f"{run} holds no evaluation ({error}): run step=evaluate first, and say run=ITS_FOLDER"
        ) from error
    phrases = [phrase for phrase in phrases if phrase["image"] not in metrics.get("skipped_images", [])]
    if "by_gamma" not in metrics or not phrases:
        raise InputError(f"{run} is of predictions from a file: a report needs our own answers, for the reasons")
    if metrics["gamma"] is None:
        raise InputError(f"{run} has a gamma for each half of its photos: a report needs one, without step.choose")
    return metrics, phrases


def _summary(metrics: dict) -> str:
    rows = {"all phrases": "recall", "small": "recall_small", "mean over types": "recall_type_mean"}
    lines = [
        [name, *(_figure(metrics, key, k) for k in map(str, DEPTHS))]
        for name, key in (rows | {"any box": "recall_any_box"}).items()
    ]
    lines += [
        [name.replace("_", " "), *(_figure(metrics, "baselines", name, k) for k in map(str, DEPTHS))]
        for name, value in metrics["baselines"].items()
        if isinstance(value, dict)
    ]
    singles = {
        "mAP (Group)": ["ap_group"],
        "mAP (Phrase)": ["ap_phrase"],
        "pointing": ["pointing"],
        "pointing, image centre": ["baselines", "centre_pointing"],
        "proposals' upper bound": ["oracle_recall"],
        "phrases with a tag": ["coverage"],
    }
    return (
        "<h2>Figures</h2><p>Percent, with 95 % intervals over photos.</p>"
        + _table(["", "R@1", "R@5", "R@10"], lines)
        + _table(["", ""], [[name, _figure(metrics, *path)] for name, path in singles.items()])
    )


def _figure(metrics: dict, *path: str) -> str:
    value, spread = metrics, metrics["intervals"]
    for key in path:
        value, spread = value[key], spread[key]
    if value is None:
        return "-"
    return f"{value:.1f}" + (f" <small>({spread[0]:.1f}-{spread[1]:.1f})</small>" if spread else "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _types(phrases: Sequence[dict]) -> list[str]:
    return sorted({name for phrase in phrases for name in phrase["types"]})


def _reasons(phrases: Sequence[dict]) -> str:
    """What became of the phrases of each type, as shares of a bar."""
    rows = []
    for name in ("all", *_types(phrases)):
        chosen = [phrase for phrase in phrases if name == "all" or name in phrase["types"]]
        counts = Counter(map(reason_of, chosen))
        bar = "".join(
            f'<span title="{reason}: {counts[reason]} of {len(chosen)}" '
            f'style="width:{100 * counts[reason] / len(chosen):.2f}%;background:{colour}"></span>'
            for reason, colour in zip(REASONS, COLOURS, strict=True)
        )
        shares = " / ".join(f"{100 * counts[reason] / len(chosen):.0f}" for reason in REASONS)
        rows.append([f"{name} ({len(chosen)})", f'<div class="bar">{bar}</div>', f"<small>{shares}</small>"])
    legend = " ".join(
        f'<span class="key" style="background:{c}"></span>{r}' for r, c in zip(REASONS, COLOURS, strict=True)
    )
    return f"<h2>What becomes of a phrase</h2><p>{legend}; percent in this order</p>" + _table(["", "", ""], rows)


def _curve(phrases: Sequence[dict]) -> str:
    """Recall over rank, all phrases and small ones, as a drawing."""
    lines, labels = [], []
    for i, (name, chosen) in enumerate({"all": phrases, "small": [p for p in phrases if p["area"] < SMALL]}.items()):
        ranks = np.array([phrase["rank"] or np.inf for phrase in chosen])
        share = [(ranks <= k).mean() if len(ranks) else 0 for k in range(1, CURVE + 1)]
        points = " ".join(f"{40 + 560 * k / (CURVE - 1):.1f},{220 - 200 * s:.1f}" for k, s in enumerate(share))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[(0, 3)[i]]}" stroke-width="2"/>')
        labels.append(f'<text x="500" y="{40 + 18 * i}" fill="{COLOURS[(0, 3)[i]]}">{name}</text>')
    ticks = [
        f'<text x="4" y="{224 - 2 * p}">{p}</text><path d="M40 {220 - 2 * p}H600" stroke="#ddd"/>'
        for p in range(0, 101, 20)
    ]
    ticks += [f'<text x="{36 + 560 * (k - 1) / (CURVE - 1):.0f}" y="238">{k}</text>' for k in (1, 10, 20, 30, 40, 50)]
    return f'<h2>Recall over rank</h2><svg viewBox="0 0 620 244">{"".join(ticks + lines + labels)}</svg>'


def _bars(metrics: dict) -> str:
    """R@1, R@5 and R@10 of each type."""
    rows = []
    for name, count in metrics["phrases_by_type"].items():
        cells = []
        for k in map(str, DEPTHS):
            value = metrics["recall_by_type"][name][k] or 0
            bar = f'<div class="bar thin"><span style="width:{value:.1f}%;background:#4878a8"></span></div>'
            cells.append(bar + _figure(metrics, "recall_by_type", name, k))
        rows.append([f"{name} ({count})", *cells, _figure(metrics, "ap_by_type", name)])
    return "<h2>By type</h2>" + _table(["", "R@1", "R@5", "R@10", "AP"], rows)


def _gallery(
    look: Callable, grounder: Grounder, data: Flickr30kEntities, phrases: Sequence[dict], examples: int
) -> Iterator[str]:
    """Pictures of some phrases of each reason, the same in each report on the same evaluation."""
    chosen = []
    for reason in REASONS:
        candidates = [phrase for phrase in phrases if reason_of(phrase) == reason]
        chosen += random.Random(0).sample(candidates, min(examples, len(candidates)))
    for phrase in tqdm(chosen, "pictures", unit="phrase", disable=None):
        image = data.read(phrase["image"])
        entity = next(e for e in image.entities if (e.sentence, e.phrase) == (phrase["sentence"], phrase["phrase"]))
        tags = Phrase.parse(entity.text, grounder.tagger.vocabulary).tags
        scene = look(image.path, tags)
        (answer,) = scene.ground([entity.text])
        scale = min(1, LONGEST / max(image.size))
        small = Image.fromarray(scene.image).resize([max(1, round(n * scale)) for n in image.size[::-1]])
        heat = small if answer.map is None else heated(scene.image, answer.map, scale)
        yield _card(phrase, (small, heat), answer.boxes[:1], entity.boxes, image.size)


def _card(
    phrase: dict,
    pictures: tuple[Image.Image, Image.Image],
    found: np.ndarray,
    truth: np.ndarray,
    size: tuple[int, int],
) -> str:
    reason, text = reason_of(phrase), escape(phrase["text"])
    drawn = "".join(_rectangle(box, kind) for kind, boxes in (("truth", truth), ("found", found)) for box in boxes)
    rank = f"rank {phrase['rank']}" if phrase["rank"] else "never right"
    plain, heat = map(_embedded, pictures)
    return (
        f'<figure data-reason="{reason}" data-types="{escape(" ".join(phrase["types"]))}">'
        f'<div class="photo"><img src="{plain}" alt="{text}"><img class="heat" src="{heat}" alt="">'
        f'<svg viewBox="0 0 {size[1]} {size[0]}">{drawn}</svg></div>'
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
.truth{stroke:#fff;stroke-dasharray:6 4}.found{stroke:#ff9a1f}
select{font:inherit;margin-right:1em}
"""
# the only program on the page: it hides what was not asked for
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
        f'<select aria-label="{name}"><option value="">every {name}</option>'
        + "".join(f"<option>{escape(value)}</option>" for value in values)
        + "</select>"
        for name, values in (("reason", REASONS), ("type", _types(phrases)))
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1>{tables}<h2>Gallery</h2><p>Dashed: the annotated boxes. Orange: our first box. "
        f'Point at a photo to see the map.</p><p>{"".join(choices)}<span id="count"></span></p>'
        f'<div id="gallery">{gallery}</div><script>{SCRIPT}</script></body></html>'
    )
