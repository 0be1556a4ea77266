"""The model library's conversations in Django's database, one store a run.

Only the worker imports this: it loads the library. Messages stay in the
library's own JSON. A write happens under the run's fence, so that a worker that
lost its run cannot save over the next one.
"""

from collections.abc import Sequence

from channels.db import database_sync_to_async
from django.db import connection, transaction
from pydantic import TypeAdapter
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
)
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter
from pydantic_ai.usage import RunUsage

from . import events
from .events import Draft
from .models import Agent, Conversation, Entry, Run

RECORD = TypeAdapter(ConversationRecord)
HISTORY = """
WITH RECURSIVE history(code, parent, message, depth) AS (
  SELECT code, parent, message, 0 FROM agents_entry WHERE code = %s
  UNION ALL
  SELECT e.code, e.parent, e.message, depth + 1
  FROM agents_entry e JOIN history ON e.code = history.parent
)
SELECT code, parent, message FROM history WHERE depth < %s ORDER BY depth DESC
"""
ALL = 1 << 30


class Store(ConversationStore):
    """Conversations as rows; `run` is the fence of every write."""

    def __init__(self, run: Run) -> None:
        """Write under this run."""
        self.run = run

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """The record, None when there is none."""
        return await database_sync_to_async(_read_record)(conversation_id)

    async def read_records(
        self, *, scope: str | None = None, limit: int | None = None
    ) -> Sequence[ConversationRecord]:
        """The records of a team, newest first."""
        return await database_sync_to_async(_read_records)(scope or "", limit)

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store a record and its new entries. Raises Lost or ConversationConflict."""
        write = database_sync_to_async(self._write)
        await write(record, list(new_entries), expected_revision)

    async def delete_record(
        self, conversation_id: str, *, expected_revision: str
    ) -> None:
        """Delete the record; its entries stay, since forks may share them."""
        rows = Conversation.objects.filter(
            code=conversation_id, revision=expected_revision
        )
        if not (await database_sync_to_async(rows.delete)())[0]:
            raise ConversationConflict(conversation_id)

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """One entry. Raises LookupError."""
        return (await database_sync_to_async(_read_history)(entry_id, 1))[0]

    async def read_history(
        self, head_id: str | None, *, limit: int | None = None
    ) -> list[ConversationEntry]:
        """The entries up to `head_id`, oldest first, in one query."""
        if head_id is None:
            return []
        bound = ALL if limit is None else limit
        return await database_sync_to_async(_read_history)(head_id, bound)

    def _write(
        self,
        record: ConversationRecord,
        entries: list[ConversationEntry],
        expected: str | None,
    ) -> None:
        values = {
            "head": record.head_id,
            "revision": record.revision,
            "scope": record.scope or "",
            "body": RECORD.dump_python(record, mode="json"),
            "updated_at": record.updated_at,
        }
        with transaction.atomic():
            events.hold(self.run)
            Entry.objects.bulk_create(
                Entry(code=e.id, parent=e.parent_id, message=_to_json(e.message))
                for e in entries
            )
            rows = Conversation.objects.filter(code=record.conversation_id)
            if expected is None:
                if rows.exists():
                    raise ConversationConflict(record.conversation_id)
                Conversation.objects.create(code=record.conversation_id, **values)
            elif not rows.filter(revision=expected).update(**values):
                raise ConversationConflict(record.conversation_id)
            totals = _totals(record.usage)
            Run.objects.filter(pk=self.run.pk).update(is_begun=True, usage=totals)
            _show_usage(self.run, totals)


def _totals(usage: RunUsage) -> dict[str, int | str | None]:
    """What a chat has used so far."""
    return {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "requests": usage.requests,
        "cost_usd": None if usage.cost is None else str(usage.cost),
    }


def _show_usage(run: Run, totals: dict[str, int | str | None]) -> None:
    """Keep the totals where pages read them."""
    rows = Agent.objects.filter(pk=run.agent_id).exclude(usage=totals)
    if rows.update(usage=totals):
        events.append(run.agent_id, Draft("usage"), run_id=run.pk)


def _to_json(message: ModelMessage) -> str:
    return ModelMessagesTypeAdapter.dump_json([message]).decode()


def _read_record(code: str) -> ConversationRecord | None:
    row = Conversation.objects.filter(code=code).first()
    return None if row is None else RECORD.validate_python(row.body)


def _read_records(scope: str, limit: int | None) -> list[ConversationRecord]:
    rows = Conversation.objects.order_by("-updated_at")
    if scope:
        rows = rows.filter(scope=scope)
    return [RECORD.validate_python(row.body) for row in rows[:limit]]


def _read_history(head: str, limit: int) -> list[ConversationEntry]:
    with connection.cursor() as cursor:
        cursor.execute(HISTORY, [head, limit])
        rows = cursor.fetchall()
    if not rows:
        raise LookupError(head)
    return [
        ConversationEntry(
            id=code,
            parent_id=parent,
            message=ModelMessagesTypeAdapter.validate_json(message)[0],
        )
        for code, parent, message in rows
    ]
