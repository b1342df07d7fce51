"""The types of data/catalog.yaml: datasets with their sources, files, checksums, image size and class names."""

import re
import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from models.spec import Count, Spec

Format = Literal["csv", "idx", "npz", "folder"]

FILES: dict[Format, set[str]] = {
    "csv": {"train"},
    "idx": {"train_images", "train_labels", "test_images", "test_labels"},
    "npz": {"arrays"},
    "folder": {"images"},
}
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")

# Names of datasets and files become parts of paths: no separators, and no dot at the beginning.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][\w.-]*$")]
SHARE_TOLERANCE = 0.001  # by which the sum of the shares may differ from 1: they are written with few digits


def is_formula(text: str) -> bool:
    """Return whether a spreadsheet would evaluate a text in a table as a formula; numbers are none."""
    return text.startswith(("=", "+", "-", "@", "\t")) and not re.fullmatch(r"[+-]\d+(\.\d+)?", text)


def _class_name(name: str) -> str:
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise ValueError("a class name has control characters")
    if is_formula(name):
        raise ValueError("a class name begins with =, +, - or @: spreadsheets would evaluate it in the tables")
    return unicodedata.normalize("NFC", name)


class File(Spec):
    """A published file. Without a checksum any content is accepted, and its checksum is printed."""

    name: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    size: Annotated[int, Field(ge=1)] | None = None  # bytes


def _can_be_folder(name: str) -> bool:
    return not (name.startswith((".", "__MACOSX")) or "/" in name or "\\" in name or name == "Thumbs.db")


ClassName = Annotated[str, Field(min_length=1), AfterValidator(_class_name)]


class Entry(Spec):
    """A dataset. `image` is (height, width, channels), `shares` the expected share of each class, None for equal ones.

    `ink` is the longer side, in pixels, of the one light object on dark ground that each image shows; None for images
    of another kind.
    """

    description: str
    image: tuple[Count, Count, Literal[1, 3]]
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2)]
    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None = None
    ink: Count | None = None
    format: Format
    resize: bool = False
    sources: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    files: dict[str, File]
    licence: str | None = None
    citation: str | None = None

    @model_validator(mode="after")
    def _check_files(self) -> "Entry":
        needed = FILES[self.format]
        if set(self.files) != needed:
            raise ValueError(f"format {self.format} requires the files {', '.join(sorted(needed))}")
        if len({file.name for file in self.files.values()}) < len(self.files):
            raise ValueError("two files have the same name")
        if self.format == "folder" and not self.files["images"].name.endswith(ARCHIVES):
            raise ValueError(f"format folder requires one archive, {', '.join(ARCHIVES)}")
        return self

    @model_validator(mode="after")
    def _check_classes(self) -> "Entry":
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have the same name")
        if self.format == "folder" and (wrong := [name for name in self.classes if not _can_be_folder(name)]):
            raise ValueError(
                f"the class {wrong[0]} cannot be the name of a folder; "
                "allowed with format folder: names without / and \\ that do not begin with a dot"
            )
        if self.shares is not None and len(self.shares) != len(self.classes):
            raise ValueError(f"shares has {len(self.shares)} values for {len(self.classes)} classes")
        if self.shares is not None and abs(sum(self.shares) - 1) > SHARE_TOLERANCE:
            raise ValueError(f"shares has the sum {sum(self.shares):.3f}; allowed: 1")
        return self

    @model_validator(mode="after")
    def _check_options(self) -> "Entry":
        if self.resize and self.format != "folder":
            raise ValueError(
                f"resize is only allowed with format folder; the images of {self.format} files have a fixed size"
            )
        if self.format != "folder" and any(source.startswith("folder:") for source in self.sources):
            raise ValueError("a source folder:PATH, which packs a folder of images, is only allowed with format folder")
        return self

    @property
    def expected_shares(self) -> tuple[float, ...]:
        """The expected share of each class in a split."""
        return self.shares or (1 / len(self.classes),) * len(self.classes)

    def class_name(self, label: int) -> str:
        """The name of a class, or the number itself if there is no such class."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)


Catalog = dict[Name, Entry]
