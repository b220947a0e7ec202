"""Members of the zoo: photos in a folder, and their texts in a table or another text file."""

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

from zoo import CAPTIONS, HEIGHT, NAMES, STEMS, TAGS, WIDTH, Given, Zoo, first_captions, pairs, write_photos, write_text

TABLES = Zoo()
FIRST = [(name, texts[0]) for name, texts in zip(NAMES, CAPTIONS, strict=True)]
DOWNLOAD = "download the photos with img2dataset"


def as_csv(header: list[str], rows: list[tuple], **options: Any) -> str:
    """CSV as ``csv.writer`` writes it, and pandas with ``lineterminator="\\n"``."""
    text = StringIO()
    csv.writer(text, **({"lineterminator": "\n"} | options)).writerows([header, *rows])
    return text.getvalue()


def as_json(value: Any) -> str:
    return json.dumps(value)


@TABLES.member("Kaggle's Flickr8k: captions.txt")
def kaggle_flickr8k(folder: Path) -> Given:
    # rows of one photo need not be neighbours
    rows = sorted(pairs(), key=lambda pair: pair[1])
    text = as_csv(["image", "caption"], rows)
    captions = {name: [text for image, text in rows if image == name] for name in NAMES}
    assert sorted(captions) == sorted(NAMES)
    return Given(write_photos(folder / "Images"), write_text(folder / "captions.txt", text))


@TABLES.member("Flickr8k.token.txt")
def flickr8k_token(folder: Path) -> Given:
    lines = [
        f"{name}#{i}\t{text}\n" for name, texts in zip(NAMES, CAPTIONS, strict=True) for i, text in enumerate(texts)
    ]
    return Given(write_photos(folder / "Flicker8k_Dataset"), write_text(folder / "Flickr8k.token.txt", "".join(lines)))


@TABLES.member("Flickr30k's results.csv (Kaggle)", skipped={"with too few cells": 1})
def flickr30k_results(folder: Path) -> Given:
    lines = ["image_name| comment_number| comment\n"]
    for name, texts in zip(NAMES, CAPTIONS, strict=True):
        lines += [f"{name}| {i}| {text}\n" for i, text in enumerate(texts)]
    lines.append(f"{NAMES[1]}| 4   A dog runs across the grass .\n")  # Kaggle's file has such a line
    return Given(write_photos(folder / "flickr30k_images"), write_text(folder / "results.csv", "".join(lines)))


@TABLES.member("Flickr30k Entities")
def flickr30k_entities(folder: Path) -> Given:
    write_photos(folder / "images", (f"{10 + i}.jpg" for i in range(3)))
    for i, texts in enumerate(CAPTIONS):
        marked = [f"[/EN#{i}/people/other {text.partition(' ')[0]}] {text.partition(' ')[2]}" for text in texts]
        write_text(folder / "Sentences" / f"{10 + i}.txt", "".join(f"{line}\n" for line in marked))
    return Given(folder)


@TABLES.member("Karpathy's splits: dataset_flickr8k.json")
def karpathy(folder: Path) -> Given:
    images = [
        {"sentids": [0], "imgid": i, "sentences": [{"tokens": text.split(), "raw": text, "imgid": i} for text in texts],
         "split": "train", "filename": name}
        for i, (name, texts) in enumerate(zip(NAMES, CAPTIONS, strict=True))
    ]  # fmt: skip
    text = as_json({"images": images, "dataset": "flickr8k"})
    return Given(write_photos(folder / "images"), write_text(folder / "dataset_flickr8k.json", text))


@TABLES.member("COCO captions: captions_val2017.json")
def coco_captions(folder: Path) -> Given:
    text = as_json({
        "info": {"year": 2017}, "licenses": [],
        "images": [{"id": 7 * i, "file_name": name, "height": HEIGHT, "width": WIDTH} for i, name in enumerate(NAMES)],
        "annotations": [{"id": i, "image_id": 7 * NAMES.index(name), "caption": text}
                        for i, (name, text) in enumerate(pairs())],
    })  # fmt: skip
    write_photos(folder / "val2017")
    return Given(folder / "val2017", write_text(folder / "annotations" / "captions_val2017.json", text))


