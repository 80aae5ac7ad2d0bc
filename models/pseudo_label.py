"""Label pictures and clips with teacher networks, for training where no hand labels exist.

The teachers look at many views of a picture (`models.teachers.views`). Boxes that several looks
agree on are averaged; what the teachers are sure of becomes a training box, what they half believe,
or what only some of them see, becomes an ``iscrowd`` region, which training neither rewards nor
punishes.

    python -m models.pseudo_label --teacher yolox_nano.onnx --out OUT --every 8 CLIP.mp4 [CLIP ...]
    python -m models.pseudo_label --teacher yolox_nano.onnx --teacher street --out OUT CLIP.mp4
    python -m models.pseudo_label --teacher yolox_nano.onnx --out OUT --complete TRAIN.json --images
    DIR
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.progress import track

from models.bad_input import told
from models.data.class_names import COCO_IDS, STREET_NAMES, class_of
from models.data.json_files import read_truth
from models.data.pictures import DataError, read_picture
from models.judging.detectors import Detector, load_detector
from models.judging.found import Found
from models.teachers.views import agree, look, overlap

LABELS = "instances.json"
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Trust:
    """How much of the teachers to believe."""

    sure: float = 0.45
    """From this score on a box is a label."""
    doubtful: float = 0.15
    """From this score up to ``sure`` a box is a region to ignore; below, it is nothing."""
    smallest_pixels: float = 10.0
    """A sure box with a side under this is ignored instead: its place is right, its edges are
    not."""


def records(
    found: Found, trust: Trust, classes: Iterable[int], known: np.ndarray
) -> list[dict[str, Any]]:
    """COCO annotations (without ids) of what to believe.

    Args:
        classes: class ids that the teacher may label; others it may only mark as regions to ignore.
        known: (K, 4) boxes that already have a label; the teacher adds nothing to them.
    """
    allowed, out = set(classes), []
    for box, score, class_id in zip(found.boxes, found.scores, found.class_ids, strict=True):
        if score < trust.doubtful:
            continue
        labelled = class_id in allowed
        if not labelled and len(known):
            iou, part = overlap(box, known)
            if ((iou > 0.3) | (part > 0.6)).any():
                continue
        width, height = (box[2:] - box[:2]).tolist()
        sure = labelled and score >= trust.sure and min(width, height) >= trust.smallest_pixels
        out.append(
            {
                "category_id": int(class_id) + 1,
                "bbox": [round(float(v), 2) for v in (box[0], box[1], width, height)],
                "area": round(width * height, 2),
                "iscrowd": 0 if sure else 1,
                "score": round(float(score), 3),
            }
        )
    return out


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A (36, 64, 3) float32 picture, small enough to compare with many others."""
    return cv2.resize(image, (64, 36), interpolation=cv2.INTER_AREA).astype(np.float32)


