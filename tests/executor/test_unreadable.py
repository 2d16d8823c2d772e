"""Jobs run as the executor's user: what one does to its own output is no harm to the executor, or to other jobs."""

from __future__ import annotations

import signal

import pytest

from tests.support.wait import wait_until

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
CLOSE_FILE = "echo hello; chmod 000 /dev/stdout"
CLOSE_FOLDER = 'echo hello; file=$(readlink /proc/$$/fd/1); chmod 000 "${file%/*}"'


@pytest.fixture
def plain(make_node, lacking):
    """A node whose executor may read no more than an ordinary user may."""
    lacking(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)
    return make_node()


def told(end):
    return end.rc, end.error, end.stdout_data, end.stdout_size, end.stderr_data, end.spooled


UNREADABLE = (0, None, None, 6, b"", True)


def test_output_that_a_job_has_made_unreadable_is_left_to_the_node(plain):
    other = plain.start("other", "sleep", "60")
    pid = plain.started(other).pid
    key = plain.start("a", "sh", "-c", CLOSE_FILE)
    assert told(plain.exited(key)) == UNREADABLE
    plain.ack(key)
    assert plain.exited(plain.start("a", "echo", "again", run=2)).stdout_data == b"again\n"
    assert not plain.handle.spool.paths(key)[0].exists()
    plain.kill(other)
    assert plain.exited(other).rc == -signal.SIGTERM
    assert plain.started(other).pid == pid


def test_output_whose_file_is_deleted_meanwhile_is_not_taken_for_none(plain):
    key = plain.start("a", "sh", "-c", 'echo hello; rm "$(readlink /proc/$$/fd/1)"')
    assert told(plain.exited(key)) == UNREADABLE


def test_the_executor_after_it_lives_with_unreadable_output(plain):
    key = plain.start("a", "sh", "-c", CLOSE_FILE)
    plain.exited(key)
    plain.events.clear()
    signal.pidfd_send_signal(plain.handle.pidfd, signal.SIGKILL)
    wait_until(plain.handle.died)
    plain.handle.restart()
    assert told(plain.exited(key)) == UNREADABLE
    assert plain.run("true").rc == 0


def test_a_job_that_closes_the_folder_of_its_output_harms_no_other(plain):
    key = plain.start("a", "sh", "-c", CLOSE_FOLDER)
    folder = plain.handle.spool.paths(key)[0].parent
    try:
        end = plain.exited(key)
        assert (end.rc, end.stdout_data, end.spooled) == (0, None, True)
        refused = plain.exited(plain.start("a", "true", run=2))
        assert refused.error.endswith(".out': Permission denied"), "its output has no place"
        assert refused.spooled
        assert plain.exited(plain.start("b", "echo", "other")).stdout_data == b"other\n", "in another folder"
    finally:
        folder.chmod(0o700)


def test_output_that_can_not_be_deleted_is_left(make_node, capfd):
    """Where a file of the spool was, there is a folder."""
    node = make_node()
    text = "name=$(readlink /proc/$$/fd/1); rm $name; mkdir $name; touch $name/in"
    for run in (1, 2, 3):
        key = node.start("a", "sh", "-c", text, run=run)
        assert node.exited(key).rc == 0
    assert "can't be deleted: Is a directory" in capfd.readouterr().err
    node.handle.spool.forget("a")
    assert node.handle.spool.paths(key)[0].is_dir()
