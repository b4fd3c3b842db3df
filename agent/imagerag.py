"""The steps that ImageRAG has and the loop has not (ICLR 2026, section 3 and appendix D)."""

from __future__ import annotations

from time import perf_counter

from langgraph.runtime import Runtime

from pleinair.agent import budget, ledger
from pleinair.agent.context import Context
from pleinair.agent.nodes import Update
from pleinair.agent.state import LookUp, State, changed
from pleinair.tools import imagerag
from pleinair.tools.retrieve import retrieve as look_up
from pleinair.tools.types import Concept, Outcome, Refused, Repair, Usage


def decide(state: State, runtime: Runtime[Context]) -> Update:
    """Look at the draft; where it matches, it is the answer and nothing is looked up."""
    newest = ledger.latest(state.attempts)
    if newest is None or budget.limit(state, budget.QUESTION):
        return {}
    png = runtime.context.store.read(newest.picture)
    try:
        decision, usage = imagerag.decide(png, state.prompt, model=runtime.context.model)
    except Refused as refusal:
        return changed(outcome=Outcome(ending="refused", reason=str(refusal)))
    if not decision.match:
        return changed(usage=[usage])
    reason = f"the draft matches: {decision.why}"
    return changed(outcome=Outcome(ending="accepted", reason=reason, best=newest), usage=[usage])


def find_missing(state: State, runtime: Runtime[Context]) -> Update:
    """List what is missing and caption it; with nothing named, the prompt is the caption."""
    newest = ledger.latest(state.attempts)
    assert newest is not None, "`find_missing` comes after a draft"
    png = runtime.context.store.read(newest.picture)
    names, asked = imagerag.list_missing(png, state.prompt, model=runtime.context.model)
    if not names:
        return chosen([Concept(name=state.prompt, caption=state.prompt)], [asked])
    concepts, captioned = imagerag.write_captions(names, model=runtime.context.model)
    return chosen(concepts, [asked, captioned])


def chosen(concepts: list[Concept], usage: list[Usage]) -> Update:
    """Set the missing concepts, each to be repaired by a reference."""
    repairs = [Repair(concept=one.name, action="add_reference", why=one.caption) for one in concepts]
    return changed(concepts=concepts, repairs=repairs, usage=usage)


def retrieve_first(state: LookUp, runtime: Runtime[Context]) -> Update:
    """Take the most similar picture of the library, however similar it is (no threshold)."""
    started, concept = perf_counter(), Concept.model_validate(state)
    found = look_up(concept, retriever=runtime.context.retriever, k=1, floor=-1.0)
    return changed(retrievals=[found], usage=[Usage(seconds=perf_counter() - started)])


def route_after_decide(state: State) -> str:
    """Go on where the draft does not match and one more picture and two questions are allowed."""
    if state.outcome or not state.attempts:
        return "finish"
    spend = Usage(images=1, mllm_calls=2)
    return "finish" if budget.limit(state, spend) else "find_missing"
