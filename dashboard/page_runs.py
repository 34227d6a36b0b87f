"""No run of a page loses what it drew.

On a page whose fragments refresh by themselves, Streamlit (1.67, `AppSession`) loses messages to the browser where the
event loop is behind, which on a busy machine it often is:

- A request that finds its session's script thread at its end gets a new thread, and from then on what the old one sent
  and the loop has not passed on is ignored: a dialog, the end of one, a change of the URL. One in 25 dialogs was lost
  so on a quiet machine. Here such a request, and those behind it, wait until the old thread's last event was handled.
- A refresh of a fragment throws away what a whole run drew of that fragment and the browser has not got yet, its
  container with it, which the refresh does not draw again. The browser then finds a gap ("Bad delta path index") and
  shows a white page. Here nothing is thrown away for a refresh.
"""

from __future__ import annotations

from collections import deque
from typing import Final
from weakref import WeakKeyDictionary

from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.runtime.app_session import AppSession
from streamlit.runtime.scriptrunner_utils.script_requests import ScriptRequestType

_PAUSE_S: Final = 0.002
MAX_WAIT_S: Final = 1.0  # a script that was told to stop may go on until it draws

_request_at_once = AppSession.request_rerun
_clear_queue = AppSession._clear_queue
_waiting: WeakKeyDictionary[AppSession, deque[ClientState | None]] = WeakKeyDictionary()


def keep_what_is_drawn() -> None:
    """Have every session of this process do so; calling it again changes nothing."""
    AppSession.request_rerun = _request_in_turn  # type: ignore[method-assign, assignment]
    AppSession._clear_queue = _clear_before_whole_runs  # type: ignore[method-assign, assignment]


def _request_in_turn(session: AppSession, client_state: ClientState | None) -> None:
    waiting = _waiting.setdefault(session, deque())
    waiting.append(client_state)
    if len(waiting) == 1:
        _request_waiting(session, session._event_loop.time() + MAX_WAIT_S)


def _request_waiting(session: AppSession, deadline_s: float) -> None:
    waiting, loop = _waiting[session], session._event_loop
    while waiting:
        if _is_at_its_end(session) and loop.time() < deadline_s:
            loop.call_later(_PAUSE_S, _request_waiting, session, deadline_s)
            return
        _request_at_once(session, waiting.popleft())


def _is_at_its_end(session: AppSession) -> bool:
    """Whether the session's thread takes no more requests, and its last event is still to come."""
    runner = session._scriptrunner
    return runner is not None and runner._requests._state is ScriptRequestType.STOP


def _clear_before_whole_runs(session: AppSession, fragment_ids_this_run: list[str] | None = None) -> None:
    """A refresh only stops what comes from being put into the places of messages that are to be sent before it."""
    if fragment_ids_this_run is None:
        _clear_queue(session)
    else:
        session._browser_queue._delta_index_map = {}
