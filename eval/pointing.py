"""The step ``point``: the Pointing Game (Sec. 4.1, Table 1; the rules are in ``eval.pointing_game``).

grounding step=point data=voc2012 attention=c-mwp
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from eval.annotated_photos import AnnotatedPhoto, AnnotatedPhotos, check_annotated, check_masks, read_annotated
from eval.checks import check_counts
from eval.class_maps import class_maps, describe_maps, known_tags
from eval.photo_reading import UNUSABLE, faulty_names, name_some, photo_ledger, read_photos
from eval.pointing_game import TOLERANCE, CueResult, cues, is_hit, maxima, pointing_metrics
from eval.published import TABLE_1, TABLE_1_NETWORKS
from eval.shared_photos import answer_together
from grounding import Grounder
from grounding.runtime.artefacts import write_json, write_json_lines
from grounding.shards.photo_parts import LEASE

ROWS = {
    "method": "method",
    "  classes without a tag missed": "unknown_missed",
    "image centre": "centre",
    "  classes without a tag too": "centre_of_all",
}


def point(
    grounder: Grounder,
    photos: AnnotatedPhotos | None,
    classes: Mapping[str, Sequence[str]] | None,
    output: str,
    resamples: int = 1000,
    seed: int = 0,
    limit: int | None = None,
    include_margin: bool = False,
    lease: float = LEASE,
) -> dict:
    """Plays the game on every photo, writes ``metrics.json`` and ``points.jsonl``, and prints a table.

    Args:
        grounder: computes the maps.
        photos: a reader, ``eval.voc.Voc`` or ``eval.coco.Coco``; None, for data without objects, is an error.
        classes: the tags of each class; a class that is not listed has its own name as its only tag. None: none.
        output: the folder for the results.
        resamples: number of bootstrap resamples, for the 95 % intervals.
        seed: the seed of the resamples.
        limit: use only the first ``limit`` photos; None for all.
        include_margin: see ``eval.pointing_game.is_hit``.
        lease: seconds after which the photos of a process that has died are taken over.

    Returns:
        The metrics, accuracies in percent. Photos that cannot be used, or whose annotations cannot, are left out and
        listed there and in ``skipped.jsonl``. Several ranks share the photos; the first one returns the metrics, the
        others return an empty dictionary.

    Raises:
        InputError: no photo can be used or has an object, or a count is below 1.
    """
    photos, classes = check_annotated(photos), classes or {}
    check_counts(resamples=resamples, limit=limit)
    known_tags(classes, classes, grounder.tagger.vocabulary)  # checks the setting
    ledger = photo_ledger(photos)
    chosen = read_photos(photos, ledger, limit, check_masks)

    def answer(photo: AnnotatedPhoto) -> list[dict]:
        return [asdict(cue) for cue in play(grounder, photo, classes, include_margin)]

    settings = {"step": "point", "classes": classes, "include_margin": include_margin}
    answers = answer_together(grounder, chosen, answer, output, settings, lease)
    if answers is None:
        return {}
    results: list[CueResult] = []
    for photo, found in zip(chosen, answers, strict=True):
        if found.error:
            ledger.skip(photo.id, UNUSABLE, found.error)
        else:
            results += map(CueResult.of_record, found.value)
            ledger.keep()
    ledger.finish(output)
    metrics = describe_maps(grounder, photos) | {"photos": ledger.kept, "skipped_images": faulty_names(ledger)}
    metrics |= {"side": grounder.settings.side, "include_margin": include_margin}
    metrics |= pointing_metrics(results, resamples, seed)
    write_json(Path(output, "metrics.json"), metrics)
    write_json_lines(Path(output, "points.jsonl"), map(asdict, results))
    print(table(metrics))
    return metrics


def play(
    grounder: Grounder, photo: AnnotatedPhoto, classes: Mapping[str, Sequence[str]], include_margin: bool = False
) -> list[CueResult]:
    """The results of all cues of one photo. Their maps come from one pass.

    Args:
        grounder: computes the maps.
        photo: the photo and its objects.
        classes: the tags of each class.
        include_margin: see ``eval.pointing_game.is_hit``.

    Raises:
        InputError: the photo cannot be read, or its size differs from the annotation's.
    """
    pixels = read_annotated(photo)
    height, width = photo.size
    present = cues(photo)
    known = known_tags(classes, [cue.name for cue in present], grounder.tagger.vocabulary)
    maps = class_maps(grounder, pixels, list(known.values()), [grounder.settings.side])
    points = dict(zip(known, maxima(maps, photo.size), strict=True))
    return [
        CueResult(
            photo=photo.id,
            name=cue.name,
            difficult=cue.difficult,
            centred=is_hit(cue.mask, (width // 2, height // 2), include_margin),
            known=cue.name in known,
            point=(maximum := points.get(cue.name)),
            hit=maximum is not None and is_hit(cue.mask, maximum, include_margin),
        )
        for cue in present
    ]


def table(metrics: dict) -> str:
    """Formats the metrics, with the paper's Table 1 below them.

    Args:
        metrics: what :func:`point` returns.

    Returns:
        Lines of text.
    """
    subsets = [metrics["all"], metrics["difficult"]]
    sizes = [s["unknown_missed"]["cues"] if s["unknown_missed"] else 0 for s in subsets]
    lines = [
        f"{metrics['method']} at {metrics['target']}, {metrics['side']} px: {metrics['photos']} photos of "
        f"{metrics['data']['root']}, {metrics['data']['split']}; {sizes[0]} cues, {sizes[1]} of them difficult; "
        f"hits lie {'at most' if metrics['include_margin'] else 'less than'} {TOLERANCE} px away",
        f"{'mean over classes, 95 % interval':34}{'all':22}{'difficult':22}mean over cues",
        *(_row(title, [s[key] for s in subsets]) for title, key in ROWS.items()),
        *_remarks(metrics),
        "",
        "Table 1 of the paper, all / difficult; on other data, with networks that were trained on these classes:",
        f"{'':20}" + "".join(f"{heading:45}" for heading in ("VOC07 test", "COCO val")).rstrip(),
        f"{'':20}" + "".join(f"{name:15}" for name in TABLE_1_NETWORKS * 2).rstrip(),
        *(f"{name:20}" + "".join(f"{_paper(pair):15}" for pair in pairs).rstrip() for name, pairs in TABLE_1.items()),
    ]
    return "\n".join(lines)


def _row(title: str, cells: Sequence[dict | None]) -> str:
    means = (f"{c['mean']:.1f} [{c['interval'][0]:.1f}, {c['interval'][1]:.1f}]" if c else "-" for c in cells)
    pooled = " / ".join(f"{c['pooled']:.1f}" if c else "-" for c in cells)
    return f"{title:34}" + "".join(f"{mean:22}" for mean in means) + pooled


def _paper(pair: tuple[float, float] | None) -> str:
    return "-" if pair is None else f"{pair[0]:.1f} / {pair[1]:.1f}"


def _remarks(metrics: dict) -> list[str]:
    unknown = ", ".join(f"{name} ({cues})" for name, cues in metrics["unknown_classes"].items())
    remarks = {
        f"classes without a tag (cues): {unknown}": unknown,
        f"constant maps, counted as misses: {metrics['flat_maps']}": metrics["flat_maps"],
        f"could not be used, left out: {name_some(metrics['skipped_images'])}": metrics["skipped_images"],
    }
    return [remark for remark, applies in remarks.items() if applies]