@TABLES.member("BLIP: a JSON list of image and caption")
def blip(folder: Path) -> Given:
    text = as_json([{"image": f"images/{name}", "caption": text, "image_id": name} for name, text in pairs()])
    write_photos(folder / "images")
    return Given(write_text(folder / "train.json", text))


@TABLES.member("pandas: to_csv with lists in cells", kind="tags")
def pandas_lists(folder: Path) -> Given:
    rows = [(name, repr(list(tags))) for name, tags in zip(NAMES, TAGS, strict=True)]
    write_photos(folder)
    return Given(write_text(folder / "tags.csv", as_csv(["file_name", "tags"], rows)))


@TABLES.member("pandas: to_csv with the index")
def pandas_index(folder: Path) -> Given:
    rows = [(i, f"photos/{name}", text) for i, (name, text) in enumerate(pairs())]
    write_photos(folder / "photos")
    return Given(write_text(folder / "captions.csv", as_csv(["", "path", "caption"], rows)))


@TABLES.member("pandas: to_csv with tabs")
def pandas_tabs(folder: Path) -> Given:
    write_photos(folder)
    return Given(write_text(folder / "captions.tsv", as_csv(["filename", "text"], pairs(), delimiter="\t")))


@TABLES.member("pandas: to_csv on Windows, with backslashes in the paths")
def pandas_windows(folder: Path) -> Given:
    rows = [(f"photos\\{name}", text) for name, text in pairs()]
    write_photos(folder / "photos")
    return Given(write_text(folder / "t.csv", as_csv(["image_path", "caption"], rows, lineterminator="\r\n")))


@TABLES.member("pandas: to_json with orient='records' and lines", kind="tags")
def pandas_json_lines(folder: Path) -> Given:
    rows = [json.dumps({"path": name, "tags": tags}) for name, tags in zip(NAMES, TAGS, strict=True)]
    write_photos(folder)
    return Given(write_text(folder / "tags.jsonl", "\n".join(rows)))


@TABLES.member("R: write.csv")
def r_table(folder: Path) -> Given:
    rows = [(str(i), *pair) for i, pair in enumerate(pairs(), 1)]
    write_photos(folder)
    return Given(write_text(folder / "t.csv", as_csv(["", "image", "caption"], rows, quoting=csv.QUOTE_ALL)))


@TABLES.member("Google Sheets: CSV")
def google_sheets(folder: Path) -> Given:
    write_photos(folder)
    return Given(write_text(folder / "t.csv", as_csv(["Image", "Caption"], pairs(), lineterminator="\r\n").rstrip()))


@TABLES.member("LibreOffice: CSV with all texts quoted and tabs")
def libreoffice(folder: Path) -> Given:
    text = as_csv(["File", "Text"], pairs(), delimiter="\t", quoting=csv.QUOTE_ALL)
    return Given(write_photos(folder / "photos"), write_text(folder / "t.csv", text))


@TABLES.member("Excel: CSV UTF-8 with semicolons, BOM and CRLF")
def excel_utf8(folder: Path) -> Given:
    text = as_csv(["Image", "Caption"], pairs(), delimiter=";", lineterminator="\r\n")
    write_photos(folder)
    return Given(write_text(folder / "Mappe1.csv", text, "utf-8-sig"))


@TABLES.member("Excel: CSV with the line sep=;", kind="tags")
def excel_sep(folder: Path) -> Given:
    rows = [(name, ",".join(tags)) for name, tags in zip(NAMES, TAGS, strict=True)]
    text = as_csv(["File Name", "Keywords"], rows, delimiter=";", lineterminator="\r\n")
    write_photos(folder)
    return Given(write_text(folder / "Mappe1.csv", f"sep=;\r\n{text}"))


