"""Session at a chat thread: its requests, their versions, and what the next one continues from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from typing_extensions import Unpack

from pleinair.agent.state import MAX_SEED
from pleinair.app.chat.approval import ThreadApproval
from pleinair.app.chat.messages import row_of
from pleinair.app.chat.scene import last_scene, read_edit
from pleinair.app.chat.thread import GRAPH, IMAGE, MAX_TITLE, Message, MessageOptions, Thread, TrayImage
from pleinair.app.engines import check, declared_capabilities
from pleinair.app.models.pins import require_pins
from pleinair.app.parts import OwnParts, require_parts, with_parts
from pleinair.app.runs.history import state_of
from pleinair.app.runs.prompts import request_from
from pleinair.app.runs.request import (
    MAX_INPUT_IMAGES,
    ChatThread,
    DrawRequest,
    read_request,
    takes_input_images,
)
from pleinair.app.runs.row import Run
from pleinair.app.settings import load
from pleinair.tools import registry
from pleinair.tools.types import BadInput, concept_key

if TYPE_CHECKING:
    from pleinair.app.estimate.estimate import Estimate
    from pleinair.app.runs.database import Connection

NO_OPTIONS = MessageOptions()


class ChatSession(ThreadApproval):
    """Session at a thread, from `Threads.opened`; a call that raises changes nothing."""

    def submit(
        self,
        line: str,
        options: MessageOptions = NO_OPTIONS,
        client: str | None = None,
        most: int | None = None,
        **parts: Unpack[OwnParts],
    ) -> list[Run]:
        """Validate a message and write the rows of its runs, one an image; the thread is stored with them.

        A line that only sets the size before the first image sets it and returns no run.

        Args:
            line: as typed: a prompt, a change of the last image, or a size; @1 mentions an image of the tray.
            options: of this message.
            client: who queues the runs for workers; None: the caller executes them.
            most: runs that the workers' queue takes.
            parts: objects in place of backends, as of `api.draw`; for a message without a client.

        Raises:
            BadInput: the message cannot be carried out; nothing is changed or written.
            QueueFull: the workers' queue takes no more.
        """
        from pleinair.app.models.ready import require_ready

        request, thread = self._request(line, options, parts)
        if request is None:
            self.thread = thread
            return []
        require_pins(request.settings)
        require_ready(request.settings)
        require_parts(request.settings, {} if client else parts)
        message = Message(prompt=line, runs=("",), before=self.thread.decisions, base=thread.decisions)
        title = thread.title or " ".join(line.split())[:MAX_TITLE]

        def record(runs: list[Run]) -> Thread:
            turn = message.model_copy(update={"runs": tuple(run.id for run in runs)})
            changes = {"turns": (*thread.turns, turn), "undone": (), "title": title}
            return thread.model_copy(update=changes)

        return self._write(request, record, client, most)

    def _write(
        self,
        request: DrawRequest,
        record: Callable[[list[Run]], Thread],
        client: str | None,
        most: int | None,
    ) -> list[Run]:
        """Write the rows of a request and the thread with them, in one transaction."""

        def also(db: Connection, runs: list[Run]) -> None:
            stored.append(record(runs).write(db))

        stored: list[Thread] = []
        runs = self._runs.add_group(request.rows(), client=client, most=most, also=also)
        (self.thread,) = stored
        return runs

    def estimate(self, line: str, options: MessageOptions = NO_OPTIONS) -> Estimate | None:
        """Estimate what a message takes, None if it needs no run; changes nothing and raises as `submit`."""
        from pleinair.app.estimate.estimate import estimate_of

        request, _ = self._request(line, options.model_copy(update={"yes": True}), {})
        return estimate_of(request, self.places) if request else None

    def redraw(
        self,
        seed: int | None = None,
        client: str | None = None,
        most: int | None = None,
        **parts: Unpack[OwnParts],
    ) -> Run:
        """Repeat the last message with another seed as a new version, which becomes the current one.

        Raises `BadInput` if there is none, or its run was deleted, or without the run's own `parts`.
        """
        number = len(self.thread.turns)
        message = self._turn(number)
        if seed is not None and not 0 <= seed <= MAX_SEED:
            raise BadInput(f"seed {seed}: must be 0 to {MAX_SEED}")
        request = read_request(self._runs.get(message.run).request_json)
        require_parts(request.settings, {} if client else parts)
        changes = {"seed": seed, "num_images": 1, "number": 1}

        def record(runs: list[Run]) -> Thread:
            versions = (*message.runs, runs[0].id)
            return self._with_version(message.model_copy(update={"runs": versions}), len(versions) - 1)

        return self._write(request.model_copy(update=changes), record, client, most)[0]

    def _request(
        self, line: str, options: MessageOptions, parts: OwnParts
    ) -> tuple[DrawRequest | None, Thread]:
        """Return the request of a line, None if it needs none, and the thread as it changes it."""
        self._require_ended()
        line, thread = self._mentioned(line)
        capabilities = declared_capabilities(
            with_parts(load(thread.profile, thread.overrides), parts, thread.overrides)
        )
        chat = self._chat(thread)
        edit = read_edit(line, last_scene(chat, self.places), thread.overrides, capabilities)
        sides = {f"{IMAGE}{name}": side for name, side in edit.size.items()}
        thread = thread.model_copy(update={"overrides": thread.overrides | sides})
        overrides = thread.overrides | options.overrides
        settings = load(options.profile or thread.profile, overrides, origin="this chat")
        settings = with_parts(settings, parts, overrides)
        if not edit.prompt:
            check(settings)
            return None, thread
        is_chat = options.graph == GRAPH
        images = [image for image in thread.tray if image.used]
        pictures = [image.picture for image in images if not (is_chat and image.concept)]
        if options.graph in registry.names("graph"):
            _check_images(len(pictures), options.graph)
        request = request_from(
            edit.prompt,
            graph=options.graph,
            seed=options.seed,
            num_images=options.num_images,
            explicit=[key.removeprefix(IMAGE) for key in options.overrides if key.startswith(IMAGE)],
            yes=options.yes,
            settings=settings,
            out=thread.out,
            pictures=tuple(pictures),
            thread=chat if is_chat else None,
        )
        _check_slots(request, images)
        return request, thread

    def _chat(self, thread: Thread) -> ChatThread:
        """Return what the next request takes over; runs that never began are passed over."""
        between: list[str] = []
        after = ""
        for run in reversed(thread.runs):
            row = row_of(run, self._runs)
            if row is None or row.damage or state_of(run, self.places) is None:
                continue
            if read_request(row.request_json).graph == GRAPH:
                after = run
                break
            between.append(run)
        given = tuple(image.reference for image in thread.tray if image.used and image.concept)
        return ChatThread(
            after=after, vetoes=thread.vetoes, pins=thread.pins, given=given, between=tuple(between[::-1])
        )

    def _require_ended(self) -> None:
        """Raise `BadInput` unless the run from which the next message continues has ended."""
        if self.thread.turns and self.message().version.is_open:
            number, status = len(self.thread.turns), self.message().version.status
            if status == "waiting":
                raise BadInput(f"message {number} waits for your approval", "Answer it or stop it first.")
            raise BadInput(
                f"message {number} has not ended: its run is {status}", "Wait for it, or stop it first."
            )


def _check_images(count: int, graph: str) -> None:
    """Raise `BadInput` for images of the tray that a graph does not take."""
    if count and not takes_input_images(graph):
        graphs = ", ".join(name for name in registry.names("graph") if takes_input_images(name))
        raise BadInput(
            f"graph {graph!r} takes no input images, and the tray has {count} in use; these do: {graphs}",
            "Choose one of these, or take the images out of use.",
        )
    if count > MAX_INPUT_IMAGES:
        raise BadInput(f"the tray has {count} images in use; must be at most {MAX_INPUT_IMAGES}")


def _check_slots(request: DrawRequest, images: Sequence[TrayImage]) -> None:
    """Raise `BadInput` for more images of the tray than the generator takes references."""
    prompt = request.prompt.casefold()
    needed = [
        image.handle
        for image in images
        if image.picture in request.pictures or concept_key(image.concept) in prompt
    ]
    capabilities = declared_capabilities(request.settings)
    if len(needed) > capabilities.slots:
        takes = f"takes {capabilities.slots} references" if capabilities.slots else "takes no references"
        raise BadInput(
            f"{', '.join(needed)}: {len(needed)} images of the tray; generator `{capabilities.id}` {takes}",
            "Take some out of use.",
        )
