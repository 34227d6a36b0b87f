"""Everything one process owns, opened together and closed together: engine, stores, sampler, NVML."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from engine.clock import Clock, SystemClock
from engine.config import Settings
from engine.engine import Engine
from engine.environment.report import EnvironmentReport, collect_report
from engine.errors import ConsoleError, StoreError
from engine.latency import FILE_NAME as RECORDS_FILE
from engine.latency import RecordStore
from engine.models.spec import ModelSpec
from engine.state import FILE_NAME as STATE_FILE
from engine.state import ConversationStore, Database, open_database, sqlite_url
from engine.telemetry import HostReader, Nvml, ProcessReader, Sampler

logger = logging.getLogger(__name__)


@dataclass
class Console:
    """The parts of a running console. `environment` is the last report, None before the first."""

    settings: Settings
    clock: Clock
    engine: Engine
    records: RecordStore
    database: Database
    conversations: ConversationStore
    nvml: Nvml
    sampler: Sampler
    environment: EnvironmentReport | None = None
    notices: list[str] = field(default_factory=list)

    def check_environment(self) -> EnvironmentReport:
        """Take a fresh environment report and remember it; up to ten seconds."""
        self.environment = collect_report(self.settings.home, self.nvml, clock=self.clock)
        return self.environment

    def close(self) -> None:
        """Cancel what runs, write what is pending, stop the threads."""
        self.sampler.close()
        self.engine.close()
        self.records.close()
        self.database.close()
        self.nvml.close()


def open_console(settings: Settings, clock: Clock | None = None) -> Console:
    """Open the stores, start the sampler, begin to load the model that the settings name.

    A model that cannot be found becomes a notice on the pages instead of an end: the console is where it is mended.

    Raises:
        StoreError: the home folder cannot be created.
    """
    clock = clock or SystemClock()
    prepare_home(settings.home)
    records = RecordStore.open(settings.home / RECORDS_FILE)
    notices = [records.warning] if records.warning else []
    database = _open_state(settings.home / STATE_FILE, notices)
    nvml = Nvml(clock=clock)
    console = Console(
        settings=settings,
        clock=clock,
        engine=Engine(settings, records.append, clock),
        records=records,
        database=database,
        conversations=ConversationStore(database, clock.wall),
        nvml=nvml,
        sampler=Sampler(
            HostReader(settings.home, clock), ProcessReader(clock), nvml, settings.telemetry_interval_s, clock
        ),
        notices=notices,
    )
    console.sampler.start()
    _load_first_model(console)
    return console


def _open_state(file: Path, notices: list[str]) -> Database:
    """The state store, or one in memory with a notice when the file cannot be used; the file stays as it is."""
    try:
        return open_database(sqlite_url(file))
    except StoreError as error:
        logger.error("%s", error)
        notices.append(f"Conversations are kept in memory only, until the console stops: {error}")
        return open_database("sqlite://")


def prepare_home(home: Path) -> None:
    """Make the home folder, or say why it cannot be.

    Raises:
        StoreError: it cannot be created.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the home folder {home} cannot be created: {error.strerror or error}; set CONSOLE_HOME to a folder "
            "that you may write"
        ) from error


def _load_first_model(console: Console) -> None:
    settings = console.settings
    if settings.model == "none":
        return
    spec = ModelSpec(settings.model, settings.model_name, settings.device, settings.dtype)
    try:
        console.engine.load(spec)
    except ConsoleError as error:
        logger.error("%s", error)
        console.notices.append(f"The model asked for at the start was not loaded: {error}")
