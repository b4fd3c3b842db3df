"""Generator behind the OpenAI images API: OpenAI itself, vLLM-Omni, SGLang-Diffusion and other servers.

Without references it requests a generation, with references an edit of several input images. A part is
inpainted by an edit with a mask: the image to change comes first, then the references for that part. An
image carries its cost, where the server counts tokens or the settings contain a price, and the bytes that a
server has signed (C2PA). Not covered: streamed
previews, and images by URL (which are not downloaded).
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pleinair.tools.arguments import check_values
from pleinair.tools.callbacks import StopCallback
from pleinair.tools.diffusion.inpaint import PreparedRequest, prepare
from pleinair.tools.diffusion.references import (
    REFERENCE_SENTENCE,
    Size,
    append_sentences,
    check_sentence,
    scale_reference,
)
from pleinair.tools.errors import BadReply, Unavailable
from pleinair.tools.generate import check_request
from pleinair.tools.http.addresses import OFFICIAL, base_addresses, is_here
from pleinair.tools.http.openai_api import Server, failure_of, greet
from pleinair.tools.http.prices import price_of
from pleinair.tools.http.retry import CallFailure, Failures, RetryPolicy
from pleinair.tools.http.servers import ServerList
from pleinair.tools.images.sandbox import read_untrusted
from pleinair.tools.storage.artifacts import charged, with_original
from pleinair.tools.types import (
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

_MAX_INPUT_IMAGES = 16  # that OpenAI takes
MAX_REPLY = 64 * 2**20  # bytes: images of 4K in base64
_PROBE = 10.0  # seconds
_NO_SUCH_PAGE = (404, 405, 501)
_NO_IMAGE = "`{}` sent something that is no image: {}"
_URL_SAFE = str.maketrans("-_", "+/")
log = logging.getLogger(__name__)


@dataclass(eq=False)
class OpenAIImages:
    """Generator on a server: one request an image, repeated only where none can have been charged for.

    Args:
        model: the server's name of the model.
        base_url: the server, up to `/v1`; or a list of servers that have the same model.
        key_variable: the environment variable with the key; other servers than OpenAI need none.
        slots: references for one image; 0 where the model has no edits.
        inpaint: whether an edit heeds a mask; what a server changes outside it is discarded in any case.
        height: of the images in pixels; what comes back may differ.
        width: of the images in pixels; what comes back may differ.
        num_inference_steps: diffusion steps, for a server that takes them.
        guidance_scale: weight of the prompt, for a server that takes it.
        diffusion: whether the server takes seed, steps and guidance (vLLM-Omni, SGLang).
        negative_prompt: whether such a server's model heeds one; those distilled to few steps do not.
        reference_size: longest side in pixels that a reference is scaled down to.
        wording: the sentence that describes each input image, with {number} and {concept}.
        tries: of one image, after 429, 5xx and connections that were not made.
        deadline: seconds for one image with all its tries.
        silence: seconds without a byte, longer than an image takes, until a try ends; None: the deadline.
        prices: the user's own lines of the price table, in US dollars a million tokens.
        price_per_picture: in US dollars, for a server that counts no tokens; it comes before the table. 0
            means that nothing is paid, so that an image is also requested again after its server died.
        options: further fields of the request, such as quality or response_format.
    """

    model: str
    _: KW_ONLY
    base_url: str | tuple[str, ...] = OFFICIAL
    key_variable: str = "OPENAI_API_KEY"
    slots: Annotated[int, Field(ge=0, le=_MAX_INPUT_IMAGES)] = 4
    inpaint: bool = False
    height: Side = 1024
    width: Side = 1024
    num_inference_steps: Steps = 1
    guidance_scale: Guidance = 1.0
    diffusion: bool = False
    negative_prompt: bool = False
    reference_size: int = 1024
    wording: str = REFERENCE_SENTENCE
    tries: Annotated[int, Field(gt=0)] = 3
    deadline: Annotated[float, Field(gt=0)] = 300.0
    silence: Annotated[float, Field(gt=0)] | None = None
    prices: Mapping[str, Any] = field(default_factory=dict)
    price_per_picture: Annotated[float, Field(ge=0)] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what can be checked without calling the server; raise `BadInput`."""
        check_values(type(self), vars(self), "generator")
        self._addresses = base_addresses(self.base_url, "generator.base_url")
        self._url = self._addresses[0].url  # by which a list is known, whichever of its servers answers
        self._is_here = all(is_here(address.url) for address in self._addresses)
        check_sentence(self.wording)
        # a fixed pause, and no second request for what may be charged for already
        self.retry_policy = RetryPolicy(
            section="generator",
            deadline=self.deadline,
            tries=self.tries,
            pause=1.0,
            repeat_done=self.price_per_picture == 0,
            chance=lambda: 1.0,
        )
        self._price = price_of(self.model, self.prices, "generator")
        self.capabilities = Capabilities(
            id=f"openai_images:{self.model}@{self._url}",
            sampler=self._sampler,
            slots=self.slots,
            accepts=("width", "height", *(("num_inference_steps", "guidance_scale") * self.diffusion)),
            negative_prompt=self.diffusion and self.negative_prompt,
            inpaint=self.inpaint,
            inpaint_slots=min(self.slots, _MAX_INPUT_IMAGES - 1) if self.inpaint else 0,
            height=self.height,
            width=self.width,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            charged=self.price_per_picture != 0 and not self._is_here,
        )

    @property
    def _sampler(self) -> str:
        """Return server, model and further fields of a request."""
        fields = json.dumps(dict(self.options), sort_keys=True, default=str) if self.options else ""
        return f"openai_images:{self.model}@{self._url}{fields}"

    @classmethod
    def declare(cls, **arguments: Any) -> Capabilities:
        """Check arguments and return the capabilities; the server is not asked."""
        return cls(**arguments).capabilities

    def generate(self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep) -> Image:
        """Generate one image; a server without seeds gives another one each time.

        Args:
            request: what to generate; seed, steps and guidance are sent to diffusion servers only.
            images: the references' images, and last the one to inpaint; sent as PNG.
            on_step: called with (0, 1) before each try, where it may raise to stop, and (1, 1) at the end.

        Raises:
            BadInput: what `check_request` refuses, or a request that the server calls wrong.
            Refused: the server's filter declined it.
            Unavailable: no key, no server, no such model, no edits though references may follow, or no time
                left; the text says what to do.
            BadReply: what came back is no image.
        """
        check_request(request, self.capabilities, len(images) - bool(request.inpaint))
        prepared = prepare(request, images)
        inputs = [prepared.base] if prepared.base else []
        inputs += [scale_reference(image, self.reference_size) for image in prepared.images]
        names = [] if request.announced else [item.label for item in prepared.request.references]
        prompt = append_sentences(request.prompt, names, self.wording, first=2 if prepared.base else 1)
        request = request.model_copy(update={"prompt": prompt})
        files = [_png(image, number) for number, image in enumerate(inputs)]
        mask = _png(_alpha_mask(prepared.draw_mask()), name="mask") if prepared.base else None
        servers = ServerList(self._servers())

        def send(_: Failures) -> Any:
            on_step(0, 1)
            with servers.attempt() as server:
                return self._send(server, request, files, mask)

        check = on_step.check if isinstance(on_step, StopCallback) else partial(on_step, 0, 1)
        reply = self.retry_policy.call(send, check)
        on_step(1, 1)
        return self._finished(reply, prepared, request)

    def _finished(self, reply: Any, prepared: PreparedRequest, request: GenerateRequest) -> Image:
        """Return the image of a reply with its cost, which an error carries too."""
        spent = self._spent(reply)
        try:
            data = _received(reply, self.capabilities.id)
            image = _decoded(data, self.capabilities.id, (request.width, request.height))
            return with_original(charged(prepared.finish(image), spent), data)
        except PleinairError as error:
            error.spent = spent
            raise

    def greet(self) -> str:
        """Return the model, its address, and whether the server lists it, which costs nothing.

        Of a list every server is asked; raise for the first that does not answer.
        """
        return "; ".join(greet(server, server.client(MAX_REPLY)) for server in self._servers())

    def _require_edits(self, client: Any, server: Server) -> None:
        """Raise `CallFailure` for a server without edits, before an image is paid for that references follow.

        Asked once, by an edit without an image: a server that has edits refuses it as incomplete.
        """
        if not self.slots:
            return
        if server.support.edits is None and server.url != OFFICIAL:
            policy = RetryPolicy(section="generator", deadline=_PROBE, tries=1)
            with suppress(Unavailable, BadReply):  # the image's own request will say what is wrong
                edits = policy.call(lambda _: _has_edits(client, server))
                server.learn(edits=edits)
        if server.support.edits is False:
            error = Unavailable(
                f"{server.url} has no edits, so {self.model!r} takes no references there.",
                "Set `generator.slots = 0` and `generator.inpaint = false`, or choose another server.",
            )
            raise CallFailure(error, of_server=True)

    def _send(self, server: Server, request: GenerateRequest, files: Sequence[Any], mask: Any) -> Any:
        """Request an image of one server; raise `CallFailure`."""
        from openai import OpenAIError

        client = server.client(MAX_REPLY)
        self._require_edits(client, server)
        client = client.with_options(timeout=self.silence) if self.silence else client
        fields: dict[str, Any] = {
            "model": self.model,
            "prompt": request.prompt,
            "n": 1,
            "size": f"{request.width}x{request.height}",
            **self.options,
        }
        if self.diffusion:
            names = {"seed", "num_inference_steps", "guidance_scale"}
            fields["extra_body"] = request.model_dump(
                include=names | ({"negative_prompt"} if request.negative_prompt else set())
            )
        if mask:
            fields["mask"] = mask
        try:
            if files:
                return client.images.edit(image=list(files), **fields)
            return client.images.generate(**fields)
        except (OpenAIError, BadReply) as error:
            raise failure_of(error, server) from error

    def _servers(self) -> tuple[Server, ...]:
        key = os.environ.get(self.key_variable, "").strip()
        if not key and any(address.url == OFFICIAL for address in self._addresses):
            raise Unavailable(
                f"{OFFICIAL} needs a key.", f"Set the environment variable {self.key_variable}."
            )
        return tuple(
            Server(address.url, self.model, self.key_variable, key, "generator", address.query)
            for address in self._addresses
        )

    def _spent(self, reply: Any) -> Usage:
        """Return the cost of an image; where it is not known 0, with a warning unless the server is local."""
        if self.price_per_picture is not None:
            return Usage(usd=self.price_per_picture)
        usage = self._price.of_usage(getattr(reply, "usage", None)) if self._price else None
        if usage is None and not self._is_here:
            log.warning(
                "The price of an image of %s is not known: it counts as 0 USD. Set "
                "`generator.price_per_picture`.",
                self._url,
            )
        return usage or Usage()


