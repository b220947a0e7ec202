"""The step ``table4``: Tables 4 and 5, each method at its best gamma, with both protocols and both score scales.

    grounding experiment=table4 data.root=flickr30k_entities data.split=val

The paper optimises gamma "for each method in the range [0 : 0.25 : 1]" (Sec. 4.3). So does this step, for our own
system, too, on the photos that are evaluated: the best gamma has the largest sum of R@1, R@5 and R@10.
``halves.csv`` selects gamma on one half of the photos, and reports this half (held in) and the other one (held out).

Maps and proposals come from the cache. What is not in it is computed and kept.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from eval.checks import check_counts
from eval.flickr30k import Flickr30kEntities
from eval.photo_reading import UNUSABLE, faulty_names, name_some, photo_ledger, read_photos, require_files
from eval.protocol import OURS, find_protocol
from eval.scenes import evaluates_here
from eval.systems import PhraseTable, System, SystemResults, answer_system
from eval.table4_rows import Row, Table4, forget_scores, markdown
from grounding import Grounder
from grounding.runtime.artefacts import atomic_path
from proposals import Proposer
from proposals.errors import InputError

OWN_ORDER = "no phrase: the proposals' own order"


def table4(
    paper: Grounder,
    ours: Grounder,
    proposers: Mapping[str, Proposer],
    methods: Sequence[str],
    root: str,
    split: str,
    output: str,
    cache: str | None,
    limit: int | None = None,
    phrase_list: str | None = None,
) -> dict[str, list[Row]]:
    """Evaluates all systems, prints the tables, and writes each to a CSV file, and all to ``tables.md``.

    Args:
        paper: the settings of the paper; its method and proposer are replaced.
        ours: the settings of our own system.
        proposers: the proposals of the paper's methods, by any name.
        methods: the attention methods, see ``grounding.attention.methods``.
        root: the folder of Flickr30k Entities.
        split: the name of the split.
        output: the folder for the results.
        cache: the folder where maps and proposals are kept.
        limit: use only the first ``limit`` photos; None for all.
        phrase_list: see ``eval.protocol.find_protocol``.

    Returns:
        The rows of each table by its name: table4, table5, differences, halves. Values are texts as in the CSV files.
        Only the first of several ranks returns them; the others help to fill the cache.

    Raises:
        InputError: there is no cache or no photo, a method is unknown, or the data cannot be read.
    """
    check_counts(limit=limit)
    if cache is None:
        raise InputError("step=table4 answers the same photos many times: set cache=FOLDER")
    data = Flickr30kEntities(root, split)
    ledger = photo_ledger(data)
    images = read_photos(data, ledger, limit, files=False)
    require_files(images, data.folder)
    if not any(image.entities for image in images):
        raise InputError("no phrase to evaluate: the split's sentences mark no phrase with a box")
    left_out = faulty_names(ledger)
    protocols = [OURS, find_protocol("iccv15", data, images, phrase_list)]
    phrases = PhraseTable.of(images, protocols)
    unread: dict[str, str] = {}
    results: list[SystemResults] = []
    for system in systems(paper, ours, proposers, methods):
        if evaluates_here(system.grounder, images, None, cache):
            print(f"{system.name}, {system.proposer}", flush=True)
            results.append(answer_system(system, images, protocols, cache, unread.setdefault))
            forget_scores(results[-1], phrases, protocols)
    if not results:
        return {}
    for name, error in unread.items():
        ledger.skip(name, UNUSABLE, error)
    ledger.kept = len(images) - len(unread)
    ledger.finish(output)
    tables = Table4(results, phrases, protocols).tables()
    tables = {name: rows for name, rows in tables.items() if rows}
    for name, rows in tables.items():
        write_csv(Path(output, f"{name}.csv"), rows)
    text = "\n\n".join(f"{name}\n\n{markdown(rows)}" for name, rows in tables.items())
    with atomic_path(Path(output, "tables.md")) as aside:
        aside.write_text(text + "\n", "utf-8")
    print(text)
    for remark, names in (("could not be read, counted as misses", [*unread]), ("left out", left_out)):
        if names:
            print(f"{remark}: {name_some(names)}")
    return tables


def systems(paper: Grounder, ours: Grounder, proposers: Mapping[str, Proposer], methods: Sequence[str]) -> list[System]:
    """The rows that are evaluated: for each proposer its own order and the methods; then our own system.

    Args:
        paper: the settings of the paper.
        ours: the settings of our own system.
        proposers: the proposals, by any name.
        methods: the attention methods.

    Raises:
        InputError: a method is unknown, or there is none.
    """
    if not methods or not proposers:
        raise InputError("step=table4 needs methods and proposers: set step.methods=[mwp,c-mwp]")
    rows: list[System] = []
    for proposer in proposers.values():
        with_proposer = {
            method: Grounder(paper.tagger, proposer, replace(paper.settings, method=method)) for method in methods
        }
        rows.append(System(OWN_ORDER, with_proposer[methods[0]], by_phrase=False))
        rows += [System(method, grounder) for method, grounder in with_proposer.items()]
    return [*rows, System("best", ours)]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows with the same columns.

    Args:
        path: the file; it appears only when it is complete.
        rows: one or more.
    """
    with atomic_path(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
