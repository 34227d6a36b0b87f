"""Everything one process owns, opened together and closed together: engine, stores, sampler, NVML."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from engine.batches import Batches
from engine.clock import Clock, SystemClock
from engine.config import Settings
from engine.engine import Engine
from engine.environment.context import CheckContext
from engine.environment.profile import NO_DEMANDS
from engine.environment.runs import EnvironmentRuns
from engine.errors import ConsoleError, SettingsError, StoreError
from engine.gateway import CacheRules, Gateway, Routes
from engine.keyring import Keyring, has_answering_key
from engine.lab import Lab
from engine.latency import FILE_NAME as RECORDS_FILE
from engine.latency import RecordStore, RequestRecord
from engine.models.planner import Planner
from engine.models.quantizing import Quantizing
from engine.models.spec import ModelSpec
from engine.remote import Remotes
from engine.scheduling.quotas import Quotas
from engine.state import FILE_NAME as STATE_FILE
from engine.state import ConversationStore, Database, ImageStore, open_database, sqlite_url
from engine.state.api_keys import ApiKeyStore
from engine.state.purge import purge_deleted
from engine.state.serving import ServingStore
from engine.telemetry import HostReader, Nvml, ProcessReader, Sampler
from engine.tracing import Tracing, open_tracing
from engine.weights.cache_jobs import CacheJobs
from engine.weights.preloading import Preloading
from engine.weights.pull import Pulls
from engine.weights.store import WeightsStore, open_weights
from engine.weights.trust_jobs import TrustJobs
from engine.weights.upkeep import repair

logger = logging.getLogger(__name__)
_DAY_S = 86_400.0


@dataclass
class Console:
    """The parts of a running console."""

    settings: Settings
    clock: Clock
    engine: Engine
    records: RecordStore
    database: Database
    conversations: ConversationStore
    images: ImageStore
    keys: Keyring
    quotas: Quotas
    nvml: Nvml
    sampler: Sampler
    tracing: Tracing | None
    environment: EnvironmentRuns
    weights: WeightsStore
    planner: Planner
    lab: Lab
    trust: TrustJobs
    cache_jobs: CacheJobs
    preloading: Preloading
    pulls: Pulls
    quantizing: Quantizing
    batches: Batches
    notices: list[str] = field(default_factory=list)
    gateway: Gateway = field(init=False)
    opened_at_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.opened_at_s = self.clock.wall()
        try:
            self._purge(look_for_images=True)
        except StoreError as error:  # a console that can do no more than this still serves
            logger.warning("what was deleted is not removed for good: %s", error)

    def delete_conversation(self, conversation_id: str) -> None:
        """Delete, so that it can be undone until `deleted_conversation_days` are over; what was deleted before that
        goes for good. Raises StoreError when the database cannot do it."""
        self.conversations.delete(conversation_id)
        self._purge()

    def _purge(self, *, look_for_images: bool = False) -> None:
        keep_s = self.settings.deleted_conversation_days * _DAY_S
        purged = purge_deleted(
            self.conversations, self.images, keep_s, self.clock.wall(), look_for_images=look_for_images
        )
        if purged.num_conversations or purged.num_images:
            logger.info(
                "%d deleted conversations and %d pictures are gone for good",
                purged.num_conversations,
                purged.num_images,
            )

    def close(self) -> None:
        """Cancel what runs, write what is pending, stop the threads. What cannot be closed keeps nothing else open."""
        with ExitStack() as closing:  # closes the last one named first
            if self.tracing is not None:
                closing.callback(self.tracing.close)
            for part in (self.nvml, self.database, self.keys, self.records, self.engine, self.gateway, self.sampler):
                closing.callback(part.close)
            background = (self.quantizing, self.pulls, self.preloading, self.cache_jobs)
            for work in (*background, self.trust, self.lab, self.environment, self.batches):
                closing.callback(work.close)


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
    weights = open_weights(settings, clock)
    for line in repair(weights.cache):
        logger.info("weights cache: %s", line)
    planner = Planner(settings, nvml, weights.cache)
    keys = Keyring(settings, ApiKeyStore(database), clock)
    quotas = Quotas(keys.count, settings.default_max_tokens, clock)
    tracing = open_tracing()
    engine = Engine(
        settings,
        record_keeper(records, quotas),
        clock,
        unload_idle=settings.unload_idle,
        fits=planner.room,
        plan=planner.plan,
        on_refusal=records.append,
        tracing=tracing,
    )
    console = Console(
        settings=settings,
        clock=clock,
        engine=engine,
        records=records,
        database=database,
        conversations=ConversationStore(database, clock.wall),
        images=ImageStore(database, clock.wall),
        keys=keys,
        quotas=quotas,
        nvml=nvml,
        sampler=Sampler(
            HostReader(settings.home, clock), ProcessReader(clock), nvml, settings.telemetry_interval_s, clock
        ),
        tracing=tracing,
        environment=_open_environment(settings, clock, nvml, database),
        planner=planner,
        lab=Lab(settings, database, engine.load_lock, engine.count_steps, clock),
        weights=weights,
        trust=TrustJobs(weights.manifests),
        cache_jobs=CacheJobs(weights.cache, clock),
        preloading=Preloading(settings.preload, weights.cache, notices.append),
        pulls=Pulls(weights.cache, clock),
        quantizing=Quantizing(weights, engine.load_lock, clock),
        batches=Batches(settings.home, database, settings.max_running, clock, settings.batch_file_days * _DAY_S),
        notices=notices,
    )
    serving = ServingStore(database)
    remotes = Remotes(serving, settings.request_timeout_s, engine.note_served, clock)
    kept = CacheRules(int(settings.response_cache_mib * 2**20), settings.response_cache_ttl_s)
    console.gateway = Gateway(lambda: console.engine, remotes, Routes(serving), clock, kept=kept)
    console.sampler.start()
    _load_first_model(console)
    console.preloading.start()
    return console


def record_keeper(records: RecordStore, quotas: Quotas) -> Callable[[RequestRecord], None]:
    """What the engine tells of each ended request: its quota is charged, then its record is kept."""

    def keep(record: RequestRecord) -> None:
        quotas.settle(record)
        records.append(record)

    return keep


def _open_environment(settings: Settings, clock: Clock, nvml: Nvml, database: Database) -> EnvironmentRuns:
    context = CheckContext(
        NO_DEMANDS, settings.home, nvml, settings.port, is_serving=True, host=settings.host, clock=clock
    )
    return EnvironmentRuns(context, database, settings.environment_profile)


def _open_state(file: Path, notices: list[str]) -> Database:
    """The state store, or one in memory with a notice when the file cannot be used; the file stays as it is."""
    try:
        return open_database(sqlite_url(file))
    except StoreError as error:
        logger.error("%s", error)
        notices.append(
            "Conversations are kept in memory only, until the console stops, and API keys made on the settings page "
            f"are not known: {error}"
        )
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


def check_guarded(settings: Settings) -> None:
    """Refuse an address that other machines reach while no key keeps them out. The home folder is there.

    Raises:
        SettingsError: there is no key in force, neither in the settings nor in the state.
        StoreError: whether there is one in the state cannot be read.
    """
    if settings.is_local or settings.api_keys:
        return
    with open_database(sqlite_url(settings.home / STATE_FILE)) as database:
        keys = ApiKeyStore(database).read().values()
    if not has_answering_key(keys, SystemClock().wall()):
        raise SettingsError(
            f"host {settings.host!r} can be reached from other machines: set CONSOLE_API_KEYS to at least one key, "
            "make one on the settings page, or listen on 127.0.0.1"
        )


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
