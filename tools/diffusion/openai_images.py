"""Pictures by the OpenAI images API: OpenAI itself, vLLM-Omni, SGLang-Diffusion, and others that speak it.

Without references it asks for a generation, with some for an edit of several input pictures. A box is painted
anew by an edit with a mask: the picture comes first, then the references of its concept. A picture says what
it cost, where the server counts tokens or the settings name a price. Not covered: streamed previews, and
pictures by address (they are never followed).
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

from pleinair.tools.diffusion.call import scaled
from pleinair.tools.diffusion.inpaint import Size, mask_of, parted
from pleinair.tools.diffusion.prompt import SHOWS, checked, with_sentences
from pleinair.tools.errors import BadReply, Unavailable
from pleinair.tools.generate import check_request
from pleinair.tools.http.addresses import is_here
from pleinair.tools.http.openai_errors import explain
from pleinair.tools.http.prices import price_of
from pleinair.tools.http.retry import client, persist, within
from pleinair.tools.images.sandbox import read_untrusted
from pleinair.tools.storage.artifacts import by_tokens, charged
from pleinair.tools.types import (
    BadInput,
    Box,
    Capabilities,
    GenerateRequest,
    Guidance,
    OnStep,
    PleinairError,
    Side,
    Steps,
    Usage,
)

if TYPE_CHECKING:
    from PIL.Image import Image

OPENAI = "https://api.openai.com/v1"
MOST = 16  # input pictures that OpenAI takes
GREETING = 10.0  # seconds for a server's list of models
LISTED = 8  # models of it that are told
log = logging.getLogger(__name__)


@dataclass(eq=False)
class OpenAIImages:
    """Draw on a server; one request a picture, repeated only after what passes by itself.

    Args:
        model: the server's name of the model.
        base_url: the server, up to `/v1`.
        key_variable: the environment variable with the key; other servers than OpenAI need none.
        slots: references for one picture; 0 where the model has no edits.
        inpaint: whether an edit heeds a mask; what a server makes outside it is not kept in any case.
        height: of the pictures in pixels, like `width`; what comes back may differ.
        diffusion: whether the server takes seed, steps and guidance (vLLM-Omni, SGLang).
        negative_prompt: whether such a server's model heeds one; those distilled to few steps do not.
        reference_size: longest side in pixels that a reference is scaled down to.
        wording: the sentence that tells of each input picture what it shows, with {number} and {concept}.
        tries: of one picture, after 429, 5xx and connections that were not made.
        deadline: seconds for one picture with all its tries.
        prices: the user's own lines of the price table, in US dollars a million tokens.
        price_per_picture: in US dollars, for a server that counts no tokens; it comes before the table.
        options: further fields of the request, such as quality or response_format.
    """

    model: str
    _: KW_ONLY
    base_url: str = OPENAI
    key_variable: str = "OPENAI_API_KEY"
    slots: int = 4
    inpaint: bool = False
    height: Side = 1024
    width: Side = 1024
    num_inference_steps: Steps = 1
    guidance_scale: Guidance = 1.0
    diffusion: bool = False
    negative_prompt: bool = False
    reference_size: int = 1024
    wording: str = SHOWS
    tries: int = 3
    deadline: float = 300.0
    prices: Mapping[str, Any] = field(default_factory=dict)
    price_per_picture: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    sleep: Callable[[float], None] = field(default=time.sleep, init=False)

    def __post_init__(self) -> None:
        """Check what can be checked without asking the server; raise `BadInput`."""
        if not self.base_url.startswith(("http://", "https://")):
            raise BadInput(f"generator.base_url = {self.base_url!r}: wanted http://… or https://…")
        if not 0 <= self.slots <= MOST:
            raise BadInput(f"generator.slots = {self.slots}: wanted 0 to {MOST}")
        checked(self.wording)
        if self.price_per_picture is not None and not self.price_per_picture >= 0:
            raise BadInput(
                f"generator.price_per_picture = {self.price_per_picture}: wanted 0 or more dollars"
            )
        self._price = price_of(self.model, self.prices, "generator")
        self.capabilities = Capabilities(
            id=f"openai_images:{self.model}@{self.base_url}",
            slots=self.slots,
            negative_prompt=self.diffusion and self.negative_prompt,
            inpaint=self.inpaint,
            inpaint_slots=min(self.slots, MOST - 1) if self.inpaint else 0,
            height=self.height,
            width=self.width,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
        )

    @classmethod
    def declare(cls, **arguments: Any) -> Capabilities:
        """Check arguments and return the capabilities; the server is not asked."""
        return cls(**arguments).capabilities

    def generate(self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep) -> Image:
        """Draw one picture; a server without seeds gives another one each time.

        Args:
            request: what is drawn; seed, steps and guidance are sent to diffusion servers only.
            images: the references' pictures, and last that of a repaint; sent as PNG.
            on_step: told (0, 1) before each try, where it may raise to stop, and (1, 1) at the end.

        Raises:
            BadInput: what `check_request` refuses, or a request that the server calls wrong.
            Refused: the server's filter declined it.
            Unavailable: no key, no server, no such model, or no time left; the text says what to do.
            BadReply: what came back is no picture.
        """
        able = self.capabilities
        check_request(request, able, len(images) - bool(request.inpaint))
        job = parted(request, images)
        files = ([job.old] if job.old else []) + [scaled(one, self.reference_size) for one in job.images]
        names = [one.concept for one in job.request.references]
        prompt = with_sentences(request.prompt, names, self.wording, first=2 if job.old else 1)
        request = request.model_copy(update={"prompt": prompt})
        forms = [_png(image, number) for number, image in enumerate(files)]
        asking = self._client()
        reply = persist(
            lambda: self._send(asking, request, forms),
            tries=self.tries,
            deadline=self.deadline,
            on_step=on_step,
            sleep=self.sleep,
        )
        on_step(1, 1)
        spent = self._spent(reply)
        try:
            return charged(job.finish(_decoded(reply, able.id)), spent)
        except PleinairError as fault:
            fault.spent = spent
            raise

    def greet(self) -> str:
        """Ask the server which models it has, which costs nothing; raises what a picture would."""
        from openai import NotFoundError, OpenAIError

        asking = self._client()
        try:
            listed = within(GREETING, lambda: None, lambda: asking.models.list().data)
            names = [one.id for one in listed]
        except NotFoundError:
            names = []  # not every server has the list
        except OpenAIError as error:
            raise explain(error, self.model, self.base_url, self.key_variable) from error
        others = ", ".join(sorted(names)[:LISTED]) + (" …" if len(names) > LISTED else "")
        hint = f", which lists only {others}" if names and self.model not in names else ""
        return f"{self.model} at {self.base_url}{hint}"

    def _send(self, asking: Any, request: GenerateRequest, files: Sequence[Any]) -> Any:
        from openai import OpenAIError

        fields: dict[str, Any] = {
            "model": self.model,
            "prompt": request.prompt,
            "n": 1,
            "size": f"{request.width}x{request.height}",
            **self.options,
        }
        if self.diffusion:
            fields["extra_body"] = _steering(request)
        if request.inpaint:
            fields["mask"] = _png(
                _see_through(request.inpaint.box, (request.width, request.height)), name="mask"
            )
        try:
            return (
                asking.images.edit(image=list(files), **fields) if files else asking.images.generate(**fields)
            )
        except OpenAIError as error:
            raise explain(error, self.model, self.base_url, self.key_variable) from error

    def _client(self) -> Any:
        key = os.environ.get(self.key_variable)
        if not key and self.base_url == OPENAI:
            raise Unavailable(f"No key for {OPENAI}: set the environment variable {self.key_variable}.")
        return client(self.base_url, key or "none")

    def _spent(self, reply: Any) -> Usage:
        """Say what a picture cost; without a price it is nothing on this machine, and a warning elsewhere."""
        if self.price_per_picture is not None:
            return Usage(usd=self.price_per_picture)
        known = by_tokens(getattr(reply, "usage", None), self._price) if self._price else None
        if known is None and not is_here(self.base_url):
            log.warning(
                "It is not known what %s asks for a picture: it counts as 0 USD. Say so by "
                "`generator.price_per_picture`.",
                self.base_url,
            )
        return known or Usage()


def _steering(request: GenerateRequest) -> dict[str, Any]:
    """Give the fields that diffusion servers take beside OpenAI's own."""
    fields = {
        "seed": request.seed,
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
    }
    return {**fields, **({"negative_prompt": request.negative_prompt} if request.negative_prompt else {})}


def _see_through(box: Box, size: Size) -> Image:
    """Make a mask as the API wants it: transparent where it is to paint."""
    from PIL import Image, ImageOps

    mask = Image.new("RGBA", size)
    mask.putalpha(ImageOps.invert(mask_of(box, size)))
    return mask


def _png(image: Image, number: int = 0, name: str = "reference") -> tuple[str, bytes, str]:
    """Encode a picture as a file of a form."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"{name}-{number + 1}.png", file.getvalue(), "image/png"


def _decoded(reply: Any, engine: str) -> Image:
    """Read the picture of a reply, or raise `BadReply`."""
    data = getattr(reply, "data", None) or []
    text = getattr(data[0], "b64_json", None) if data else None
    if not text:
        raise BadReply(
            f"`{engine}` sent no picture in its reply. If the server gives addresses, set "
            "generator.options.response_format = 'b64_json': addresses are not followed."
        )
    try:
        return read_untrusted(base64.b64decode(text, validate=True))
    except (binascii.Error, PleinairError) as error:
        raise BadReply(f"`{engine}` sent something that is no picture: {error}") from error