@TABLES.member(
    "Excel: CSV in the system's encoding",
    refused="not UTF-8 (byte 0xe9)…convert it with iconv -f WINDOWS-1252 -t UTF-8",
)
def excel_latin(folder: Path) -> Given:
    text = as_csv(["Image", "Caption"], pairs(), delimiter=";", lineterminator="\r\n")
    write_photos(folder)
    return Given(write_text(folder / "Mappe1.csv", text, "cp1252"))


@TABLES.member("Excel: Unicode text", refused="is UTF-16, not UTF-8: convert it with iconv -f UTF-16 -t UTF-8")
def excel_unicode(folder: Path) -> Given:
    text = as_csv(["Image", "Caption"], pairs(), delimiter="\t", lineterminator="\r\n")
    write_photos(folder)
    return Given(write_text(folder / "Mappe1.txt", text, "utf-16"))


@TABLES.member("Excel: .xlsx", refused="Mappe1.xlsx is a workbook: save it as CSV UTF-8")
def excel_workbook(folder: Path) -> Given:
    (folder / "Mappe1.xlsx").write_bytes(b"PK\3\4" + bytes(100))
    return Given(write_photos(folder / "photos"), folder / "Mappe1.xlsx")


@TABLES.member("Hugging Face imagefolder: metadata.csv", texts=first_captions())
def imagefolder_csv(folder: Path) -> Given:
    write_photos(folder / "train")
    return Given(write_text(folder / "train" / "metadata.csv", as_csv(["file_name", "text"], FIRST)))


@TABLES.member("Hugging Face imagefolder: metadata.jsonl", texts=first_captions())
def imagefolder_jsonl(folder: Path) -> Given:
    write_photos(folder / "train")
    lines = [json.dumps({"file_name": name, "text": text}) + "\n" for name, text in FIRST]
    return Given(write_text(folder / "train" / "metadata.jsonl", "".join(lines)))


@TABLES.member(
    "Hugging Face imagefolder: the folder itself", refused="it has metadata.jsonl: give images=…metadata.jsonl"
)
def imagefolder(folder: Path) -> Given:
    imagefolder_jsonl(folder)
    return Given(folder / "train")


@TABLES.member("Parquet of DuckDB, Polars or pandas", kind="tags")
def parquet_lists(folder: Path) -> Given:
    write_photos(folder)
    rows = [{"path": name, "tags": list(tags)} for name, tags in zip(NAMES, TAGS, strict=True)]
    return Given(write_parquet(folder / "tags.parquet", rows))


@TABLES.member(
    "Hugging Face datasets: Parquet with the photos inside",
    refused="holds the photos themselves, not their paths: write them into files",
)
def embedded_photos(folder: Path) -> Given:
    rows = [{"image": {"bytes": b"\xff\xd8", "path": name}, "text": text} for name, text in FIRST]
    return Given(write_parquet(folder / "train-00000-of-00001.parquet", rows))


@TABLES.member("LAION: Parquet of URLs", refused=DOWNLOAD)
def laion(folder: Path) -> Given:
    rows = [
        {"SAMPLE_ID": 1, "URL": f"https://example.org/{name}", "TEXT": text, "similarity": 0.3} for name, text in FIRST
    ]
    return Given(write_parquet(folder / "part-00000.parquet", rows))


@TABLES.member("img2dataset: the Parquet index beside its tars", refused=DOWNLOAD)
def img2dataset_index(folder: Path) -> Given:
    rows = [
        {"url": f"https://example.org/{i}", "caption": text, "key": f"{i:09d}", "status": "success"}
        for i, (_, text) in enumerate(FIRST)
    ]
    return Given(write_parquet(folder / "00000.parquet", rows))


