"""Any model behind OpenAI's interface: hosted, vLLM, Ollama, llama.cpp.

langchain-openai and openai's client do the talking; ours are the deadline, the tries, the size of a reply,
and what counts as an answer. The key comes from the environment and goes nowhere else. Not covered: streaming
of tokens, and several answers to one question.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import httpx2
import openai
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import run_in_executor
from langchain_openai import ChatOpenAI
from pydantic import SecretStr, SkipValidation

from pleinair.agent.mllm.sending import described, fitted
from pleinair.agent.mllm.verdict import counted, message_of, paid_for, summed, weigh, withheld
from pleinair.tools.http.addresses import is_here
from pleinair.tools.http.openai_errors import OFFICIAL, Server, setback
from pleinair.tools.http.prices import Price, price_of
from pleinair.tools.http.retry import Plan, RetryPolicy
from pleinair.tools.http.transport import Wire
from pleinair.tools.mllm.ask import read
from pleinair.tools.types import BadInput, PleinairError, Usage, Value

if TYPE_CHECKING:
    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import BaseMessage
    from langchain_core.messages.ai import UsageMetadata
    from langchain_core.outputs import ChatResult
    from langchain_core.runnables import Runnable


log = logging.getLogger(__name__)


def _checked_url(url: str) -> str:
    """Require a plain address: no password, which would end up in records, no query, no fragment."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    plain = host and not (parts.username or parts.password or parts.query or parts.fragment)
    if not plain or parts.scheme not in ("http", "https") or port == 0:
        shown = url if "@" not in url else f"…@{url.rpartition('@')[2]}"
        raise BadInput(
            f"mllm.base_url = {shown!r}: wanted such as https://host/v1 or http://127.0.0.1:8000/v1"
        )
    return url.rstrip("/")


def _checked_name(model: str) -> str:
    """Require a model's name."""
    if not model.strip():
        raise BadInput("mllm.model is empty: wanted the server's name for the model")
    return model


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> Any:
    """Require one of the choices."""
    if value not in choices:
        raise BadInput(f"mllm.{name} = {value!r}: wanted one of: {', '.join(choices)}")
    return value


def _positive(name: str, value: float) -> float:
    """Require a number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise BadInput(f"mllm.{name} = {value!r}: wanted a number above 0")
    return value


def _known_price(server: Server, own: Mapping[str, Any]) -> Price | None:
    """Look the price up, and say so where there is none and the server is another machine."""
    price = price_of(server.model, own)
    if price is None and not is_here(server.url):
        log.warning(
            "No price is known for %r: its calls count as 0 USD, and `budget.usd` cannot stop them. Write it "
            "under [mllm.prices].",
            server.model,
        )
    return price


Answers = Literal["json_schema", "function_calling"]
Detail = Literal["low", "high", "auto"]
NO_KEY = "none"  # what a server that wants no key is sent


def chat(
    model: str,  # the server's name for it
    base_url: str = "",  # up to and with /v1; OPENAI_BASE_URL or else OpenAI's own where it is empty
    key_variable: str = "OPENAI_API_KEY",  # the environment variable that holds the key
    answers: Answers = "json_schema",  # "function_calling" for servers that know no schemas
    responses_api: bool = False,  # instead of Chat Completions
    deadline: float = 180.0,  # seconds for a call with all its tries and pauses
    silence: float = 90.0,  # seconds without a byte, after which a try is given up
    tries: int = 3,  # where the trouble passes by itself
    max_tokens: int = 2048,  # of an answer, raised once where it was cut off; 0 leaves it to the server
    side: int = 512,  # pixels; larger pictures are scaled down to it
    detail: Detail = "low",  # how closely a picture is read, where the server knows that
    sends_temperature: bool = True,  # False for a model that takes none
    prices: Mapping[str, Any] | None = None,  # the user's own lines of the price table
) -> OpenAIChat:
    """Make the model from what a profile says.

    Raises:
        BadInput: an argument is not usable, or OpenAI's own server is asked without a key.
    """
    server = _named(model, base_url, key_variable)
    return OpenAIChat(
        **_connection(server, _positive("silence", silence)),
        use_responses_api=responses_api,
        server=server,
        patience=RetryPolicy(deadline=_positive("deadline", deadline), tries=int(_positive("tries", tries))),
        plan=Plan(cap=max_tokens, side=int(_positive("side", side))),
        price=_known_price(server, prices or {}),
        answers=_one_of("answers", answers, ("json_schema", "function_calling")),
        detail=_one_of("detail", detail, ("low", "high", "auto")),
        sends_temperature=sends_temperature,
    )


def _named(model: str, base_url: str, key_variable: str) -> Server:
    """Find out who is asked, and with which key."""
    url = _checked_url(base_url or os.environ.get("OPENAI_BASE_URL", "") or OFFICIAL)
    server = Server(url, _checked_name(model), key_variable, os.environ.get(key_variable, ""))
    if not server.key and url == OFFICIAL:
        raise BadInput(f"mllm: {url} wants a key; set the environment variable {key_variable}")
    return server


def _connection(server: Server, silence: float) -> dict[str, Any]:
    """Give ChatOpenAI's own arguments: no tries of its own, no streaming, and no way but ours."""
    return {
        "model": server.model,
        "api_key": SecretStr(server.key or NO_KEY),
        "base_url": server.url,
        "http_client": httpx2.Client(transport=Wire(), headers={"accept-encoding": "identity"}),
        "timeout": silence,
        "max_retries": 0,
        "disable_streaming": True,
    }


