"""The tables of sandboxes."""

from .command import Command, CommandOutput
from .link import DownloadLink
from .sandbox import ALIVE, HOLDING, Event, Sandbox, SandboxRows, Snapshot, State
from .terminal import Recording, RecordingPart, Terminal, TerminalOutput

__all__ = [
    "ALIVE",
    "HOLDING",
    "Command",
    "CommandOutput",
    "DownloadLink",
    "Event",
    "Recording",
    "RecordingPart",
    "Sandbox",
    "SandboxRows",
    "Snapshot",
    "State",
    "Terminal",
    "TerminalOutput",
]