@TABLES.member("Conceptual Captions: TSV of captions and URLs", refused=DOWNLOAD)
def conceptual_captions(folder: Path) -> Given:
    lines = [f"{text}\thttps://example.org/{stem}.jpg\n" for stem, (_, text) in zip(STEMS, FIRST, strict=True)]
    return Given(write_text(folder / "Train_GCC-training.tsv", "".join(lines)))


@TABLES.member("SBU captions: JSON of URLs", refused=DOWNLOAD)
def sbu(folder: Path) -> Given:
    urls = [f"https://example.org/{i}.jpg" for i in range(3)]
    text = as_json({"image_urls": urls, "user_ids": ["a"] * 3, "captions": [text for _, text in FIRST]})
    return Given(write_text(folder / "sbu-captions-all.json", text))


@TABLES.member(
    "Open Images: train-annotations-bbox.csv",
    refused="one must be path…rename one, or add a header",
)
def open_images(folder: Path) -> Given:
    header = ["ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax", "IsOccluded"]
    rows = [(stem, "xclick", "/m/0bt9lr", 1, 0.1, 0.5, 0.1, 0.5, 0) for stem in STEMS]
    return Given(write_photos(folder), write_text(folder / "train-annotations-bbox.csv", as_csv(header, rows)))


@TABLES.member("Localized Narratives (Open Images): JSON lines", texts=first_captions())
def localized_narratives(folder: Path) -> Given:
    lines = [
        json.dumps({"dataset_id": "open_images", "image_id": stem, "annotator_id": 1, "caption": text, "traces": []})
        for stem, (_, text) in zip(STEMS, FIRST, strict=True)
    ]
    return Given(write_photos(folder / "train"), write_text(folder / "narratives.jsonl", "\n".join(lines)))


@TABLES.member("Label Studio: JSON", refused="it looks like Label Studio: export the project as CSV or COCO")
def label_studio(folder: Path) -> Given:
    tasks = [{"id": i, "annotations": [{"id": 1, "result": []}], "data": {"image": f"/data/upload/1/8f-{name}"}}
             for i, name in enumerate(NAMES)]  # fmt: skip
    return Given(write_photos(folder / "photos"), write_text(folder / "project-1.json", as_json(tasks)))


@TABLES.member(
    "Label Studio: CSV of captions", refused="none of 3 photos can be used (3 missing)…relative to as images="
)
def label_studio_csv(folder: Path) -> Given:
    header = ["annotation_id", "annotator", "caption", "id", "image"]
    rows = [(i, 1, text, i, f"/data/upload/1/8f-{name}") for i, (name, text) in enumerate(FIRST)]
    return Given(write_photos(folder / "photos"), write_text(folder / "project-1.csv", as_csv(header, rows)))


@TABLES.member("LLaVA: JSON of conversations", refused="one must be tags, keywords, captions")
def llava(folder: Path) -> Given:
    rows = [{"id": i, "image": name, "conversations": [{"from": "human"}]} for i, name in enumerate(NAMES)]
    return Given(write_photos(folder / "images"), write_text(folder / "llava.json", as_json(rows)))


@TABLES.member("Visual Genome: region_descriptions.json", refused="has columns id, regions: one must be path")
def visual_genome(folder: Path) -> Given:
    rows = [{"id": i, "regions": [{"image_id": i, "phrase": text}]} for i, (_, text) in enumerate(FIRST)]
    return Given(write_photos(folder / "VG_100K"), write_text(folder / "region_descriptions.json", as_json(rows)))


@TABLES.member("our own step=labels", kind="tags")
def own_labels(folder: Path) -> Given:
    write_photos(folder / "photos")
    lines = [json.dumps({"path": str(folder / "photos" / n), "tags": t}) for n, t in zip(NAMES, TAGS, strict=True)]
    return Given(write_text(folder / "labels.jsonl", "\n".join(lines)))


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pytest

    parquet = pytest.importorskip("pyarrow.parquet")
    from pyarrow import Table

    parquet.write_table(Table.from_pylist(rows), path)
    return path
