"""Oracle: the judge of the evaluations, which finds every species in an image, with its box.

It is a small convolutional classifier of its own architecture and seed, which no tool, agent or graph uses.
Its classes are all species, novel ones too. Not covered: two subjects of one species that touch, and a right
species in a wrong pattern, which still counts as the species.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from pleinair.tools.types import BadInput, Box

WEIGHTS = Path(__file__).parents[1] / "data" / "oracle.safetensors"
SIDE = 64  # pixels a side of the classifier's input, unless its file says otherwise
SMALLEST = 8  # cells; a smaller part is noise
STRANGER = "stranger"  # a subject that is no species
PURITY = 0.5  # least share of the species in its box, weighted by probability

Cells = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Finding:
    """Species in an image; `confidence` is its share, by probability, of the foreground in the box, 0..1."""

    name: str
    confidence: float
    box: Box


class _Block(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(torch.relu(self.norm(self.first(x))))
        return x + change


class OracleNet(nn.Module):
    """Network from images [n, 3, side, side] in 0..1 to logits [n, classes + 2, side / 4, side / 4].

    `side` is a multiple of 8. The last two channels are "stranger" (a subject that is no species) and
    background.
    """

    def __init__(self, classes: int, width: int = 128, dilations: Sequence[int] = (1, 2, 1)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 4, stride=2, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, width, 4, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.body = nn.Sequential(*(_Block(width, dilation) for dilation in dilations))
        self.head = nn.Conv2d(width, (classes + 2) * 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of each cell."""
        logits: Tensor = self.head(self.body(self.stem(images * 2 - 1)))
        return nn.functional.pixel_shuffle(logits, 2)


class Oracle:
    """Judge of images by the trained classifier; an image of another size is scaled to the classifier's."""

    def __init__(self, path: Path = WEIGHTS) -> None:
        """Load the weights; raise BadInput if the file is missing."""
        from safetensors import safe_open

        if not path.is_file():
            raise BadInput(
                f"There is no oracle at {str(path)!r}; train it: python -m pleinair.evals.pocket.train_oracle"
            )
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            self.names: list[str] = json.loads(metadata["names"])
            self._side = int(metadata.get("side", SIDE))
            state = {key: file.get_tensor(key).float() for key in file.keys()}
        self.net = OracleNet(len(self.names), dilations=json.loads(metadata.get("dilations", "[1, 2, 1]")))
        self.net.load_state_dict(state)
        self.net.eval()

    def species(self, image: Image.Image) -> list[Finding]:
        """Return the species in the image, most confident first."""
        return sorted(
            findings(self._probabilities(image), self.names), key=lambda finding: -finding.confidence
        )

    def subjects(self, image: Image.Image) -> list[Finding]:
        """Return the species in the image, and other subjects, which are named `STRANGER`."""
        return findings(self._probabilities(image), [*self.names, STRANGER])

    def shows(self, image: Image.Image, names: Sequence[str]) -> dict[str, bool]:
        """Return for each name whether the image shows that species.

        Raises:
            BadInput: a name is not one of the oracle's classes.
        """
        for name in names:
            if name not in self.names:
                raise BadInput(f"The oracle has no species {name!r} among its {len(self.names)} classes.")
        present = {finding.name for finding in self.species(image)}
        return {name: name in present for name in names}

    def maps(self, image: Image.Image) -> list[NDArray[np.float32]]:
        """Return the layers' features of an image: [32, 48, 48], [64, 24, 24] and twice [128, 12, 12]."""
        x, maps = self._pixels(image) * 2 - 1, []
        with torch.inference_mode():
            for layer in (*self.net.stem, self.net.body):
                x = layer(x)
                if not isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
                    maps.append(x[0].numpy())
        return maps

    def _probabilities(self, image: Image.Image) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self.net(self._pixels(image))[0].softmax(0).numpy()  # type: ignore[no-any-return]

    def _pixels(self, image: Image.Image) -> Tensor:
        small = image.convert("RGB").resize((self._side, self._side), Image.Resampling.BOX)
        return torch.from_numpy(np.asarray(small, dtype=np.float32) / 255).permute(2, 0, 1)[None]


def findings(probabilities: NDArray[np.float32], names: Sequence[str]) -> list[Finding]:
    """Return the findings of cell probabilities [classes + 2, cells, cells], which may have small gaps.

    `names` are those of the classes, or of the classes and the stranger.
    """
    from scipy.ndimage import binary_dilation, label

    winner, output = probabilities.argmax(0), []
    for index in sorted(set(winner.ravel().tolist()) & set(range(len(names)))):
        mask = winner == index
        parts, count = label(binary_dilation(mask))
        for number in range(1, count + 1):
            cells = (parts == number) & mask
            box = _box(cells)
            confidence = _purity(probabilities, index, box)
            if cells.sum() >= SMALLEST and confidence >= PURITY:
                output.append(Finding(names[index], confidence, box))
    return output


def _purity(probabilities: NDArray[np.float32], index: int, box: Box) -> float:
    """Return the share of the species in the foreground of the box."""
    x0, y0, x1, y1 = (round(edge * probabilities.shape[-1]) for edge in box)
    inside = probabilities[:, y0:y1, x0:x1]
    return float(inside[index].sum() / (1 - inside[-1]).sum())


def _box(cells: Cells) -> Box:
    rows, columns = np.nonzero(cells)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    x0, y0, x1, y1 = (float(edge) / len(cells) for edge in edges)
    return x0, y0, x1, y1
