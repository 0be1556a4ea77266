"""Which language model answers, and the offline command model.

`choose` is cheap and for every process; `build` imports the model library and
is for the worker alone. A choice that cannot work is an error that a person
reads, never another model in its place.
"""

import json
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage
    from pydantic_ai.models import Model
    from pydantic_ai.models.function import AgentInfo, DeltaToolCall

OFFLINE = "offline:command"
OFFLINE_BADGE = "Offline command model, not AI"
DEFAULTS = {"anthropic": "claude-sonnet-5-5", "openai": "gpt-5.6-sol"}
HELP = """\
**No language model is connected.** This is the offline command model: it does
what you type and understands nothing else.

- `run <command>` runs a shell command in the sandbox
- `read <path>` reads a file
- `write <path> <text>` writes a file
- `todo <item>; <item>` sets the list of things to do, `todos` shows it

Several lines are several calls. To connect a language model, set
`ANTHROPIC_API_KEY`, or `OPENAI_API_KEY`, or `OPENAI_BASE_URL` with `KODE_MODEL`.
"""


class ModelMissing(Exception):
    """The chosen model cannot be used as the settings are; says what to set."""


@dataclass(frozen=True)
class Choice:
    """A model by its name, `provider:name`."""

    name: str

    @property
    def provider(self) -> str:
        """What stands before the colon."""
        return self.name.partition(":")[0]

    @property
    def is_offline(self) -> bool:
        """Whether no language model answers."""
        return self.name == OFFLINE

    @property
    def is_priced(self) -> bool:
        """Whether its price is known, so that a limit of cost can be kept."""
        own_server = self.provider == "openai" and bool(settings.OPENAI_BASE_URL)
        return self.provider in DEFAULTS and not own_server

    @property
    def badge(self) -> str:
        """The warning that goes with every answer, empty for a real model."""
        return OFFLINE_BADGE if self.is_offline else ""


def choose(template_model: str = "") -> Choice:
    """The template's model, else KODE_MODEL, else the provider with a key.

    Without any of them it is the offline command model.
    """
    if name := template_model or settings.MODEL:
        return Choice(name if ":" in name else f"openai:{name}")
    if settings.ANTHROPIC_API_KEY:
        return Choice(f"anthropic:{DEFAULTS['anthropic']}")
    if settings.OPENAI_API_KEY or settings.OPENAI_BASE_URL:
        return Choice(f"openai:{DEFAULTS['openai']}")
    return Choice(OFFLINE)


def build(choice: Choice) -> "Model":
    """The library's model. Raises ModelMissing with what to set."""
    if choice.is_offline:
        return _command_model()
    name = choice.name.partition(":")[2]
    if not name:
        raise ModelMissing(f"KODE_MODEL={choice.name!r}: use provider:name.")
    if choice.provider == "anthropic":
        return _anthropic(name)
    if choice.provider == "openai":
        return _openai(name)
    raise ModelMissing(
        f"No provider {choice.provider!r}: use anthropic:name or openai:name "
        "(any OpenAI-compatible server by OPENAI_BASE_URL)."
    )


def _anthropic(name: str) -> "Model":
    if not settings.ANTHROPIC_API_KEY:
        raise ModelMissing("Set ANTHROPIC_API_KEY to use Anthropic's models.")
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    return AnthropicModel(
        name, provider=AnthropicProvider(api_key=settings.ANTHROPIC_API_KEY)
    )


def _openai(name: str) -> "Model":
    """OpenAI itself, or any server that speaks its chat completions."""
    url = settings.OPENAI_BASE_URL
    if not settings.OPENAI_API_KEY and not url:
        raise ModelMissing("Set OPENAI_API_KEY, or OPENAI_BASE_URL, to use openai:.")
    if url and not settings.MODEL and name == DEFAULTS["openai"]:
        raise ModelMissing("Set KODE_MODEL=openai:name, a model of OPENAI_BASE_URL.")
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    # A local server often wants no key, but the client insists on one.
    key = settings.OPENAI_API_KEY or "none"
    if url:
        return OpenAIChatModel(name, provider=OpenAIProvider(base_url=url, api_key=key))
    return OpenAIResponsesModel(name, provider=OpenAIProvider(api_key=key))


def parse_command(line: str) -> tuple[str, dict[str, Any]] | None:
    """The tool call that a line of text names, None when it names none."""
    word, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    match word:
        case "run" if rest:
            return "bash_run", {"cmd": rest}
        case "read" if rest:
            return "fs_read", {"path": rest}
        case "write" if " " in rest:
            path, _, text = rest.partition(" ")
            return "fs_write", {"path": path, "content": text + "\n"}
        case "todo" if rest:
            return "todo_write", {"todos": _todos(rest)}
        case "todos":
            return "todo_read", {}
    return None


def _todos(text: str) -> list[dict[str, str]]:
    titles = [title.strip() for title in text.split(";") if title.strip()]
    return [
        {"id": str(number), "title": title, "status": "pending"}
        for number, title in enumerate(titles, 1)
    ]


def _command_model() -> "Model":
    from pydantic_ai.models.function import FunctionModel

    return FunctionModel(stream_function=_answer, model_name=OFFLINE)


async def _answer(
    messages: "list[ModelMessage]", info: "AgentInfo"
) -> "AsyncIterator[str | dict[int, DeltaToolCall]]":
    """Turn the last prompt's lines into calls, and their results into an answer."""
    from pydantic_ai.messages import ToolReturnPart
    from pydantic_ai.models.function import DeltaToolCall

    returned = [p for p in messages[-1].parts if isinstance(p, ToolReturnPart)]
    if returned:
        report = "\n\n".join(_report(part.tool_name, part.content) for part in returned)
        for piece in re.findall(r".{1,80}", report, re.DOTALL):
            yield piece
        return
    allowed = {tool.name for tool in info.function_tools}
    lines = [line for line in _last_prompt(messages).splitlines() if line.strip()]
    calls = [parse_command(line) for line in lines]
    if not calls or any(call is None or call[0] not in allowed for call in calls):
        yield HELP
        return
    for index, call in enumerate(calls):
        assert call is not None
        yield {
            index: DeltaToolCall(
                name=call[0],
                json_args=json.dumps(call[1]),
                tool_call_id=f"command_{secrets.token_hex(8)}",
            )
        }


def _last_prompt(messages: "list[ModelMessage]") -> str:
    from pydantic_ai.messages import UserPromptPart

    for message in reversed(messages):
        for part in message.parts:
            if isinstance(part, UserPromptPart) and isinstance(part.content, str):
                return part.content
    return ""


def _report(tool: str, content: object) -> str:
    """A tool's result as Markdown, fenced longer than any fence inside it."""
    text = str(content).rstrip("\n")
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"`{tool}` answered:\n\n{fence}\n{text}\n{fence}"
