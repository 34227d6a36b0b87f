"""Who signed a model, since when it is trusted, and what has changed; verifying, trusting again, signing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import tzinfo
from pathlib import Path

import streamlit as st

from dashboard.components.errors import errors_shown, show_error
from dashboard.components.formats import format_bytes, format_bytes_rate, format_seconds, plain, plural
from dashboard.components.job_progress import follow_job
from dashboard.components.signing_key_form import show_signing_key_form
from dashboard.components.times import format_ago, format_moment
from engine.weights.keys import PASSWORD_VARIABLE
from engine.weights.manifest import Changes
from engine.weights.manifest_store import ManifestStore, Pin
from engine.weights.remote_code import find_pickles, find_remote_code
from engine.weights.signature import SignedModel, Verification, check_signature, signature_path
from engine.weights.signer import Signer
from engine.weights.trust import SignatureMode, TrustPolicy
from engine.weights.trust_jobs import JobOutcome, JobProgress, TrustJobs, Verified

_SHOWN_CHANGES = 20
_KEY, _PASSWORD = "trust-sign-key", "trust-sign-password"
_JOB_WORDS = {"verify": "Verifying", "trust": "Trusting", "sign": "Signing"}


def show_signatures(jobs: TrustJobs, folders: Sequence[Path], policy: TrustPolicy, now_s: float, zone: tzinfo) -> None:
    """Choose one of `folders`, or type another, and see and do everything about its trust; make keys to sign with."""
    _show_folder(jobs, folders, policy, now_s, zone)
    show_signing_key_form()


def _show_folder(jobs: TrustJobs, folders: Sequence[Path], policy: TrustPolicy, now_s: float, zone: tzinfo) -> None:
    chosen = st.selectbox(
        "Model folder",
        [str(folder) for folder in folders],
        accept_new_options=True,
        key="trust-folder",
        help="A folder with a model, or a .gguf file, on the console's machine.",
    )
    if not chosen:
        st.info("No model folder is known: type its path.", icon=":material/info:")
        return
    progress = jobs.progress()
    folder = Path(chosen).expanduser()
    if not folder.exists():
        show_error(f"{folder} is not there: give the path of a model folder or of a .gguf file.")
        return
    with errors_shown():
        _show_dangers(folder)
    with errors_shown():
        _show_signer(check_signature(folder, None, policy.public_keys, policy.certificates), policy)
    with errors_shown():
        _show_trust(jobs.manifests, folder, now_s, zone)
    _show_actions(jobs, folder, policy, is_busy=progress is not None)
    follow_job(jobs, progress, lambda now: (now.fraction or 0.0, progress_text(now)), "trust", "The job was cancelled.")
    outcome = jobs.outcome(folder)
    if outcome is not None and progress is None:
        _show_outcome(outcome, now_s)
    _show_sign_form(jobs, folder, is_busy=progress is not None)
    _show_commands(folder, policy)


def _show_dangers(folder: Path) -> None:
    """In red: code that the model would run. Pickles are only told."""
    code = find_remote_code(folder) if folder.is_dir() else None
    if code is not None:
        st.error(
            f"{plain(code.warning)} It runs only where the setting `allow_remote_code` is on.",
            icon=":material/dangerous:",
        )
    pickles = find_pickles(folder) if folder.is_dir() else ()
    if pickles:
        st.caption(f"Pickled files are not loaded: {plain(', '.join(pickles[:3]))}")


def _show_signer(verification: Verification, policy: TrustPolicy) -> None:
    if verification.is_authentic and verification.signer is not None:
        st.markdown(f":green-badge[:material/verified: signed] {signer_text(verification.signer)}")
    elif verification.signer is not None:
        st.markdown(f":orange-badge[:material/gpp_maybe: unproved] claims {signer_text(verification.signer)}")
    else:
        st.markdown(":gray-badge[:material/remove_moderator: not signed]")
    for problem in verification.problems if verification.signer is not None else ():
        st.caption(plain(problem))
    if policy.mode is SignatureMode.OFF:
        st.caption("Signatures are not asked for before loading (mode off).")
    else:
        num_keys = plural(len(policy.public_keys), "trusted key")
        roots = plural(len(policy.certificates), "root certificate")
        st.caption(f"Before loading: {policy.mode}, {num_keys}, {roots}.")


def signer_text(signer: Signer) -> str:
    """`by key 1f2e...`, and what the certificate says."""
    text = f"by key `{signer.fingerprint or 'unknown'}`"
    info = signer.certificate
    if info is None:
        return text
    until = f"{info.valid_from:%Y-%m-%d} to {info.valid_until:%Y-%m-%d}"
    return f"{text}, certificate of {plain(info.subject)} issued by {plain(info.issuer)}, valid {until}"


def _show_trust(manifests: ManifestStore, folder: Path, now_s: float, zone: tzinfo) -> None:
    pin = manifests.pinned(folder)
    if pin is None:
        st.caption("Never loaded or trusted here: its digests are pinned the first time.")
        return
    st.caption(trust_text(pin, now_s, zone))
    glance = manifests.glance(folder, pin)
    show_changes(glance.changes)
    if glance.untold:
        st.caption(
            f"{plural(len(glance.untold), 'file')} touched since last read: verify to know whether "
            f"{'it is' if len(glance.untold) == 1 else 'they are'} the same."
        )


def trust_text(pin: Pin, now_s: float, zone: tzinfo) -> str:
    """When it was trusted, first and last, and what it was then."""
    text = f"Trusted first {format_moment(pin.first_trusted_at_s, zone)}"
    if pin.trusted_at_s != pin.first_trusted_at_s:
        text += f", again {format_ago(pin.trusted_at_s, now_s)}"
    num_files = plural(len(pin.manifest.files), "file")
    return f"{text}: {num_files}, {format_bytes(pin.manifest.size_bytes)}, SHA-256 `{pin.manifest.sha256[:16]}`"


def show_changes(changes: Changes) -> None:
    """The files that are different, by name; nothing when none is."""
    rows = changes_rows(changes)
    if rows:
        st.warning(f"{plural(len(rows), 'file')} not as trusted", icon=":material/difference:")
        st.dataframe(rows[:_SHOWN_CHANGES], hide_index=True)
        if len(rows) > _SHOWN_CHANGES:
            st.caption(f"and {len(rows) - _SHOWN_CHANGES:,} more")


def changes_rows(changes: Changes) -> list[dict[str, str]]:
    """A row a file, the changed ones first."""
    kinds = (("changed", changes.changed), ("missing", changes.missing), ("new", changes.added))
    return [{"File": path, "What": what} for what, paths in kinds for path in paths]


def _show_actions(jobs: TrustJobs, folder: Path, policy: TrustPolicy, *, is_busy: bool) -> None:
    with st.container(horizontal=True):
        st.button(
            "Verify now",
            key="trust-verify",
            icon=":material/verified_user:",
            disabled=is_busy,
            on_click=_verify,
            args=(jobs, folder, policy),
        )
        st.button(
            "Trust as it is now",
            key="trust-again",
            icon=":material/handshake:",
            disabled=is_busy,
            help="Pins the digests of the files as they are; do it only when the changes are yours.",
            on_click=_trust,
            args=(jobs, folder),
        )


def _verify(jobs: TrustJobs, folder: Path, policy: TrustPolicy) -> None:
    """Begin; where somebody else was faster, theirs is what is followed."""
    jobs.verify(folder, policy)


def _trust(jobs: TrustJobs, folder: Path) -> None:
    jobs.trust(folder)


def progress_text(progress: JobProgress) -> str:
    """`Verifying SmolLM2, 43 % of the bytes`."""
    text = f"{_JOB_WORDS[progress.kind]} {plain(progress.folder.name)}"
    return text if progress.fraction is None else f"{text}, {progress.fraction:.0%} of the bytes"


def _show_outcome(outcome: JobOutcome, now_s: float) -> None:
    when = f"{format_ago(outcome.ended_at_s, now_s)}, took {format_seconds(outcome.took_s)}"
    if outcome.error is not None:
        show_error(outcome.error)
    elif isinstance(outcome.result, Verified):
        _show_verified(outcome.result, outcome.took_s, when)
    elif isinstance(outcome.result, SignedModel):
        st.success(f"Signed {when}: {signer_text(outcome.result.signer)}", icon=":material/draw:")
        st.caption(f"Left out by name: {plain(', '.join(outcome.result.ignored))}")
    elif outcome.result is not None:
        st.success(f"Trusted as it is, {when}", icon=":material/handshake:")


def _show_verified(verified: Verified, took_s: float, when: str) -> None:
    rate = format_bytes_rate(verified.size_bytes / took_s if took_s > 0 else None)
    st.caption(f"Read whole {when}: {format_bytes(verified.size_bytes)} at {rate}")
    verification = verified.verification
    if verified.since_trust:
        show_changes(verified.since_trust)
    if verification.is_good:
        st.success(f"The signature holds for {plural(len(verification.covered), 'file')}.", icon=":material/verified:")
    elif verification.signer is not None:
        for problem in verification.problems:
            show_error(problem)
    if verified.since_trust is not None and not verified.since_trust:
        st.success("Every file is as it was trusted.", icon=":material/check:")


def _show_sign_form(jobs: TrustJobs, folder: Path, *, is_busy: bool) -> None:
    with st.expander("Sign this model", icon=":material/draw:"), st.form("trust-sign"):
        key = st.text_input(
            "Private key",
            key=_KEY,
            placeholder="/home/me/keys/models.pem",
            help="The path of an elliptic key (PEM) on the console's machine.",
        )
        st.text_input("Password", type="password", key=_PASSWORD, help="Where the key has one.")
        is_submitted = st.form_submit_button(
            "Sign",
            key="trust-sign-submit",
            disabled=is_busy,
            on_click=_sign,
            args=(jobs, folder),
        )
    if is_submitted and not key.strip():
        show_error("Private key is empty: give the path of a PEM file on the console's machine.")


def _sign(jobs: TrustJobs, folder: Path) -> None:
    """Begin to sign; the session forgets the password."""
    key, password = st.session_state[_KEY].strip(), st.session_state[_PASSWORD]
    st.session_state[_PASSWORD] = ""
    if key:
        jobs.sign(folder, Path(key).expanduser(), password or None)


def _show_commands(folder: Path, policy: TrustPolicy) -> None:
    with st.expander("On the command line", icon=":material/terminal:"):
        st.code(command_lines(folder, policy), language="bash", wrap_lines=True)
        st.caption(f"The key's password is read from {PASSWORD_VARIABLE}, or asked for.")
        st.caption(f"The signature lies in {plain(str(signature_path(folder)))}")


def command_lines(folder: Path, policy: TrustPolicy) -> str:
    """What does the same in a shell."""
    where = shlex.quote(str(folder))
    key = shlex.quote(str(policy.public_keys[0])) if policy.public_keys else "KEY.pub"
    return (
        f"python -m engine.models verify {where} --public-key {key}\n"
        f"python -m engine.models sign {where} --private-key KEY.pem\n"
        "python -m engine.models keygen KEY.pem"
    )
