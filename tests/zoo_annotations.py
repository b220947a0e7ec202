"""Members of the zoo: photos with boxes. What a user gives are settings of ``data``."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from zoo import HEIGHT, NAMES, OBJECTS, STEMS, WIDTH, Given, Zoo, write_photos, write_text

ANNOTATIONS = Zoo()
CLASSES = ("cat", "dog")
COCO = {"data": "coco2017"}


def coco_json(names: Sequence[str] = NAMES, first: int = 1, **fields: Any) -> dict[str, Any]:
    """COCO instances with the usual objects.

    Args:
        names: values of ``file_name``.
        first: id of the first category.
        **fields: fields of every annotation, as values or as functions of the box.
    """
    annotations = []
    for number, (photo, name, (x1, y1, x2, y2)) in enumerate(OBJECTS, 1):
        box = [x1, y1, x2 - x1, y2 - y1]
        made = {key: field(box) if callable(field) else field for key, field in fields.items()}
        place = {"id": number, "image_id": photo + 1, "category_id": CLASSES.index(name) + first}
        annotations.append(place | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0} | made)
    images = [{"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(names, 1)]
    categories = [{"id": i, "name": name, "supercategory": "animal"} for i, name in enumerate(CLASSES, first)]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def write_json(path: Path, value: Any) -> Path:
    return write_text(path, json.dumps(value))


def polygon(box: list[int]) -> list[list[int]]:
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def encoded(box: list[int]) -> dict[str, Any]:
    """The mask as ``pycocotools.mask.encode`` gives it, with its bytes as text."""
    from pycocotools import mask

    pixels = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    pixels[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 1
    return {"size": [HEIGHT, WIDTH], "counts": mask.encode(pixels)["counts"].decode()}


@ANNOTATIONS.member("COCO instances: instances_val2017.json", kind="objects")
def coco(folder: Path) -> Given:
    write_photos(folder / "val2017")
    write_json(folder / "annotations" / "instances_val2017.json", coco_json(segmentation=polygon))
    return Given(folder, COCO | {"split": "val2017"})


@ANNOTATIONS.member("COCO instances with masks of pycocotools.mask.encode", kind="objects")
def coco_encoded(folder: Path) -> Given:
    write_photos(folder / "val2017")
    write_json(folder / "annotations" / "instances_val2017.json", coco_json(segmentation=encoded))
    return Given(folder, COCO | {"split": "val2017"})


@ANNOTATIONS.member("CVAT: COCO 1.0", kind="objects")
def cvat_coco(folder: Path) -> Given:
    write_photos(folder / "images" / "default")
    content = coco_json(segmentation=[], attributes={"occluded": False, "rotation": 0.0})
    path = write_json(folder / "annotations" / "instances_default.json", content)
    return Given(folder, COCO | {"split": "default", "annotations": path, "images": folder / "images" / "default"})


@ANNOTATIONS.member(
    "CVAT: COCO 1.0 without data.images",
    kind="objects",
    refused="set data.root…or data.images",
)
def cvat_coco_default(folder: Path) -> Given:
    cvat_coco(folder)
    return Given(folder, COCO | {"split": "default"})


@ANNOTATIONS.member("Roboflow: COCO", kind="objects")
def roboflow_coco(folder: Path) -> Given:
    names = [f"{stem}_jpg.rf.0a1b2c.jpg" for stem in STEMS]
    write_photos(folder / "train", names)
    write_json(folder / "train" / "_annotations.coco.json", coco_json(names, 1, segmentation=[]))
    return Given(folder, COCO | {"split": "train"})


@ANNOTATIONS.member("Label Studio: COCO", kind="objects")
def label_studio_coco(folder: Path) -> Given:
    names = [f"images/8f3a-{name}" for name in NAMES]
    write_photos(folder, names)
    path = write_json(folder / "result.json", coco_json(names, 0, segmentation=[], ignore=0))
    return Given(folder, COCO | {"annotations": path, "images": folder})


@ANNOTATIONS.member("LabelMe's labelme2coco.py", kind="objects")
def labelme2coco(folder: Path) -> Given:
    names = [f"JPEGImages/{name}" for name in NAMES]
    write_photos(folder, names)
    path = write_json(folder / "annotations.json", coco_json(names, 0, segmentation=polygon) | {"type": "instances"})
    return Given(folder, COCO | {"annotations": path, "images": folder})


@ANNOTATIONS.member("FiftyOne: COCO", kind="objects")
def fiftyone(folder: Path) -> Given:
    write_photos(folder / "data")
    path = write_json(folder / "labels.json", coco_json())
    return Given(folder, COCO | {"annotations": path, "images": folder / "data"})


@ANNOTATIONS.member("COCO on Windows, with backslashes and folders", kind="objects")
def coco_windows(folder: Path) -> Given:
    names = [f"camera{i}\\{name}" for i, name in enumerate(NAMES)]
    write_photos(folder / "train", [name.replace("\\", "/") for name in names])
    write_json(folder / "annotations" / "instances_train.json", coco_json(names, segmentation=None))
    return Given(folder, COCO | {"split": "train"})


@ANNOTATIONS.member(
    "COCO results: a list of boxes",
    kind="objects",
    refused="is a list, such as COCO's results: give a data set with images",
)
def coco_results(folder: Path) -> Given:
    write_photos(folder / "val")
    write_json(folder / "annotations" / "instances_val.json", coco_json()["annotations"])
    return Given(folder, COCO | {"split": "val"})


@ANNOTATIONS.member(
    "boxes in 0..1 in a COCO file",
    kind="objects",
    refused="like fractions of the photo: write…in pixels",
)
def coco_fractions(folder: Path) -> Given:
    content = coco_json(bbox=lambda b: [b[0] / WIDTH, b[1] / HEIGHT, b[2] / WIDTH, b[3] / HEIGHT])
    write_photos(folder / "val")
    write_json(folder / "annotations" / "instances_val.json", content)
    return Given(folder, COCO | {"split": "val"})


def voc_xml(number: int, name: str, extra: str = "", more: str = "") -> str:
    """An annotation of PASCAL VOC. It counts pixels from 1 and includes the last one."""
    things = "".join(
        f"\n\t<object><name>{kind}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>{more}"
        f"<bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for photo, kind, (x1, y1, x2, y2) in OBJECTS
        if photo == number
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation>\n\t<folder>x</folder><filename>{name}</filename>{extra}{size}{things}\n</annotation>\n"


def write_voc(folder: Path, listed: str, extra: str = "", more: str = "", suffix: str = ".jpg") -> Given:
    write_photos(folder / "JPEGImages", [f"{stem}{suffix}" for stem in STEMS])
    for number, (name, stem) in enumerate(zip(NAMES, STEMS, strict=True)):
        write_text(folder / "Annotations" / f"{stem}.xml", voc_xml(number, name, extra, more))
    write_text(folder / "ImageSets" / "Main" / "train.txt", listed)
    return Given(folder, {"data": "voc2012", "split": "train"})


@ANNOTATIONS.member("PASCAL VOC: a folder with ImageSets", kind="objects")
def voc(folder: Path) -> Given:
    return write_voc(folder, "".join(f"{stem}\n" for stem in STEMS))


@ANNOTATIONS.member("PASCAL VOC: split from a Windows editor, with BOM and CRLF", kind="objects")
def voc_windows(folder: Path) -> Given:
    return write_voc(folder, "\ufeff" + "".join(f"{stem}\r\n" for stem in STEMS))


@ANNOTATIONS.member("LabelImg: PASCAL VOC", kind="objects")
def labelimg(folder: Path) -> Given:
    extra = "<path>/Users/me/x.jpg</path><source><database>Unknown</database></source><segmented>0</segmented>"
    return write_voc(folder, "\n".join(STEMS), extra)


@ANNOTATIONS.member("LabelImg: PASCAL VOC of PNG files", kind="objects")
def labelimg_png(folder: Path) -> Given:
    return write_voc(folder, "\n".join(STEMS), suffix=".PNG")


@ANNOTATIONS.member("CVAT: PASCAL VOC 1.1", kind="objects")
def cvat_voc(folder: Path) -> Given:
    attributes = "<occluded>0</occluded><attributes><attribute><name>r</name></attribute></attributes>"
    write_text(folder / "labelmap.txt", "# label:color_rgb:parts:actions\ndog:1,2,3::\n")
    return write_voc(folder, "".join(f"{stem}\n" for stem in STEMS), more=attributes)


@ANNOTATIONS.member(
    "Roboflow: PASCAL VOC, XML beside the photos",
    kind="objects",
    refused="move photos to JPEGImages, XML to Annotations",
)
def roboflow_voc(folder: Path) -> Given:
    write_photos(folder / "train")
    for number, (name, stem) in enumerate(zip(NAMES, STEMS, strict=True)):
        write_text(folder / "train" / f"{stem}.xml", voc_xml(number, name))
    return Given(folder, {"data": "voc2012", "split": "train"})


@ANNOTATIONS.member("ImageNet (ILSVRC) with boxes", kind="objects")
def ilsvrc(folder: Path) -> Given:
    write_photos(folder / "Data" / "CLS-LOC" / "val", [f"{stem}.JPEG" for stem in STEMS])
    for number, stem in enumerate(STEMS):
        write_text(folder / "Annotations" / "CLS-LOC" / "val" / f"{stem}.xml", voc_xml(number, stem))
    return Given(folder, {"data": "imagenet", "split": "val"})


def yolo_lines(number: int) -> Iterator[str]:
    for photo, name, (x1, y1, x2, y2) in OBJECTS:
        if photo == number:
            centre = f"{(x1 + x2) / 2 / WIDTH:.6f} {(y1 + y2) / 2 / HEIGHT:.6f}"
            yield f"{CLASSES.index(name)} {centre} {(x2 - x1) / WIDTH:.6f} {(y2 - y1) / HEIGHT:.6f}\n"


@ANNOTATIONS.member("YOLO: txt labels", kind="objects", refused="it looks like YOLO: convert it to COCO")
def yolo(folder: Path) -> Given:
    write_photos(folder / "images" / "train")
    for number, stem in enumerate(STEMS):
        write_text(folder / "labels" / "train" / f"{stem}.txt", "".join(yolo_lines(number)))
    write_text(folder / "data.yaml", "train: images/train\nnames: [cat, dog]\n")
    return Given(folder, COCO | {"split": "train"})


@ANNOTATIONS.member(
    "Roboflow and Ultralytics: YOLO by split", kind="objects", refused="it looks like YOLO: convert it to COCO"
)
def yolo_by_split(folder: Path) -> Given:
    write_photos(folder / "train" / "images")
    for number, stem in enumerate(STEMS):
        write_text(folder / "train" / "labels" / f"{stem}.txt", "".join(yolo_lines(number)))
    write_text(folder / "data.yaml", "train: ../train/images\nnames: [cat, dog]\n")
    return Given(folder, COCO | {"split": "train"})


@ANNOTATIONS.member(
    "LabelMe: JSON beside each photo", kind="objects", refused="looks like LabelMe: convert it with labelme2coco"
)
def labelme(folder: Path) -> Given:
    write_photos(folder / "train")
    for number, (name, stem) in enumerate(zip(NAMES, STEMS, strict=True)):
        shapes = [{"label": kind, "points": [[x1, y1], [x2, y2]], "shape_type": "rectangle", "flags": {}}
                  for photo, kind, (x1, y1, x2, y2) in OBJECTS if photo == number]  # fmt: skip
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None,
                   "imageHeight": HEIGHT, "imageWidth": WIDTH}  # fmt: skip
        write_json(folder / "train" / f"{stem}.json", content)
    return Given(folder, COCO | {"split": "train"})


@ANNOTATIONS.member(
    "VGG Image Annotator: via_project.json", kind="objects", refused="it has no list of images…export the data as COCO"
)
def via(folder: Path) -> Given:
    write_photos(folder / "val")
    content = {f"{name}1024": {"filename": name, "size": 1024, "regions": [], "file_attributes": {}} for name in NAMES}
    write_json(folder / "annotations" / "instances_val.json", content)
    return Given(folder, COCO | {"split": "val"})


@ANNOTATIONS.member("CVAT for images: XML", kind="objects", refused="annotations.xml looks like CVAT for images")
def cvat_xml(folder: Path) -> Given:
    write_photos(folder / "images")
    write_text(folder / "annotations.xml", "<annotations><version>1.1</version></annotations>")
    return Given(folder, COCO | {"split": "train"})


@ANNOTATIONS.member("Open Images: boxes", kind="objects", refused="looks like Open Images: export it as COCO")
def open_images(folder: Path) -> Given:
    write_photos(folder / "validation")
    write_text(folder / "validation-annotations-bbox.csv", "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax")
    return Given(folder, COCO | {"split": "validation"})


@ANNOTATIONS.member("TensorFlow records", kind="objects", refused="looks like TensorFlow's records: export it as COCO")
def tfrecord(folder: Path) -> Given:
    write_text(folder / "train.tfrecord-00000-of-00001", "x")
    return Given(folder, COCO | {"split": "train"})
