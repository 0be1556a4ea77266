"""The tables of sandboxes."""

from .backend import BackendRow, Probe
from .command import Command, CommandOutput
from .link import DownloadLink
from .port import PortShare
from .reaper import Lease, Orphan
from .sandbox import ALIVE, HOLDING, Event, Sandbox, SandboxRows, Snapshot, State
from .terminal import Recording, RecordingPart, Terminal, TerminalOutput

__all__ = [
    "ALIVE",
    "HOLDING",
    "BackendRow",
    "Command",
    "CommandOutput",
    "DownloadLink",
    "Event",
    "Lease",
    "Orphan",
    "PortShare",
    "Probe",
    "Recording",
    "RecordingPart",
    "Sandbox",
    "SandboxRows",
    "Snapshot",
    "State",
    "Terminal",
    "TerminalOutput",
]
