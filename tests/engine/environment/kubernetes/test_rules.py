"""The table of what rollouts do."""

from __future__ import annotations

from engine.environment.kubernetes.rules import GATEWAY_NEEDS, NEEDS

ALL = NEEDS + GATEWAY_NEEDS


def test_no_verb_is_asked_twice() -> None:
    asked = [access for need in ALL for access in need.accesses]
    assert len(asked) == len(set(asked))


def test_verbs_are_those_of_kubernetes() -> None:
    known = {"get", "list", "watch", "create", "update", "patch", "delete"}
    assert all(set(need.verbs) <= known for need in ALL)


def test_each_need_says_what_for() -> None:
    assert all(len(need.reason.split()) >= 3 for need in ALL)


def test_what_a_rolling_update_cannot_do_without() -> None:
    required = {access.qualified for need in ALL if not need.is_optional for access in need.accesses}
    assert required == {
        "deployments.apps",
        "deployments.apps/scale",
        "replicasets.apps",
        "pods",
        "pods/log",
        "services",
        "configmaps",
        "secrets",
    }
