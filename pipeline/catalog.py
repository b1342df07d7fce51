"""data/catalog.yaml, typed: the datasets, where their files come from, checksums, image size and class names."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.spec import Count, Spec

Format = Literal["csv", "idx", "npz", "folder"]

FILES: dict[Format, set[str]] = {
    "csv": {"train"},
    "idx": {"train_images", "train_labels", "test_images", "test_labels"},
    "npz": {"arrays"},
    "folder": {"images"},
}
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")

# Both become parts of paths: neither can hold a separator or begin with a dot.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][\w.-]*$")]
SHARE_TOLERANCE = 0.001  # how far the shares of an entry may be from 1 in sum: they are written with few digits


class File(Spec):
    """A published file. Without a checksum whatever the source has is taken, and its checksum is printed."""

    name: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    size: Count | None = None  # bytes


class Entry(Spec):
    """One dataset: image is (height, width, channels); `shares` the expected share of every class, None: equal.

    `ink`: pixels of the longer side of what is drawn, light on dark, in the images; None: they show more than that.
    """

    description: str
    image: tuple[Count, Count, Literal[1, 3]]
    classes: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=2)]
    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None = None
    ink: Count | None = None
    format: Format
    resize: bool = False
    sources: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    files: dict[str, File]
    licence: str | None = None
    citation: str | None = None

    @model_validator(mode="after")
    def _files_of_the_format(self) -> "Entry":
        needed = FILES[self.format]
        if set(self.files) != needed:
            raise ValueError(f"format {self.format} has the files {', '.join(sorted(needed))}")
        if len({file.name for file in self.files.values()}) < len(self.files):
            raise ValueError("two of the files have the same name")
        if self.format == "folder" and not self.files["images"].name.endswith(ARCHIVES):
            raise ValueError(f"format folder keeps its images in one archive, {', '.join(ARCHIVES)}")
        return self

    @model_validator(mode="after")
    def _classes_that_can_be_told_apart(self) -> "Entry":
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two of the classes have the same name")
        if self.shares is not None and len(self.shares) != len(self.classes):
            raise ValueError(f"shares has {len(self.shares)} values for {len(self.classes)} classes")
        if self.shares is not None and abs(sum(self.shares) - 1) > SHARE_TOLERANCE:
            raise ValueError(f"shares has the sum {sum(self.shares):.3f}; allowed: 1")
        return self

    @model_validator(mode="after")
    def _options_of_the_format(self) -> "Entry":
        if self.resize and self.format != "folder":
            raise ValueError(f"resize is for the format folder; the images of {self.format} files have their size")
        if self.format != "folder" and any(source.startswith("folder:") for source in self.sources):
            raise ValueError("a source folder:PATH, which packs a folder of images, is for the format folder")
        return self

    @property
    def expected_shares(self) -> tuple[float, ...]:
        """The share that every class should have of a split."""
        return self.shares or (1 / len(self.classes),) * len(self.classes)

    def class_name(self, label: int) -> str:
        """The name of a class; the number itself where it is that of none."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)


Catalog = dict[Name, Entry]
