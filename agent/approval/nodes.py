"""Nodes and routes of approval: the question is a LangGraph interrupt, so a run that waits holds nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt
from pydantic import Field, ValidationError

from pleinair.agent import ledger, nodes
from pleinair.agent.approval.types import Approval, ApprovalRequest, Before
from pleinair.agent.context import Context
from pleinair.agent.select import find_retrieval, restrict_retrievals, with_input_images
from pleinair.agent.state import State, changed, check_prompt
from pleinair.tools.arguments import complaint
from pleinair.tools.types import (
    Approve,
    Attempt,
    BadInput,
    Concept,
    Hit,
    Outcome,
    Reference,
    Repair,
    Retrieval,
    Retriever,
)

CHOSEN = "you chose its image"  # reason of a repair
OMITTED = "you chose none"  # reason of a retrieval without hits


class ApprovedState(State):
    """State of a graph that may ask for approval."""

    approvals: list[Approval] = Field(default_factory=list)  # in their order

    @property
    def images_of_answers(self) -> list[Reference]:
        """Return the input images of all answers."""
        return [reference for approval in self.approvals for reference in approval.given]


def asks(state: ApprovedState, approve: Approve) -> bool:
    """Return whether a person is to be asked: once before the draft and once before the first references."""
    before = _next_image(state)
    if not approve or (before == "draft" and approve != "draft"):
        return False
    return not any(approval.before == before and approval.final for approval in state.approvals)


def approve(state: ApprovedState, runtime: Runtime[Context]) -> Command[Any]:
    """Ask a person about the next image, and go on as answered; a node of a graph."""
    return _carry_out(state, ask(state, omits=True), runtime.context.retriever)


def _next_image(state: State) -> Before:
    """Return whether the next image is a draft or one with references."""
    return "references" if state.request and state.request.references else "draft"


def begin(state: ApprovedState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Begin as `nodes.begin_loop` does; where the draft is to be approved the concepts come before it."""
    update = nodes.begin_loop(state, runtime)
    return update | (changed(asks_first=True) if runtime.context.approve == "draft" else {})


def route_after_decompose(state: ApprovedState, runtime: Runtime[Context]) -> str:
    """Ask for approval of the draft, or go on as `nodes.route_after_decompose` does."""
    following = nodes.route_after_decompose(state)
    return "approve" if following == "draft" and asks(state, runtime.context.approve) else following


def route_after_select(state: ApprovedState, runtime: Runtime[Context]) -> Literal["approve", "generate"]:
    """Ask for approval of the selected references, or generate with them."""
    return "approve" if asks(state, runtime.context.approve) else "generate"


