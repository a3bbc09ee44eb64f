"""A stale lock is removed; the lock of a Snakemake that may still be running here is not."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "tools" / "clear_stale_lock.py"
OURS, ANOTHER = 0, 4242  # users


@pytest.fixture
def clear(tmp_path, monkeypatch):
    """clear(user, folder): run the program while `user` runs a Snakemake in `folder`; None: a folder it cannot see."""
    lock = tmp_path / "work/.snakemake/locks/0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    monkeypatch.chdir(tmp_path / "work")
    script, samefile = runpy.run_path(str(SCRIPT)), Path.samefile
    owner = lock.stat().st_uid

    def see(path, other):
        if not path.exists():
            raise PermissionError(path)
        return samefile(path, other)

    def clear(user, folder):
        process = tmp_path / "proc" / "7"
        process.mkdir(parents=True)
        (process / "cmdline").write_bytes(b"python\0/usr/bin/snakemake\0--cores\0all\0")
        (process / "status").write_text(f"Name:\tsnakemake\nUid:\t{owner + user}\t0\t0\t0\n")
        if folder is not None:
            (process / "cwd").symlink_to(folder)
        monkeypatch.setitem(script["main"].__globals__, "PROCESSES", tmp_path / "proc")
        monkeypatch.setattr(Path, "samefile", see)
        script["main"]()
        return not lock.exists()

    return clear


def test_another_user_s_snakemake_that_we_cannot_see_does_not_keep_our_lock(clear):
    assert clear(ANOTHER, None)


def test_our_own_snakemake_in_another_folder_does_not_keep_it_either(clear, tmp_path):
    assert clear(OURS, tmp_path)


@pytest.mark.parametrize(("user", "folder"), [(OURS, None), (OURS, "work"), (ANOTHER, "work")])
def test_the_lock_of_a_snakemake_that_may_be_running_here_stays(clear, tmp_path, user, folder):
    with pytest.raises(ValueError, match=r"Snakemake is already running here \(process 7\)"):
        clear(user, folder and tmp_path / folder)
    assert (tmp_path / "work/.snakemake/locks/0.input.lock").exists()