def clip_frames(clip: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Index and RGB picture of every frame of a clip."""
    capture = cv2.VideoCapture(str(clip))
    if not capture.isOpened():
        raise DataError(f"{clip} is no video that can be read")
    index = 0
    while True:
        read, image = capture.read()
        if not read:
            break
        yield index, image[:, :, ::-1]
        index += 1
    capture.release()


def thumbnails(folder: Path | None) -> list[np.ndarray]:
    """Of the pictures in a folder, which must not be learned from; none without a folder.

    Raises:
        DataError: there is no such folder, no picture in it, or one that cannot be read.
    """
    if folder is None:
        return []
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    if not (pictures := [file for file in files if file.suffix.lower() in SUFFIXES]):
        raise DataError(f"{folder} holds no picture that could be held out ({', '.join(SUFFIXES)})")
    return [thumbnail(read_picture(file)) for file in pictures]


def looks_like_one(image: np.ndarray, held_out: list[np.ndarray]) -> bool:
    """Whether a picture's thumbnail differs from one of these by less than 4 of 255 on average."""
    small = thumbnail(image)
    return any(float(np.abs(small - other).mean()) < 4.0 for other in held_out)


def frames_to_keep_out(clip: Path, held_out: list[np.ndarray], around: int) -> set[int]:
    """Frames within ``around`` of one that looks like a held-out picture."""
    near: set[int] = set()
    if not held_out:
        return near
    for index, image in clip_frames(clip):
        if looks_like_one(image, held_out):
            near.update(range(index - around, index + around + 1))
    return near


class CocoFile:
    """Collects pictures and annotations, numbers them, writes one COCO json."""

    def __init__(self, categories: list[dict[str, Any]], info: str) -> None:
        self.content: dict[str, Any] = {
            "info": {"description": info},
            "categories": categories,
            "images": [],
            "annotations": [],
        }

    def add(
        self, file_name: str, size_hw: tuple[int, int], annotations: list[dict[str, Any]]
    ) -> None:
        """Append one picture and its annotations."""
        image_id = len(self.content["images"]) + 1
        self.content["images"].append(
            {"id": image_id, "file_name": file_name, "height": size_hw[0], "width": size_hw[1]}
        )
        for annotation in annotations:
            number = len(self.content["annotations"]) + 1
            self.content["annotations"].append({**annotation, "id": number, "image_id": image_id})

    def write(self, file: Path) -> None:
        """Write the json."""
        file.write_text(json.dumps(self.content))


def street_categories() -> list[dict[str, Any]]:
    """The six street classes as COCO categories 1..6 with their COCO numbers."""
    return [{"id": i + 1, "name": n, "coco_id": COCO_IDS[n]} for i, n in enumerate(STREET_NAMES)]


def label_clips(
    teachers: Sequence[Detector], clips: list[Path], out: Path, options: argparse.Namespace
) -> None:
    """Write every n-th frame of the clips as JPEG and the teachers' labels as OUT/LABELS."""
    held_out = thumbnails(options.hold_out)
    (out / "images").mkdir(parents=True, exist_ok=True)
    coco = CocoFile(street_categories(), f"labelled by {names(options.teacher)}; no hand labels")
    for clip in clips:
        skip = frames_to_keep_out(clip, held_out, options.around)
        for index, image in track(clip_frames(clip), clip.name):
            if index % options.every or index in skip:
                continue
            found = agree(*(look(t, image, options.tile) for t in teachers))
            name = f"{clip.stem}_{index:05d}.jpg"
            (out / "images" / name).write_bytes(jpeg(image))
            coco.add(
                name,
                image.shape[:2],
                records(found, options.trust, range(len(STREET_NAMES)), np.zeros((0, 4))),
            )
    coco.write(out / LABELS)


def complete(
    teachers: Sequence[Detector], annotations: Path, out: Path, options: argparse.Namespace
) -> None:
    """Add to hand labels what they lack: other street classes, and vehicles overlooked (to be
    ignored). Look-alikes of pictures held out are left out, hand labels and all."""
    held_out = thumbnails(options.hold_out)
    given = read_truth(annotations)
    by_image: dict[int, list[dict[str, Any]]] = {}
    for a in given["annotations"]:
        by_image.setdefault(a["image_id"], []).append(a)
    labelled = {class_of(c, STREET_NAMES) for c in given["categories"]}
    free = [class_id for class_id in range(len(STREET_NAMES)) if class_id not in labelled]
    # The teachers' categories get numbers after the given ones, which keep theirs.
    last = max(c["id"] for c in given["categories"])
    extra = [{**c, "id": c["id"] + last} for c in street_categories()]
    coco = CocoFile(given["categories"] + extra, f"completed by {names(options.teacher)}")
    for image in track(given["images"], annotations.name):
        picture = read_picture(options.images / image["file_name"])
        if looks_like_one(picture, held_out):
            continue
        own = by_image.get(image["id"], [])
        known = np.array([a["bbox"] for a in own], np.float32).reshape(-1, 4)
        known[:, 2:] += known[:, :2]
        found = agree(*(look(t, picture, options.tile) for t in teachers))
        added = records(found, options.trust, free, known)
        for a in added:
            a["category_id"] += last
        coco.add(image["file_name"], picture.shape[:2], own + added)
    out.mkdir(parents=True, exist_ok=True)
    coco.write(out / LABELS)


def names(teachers: Sequence[str]) -> str:
    """Of several files, without their folders."""
    return " and ".join(Path(one).name for one in teachers)


def jpeg(image: np.ndarray) -> bytes:
    """What a file of an RGB picture holds, at its own size."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
    return cv2.imencode(".jpg", np.ascontiguousarray(image[:, :, ::-1]), quality)[1].tobytes()


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.pseudo_label", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("clips", type=Path, nargs="*", help="videos to label")
    parser.add_argument(
        "--teacher",
        action="append",
        required=True,
        help="YOLOX ONNX file, or model file of ours or its name; given twice, both have to agree",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--every", type=int, help="use every n-th frame; default: 8")
    parser.add_argument("--sure", type=float, default=Trust().sure, help="least score of a label")
    parser.add_argument("--tile", type=int, default=300, help="smallest tile side in pixels")
    parser.add_argument(
        "--hold-out", type=Path, help="folder of pictures whose look-alikes stay out"
    )
    parser.add_argument("--around", type=int, help="frames kept out beside one; default: 25")
    parser.add_argument("--complete", type=Path, help="COCO json to complete instead of clips")
    parser.add_argument("--images", type=Path, help="pictures of --complete")
    options = parser.parse_args()
    if bool(options.clips) == bool(options.complete):
        parser.error("give clips to label, or --complete a COCO json")
    if options.complete and not options.images:
        parser.error("--complete needs --images")
    for option, usual in (("every", 8), ("around", 25)):
        given = getattr(options, option)
        if options.complete and given is not None:
            parser.error(f"--{option} is for clips; --complete takes all pictures of its json")
        setattr(options, option, usual if given is None else given)
    if (options.out / LABELS).exists():
        parser.error(f"{options.out / LABELS} is there already; give --out a folder of its own")
    stems = Counter(clip.stem for clip in options.clips)
    if same := [stem for stem, count in stems.items() if count > 1]:
        parser.error(
            f"{stems[same[0]]} clips are called {same[0]}, and pictures are named after clips; "
            "label each into an --out of its own"
        )
    return options


def main() -> None:
    """Label what the command line names."""
    options = parse_arguments()
    options.trust = Trust(sure=options.sure)
    teachers = [load_detector(one, "openvino") for one in options.teacher]
    if options.complete:
        complete(teachers, options.complete, options.out, options)
    else:
        label_clips(teachers, options.clips, options.out, options)


if __name__ == "__main__":
    with told():
        main()
