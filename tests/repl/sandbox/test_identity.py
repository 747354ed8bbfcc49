"""User ids of REPLs: no two processes of the machine get the same one."""

import os
import subprocess
import sys

import pytest

from rlm_env.repl.sandbox import identity


def test_user_ids_are_told_apart_by_process_and_namespace(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    scheme = identity.uid_schemes()[0]
    assert scheme.reserve().uid() == scheme.first + os.getpid()
    assert scheme.first + 2**22 < 2**32 - 2
    firsts = set()
    for inode in (4026531836, 4026532270, 4026532999):
        monkeypatch.setattr(os, "stat", lambda _path, i=inode: os.stat_result([0, i, *[0] * 8]))
        firsts.add(identity.uid_schemes()[0].first)
        monkeypatch.undo()
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert len(firsts) == 3


def test_where_ids_are_few_each_is_taken_once_on_the_machine():
    one, other = identity.PrivateUids(64_000, few=True), identity.PrivateUids(64_000, few=True)
    taken = [scheme.reserve() for _ in range(5) for scheme in (one, other)]
    assert len({reserved.uid() for reserved in taken}) == 10
    for reserved in taken:
        reserved.release()
    assert one.reserve().uid() not in {64_000}


def test_a_namespace_without_other_users_is_told_as_that_and_not_as_a_closed_home():
    """As of `unshare -r`: this Python may be readable by all."""
    unshare = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces can be made here")
    code = "import sys; from rlm_env.repl.sandbox.identity import others_can_read as f; print(f(sys.path, 64_000))"
    told = subprocess.run([*unshare, sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "cannot become another user" in told
