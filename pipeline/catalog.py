"""data/catalog.yaml, typed: the datasets, their files, checksums, image size and class names."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.spec import Count, Spec

FILES = {
    "csv": {"train"},
    "idx": {"train_images", "train_labels", "test_images", "test_labels"},
}


class File(Spec):
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Entry(Spec):
    """One dataset: image is (height, width, channels)."""

    description: str
    image: tuple[Count, Count, Literal[1, 3]]
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    format: Literal["csv", "idx"]
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    files: dict[str, File]
    licence: str
    citation: str

    @model_validator(mode="after")
    def _files_of_the_format(self) -> "Entry":
        needed = FILES[self.format]
        if set(self.files) != needed:
            raise ValueError(f"format {self.format} has the files {', '.join(sorted(needed))}")
        return self


Catalog = dict[str, Entry]