def select(state: ApprovedState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Select references as `nodes.select` does, input images of the answers among them."""
    context = with_input_images(runtime.context, state.images_of_answers)
    return nodes.select(state, runtime.override(context=context) if state.approvals else runtime)


def ask(state: ApprovedState, omits: bool = False) -> Approval:
    """Interrupt the run until there is an answer that fits, and return it.

    `omits`: whether the graph can leave out the reference of a concept.
    """
    question = ApprovalRequest(
        before=_next_image(state),
        attempt=len(state.attempts),
        prompt=state.prompt,
        concepts=tuple(state.concepts),
        references=state.request.references if state.request else (),
        retrievals=tuple(state.retrievals),
        omits=omits,
    )
    fault = ""
    while True:  # LangGraph repeats the node at each answer, with all the answers before
        again = question.model_copy(update={"fault": fault})
        try:
            return read_approval(interrupt(again.model_dump(mode="json")), question)
        except BadInput as error:
            fault = str(error)


def read_approval(answer: Any, question: ApprovalRequest) -> Approval:
    """Return an answer after checking it against its question; True approves and False stops.

    Raises `BadInput`.
    """
    if isinstance(answer, bool):
        answer = {"stop": not answer}
    if not isinstance(answer, dict):
        raise BadInput(f"approval: {answer!r}; must be true, false or a table")
    try:
        approval = Approval.model_validate({**answer, "before": question.before})
    except ValidationError as error:
        raise BadInput(complaint(error, Approval, prefix="approval.")) from error
    _check_concepts(approval, [concept.name for concept in question.concepts])
    for concept, id in approval.hits.items():
        _hit(question.retrievals, concept, id)
        if id in approval.vetoes:
            raise BadInput(f"approval: hit {id!r} of {concept!r}; it is vetoed in the same answer")
    if approval.without and not question.omits:
        raise BadInput(f"approval: without {approval.without[0]!r}; this graph cannot leave a reference out")
    if approval.prompt:
        check_prompt(approval.prompt)
    return approval


def _check_concepts(approval: Approval, names: list[str]) -> None:
    """Raise `BadInput` for a concept that there is not, or two of the same name."""
    given = [reference.concept for reference in approval.given]
    for concept in (*approval.hits, *approval.concepts, *given, *approval.without):
        if concept not in names:
            raise BadInput(f"approval: concept {concept!r}; there are: {', '.join(names) or 'none'}")
    renamed = [approval.concepts.get(name, name) for name in names]
    if len(set(renamed)) < len(renamed) or not all(name.strip() for name in renamed):
        raise BadInput(f"approval: concepts {renamed}; each must have a name of its own")


def _hit(retrievals: tuple[Retrieval, ...], concept: str, id: str) -> Hit:
    retrieval = find_retrieval(concept, retrievals)
    hits = {hit.id: hit for hit in retrieval.hits} if retrieval else {}
    if id not in hits:
        raise BadInput(
            f"approval: hit {id!r} of {concept!r}; there are: {', '.join(hits) or 'none'}",
            "Another image can be given as an input image.",
        )
    return hits[id]


def _carry_out(state: ApprovedState, approval: Approval, retriever: Retriever) -> Command[Any]:
    """Return the update of an answer, and the next node: that which selects anew, or the end."""
    update: dict[str, Any] = changed(approvals=[*state.approvals, approval])
    if approval.stop:
        return Command(update=update | changed(outcome=stopped_by_person(state)), goto="finish")
    if approval.prompt:
        update |= changed(prompt=approval.prompt)
    concepts = [renamed(concept, approval.concepts) for concept in state.concepts]
    update |= changed(
        concepts=concepts,
        retrievals=_restricted(state, approval),
        repairs=_repairs(state, approval),
        attempts=[with_names(attempt, approval.concepts) for attempt in state.attempts],
    )
    if approval.before == "draft":
        return Command(update=update, goto="draft")
    renewed = [concept for concept in concepts if concept.name in approval.concepts.values()]
    tasks = nodes.retrieve_tasks(renewed, state.seed, retriever)
    return Command(update=update, goto=tasks or "select")


def stopped_by_person(state: State) -> Outcome:
    """Return the outcome of a run that a person stopped, with its best image."""
    best = ledger.best(state.attempts)
    return Outcome(ending="cancelled", reason="you stopped it before this image", best=best)


def renamed(concept: Concept, names: Mapping[str, str]) -> Concept:
    """Return a concept under its new name, which is its caption too, if it has one."""
    name = names.get(concept.name)
    return Concept(name=name, caption=name) if name else concept


def _restricted(state: ApprovedState, approval: Approval) -> list[Retrieval]:
    """Return the retrievals without what was vetoed, and with what was chosen as a concept's only hit."""
    given = {reference.concept: reference.hit for reference in approval.given}
    retrieved = {retrieval.concept for retrieval in state.retrievals}
    others = [Retrieval(concept=name, query=name, hits=()) for name in given if name not in retrieved]
    hits = {name: _hit(tuple(state.retrievals), name, id) for name, id in approval.hits.items()}
    restricted = restrict_retrievals([*state.retrievals, *others], hits | given, approval.vetoes)
    none: dict[str, Any] = {"hits": (), "abstained": True, "reason": OMITTED}
    return [
        retrieval.model_copy(update=none) if retrieval.concept in approval.without else retrieval
        for retrieval in restricted
    ]


def _repairs(state: ApprovedState, approval: Approval) -> list[Repair]:
    """Return the repairs under their concepts' new names, with one for each image that was chosen."""
    planned = {repair.concept: repair for repair in state.repairs}
    for name in (*approval.hits, *(reference.concept for reference in approval.given)):
        planned.setdefault(name, Repair(concept=name, action="add_reference", why=CHOSEN))
    names = approval.concepts
    return [repair.model_copy(update={"concept": names.get(name, name)}) for name, repair in planned.items()]


def with_names(attempt: Attempt, names: Mapping[str, str]) -> Attempt:
    """Return an attempt whose ledger has concepts under their new names."""
    if not (attempt.ledger and names):
        return attempt
    rows = tuple(
        row.model_copy(update={"concept": names.get(row.concept, row.concept)}) for row in attempt.ledger.rows
    )
    return attempt.model_copy(update={"ledger": attempt.ledger.model_copy(update={"rows": rows})})
