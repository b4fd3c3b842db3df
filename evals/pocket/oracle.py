"""Name every species in a picture and say where it stands: the judge of the evaluations.

The oracle is a small convolutional classifier of its own architecture and seed. No tool, agent or graph ever
sees it. It knows all species, novel ones too. Not covered: two subjects of one species that touch, and a
right species in a wrong pattern, which still counts as the species.
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
SIDE = 64  # pixels a side of what the classifier sees
GRID = 16  # cells a side of what it answers
SMALLEST = 8  # cells; less of a species is a fleck
PURITY = 0.5  # of a finding's cells, weighed by probability, must be its species

Cells = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Finding:
    """Report one species seen; `confidence` is the mean probability over the subject's cells, 0..1."""

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
    """Map pictures [n, 3, 64, 64] in 0..1 to logits [n, classes + 2, 16, 16].

    The last two channels are "stranger" (a subject that is no species) and background.
    """

    def __init__(self, classes: int, width: int = 128) -> None:
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
        self.body = nn.Sequential(_Block(width, 1), _Block(width, 2), _Block(width, 1))
        self.head = nn.Conv2d(width, (classes + 2) * 4, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return logits a cell."""
        logits: Tensor = self.head(self.body(self.stem(pictures * 2 - 1)))
        return nn.functional.pixel_shuffle(logits, 2)


class Oracle:
    """Judge pictures with the trained classifier; a picture of another size is scaled to 64 × 64."""

    def __init__(self, path: Path = WEIGHTS) -> None:
        """Load the weights; raise BadInput when the file is missing."""
        from safetensors import safe_open

        if not path.is_file():
            raise BadInput(
                f"No oracle at {str(path)!r}; train it: python -m pleinair.evals.pocket.train_oracle"
            )
        with safe_open(path, framework="pt") as file:
            self.names: list[str] = json.loads(file.metadata()["names"])
            state = {key: file.get_tensor(key).float() for key in file.keys()}
        self.net = OracleNet(len(self.names))
        self.net.load_state_dict(state)
        self.net.eval()

    def species(self, image: Image.Image) -> list[Finding]:
        """Return what stands in the picture, most confident first."""
        found = findings(self._probabilities(image), self.names)
        return sorted(found, key=lambda finding: -finding.confidence)

    def shows(self, image: Image.Image, names: Sequence[str]) -> dict[str, bool]:
        """Say for each name whether the picture shows that species.

        Raises:
            BadInput: a name is no species the oracle knows.
        """
        for name in names:
            if name not in self.names:
                raise BadInput(f"The oracle knows no species {name!r}; it knows {len(self.names)} others.")
        seen = {finding.name for finding in self.species(image)}
        return {name: name in seen for name in names}

    def maps(self, image: Image.Image) -> list[NDArray[np.float32]]:
        """Give what the layers make of a picture: [32, 32, 32], [64, 16, 16] and twice [128, 8, 8]."""
        x, found = self._pixels(image) * 2 - 1, []
        with torch.inference_mode():
            for layer in (*self.net.stem, self.net.body):
                x = layer(x)
                if not isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
                    found.append(x[0].numpy())
        return found

    def _probabilities(self, image: Image.Image) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self.net(self._pixels(image))[0].softmax(0).numpy()  # type: ignore[no-any-return]

    def _pixels(self, image: Image.Image) -> Tensor:
        small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
        return torch.from_numpy(np.asarray(small, dtype=np.float32) / 255).permute(2, 0, 1)[None]


def findings(probabilities: NDArray[np.float32], names: Sequence[str]) -> list[Finding]:
    """Read findings off cell probabilities [classes + 2, 16, 16]: cells of one species, with small gaps."""
    winner = probabilities.argmax(0)
    found = []
    for index in sorted(set(winner.ravel().tolist()) - {len(names), len(names) + 1}):
        mask = winner == index
        for part in components(_grow(mask)):
            cells = part & mask
            box = _box(cells)
            confidence = _purity(probabilities, index, box)
            if cells.sum() >= SMALLEST and confidence >= PURITY:
                found.append(Finding(names[index], confidence, box))
    return found


def _purity(probabilities: NDArray[np.float32], index: int, box: Box) -> float:
    """Return the share of the species in all that is not background inside the box."""
    x0, y0, x1, y1 = (round(edge * GRID) for edge in box)
    inside = probabilities[:, y0:y1, x0:x1]
    return float(inside[index].sum() / (1 - inside[-1]).sum())


def _box(cells: Cells) -> Box:
    rows, columns = np.nonzero(cells)
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    x0, y0, x1, y1 = (float(edge) / GRID for edge in edges)
    return x0, y0, x1, y1


def components(mask: Cells) -> list[Cells]:
    """Split a mask into its 4-connected parts."""
    parts, left = [], mask.copy()
    while left.any():
        part, grown = np.zeros_like(mask), np.zeros_like(mask)
        grown[np.unravel_index(int(left.argmax()), mask.shape)] = True
        while (grown != part).any():
            part, grown = grown, _grow(grown) & mask
        parts.append(part)
        left &= ~part
    return parts


def _grow(part: Cells) -> Cells:
    grown = part.copy()
    grown[1:] |= part[:-1]
    grown[:-1] |= part[1:]
    grown[:, 1:] |= part[:, :-1]
    grown[:, :-1] |= part[:, 1:]
    return grown