def _has_edits(client: Any, server: Server) -> bool | None:
    """Ask a server for an edit without an image; None if its answer does not tell."""
    from openai import APIStatusError

    try:
        client.post("/images/edits", body={"model": server.model}, cast_to=object)
    except APIStatusError as error:
        if error.status_code in _NO_SUCH_PAGE and error.code != "model_not_found":
            return False
        return True if error.status_code in (400, 422) else None
    except Exception as error:
        raise failure_of(error, server) from error
    return None


def _alpha_mask(white: Image) -> Image:
    """Return a mask as the API takes it: transparent where it is to inpaint, which is white in `white`."""
    from PIL import Image, ImageOps

    mask = Image.new("RGBA", white.size)
    mask.putalpha(ImageOps.invert(white))
    return mask


def _png(image: Image, number: int = 0, name: str = "reference") -> tuple[str, bytes, str]:
    """Encode an image as a file of a form: name, data, type."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"{name}-{number + 1}.png", file.getvalue(), "image/png"


def _received(reply: Any, generator: str) -> bytes:
    """Return the file in a reply; raise `BadReply`."""
    data = getattr(reply, "data", None) or []
    text = getattr(data[0], "b64_json", None) if data else None
    if not text:
        raise BadReply(
            f"`{generator}` sent no image in its reply.",
            "If the server sends URLs, set generator.options.response_format = 'b64_json': none is fetched.",
        )
    try:
        return _bytes_of(text)
    except binascii.Error as error:
        raise BadReply(_NO_IMAGE.format(generator, error)) from error


def _decoded(data: bytes, generator: str, size: Size) -> Image:
    """Decode the image of a file, and warn of one of another size; raise `BadReply`."""
    try:
        image = read_untrusted(data)
    except PleinairError as error:
        raise BadReply(_NO_IMAGE.format(generator, error)) from error
    if image.size != size:
        log.warning("%s was asked for %d x %d pixels and sent %d x %d.", generator, *size, *image.size)
    return image


def _bytes_of(text: str) -> bytes:
    """Decode base64 in either alphabet, as a data URL, in several lines or without padding."""
    head, comma, data = text.partition(",")
    plain = "".join((data if comma and head.lstrip().lower().startswith("data:") else text).split())
    plain = plain.translate(_URL_SAFE).rstrip("=")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
