"""Chat model behind OpenAI's interface: hosted, vLLM, Ollama, llama.cpp.

langchain-openai and openai's client make the calls; the deadline, the retries, the size of a reply and what
counts as an answer are ours. The key comes from the environment and goes nowhere else. Not covered: streaming
of tokens, and several answers to one call.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import run_in_executor
from langchain_openai import ChatOpenAI
from PIL import Image
from pydantic import Field, SecretStr, SkipValidation

from pleinair.agent.mllm.observer import Watch
from pleinair.agent.mllm.request import (
    ImageForm,
    answer_arguments,
    described,
    has_images,
    merged_roles,
    scaled_down,
    with_cache_marks,
    with_schema,
)
from pleinair.tools.arguments import check_values
from pleinair.tools.callbacks import no_callback
from pleinair.tools.errors import BadReply, CutOff, EmptyAnswer, Filtered
from pleinair.tools.http.addresses import OFFICIAL, base_addresses, is_here
from pleinair.tools.http.openai_api import NO_KEY, Server, TooLong, failure_of, greet, no_images
from pleinair.tools.http.prices import Price, price_of
from pleinair.tools.http.retry import CallFailure, Failures, RetryPolicy
from pleinair.tools.http.servers import ServerList
from pleinair.tools.http.support import Answers, Request, Support, describe
from pleinair.tools.http.transport import http_client
from pleinair.tools.mllm.ask import UNPRINTABLE, ask, cached_tokens, human_message, read_answer
from pleinair.tools.mllm.boxes import BoxConvention
from pleinair.tools.mllm.reading import finish_reason, is_complete, is_empty, refusal_of
from pleinair.tools.mllm.schemas import Decision
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import BadInput, ModelFault, PleinairError, Refused, Usage, Value

if TYPE_CHECKING:
    from langchain_core.callbacks import CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import ChatResult
    from langchain_core.runnables import Runnable


log = logging.getLogger(__name__)


def _price(servers: Sequence[Server], own_prices: Mapping[str, Any]) -> Price | None:
    """Return the price of the model; log a warning where none is known and a server is another machine."""
    price = price_of(servers[0].model, own_prices)
    if price is None and not all(is_here(server.url) for server in servers):
        log.warning(
            "No price is known for %r: its calls count as 0 USD, and `budget.usd` cannot stop them. Write it "
            "under [mllm.prices].",
            servers[0].model,
        )
    return price


_Detail = Literal["low", "high", "auto"]
_Seconds = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(gt=0)]
_MORE_TOKENS = 4  # by this the cap is multiplied when an answer was cut off
_TRIAL = "Decide whether the picture matches the prompt."
_TRIAL_WITHOUT_FORM = "Look at the picture and at the prompt, and answer."
_FIELDS = ("refusal", "reasoning_content", "reasoning")  # of a message, beside its content
# reasons why an answer ended
_CUT_OFF = ("length", "max_output_tokens", "max_tokens")
_FILTERED = ("content_filter", "safety", "sensitive", "recitation", "prohibited_content")
_REASONS = (*_CUT_OFF, *_FILTERED, "stop", "end_turn", "tool_calls", "function_call", "completed")
_SMALLER_SIDE = 2  # by this an image's side is divided when the request is too long


def chat(
    model: Annotated[str, Field(pattern=r"\S")],  # the server's name of the model
    base_url: str | tuple[str, ...] = "",  # up to /v1, or a list; by default OPENAI_BASE_URL, else OpenAI's
    key_variable: str = "OPENAI_API_KEY",  # environment variable with the key
    answers: Answers = "json_schema",  # form of answers tried first; a refused one steps down by itself
    responses_api: bool = False,  # use the Responses API instead of Chat Completions
    deadline: _Seconds = 180.0,  # seconds for a call with all tries and pauses
    silence: _Seconds = 90.0,  # seconds without a byte until a try ends
    tries: _Count = 3,  # after failures that may pass
    max_tokens: int = 2048,  # of an answer, raised once if cut off; 0: the server's
    side: _Count = 512,  # pixels; larger images are scaled down
    image_form: ImageForm = "jpeg",  # of images over 32 KiB; "png": without loss, about four times the bytes
    detail: _Detail = "low",  # of an image, for servers that distinguish it
    sends_temperature: bool = True,  # False for a model that takes none
    cache_control: bool | None = None,  # mark what may be cached; None: for Claude alone, which needs it
    boxes: BoxConvention = "auto",  # what the numbers of its boxes mean; "auto": by the model's family
    prices: Mapping[str, Any] | None = None,  # the user's own lines of the price table
) -> OpenAIChat:
    """Build the chat model of an OpenAI-compatible server.

    Raises:
        BadInput: an argument is not usable, or OpenAI's own server is to be called without a key.
    """
    check_values(chat, locals(), "mllm")
    servers = _servers(model, base_url, key_variable)
    server = servers[0]
    return OpenAIChat(
        model=server.model,
        api_key=SecretStr(server.key or NO_KEY),
        base_url=server.url,
        default_query=dict(server.query),
        default_headers=server.headers,
        http_client=http_client(),
        timeout=silence,
        max_retries=0,
        disable_streaming=True,
        use_responses_api=responses_api,
        server=server,
        servers=ServerList(servers),
        retry_policy=RetryPolicy(deadline=deadline, tries=tries),
        token_cap=max_tokens,
        image_side=side,
        image_form=image_form,
        price=_price(servers, prices or {}),
        answers=answers,
        detail=detail,
        sends_temperature=sends_temperature,
        cache_marks="claude" in model.lower() if cache_control is None else cache_control,
        boxes=boxes,
    )


def _servers(model: str, base_url: str | Sequence[str], key_variable: str) -> tuple[Server, ...]:
    if base_url == "":
        base_url = os.environ.get("OPENAI_BASE_URL", "") or OFFICIAL
    addresses = base_addresses(base_url, "mllm.base_url")
    key = os.environ.get(key_variable, "").strip()
    if not key and any(address.url == OFFICIAL for address in addresses):
        raise BadInput(f"{OFFICIAL} needs a key", f"Set the environment variable {key_variable}.")
    return tuple(Server(at.url, model, key_variable, key, query=at.query) for at in addresses)


class OpenAIChat(ChatOpenAI):
    """ChatOpenAI with our own deadline, retries and idea of an answer; built by `chat`."""

    server: SkipValidation[Server]  # of a list the first, or in an attempt the one that is asked
    servers: SkipValidation[ServerList]
    retry_policy: SkipValidation[RetryPolicy]
    token_cap: int  # 0 leaves it to the server
    image_side: int  # pixels
    image_form: ImageForm = "jpeg"
    price: Price | None = None
    answers: Answers = "json_schema"
    detail: _Detail = "low"
    sends_temperature: bool = True
    cache_marks: bool = False
    boxes: BoxConvention = "auto"

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return False: LangChain must not store this model."""
        return False

    def with_structured_output(
        self, schema: Any = None, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a runnable for one of our schemas; `read_answer` checks its raw reply."""
        if not (isinstance(schema, type) and issubclass(schema, Value)):
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        bound: Runnable[LanguageModelInput, AIMessage] = self.bind(answer_form=described(schema))

        def reply(raw: AIMessage) -> Any:
            unparsed = {"raw": raw, "parsed": None, "parsing_error": None}
            return unparsed if include_raw else read_answer(unparsed, schema)

        return bound | RunnableLambda(reply)

    def greet(self) -> str:
        """Return the model, its address, whether the server lists it, and what one small question tells.

        A server without a list of models is judged by the question alone. Of several servers each is asked;
        raise for the first that does not answer.
        """
        return "; ".join(self._at(server)._greet() for server in self.servers.servers)

    def _greet(self) -> str:
        listing = greet(self.server, self.root_client)
        try:
            usage = self._try_image()
        except PleinairError as error:
            raise error.reworded(f"{error.message.removesuffix('.')} (asked for {listing})") from None
        cost = f"{usage.tokens} tokens, {usage.seconds:.1f} s"
        return f"{listing}: {describe(self.server.support, self.answers)}; one question took {cost}"

    def explore(self, report: Callable[[str], None] = no_callback) -> str:
        """Find out anew what the server takes, remember it, and return it in words.

        It makes about three small calls of each server, beside those that are refused; `report` receives what
        is tried next.
        """
        return "; ".join(self._at(server)._explore(report) for server in self.servers.servers)

    def _explore(self, report: Callable[[str], None]) -> str:
        self.server.learn(**dict(Support()))
        report("a question with an image")
        self._try_image()
        facts = [describe(self.server.support, self.answers)]
        report("an answer by a schema that the text does not contain")
        facts.append("keeps to schemas" if self._keeps_schema() else "needs the schema in the text too")
        report("a call of a tool")
        facts.append(self._try_tool())
        return ", ".join(facts)

    def _keeps_schema(self) -> bool:
        """Ask without the schema in the text; an answer in its form shows that the server heeds it."""
        support = self.server.support
        if (support.answers or self.answers) not in ("json_schema", "function_calling"):
            return False
        self.server.learn(keeps_schema=True)
        try:
            ask(self, Decision, _TRIAL_WITHOUT_FORM, {"prompt": "a red square"}, [_trial_image()])
            return True
        except (ModelFault, Refused):
            self.server.learn(keeps_schema=False)
            return False

    def _try_tool(self) -> str:
        """Return whether the model calls a tool, which the graph `react` needs."""
        parameters = {"type": "object", "properties": {}}
        function = {"name": "finish", "description": "End the run.", "parameters": parameters}
        request = [human_message({"request": "Call the tool `finish`."}, [])]
        try:
            reply = self.bind_tools([{"type": "function", "function": function}]).invoke(request)
        except PleinairError as error:
            return f"calls no tools ({error.message.removesuffix('.')})"
        return "calls tools" if reply.tool_calls else "called no tool when it was asked to"

    @property
    def is_proven(self) -> bool:
        """Return whether the model is known to answer and to take images, on one server of a list."""
        known = (server.support for server in self.servers.servers)
        return any(support.answered and support.images for support in known)

    def prove(self) -> Usage:
        """Make one small call with an image, unless the model is proven; return what it cost.

        Raises:
            NoImages: the model takes no images.
            PleinairError: whatever else a call raises.
        """
        return Usage() if self.is_proven else self._try_image()

    def _try_image(self) -> Usage:
        try:
            return ask(self, Decision, _TRIAL, {"prompt": "a red square"}, [_trial_image()])[1]
        except (ModelFault, Refused) as fault:  # it answered, and how well is not the question
            return fault.spent

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Call until there is an answer or an error; the reply's metadata holds what all attempts cost."""
        usages: list[UsageMetadata] = []
        kwargs["watch"] = watch = Watch.of(run_manager, self.server.key)

        def send(failures: Failures) -> ChatResult:
            with self.servers.attempt() as server, watch.failures():
                return self._at(server)._attempt(messages, stop, kwargs, usages, failures)

        try:
            result = self.retry_policy.call(send)
        except PleinairError as error:
            tokens = _total_usage(usages)
            cached = cached_tokens(tokens)
            error.spent = Usage(tokens=tokens["total_tokens"], cached_tokens=cached, usd=self._usd(tokens))
            raise
        message, tokens = _message_of(result), _total_usage(usages)
        message.usage_metadata = tokens
        message.response_metadata["usd"] = self._usd(tokens)
        return result

    def _at(self, server: Server) -> OpenAIChat:
        """Return this model on one server alone."""
        if len(self.servers.servers) == 1:
            return self
        client = self.root_client.copy(
            base_url=server.url,
            set_default_query=dict(server.query),
            set_default_headers=server.headers,
        )
        alone = {"server": server, "servers": ServerList((server,))}
        return self.model_copy(update={**alone, "root_client": client, "client": client.chat.completions})

    def _attempt(
        self,
        messages: list[BaseMessage],
        stop: Any,
        kwargs: dict[str, Any],
        usages: list[UsageMetadata],
        failures: Failures,
    ) -> ChatResult:
        """Call once, with a larger cap after a cut-off and smaller images after a request too long."""
        support = self.server.support
        sent, messages, kwargs = self._in_form(messages, kwargs, failures[CutOff], support)
        if sent.images and support.images is False:
            raise CallFailure(no_images(self.server), of_server=True)
        detail = None if "detail" in support.without else self.detail
        side = max(self.image_side // _SMALLER_SIDE ** failures[TooLong], 1)
        try:
            messages = scaled_down(messages, side, detail, self.image_form)
            result = ChatOpenAI._generate(self, messages, stop, None, **kwargs)
        except Exception as error:
            raise failure_of(error, self.server, sent) from error
        message = _message_of(result)
        kwargs["watch"].reply(message)
        message.response_metadata["image_side"] = side
        if message.usage_metadata:
            usages.append(message.usage_metadata)
        self.server.learn(answered=True, **({"images": True} if sent.images else {}))
        _check_reply(result)
        return result

    def _in_form(
        self, messages: list[BaseMessage], kwargs: dict[str, Any], cut_offs: int, support: Support
    ) -> tuple[Request, list[BaseMessage], dict[str, Any]]:
        """Return what is sent by a server's support: a summary, the messages, and the arguments."""
        form = kwargs.get("answer_form")
        answers = (support.answers or self.answers) if form else None
        kwargs = {key: value for key, value in kwargs.items() if key != "answer_form"}
        if form and answers:
            kwargs |= answer_arguments(form, answers, support)
            if not (self.server.url == OFFICIAL or support.keeps_schema):
                messages = with_schema(messages, form)
        if "response_format" in kwargs and not self.use_responses_api:
            # langchain-openai would parse the answer, and raise what it thinks of it
            kwargs["extra_body"] = {"response_format": kwargs.pop("response_format")}
        cap_name = support.cap_name or self._cap_name
        cap = self.token_cap * _MORE_TOKENS**cut_offs
        cap = min(cap, support.cap) if support.cap else cap
        if cap and cap_name != "none":
            kwargs["max_tokens"] = cap
        tools, images = "tools" in kwargs, has_images(messages)
        cap_name = cap_name if "max_tokens" in kwargs else ""
        sent = Request(
            support=support,
            answers=answers,
            tools=tools,
            cap_name=cap_name,
            cap=cap,
            images=images,
            cache_marks=self.cache_marks and not self.use_responses_api,
        )
        return sent, messages, kwargs | {"support": support}

    @property
    def _cap_name(self) -> str:
        """Return OpenAI's own name of the cap for OpenAI and Azure, else that which other servers have."""
        is_openai = self.server.url == OFFICIAL or self.server.query
        return "max_completion_tokens" if is_openai else "max_tokens"

    def _create_chat_result(self, response: Any, generation_info: dict[str, Any] | None = None) -> ChatResult:
        """Add what langchain-openai drops: a refusal, thoughts beside the answer."""
        result = super()._create_chat_result(response, generation_info)
        for generation, choice in zip(result.generations, response.choices, strict=True):
            fields = {key: value for key in _FIELDS if (value := getattr(choice.message, key, None))}
            generation.message.additional_kwargs.update(fields)
        return result

    def _usd(self, tokens: UsageMetadata) -> float:
        read, written, cached = tokens["input_tokens"], tokens["output_tokens"], cached_tokens(tokens)
        return self.price.usd(read, written, cached=cached) if self.price else 0.0

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        """Call in a thread, in the same way."""
        return await run_in_executor(None, self._generate, *args, **kwargs)

    def _get_request_payload(
        self, input_: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Leave out what the model or its server does not take; name the cap as the server does."""
        support = kwargs.pop("support", None) or self.server.support
        watch: Watch = kwargs.pop("watch", None) or Watch()
        payload = super()._get_request_payload(input_, stop=stop, **kwargs)
        takes_temperature = self.sends_temperature and (self.profile or {}).get("temperature", True)
        if not takes_temperature or "temperature" in support.without:
            payload.pop("temperature", None)
        if "parallel_tool_calls" in support.without:
            payload.pop("parallel_tool_calls", None)
        if "max_completion_tokens" in payload:
            payload[support.cap_name or self._cap_name] = payload.pop("max_completion_tokens")
        if support.merges_roles and "messages" in payload:
            payload["messages"] = merged_roles(payload["messages"])
        if self.cache_marks and "cache_control" not in support.without and "messages" in payload:
            payload["messages"] = with_cache_marks(payload["messages"])
        watch.request(payload, self.server.url)
        return payload


def _trial_image() -> bytes:
    return encode_png(Image.new("RGB", (64, 64), "red"))


def _message_of(result: ChatResult) -> AIMessage:
    message = result.generations[0].message
    assert isinstance(message, AIMessage)
    return message


def _check_reply(result: ChatResult) -> None:
    """Raise `CallFailure` for a reply that is no answer."""
    message = _message_of(result)
    if refusal := refusal_of(message):
        raise CallFailure(Refused(UNPRINTABLE.sub("", refusal)))
    reason = (result.generations[0].generation_info or {}).get("finish_reason") or finish_reason(message)
    reason = reason and reason.lower()
    if reason == "error" and not is_complete(message):
        raise CallFailure(BadReply("The provider ended the answer with an error."), "tries")
    if reason in _FILTERED:
        raise CallFailure(Filtered("The provider's content filter withheld the model's answer."))
    if reason in _CUT_OFF and not is_complete(message):
        # a part of an answer is not used
        text = "The model's answer was cut off at the cap of tokens: raise `mllm.max_tokens`."
        raise CallFailure(CutOff(text), "once", wait=0.0)
    if reason not in _REASONS:
        log.warning("The model ended its answer for an unknown reason: %.40r", reason)
    if is_empty(message):
        raise CallFailure(EmptyAnswer("The model gave an empty answer, twice.", "Try another model."), "once")


def _total_usage(usages: Sequence[UsageMetadata]) -> UsageMetadata:
    """Add up the tokens of several attempts; a negative count is 0."""
    input_tokens = sum(max(usage["input_tokens"], 0) for usage in usages)
    output_tokens = sum(max(usage["output_tokens"], 0) for usage in usages)
    total = sum(max(usage["total_tokens"], 0) for usage in usages)
    return UsageMetadata(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=max(total, input_tokens + output_tokens),
        input_token_details=InputTokenDetails(cache_read=sum(map(cached_tokens, usages))),
    )
