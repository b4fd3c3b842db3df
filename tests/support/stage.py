"""A generator and a detector that agree on what each image shows, behind the pocket chat model."""

from collections.abc import Callable, Sequence

from PIL import Image
from support.fake_engines import ListRetriever, SquareGenerator

from pleinair.tools.pocket.chat import PocketChat
from pleinair.tools.pocket.detector import Detection
from pleinair.tools.types import GenerateRequest, Hit

PROMPT = "a blue jay and a barn owl in the snow"
NAMES = ("blue jay", "barn owl")


class Stage(SquareGenerator):
    """Generator that shows the first subject always and the second from a reference only."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[bytes, set[str]] = {}

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        image = super().generate(request, images, on_step)
        concepts = (reference.concept for reference in request.references)
        self.shown[image.tobytes()] = {NAMES[0], *concepts}
        return image


class StageDetector:
    """Concept detector that knows what the stage shows."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def detect(self, image: Image.Image, phrases: Sequence[str]) -> list[Detection]:
        shown = self.stage.shown.get(image.tobytes(), set())
        box = (0.1, 0.2, 0.6, 0.7)
        return [Detection(0.95, box) if name in shown else Detection(0.04) for name in phrases]


def pocket(stage: Stage) -> PocketChat:
    chat = PocketChat()
    chat._loaded = StageDetector(stage)  # type: ignore[assignment]
    return chat


def library() -> ListRetriever:
    hits = [
        Hit(id=f"{name.split()[0]}-{n}.png", score=0.9 - n / 10, caption=f"a photo of a {name}")
        for name in NAMES
        for n in range(2)
    ]
    of = {name: [hit for hit in hits if name in hit.caption] for name in NAMES}
    queries = {f"a {name}": of[name] for name in NAMES} | of
    return ListRetriever(queries | {PROMPT: hits})