class OpenAIChat(ChatOpenAI):
    """ChatOpenAI with our own deadline, tries and idea of an answer; made by `chat`."""

    server: SkipValidation[Server]
    patience: SkipValidation[RetryPolicy]
    plan: SkipValidation[Plan]
    price: Price | None = None
    answers: Answers = "json_schema"
    detail: Detail = "low"
    sends_temperature: bool = True

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Keep LangChain from writing this model down."""
        return False

    def with_structured_output(
        self, schema: Any = None, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Ask for one of our schemas; the reply is left as it came, for `tools.ask.read` to judge."""
        if not (isinstance(schema, type) and issubclass(schema, Value)):
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        wanted = described(schema)
        bound: Runnable[LanguageModelInput, AIMessage]
        if self.answers == "json_schema":
            bound = self.bind(response_format={"type": "json_schema", "json_schema": wanted})
        else:
            wanted["parameters"] = wanted.pop("schema")
            tool = {"type": "function", "function": wanted}
            bound = self.bind_tools([tool], tool_choice=wanted["name"], parallel_tool_calls=False)

        def reply(raw: AIMessage) -> Any:
            as_it_came = {"raw": raw, "parsed": None, "parsing_error": None}
            return as_it_came if include_raw else read(as_it_came, schema)

        return bound | RunnableLambda(reply)

    def greet(self) -> str:
        """Ask the server which models it has, which costs nothing; raises what a question would."""

        def ask(_: Plan) -> list[str]:
            try:
                return [str(one.id) for one in self.root_client.models.list().data]
            except openai.NotFoundError:
                return []  # not every server has the list
            except Exception as error:
                raise setback(error, self.server) from error

        names = self.patience.ask(ask, self.plan)
        unlisted = bool(names) and self.server.model not in names
        hint = f", which lists only {self.server.quote(', '.join(names))}" if unlisted else ""
        return f"{self.server.model} at {self.server.url}{hint}"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Ask until there is an answer or a fault; the reply's metadata says what all tries cost."""
        replies: list[UsageMetadata] = []

        def send(plan: Plan) -> ChatResult:
            capped = kwargs | ({"max_tokens": plan.cap} if plan.cap else {})
            asked = fitted(messages, plan.side, self.detail)
            try:
                result = ChatOpenAI._generate(self, asked, stop, None, **capped)
            except (openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError) as error:
                replies.extend(paid_for(error))
                raise withheld(error, plan) from error
            except Exception as error:
                raise setback(error, self.server) from error
            replies.extend(counted(message_of(result).usage_metadata))
            weigh(result, plan)
            return result

        try:
            result = self.patience.ask(send, self.plan)
        except PleinairError as fault:
            tokens = summed(replies)
            fault.spent = Usage(tokens=tokens["total_tokens"], usd=self._usd(tokens))
            raise
        return self._accounted(result, replies)

    def _accounted(self, result: ChatResult, replies: Sequence[UsageMetadata]) -> ChatResult:
        message, tokens = message_of(result), summed(replies)
        message.usage_metadata = tokens
        message.response_metadata["usd"] = self._usd(tokens)
        return result

    def _usd(self, tokens: UsageMetadata) -> float:
        return self.price.usd(tokens["input_tokens"], tokens["output_tokens"]) if self.price else 0.0

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Ask in a thread, under the same rules."""
        return await run_in_executor(None, self._generate, messages, stop, None, **kwargs)

    def _get_request_payload(
        self, input_: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Leave out a temperature that the model does not take; name the cap as the server knows it."""
        payload = super()._get_request_payload(input_, stop=stop, **kwargs)
        if not (self.sends_temperature and (self.profile or {}).get("temperature", True)):
            payload.pop("temperature", None)
        if self.server.url != OFFICIAL and "max_completion_tokens" in payload:
            payload["max_tokens"] = payload.pop("max_completion_tokens")
        return payload
